"""The logos of apps and sites: small pictures as `data:` URLs."""

import base64
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Annotated, Final

from pydantic import AfterValidator

from wxauth.i18n import lazy_gettext as _
from wxauth.terminal import WrongValue

_MAX_LOGO_BYTES: Final = 32 * 1024
"""The maximum size of a picture, in bytes."""
_MAX_LOGO_SIDE: Final = 1024
"""The maximum length of a picture's longer side, in pixels.

The limit exists because a phone decodes the whole picture.
"""


def picture_url(content: bytes) -> str:
    """Return a small picture as a `data:` URL.

    Raises: WrongValue, if the picture is too large, is not a PNG, JPEG or WebP, or cannot be decoded.
    """
    # Few commands need this import, which takes a few hundredths of a second.
    from PIL import Image

    # Pillow raises errors of many classes for a damaged picture.
    with suppress(Exception), Image.open(BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
        if len(content) <= _MAX_LOGO_BYTES and max(image.size) <= _MAX_LOGO_SIDE and image.format:
            image.load()
            # MPO is Pillow's name for a JPEG that contains a second picture.
            kind = image.format.lower().replace("mpo", "jpeg")
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    raise WrongValue(_("must be a PNG, JPEG or WebP image of up to 32 KiB and 1024 × 1024 pixels"))


# The results are cached, because each process reads the apps every five seconds, and checking a logo takes 15 ms.
@lru_cache(maxsize=256)
def check_logo(url: str) -> str:
    """Return the URL unchanged. Raises: WrongValue, if it is not the `data:` URL of a small picture."""
    with suppress(ValueError):
        if picture_url(base64.b64decode(url.partition(",")[2])) == url:
            return url
    raise WrongValue(
        _(
            "must be a base64 `data:` URL with the matching media type. The image must be a PNG, JPEG or "
            "WebP of up to 32 KiB and 1024 × 1024 pixels"
        )
    )


Logo = Annotated[str, AfterValidator(check_logo)]
