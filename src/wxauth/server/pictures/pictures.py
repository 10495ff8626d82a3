"""Pictures from strangers: decompression bombs are refused, others made upright and small, without metadata."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import ExifTags, Image

from wxauth.server.pictures.picture_files import NO_PICTURE, UnusablePicture

MAX_PIXELS: Final = 4096 * 4096
"""More than a phone's 12 megapixels. Decoding such a picture takes up to 260 MiB and a second."""
MAX_WEBP_PIXELS: Final = 2048 * 2048
"""The WebP decoder keeps Python's lock while it decodes: 100 ms for `MAX_PIXELS`, in which nobody is answered."""
MAX_SIDE: Final = 16384
"""Pixels of one side: Pillow keeps a pointer for each row."""
LONGEST_SIDE: Final = 512

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_JPEG_QUALITY: Final = 85
_MAX_EXIF: Final = 64 * 1024
"""Bytes of EXIF in which the orientation is looked for. Pillow reads its entries in Python: 64,000 take a second."""
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation in EXIF."""
_DRAFT: Final = 2.0
"""A picture is first reduced quickly to this many times its final size, and then with a good filter."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # the WebP decoder allocates its memory before `_check_size` sees the size
warnings.filterwarnings("ignore", module="PIL")  # what Pillow warns of is refused below, or harmless


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is stored."""

    content_type: str
    """`image/png` if the picture is transparent somewhere, else `image/jpeg`. Mini-programs show both everywhere."""
    content: bytes


def made_small(file: bytes) -> Picture:
    """Make a JPEG, PNG or WebP upright, and small: no side is longer than `LONGEST_SIDE`.

    Of an animation, the first frame is taken. Metadata is dropped: EXIF with its places, XMP, comments, ICC profiles.

    Args:
        file: Has passed `check_file`.

    Raises: UnusablePicture.
    """
    try:
        with Image.open(BytesIO(file), formats=_FORMATS) as image:
            _check_size(image)
            image.draft(None, (int(LONGEST_SIDE * _DRAFT),) * 2)  # a JPEG is decoded no larger than needed
            image.load()
            return _encoded(_upright(_shrunk(image)))
    except UnusablePicture:
        raise
    except Exception as exc:  # decoders raise errors of any type on a broken file
        raise UnusablePicture(NO_PICTURE) from exc


def _check_size(image: Image.Image) -> None:
    """Check what the header says, before anything is decoded."""
    most = MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS
    if image.width * image.height > most:
        raise UnusablePicture(f"Must have at most {most} pixels")
    if max(image.size) > MAX_SIDE:
        raise UnusablePicture(f"Must have sides of at most {MAX_SIDE} pixels")


def _shrunk(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip its values to 8 bits instead of scaling them
        image = image.point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # a 16-bit value, which means nothing after the scaling
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
    except Exception:  # a picture with broken EXIF may be good
        return image
    return image if turn is None else image.transpose(turn)


def _encoded(image: Image.Image) -> Picture:
    image.info = {}
    out = BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        image.save(out, "PNG", optimize=True)
        return Picture("image/png", out.getvalue())
    image.convert("RGB").save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Picture("image/jpeg", out.getvalue())
