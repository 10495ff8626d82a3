"""The processing of untrusted pictures.

wxauth refuses decompression bombs. It turns other pictures upright, makes them small, and removes all their metadata.
Pillow takes 6 MB, which few processes need, so it is imported with the first picture.
"""

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BEFORE: Final = 256 * 1024
"""The largest number of bytes before the image data. EXIF with a thumbnail has up to 64 KiB."""
MAX_PARTS: Final = 1000
"""The largest number of markers, chunks and fill bytes before the image, and also after it.

Pillow reads each of them in Python, so 2 MiB of them would take seconds.
"""
MAX_SCANS: Final = 100
"""The largest number of scans of a progressive JPEG.

Usual pictures have ten. A scan of 33 bytes takes 6 ms, so 2 MiB of such scans would take six minutes.
"""
MAX_PACKED: Final = 100
"""The largest number of compressed chunks of a PNG.

Usual pictures have a few. Pillow decompresses up to 1 MiB of each chunk, which takes 4 ms, so 2 MiB of such chunks
would take eight seconds. Pillow's own limit for the total covers neither profiles nor truncated texts.
"""
NO_PICTURE: Final = "Must be a complete JPEG, PNG or WebP picture"
MAX_PIXELS: Final = 4096 * 4096
"""The largest number of pixels of a picture, which suffices for a phone's 12 megapixels.

Decoding such a picture takes up to 260 MiB and a second.
"""
MAX_WEBP_PIXELS: Final = 2048 * 2048
"""The largest number of pixels of a WebP.

The WebP decoder holds the GIL, so a picture of `MAX_PIXELS` would block the event loop for 100 ms.
"""
MAX_SIDE: Final = 16384
"""The largest number of pixels of a picture's side. The limit exists because Pillow stores a pointer for each row."""
LONGEST_SIDE: Final = 512

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_JPEG_QUALITY: Final = 85
_MAX_EXIF: Final = 64 * 1024
"""The largest number of bytes of EXIF that are read for the orientation.

Pillow reads the entries in Python, and 64,000 of them take a second.
"""
_ORIENTATION: Final = 0x0112
_TURNS: Final = dict(
    enumerate(
        ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"],
        start=2,
    )
)
"""The transposition that turns a picture upright, by its EXIF orientation."""
_DRAFT: Final = 2.0
"""The size to which a fast method first reduces a picture, as a multiple of the final size.

A good filter does the rest.
"""
_SCAN: Final = b"\xff\xda"
# A JPEG may have these segments before its first scan. Segments of arithmetic coding (0xC9 and others) are not allowed,
# because nobody uses arithmetic coding, and decoding a hundred such scans in 2 KB takes five seconds.
_SEGMENTS: Final = frozenset([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE])
_PACKED: Final = (b"iCCP", b"iTXt", b"zTXt")

Parts = Iterator[tuple[int, bool]]
"""The offset of each marker, chunk or fill byte, and whether the image data begins at this offset."""

# Pillow's warnings concern only harmless pictures, and pictures that the code below refuses.
warnings.filterwarnings("ignore", module="PIL")


class UnusablePicture(Exception):
    """The file is not a JPEG, PNG or WebP, is broken, or is a decompression bomb. The message is for the uploader."""


def check_file(file: bytes) -> None:
    """Check that Pillow can read the parts around the image data quickly. The check takes 10 ms at most.

    Raises: UnusablePicture.
    """
    image_at, number = None, 0
    for at, is_image in _parts(file):
        number += 1
        if is_image and image_at is None:
            image_at, number = at, 0
        if number > MAX_PARTS or (at if image_at is None else image_at) > MAX_BEFORE:
            parts = f"after at most {MAX_PARTS} markers, chunks or fill bytes"
            raise UnusablePicture(f"Must begin with its image within {MAX_BEFORE} bytes, {parts}")
    if image_at is None:
        raise UnusablePicture(NO_PICTURE)


def _parts(file: bytes) -> Parts:
    if file.startswith(b"\xff\xd8\xff"):
        return _jpeg_parts(file)
    if file.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_parts(file)
    if file.startswith(b"RIFF") and file.startswith(b"WEBP", 8):
        return _webp_parts(file)
    raise UnusablePicture(NO_PICTURE)


def _jpeg_parts(file: bytes) -> Parts:
    """Yield the parts up to the first scan. Pillow reads the scans in C, which is fast."""
    at = 2
    while at + 2 <= len(file) and not file.startswith(_SCAN, at):
        yield at, False
        if file[at] != 0xFF or file[at + 1] in (0x00, 0xFF):
            at += 1
        elif file[at + 1] in _SEGMENTS:
            at += 2 + max(2, int.from_bytes(file[at + 2 : at + 4]))
        else:
            raise UnusablePicture(NO_PICTURE)
    if file.count(_SCAN, at) > MAX_SCANS:
        raise UnusablePicture(f"Must have at most {MAX_SCANS} scans")
    if at + 2 <= len(file):
        yield at, True


def _png_parts(file: bytes) -> Parts:
    """Yield all parts, because Pillow reads all of them in Python, even those between and after the image data."""
    at, kind, packed = 8, b"", 0
    while at + 8 <= len(file) and kind != b"IEND":
        kind = file[at + 4 : at + 8]
        yield at, kind == b"IDAT"
        packed += kind in _PACKED
        if packed > MAX_PACKED:
            raise UnusablePicture(f"Must have at most {MAX_PACKED} packed texts and profiles")
        at += 12 + int.from_bytes(file[at : at + 4])


def _webp_parts(file: bytes) -> Parts:
    """Yield the parts up to the image data. Pillow reads the image data in C, which is fast."""
    at, is_image = 12, False
    while at + 8 <= len(file) and not is_image:
        is_image = file[at : at + 4] in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
        yield at, is_image
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def thumbnail_of(file: bytes) -> tuple[str, bytes]:
    """Turn a JPEG, PNG or WebP upright, and reduce it until no side is longer than `LONGEST_SIDE`.

    The file must have passed `check_file`. Only the first frame of an animation remains. All metadata is removed: EXIF
    with its locations, XMP, comments and ICC profiles. Return the content type and the content, which is a PNG if the
    picture is transparent, and otherwise a JPEG. Mini-programs can show both formats.

    Raises: UnusablePicture.
    """
    from PIL import Image

    # The WebP decoder allocates its memory before `_check_size` can check the size.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with Image.open(BytesIO(file), formats=_FORMATS) as image:
            _check_size(image)
            # Pillow can decode a JPEG at a smaller size, which is at least the needed size.
            image.draft(None, (int(LONGEST_SIDE * _DRAFT),) * 2)
            image.load()
            return _encoded(_upright(_shrunk(image)))
    except UnusablePicture:
        raise
    except Exception as exc:  # decoders raise exceptions of any type for broken files
        raise UnusablePicture(NO_PICTURE) from exc


def _check_size(image: "Image") -> None:
    """Check the size that the header states, before the picture is decoded."""
    most = MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS
    if image.width * image.height > most:
        raise UnusablePicture(f"Must have at most {most} pixels")
    if max(image.size) > MAX_SIDE:
        raise UnusablePicture(f"Must have sides of at most {MAX_SIDE} pixels")


def _shrunk(image: "Image") -> "Image":
    from PIL.Image import Resampling

    # The mode is 16-bit gray. Pillow would clip its values to 8 bits instead of scaling them.
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # this 16-bit value is meaningless after the scaling
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Resampling.LANCZOS, reducing_gap=_DRAFT)
    return image


def _upright(image: "Image") -> "Image":
    from PIL.Image import Transpose

    if sum(len(image.info.get(name, "")) for name in ("exif", "Raw profile type exif")) > _MAX_EXIF:
        return image
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture with broken EXIF may still be good
        return image
    return image if turn is None else image.transpose(Transpose[turn])


def _encoded(image: "Image") -> tuple[str, bytes]:
    image.info = {}
    out = BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        image.save(out, "PNG", optimize=True)
        return "image/png", out.getvalue()
    image.convert("RGB").save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "image/jpeg", out.getvalue()
