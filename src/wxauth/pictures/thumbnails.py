"""The thumbnails of untrusted pictures. A picture that would take too much memory or time is refused.

Pillow takes 6 MB of memory, and few processes need it, so it is imported only for the first picture.
"""

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow processes these bytes in Python. EXIF with a thumbnail has up to 64 KiB.
MAX_BYTES_BEFORE_IMAGE: Final = 256 * 1024
# This limit applies to the parts before the image data, and again to those after it begins. Pillow reads each part in
# Python, and 2 MiB of them takes seconds.
MAX_PARTS: Final = 1000
# Ordinary pictures have ten. A scan of 33 bytes takes 6 ms, so 2 MiB of them would take six minutes.
MAX_SCANS: Final = 100
# Ordinary pictures have a few. Pillow decompresses up to 1 MiB of each in 4 ms, so 2 MiB of them would take eight
# seconds. Pillow's own limit covers neither profiles nor truncated texts.
MAX_COMPRESSED_CHUNKS: Final = 100
_TOO_MANY_PIXELS: Final = "Must have at most {} pixels"
MAX_PIXELS: Final = 4096 * 4096  # a phone's 12 megapixels; decoding takes up to 260 MiB and a second
MAX_WEBP_PIXELS: Final = 2048 * 2048  # the decoder holds the GIL: `MAX_PIXELS` would block the event loop for 100 ms
# Pillow stores a pointer for each row: one pixel in each of `MAX_PIXELS` rows would need 128 MiB.
MAX_SIDE: Final = 16384
THUMBNAIL_SIDE: Final = 512  # pixels, of the longer side

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_JPEG_QUALITY: Final = 85
_MAX_EXIF_BYTES: Final = 64 * 1024  # Pillow reads the entries in Python, and 64,000 of them take a second
# A fast method reduces the picture to this multiple of the final size, and a filter of good quality does the rest.
_DRAFT_FACTOR: Final = 2.0
_OPAQUE: Final = 255
_JPEG_START: Final = b"\xff\xd8"
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_WEBP_HEADER_LENGTH: Final = 12  # `RIFF`, the size of the file and `WEBP`
_SCAN: Final = b"\xff\xda"
# These segments come before the first scan: the frame (0xC0 to 0xC2), tables and parameters (0xC4 to 0xDD), metadata of
# applications (0xE0 to 0xEF) and comments (0xFE). Arithmetic coding (0xC9 and others), which nobody uses, is left out:
# decoding a hundred such scans in 2 KB takes five seconds.
_SEGMENTS: Final = frozenset([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE])
_COMPRESSED_CHUNKS: Final = (b"iCCP", b"iTXt", b"zTXt")  # profiles and texts

# Pillow warns only about pictures that are harmless or that the code below refuses anyway, so its warnings are ignored.
warnings.filterwarnings("ignore", module="PIL")


class _Part(NamedTuple):
    offset: int
    is_image: bool  # whether the image data begins at this offset


class Thumbnail(NamedTuple):
    """A small PNG or JPEG without metadata, which mini-programs can show."""

    content_type: str
    content: bytes


class UnusablePicture(Exception):
    """wxauth cannot use the file as a picture. The message says which rule it breaks."""


class UnreadablePicture(UnusablePicture):
    """The file is no JPEG, PNG or WebP, is broken, or is a JPEG of an unusual kind."""

    def __init__(self) -> None:
        super().__init__("Must be a complete JPEG, PNG or WebP picture")


def check_file(file: bytes) -> None:
    """Check that Pillow can read the parts around the image data quickly. The check takes 10 ms at most."""
    image_offset: int | None = None
    part_count = 0
    for part in _parts(file):
        part_count += 1
        if part.is_image and image_offset is None:
            image_offset = part.offset
            part_count = 0  # from now on, the parts after the beginning of the image data are counted
        bytes_before_image = part.offset if image_offset is None else image_offset
        if part_count > MAX_PARTS or bytes_before_image > MAX_BYTES_BEFORE_IMAGE:
            # A file with too many parts after its image gets this message, too, although it is about the parts before
            # the image. A separate message is not worthwhile, because no ordinary picture has so many parts.
            parts = f"after at most {MAX_PARTS} markers, chunks or fill bytes"
            raise UnusablePicture(f"Must begin with its image within {MAX_BYTES_BEFORE_IMAGE} bytes, {parts}")
    if image_offset is None:
        raise UnreadablePicture


def _parts(file: bytes) -> Iterator[_Part]:
    if file.startswith(_JPEG_START + b"\xff"):
        return _jpeg_parts(file)
    if file.startswith(_PNG_SIGNATURE):
        return _png_parts(file)
    if file.startswith(b"RIFF") and file.startswith(b"WEBP", 8):
        return _webp_parts(file)
    raise UnreadablePicture


def _jpeg_parts(file: bytes) -> Iterator[_Part]:
    """Yield the parts up to the first scan: Pillow reads the scans in C, which is fast."""
    offset = len(_JPEG_START)
    while offset + 2 <= len(file) and not file.startswith(_SCAN, offset):
        yield _Part(offset, is_image=False)
        if file[offset] != 0xFF or file[offset + 1] in (0x00, 0xFF):  # this is no marker, so Pillow skips one byte
            offset += 1
        elif file[offset + 1] in _SEGMENTS:
            # After the marker, the first two bytes of a segment state its length, including these two bytes.
            offset += 2 + max(2, int.from_bytes(file[offset + 2 : offset + 4]))
        else:
            raise UnreadablePicture
    if file.count(_SCAN, offset) > MAX_SCANS:
        raise UnusablePicture(f"Must have at most {MAX_SCANS} scans")
    if offset + 2 <= len(file):
        yield _Part(offset, is_image=True)


def _png_parts(file: bytes) -> Iterator[_Part]:
    """Yield all parts, because Pillow reads all of them in Python, even those between and after the image data."""
    offset = len(_PNG_SIGNATURE)
    kind = b""
    compressed_count = 0
    while offset + 8 <= len(file) and kind != b"IEND":
        kind = file[offset + 4 : offset + 8]
        yield _Part(offset, is_image=kind == b"IDAT")
        if kind in _COMPRESSED_CHUNKS:
            compressed_count += 1
        if compressed_count > MAX_COMPRESSED_CHUNKS:
            raise UnusablePicture(f"Must have at most {MAX_COMPRESSED_CHUNKS} packed texts and profiles")
        # A chunk has a length (four bytes), a kind (four bytes), the data, and a checksum (four bytes), so twelve bytes
        # surround the data.
        offset += 12 + int.from_bytes(file[offset : offset + 4])


def _webp_parts(file: bytes) -> Iterator[_Part]:
    """Yield the parts up to the image data, which Pillow reads in C."""
    offset = _WEBP_HEADER_LENGTH
    is_image = False
    while offset + 8 <= len(file) and not is_image:
        # The image data begins with the pixels (VP8, VP8L), the alpha channel (ALPH) or the first frame (ANMF).
        is_image = file[offset : offset + 4] in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
        yield _Part(offset, is_image)
        # A chunk has a kind (four bytes), a size (four bytes) and the data.
        size = int.from_bytes(file[offset + 4 : offset + 8], "little")
        offset += 8 + size + size % 2  # a chunk of odd size ends with a fill byte


def thumbnail_of(file: bytes) -> Thumbnail:
    """Return the thumbnail of a picture that `check_file` has checked: a PNG if a pixel is transparent, or a JPEG.

    The thumbnail is upright unless the EXIF of the picture is too large or broken. It shows the first frame of an
    animation. It has no metadata: no EXIF with its locations, no XMP, no comments and no ICC profile.
    """
    from PIL import Image

    # Pillow must refuse a huge WebP itself, because its decoder allocates memory before `_check_size` runs. Pillow
    # refuses a picture only if it has more than twice as many pixels as this limit.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    max_pixels = MAX_WEBP_PIXELS if file.startswith(b"RIFF") else MAX_PIXELS
    try:
        with Image.open(BytesIO(file), formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            # Pillow can reduce a JPEG while decoding it. Pillow never reduces a picture below the size given here.
            draft_side = int(THUMBNAIL_SIDE * _DRAFT_FACTOR)
            image.draft(None, (draft_side, draft_side))
            image.load()
            return _encoded(_upright(_shrunk(image)))
    except UnusablePicture:
        raise
    except Image.DecompressionBombError as exc:  # such a picture is not broken, so it gets `_check_size`'s text
        raise UnusablePicture(_TOO_MANY_PIXELS.format(max_pixels)) from exc
    except Exception as exc:  # decoders raise exceptions of any type for broken files
        raise UnreadablePicture from exc


def _check_size(image: "Image", max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnusablePicture(_TOO_MANY_PIXELS.format(max_pixels))
    if max(image.size) > MAX_SIDE:
        raise UnusablePicture(f"Must have sides of at most {MAX_SIDE} pixels")


def _shrunk(image: "Image") -> "Image":
    from PIL.Image import Resampling

    # Pillow opens a picture in 16-bit gray in a mode that begins with "I". `convert` alone would clip the values to 8
    # bits instead of scaling them.
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # this 16-bit value is meaningless after the scaling
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Resampling.LANCZOS, reducing_gap=_DRAFT_FACTOR)
    return image


def _upright(image: "Image") -> "Image":
    from PIL.ImageOps import exif_transpose

    # Pillow reads EXIF from one of these two entries. The second comes from a text chunk of a PNG.
    exif_length = sum(len(image.info.get(name, "")) for name in ("exif", "Raw profile type exif"))
    if exif_length > _MAX_EXIF_BYTES:
        return image
    try:
        return exif_transpose(image)  # if the EXIF states no orientation, by that in the XMP
    except Exception:  # a picture with broken EXIF might still be good
        return image


def _encoded(image: "Image") -> Thumbnail:
    image.info = {}  # so that the metadata is not saved
    out = BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (_OPAQUE, _OPAQUE):
        image.save(out, "PNG", optimize=True)
        return Thumbnail("image/png", out.getvalue())
    image.convert("RGB").save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Thumbnail("image/jpeg", out.getvalue())
