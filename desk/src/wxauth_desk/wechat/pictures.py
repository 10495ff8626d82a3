"""The pictures of mini-program codes. This module checks the requests for codes, and draws the pictures."""

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlencode

import segno
from PIL import Image, ImageOps

from wxauth_desk.wechat.api_calls import CallRefused, CodePicture, require
from wxauth_desk.wechat.controls import AppState
from wxauth_desk.wechat.errcodes import Errcode

VERSIONS: Final = ("release", "trial", "develop")  # of a mini-program: the values of WeChat's `env_version`
_SCENE_CHARACTERS: Final = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]*")
_MAX_SCENE_LENGTH: Final = 32
_HOME_PAGE: Final = "pages/index/index"
_MIN_WIDTH: Final = 280  # all widths are in pixels
_DEFAULT_WIDTH: Final = 430
_MAX_WIDTH: Final = 1280

_BORDER_MODULES: Final = 4  # the quiet zone that QR codes require
_WHITE: Final = 255


def checked_code_text(values: Mapping[str, Any], account: AppState) -> str:
    """Check a request for a code, and return the text that the code encodes. `values` is the JSON of the request."""
    # `require` does not tell the type checker that a value is a string, so two checks raise the error themselves.
    scene, page, env = values.get("scene"), values.get("page", _HOME_PAGE), values.get("env_version", "release")
    if not isinstance(scene, str) or not 0 < len(scene) <= _MAX_SCENE_LENGTH:
        raise CallRefused(Errcode.WRONG_SCENE_LENGTH)
    require(_SCENE_CHARACTERS.fullmatch(scene), Errcode.WRONG_SCENE)
    require(env in VERSIONS, Errcode.WRONG_ARGUMENT)
    if not isinstance(page, str) or page.startswith("/") or "?" in page:
        raise CallRefused(Errcode.WRONG_PAGE)
    require(page in account.pages or values.get("check_path", True) is False, Errcode.WRONG_PAGE)
    require(account.pages or env != "release", Errcode.WRONG_PAGE)  # there are no pages before the first release
    query = urlencode({"page": page, "scene": scene, "env": env}, safe="/:")
    return f"wxa:{account.app_id}?{query}"


def read_width(values: Mapping[str, Any]) -> int:
    """Return the requested width of the picture, in pixels.

    WeChat does not document the effect of a wrong width. Here, the nearest allowed width replaces an integer, and
    the default width replaces any other value.
    """
    width = values.get("width")
    # `isinstance` would accept true and false.
    return min(max(width, _MIN_WIDTH), _MAX_WIDTH) if type(width) is int else _DEFAULT_WIDTH


def draw(text: str, *, is_transparent: bool, width: int = _DEFAULT_WIDTH) -> CodePicture:
    """Draw a QR code of this text and width, in pixels: a transparent one as a PNG, otherwise as a JPEG."""
    qr = segno.make_qr(text, error="m")
    drawn = BytesIO()
    qr.save(drawn, kind="png", scale=width // qr.symbol_size(border=_BORDER_MODULES)[0], border=_BORDER_MODULES)
    # Each module has a whole number of pixels, so the code is usually narrower than the picture, and is centered in it.
    modules = Image.open(drawn).convert("L")
    black_on_white = Image.new("L", (width, width), _WHITE)
    black_on_white.paste(modules, ((width - modules.width) // 2, (width - modules.height) // 2))
    output = BytesIO()
    if is_transparent:
        black = Image.new("LA", black_on_white.size)
        black.putalpha(ImageOps.invert(black_on_white))
        black.save(output, "PNG")
        return CodePicture(output.getvalue(), "image/png")
    black_on_white.save(output, "JPEG", quality=90)
    return CodePicture(output.getvalue(), "image/jpeg")
