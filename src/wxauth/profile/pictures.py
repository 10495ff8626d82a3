"""Pictures that strangers send: bombs refused, the others made upright and small, without their metadata."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image, ImageOps

MAX_PIXELS: Final = 4096 * 4096
"""A phone's 12 megapixels and some. While it is worked on, such a picture takes up to 260 MiB and a second."""
MAX_SIDE: Final = 16384
"""Pixels of one side: Pillow keeps a pointer for each row."""
LONGEST_SIDE: Final = 512

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_START_OF_SCAN: Final = b"\xff\xda"
_MAX_SCANS: Final = 100
"""A progressive JPEG has some ten. One more has 33 bytes and takes 6 ms: 2 MiB of them, six minutes."""
_JPEG_QUALITY: Final = 85
_DRAFT: Final = 2.0
"""How many times too large a picture may be before its sides are reduced with care."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # the decoder of WebP takes its memory before we can look
warnings.filterwarnings("ignore", module="PIL")  # we refuse, or do not mind


class UnusablePicture(Exception):
    """Not a picture of the formats that are taken, broken, or a bomb. The message is for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is stored."""

    content_type: str
    """`image/png` where something can be seen through it, else `image/jpeg`: a mini-program shows both everywhere."""
    content: bytes


def made_small(file: bytes) -> Picture:
    """A JPEG, PNG or WebP upright, with sides of `LONGEST_SIDE` at most; of an animation, the first frame.

    Metadata is not taken along: EXIF with its places, XMP, comments, ICC profiles.

    Raises: UnusablePicture.
    """
    try:
        with Image.open(BytesIO(file), formats=_FORMATS) as image:
            _check(image, file)
            image.draft(None, (int(LONGEST_SIDE * _DRAFT),) * 2)  # a JPEG is decoded no larger than needed
            image.load()
            return _encoded(_upright(_shrunk(image)))
    except UnusablePicture:
        raise
    except Exception as exc:  # a decoder raises whatever it stumbles over
        raise UnusablePicture("Should be a JPEG, PNG or WebP picture that is whole") from exc


def _check(image: Image.Image, file: bytes) -> None:
    """By what the header says, before anything is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise UnusablePicture(f"Should have at most {MAX_PIXELS} pixels")
    if max(image.size) > MAX_SIDE:
        raise UnusablePicture(f"Should have sides of at most {MAX_SIDE} pixels")
    if image.format not in ("PNG", "WEBP") and file.count(_START_OF_SCAN) > _MAX_SCANS:
        raise UnusablePicture(f"Should have at most {_MAX_SCANS} scans")


def _shrunk(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit gray, which Pillow would cut off instead of scaling it
        image = image.point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # of 16 bit too
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=_DRAFT)
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the picture may be good where its EXIF is not
        return image


def _encoded(image: Image.Image) -> Picture:
    image.info = {}
    out = BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        image.save(out, "PNG", optimize=True)
        return Picture("image/png", out.getvalue())
    image.convert("RGB").save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Picture("image/jpeg", out.getvalue())
