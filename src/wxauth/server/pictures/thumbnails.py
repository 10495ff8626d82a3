"""Decodes untrusted pictures: refuses decompression bombs, and makes the others upright and small, without metadata."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import ExifTags, Image

from wxauth.server.pictures.picture_files import NO_PICTURE, UnusablePicture

MAX_PIXELS: Final = 4096 * 4096
"""Enough for a phone's 12 megapixels. Decoding so many pixels takes up to 260 MiB and a second."""
MAX_WEBP_PIXELS: Final = 2048 * 2048
"""The WebP decoder holds the GIL: `MAX_PIXELS` would block the event loop for 100 ms."""
MAX_SIDE: Final = 16384
"""Pixels of the longer side: Pillow keeps a pointer for each row."""
LONGEST_SIDE: Final = 512

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_JPEG_QUALITY: Final = 85
_MAX_EXIF: Final = 64 * 1024
"""Maximum bytes of EXIF read for the orientation. Pillow reads its entries in Python: 64,000 take a second."""
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes a picture upright, by its EXIF orientation."""
_DRAFT: Final = 2.0
"""A picture is first reduced quickly to this multiple of its final size, then with a good filter."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # the WebP decoder allocates its memory before `_check_size` sees the size
warnings.filterwarnings("ignore", module="PIL")  # everything Pillow warns about is refused below or harmless


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as it is stored."""

    content_type: str
    """`image/png` if the picture has transparency, else `image/jpeg`. Mini-programs can show both."""
    content: bytes


def thumbnail_of(file: bytes) -> Thumbnail:
    """Make a JPEG, PNG or WebP upright, and no larger than `LONGEST_SIDE` on either side.

    Of an animation, only the first frame is kept. All metadata is dropped: EXIF with its locations, XMP, comments, ICC
    profiles.

    Args:
        file: A file that has passed `check_file`.

    Raises: UnusablePicture.
    """
    try:
        with Image.open(BytesIO(file), formats=_FORMATS) as image:
            _check_size(image)
            image.draft(None, (int(LONGEST_SIDE * _DRAFT),) * 2)  # a JPEG is decoded at no more than the needed size
            image.load()
            return _encoded(_upright(_shrunk(image)))
    except UnusablePicture:
        raise
    except Exception as exc:  # decoders raise exceptions of any type for broken files
        raise UnusablePicture(NO_PICTURE) from exc


def _check_size(image: Image.Image) -> None:
    """Check the size given in the header, before anything is decoded."""
    most = MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS
    if image.width * image.height > most:
        raise UnusablePicture(f"Must have at most {most} pixels")
    if max(image.size) > MAX_SIDE:
        raise UnusablePicture(f"Must have sides of at most {MAX_SIDE} pixels")


def _shrunk(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip its values to 8 bits instead of scaling them
        image = image.point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # a 16-bit value, meaningless after the scaling
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=_DRAFT)
    return image


def _upright(image: Image.Image) -> Image.Image:
    if sum(len(image.info.get(name, "")) for name in ("exif", "Raw profile type exif")) > _MAX_EXIF:
        return image
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a picture with broken EXIF may still be good
        return image
    return image if turn is None else image.transpose(turn)


def _encoded(image: Image.Image) -> Thumbnail:
    image.info = {}
    out = BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        image.save(out, "PNG", optimize=True)
        return Thumbnail("image/png", out.getvalue())
    image.convert("RGB").save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Thumbnail("image/jpeg", out.getvalue())
