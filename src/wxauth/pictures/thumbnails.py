"""The processing of untrusted pictures.

wxauth refuses decompression bombs. It turns other pictures upright, makes them small, and removes all their metadata.
Pillow takes 6 MB of memory, and few processes need it, so it is imported only for the first picture.
"""

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES_BEFORE_IMAGE: Final = 256 * 1024
"""The largest number of bytes before the image data. EXIF with a thumbnail has up to 64 KiB.

The limit exists because Pillow processes these bytes in Python.
"""
MAX_PARTS: Final = 1000
"""The largest number of markers, chunks and fill bytes before the image data, and also after its beginning.

Pillow reads each of them in Python, so a file of 2 MiB (`MAX_FILE`) full of them would take seconds.
"""
MAX_SCANS: Final = 100
"""The largest number of scans of a progressive JPEG.

Ordinary pictures have ten. A scan of 33 bytes takes 6 ms, so 2 MiB (`MAX_FILE`) of such scans would take six minutes.
"""
MAX_COMPRESSED_CHUNKS: Final = 100
"""The largest number of compressed chunks of a PNG, apart from the image data.

Ordinary pictures have a few. Pillow decompresses up to 1 MiB of each chunk, which takes 4 ms, so 2 MiB (`MAX_FILE`) of
such chunks would take eight seconds. Pillow's own limit for the total covers neither profiles nor truncated texts.
"""
_TOO_MANY_PIXELS: Final = "Must have at most {} pixels"
MAX_PIXELS: Final = 4096 * 4096
"""The largest number of pixels of a picture, which suffices for a phone's 12 megapixels.

Decoding such a picture takes up to 260 MiB and a second.
"""
MAX_WEBP_PIXELS: Final = 2048 * 2048
"""The largest number of pixels of a WebP.

The WebP decoder holds the GIL, so a picture of `MAX_PIXELS` would block the event loop for 100 ms.
"""
MAX_SIDE: Final = 16384
"""The largest width and height of a picture, in pixels.

The limit exists because Pillow stores a pointer for each row. A picture with one pixel in each of `MAX_PIXELS` rows
would need 128 MiB for the pointers.
"""
LONGEST_SIDE: Final = 512
"""The largest width and height of a thumbnail, in pixels."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_JPEG_QUALITY: Final = 85
_MAX_EXIF: Final = 64 * 1024
"""The largest number of bytes of EXIF that are read for the orientation.

Pillow reads the entries in Python, and 64,000 of them take a second.
"""
_ORIENTATION: Final = 0x0112
"""The tag of the orientation in EXIF."""
_TRANSPOSITIONS: Final = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""The transposition that turns a picture upright, by its EXIF orientation. Orientation 1 is upright already."""
_DRAFT_FACTOR: Final = 2.0
"""The size to which a fast method first reduces a picture, as a multiple of the final size.

A slow filter of good quality then reduces the picture to its final size.
"""
_OPAQUE: Final = 255
"""The alpha value of a pixel that is not transparent."""
_JPEG_START: Final = b"\xff\xd8"
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_WEBP_HEADER_LENGTH: Final = 12
"""The length, in bytes, of `RIFF`, the size of the file and `WEBP`, with which a WebP begins."""
_SCAN: Final = b"\xff\xda"
"""The marker with which a scan of a JPEG begins."""
# A JPEG may have these segments before its first scan: the frame (0xC0 to 0xC2), tables and parameters (0xC4 to 0xDD),
# metadata of applications (0xE0 to 0xEF) and comments (0xFE). Segments of arithmetic coding (0xC9 and others) are not
# allowed, because nobody uses arithmetic coding, and decoding a hundred such scans in 2 KB takes five seconds.
_SEGMENTS: Final = frozenset([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE])
_COMPRESSED_CHUNKS: Final = (b"iCCP", b"iTXt", b"zTXt")
"""The chunks of a PNG, apart from the image data, that can be compressed: profiles and texts."""

# Pillow warns only about pictures that are harmless or that the code below refuses anyway, so its warnings are ignored.
warnings.filterwarnings("ignore", module="PIL")


class _Part(NamedTuple):
    """A marker, a chunk or a fill byte of a file."""

    offset: int
    is_image: bool
    """Whether the image data begins at this offset."""


class Thumbnail(NamedTuple):
    """A small PNG or JPEG without metadata, which mini-programs can show."""

    content_type: str
    content: bytes


class UnusablePicture(Exception):
    """The error for a file that wxauth cannot use as a picture, or refuses because of a limit.

    The message says which rule the file breaks.
    """


class UnreadablePicture(UnusablePicture):
    """The error for a file that is not a JPEG, PNG or WebP, for a broken picture, and for a JPEG of an unusual kind."""

    def __init__(self) -> None:
        super().__init__("Must be a complete JPEG, PNG or WebP picture")


def check_file(file: bytes) -> None:
    """Check that Pillow can read the parts around the image data quickly. The check takes 10 ms at most.

    Raises: UnreadablePicture, if the file is not a JPEG, PNG or WebP with image data, or if it is a JPEG with a segment
        that is not allowed; UnusablePicture, if the file exceeds a limit on its parts, its scans, its compressed
        chunks, or the bytes before the image data.
    """
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
    """Return the parts of a file that Pillow reads in Python code, not in C.

    Raises: UnreadablePicture, if the file is not a JPEG, PNG or WebP.
    """
    if file.startswith(_JPEG_START + b"\xff"):
        return _jpeg_parts(file)
    if file.startswith(_PNG_SIGNATURE):
        return _png_parts(file)
    if file.startswith(b"RIFF") and file.startswith(b"WEBP", 8):
        return _webp_parts(file)
    raise UnreadablePicture


def _jpeg_parts(file: bytes) -> Iterator[_Part]:
    """Yield the parts up to the first scan, and no later ones, because Pillow reads the scans in C, which is fast.

    If there is no scan, no part is the image data.

    Raises: UnreadablePicture, if a segment is not allowed; UnusablePicture, if there are too many scans.
    """
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
    """Yield all parts, because Pillow reads all of them in Python, even those between and after the image data.

    Raises: UnusablePicture, if there are too many compressed chunks.
    """
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
    """Yield the parts up to the image data, and no later ones, because Pillow reads the image data in C."""
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
    """Return the thumbnail of a JPEG, PNG or WebP. It has no side longer than `LONGEST_SIDE`.

    The caller must have checked the file with `check_file`. The thumbnail is upright, unless the picture's EXIF is too
    large or broken. The thumbnail of an animation shows its first frame. The thumbnail contains no metadata: no EXIF
    with its locations, no XMP, no comments and no ICC profile. The thumbnail is a PNG if it has a transparent pixel,
    and otherwise a JPEG.

    Raises: UnreadablePicture, if the picture is broken; UnusablePicture, if it is too large.
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
            draft_side = int(LONGEST_SIDE * _DRAFT_FACTOR)
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
    """Check the size that the header states, before the picture is decoded.

    Raises: UnusablePicture, if the picture is too large.
    """
    if image.width * image.height > max_pixels:
        raise UnusablePicture(_TOO_MANY_PIXELS.format(max_pixels))
    if max(image.size) > MAX_SIDE:
        raise UnusablePicture(f"Must have sides of at most {MAX_SIDE} pixels")


def _shrunk(image: "Image") -> "Image":
    """Return a picture in RGB or RGBA, with no side longer than `LONGEST_SIDE`."""
    from PIL.Image import Resampling

    # Pillow opens a picture in 16-bit gray in a mode that begins with "I". `convert` alone would clip the values to 8
    # bits instead of scaling them.
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # this 16-bit value is meaningless after the scaling
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Resampling.LANCZOS, reducing_gap=_DRAFT_FACTOR)
    return image


def _upright(image: "Image") -> "Image":
    """Return a picture in the orientation that its EXIF or, if the EXIF states none, its XMP states.

    If the EXIF is too large or broken, return the picture unchanged.
    """
    from PIL.Image import Transpose

    # Pillow reads EXIF from one of these two entries. The second comes from a text chunk of a PNG.
    exif_length = sum(len(image.info.get(name, "")) for name in ("exif", "Raw profile type exif"))
    if exif_length > _MAX_EXIF:
        return image
    try:
        # If the EXIF states no orientation, `getexif` adds the orientation that the XMP states.
        transposition = _TRANSPOSITIONS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture with broken EXIF might still be good
        return image
    return image if transposition is None else image.transpose(Transpose[transposition])


def _encoded(image: "Image") -> Thumbnail:
    """Encode a picture without metadata, as a PNG if any of its pixels is transparent, and otherwise as a JPEG."""
    image.info = {}  # the metadata
    out = BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (_OPAQUE, _OPAQUE):
        image.save(out, "PNG", optimize=True)
        return Thumbnail("image/png", out.getvalue())
    image.convert("RGB").save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Thumbnail("image/jpeg", out.getvalue())
