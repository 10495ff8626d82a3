"""Checks the structure of a picture file, and refuses one that Pillow would take long to decode."""

from collections.abc import Iterator
from typing import Final

MAX_BEFORE: Final = 256 * 1024
"""Maximum bytes before the image data. EXIF with a thumbnail has up to 64 KiB."""
MAX_PARTS: Final = 1000
"""Maximum number of markers, chunks and fill bytes. Pillow reads each in Python under the GIL: 2 MiB take seconds."""
MAX_SCANS: Final = 100
"""Maximum scans of a progressive JPEG; usual are ten. A 33-byte scan takes 6 ms: 2 MiB of them would take six
minutes."""
MAX_PACKED: Final = 100
"""Maximum compressed chunks of a PNG; usual are a few. Pillow decompresses up to 1 MiB of each, which takes 4 ms: 2 MiB
of
them would take eight seconds. Pillow's own total limit covers neither profiles nor truncated texts."""
NO_PICTURE: Final = "Must be a JPEG, PNG or WebP picture that is whole"

_SCAN: Final = b"\xff\xda"
# Segments that a JPEG may have before its first scan. Arithmetic coding (0xC9 and others) is left out: nobody uses it,
# and a hundred scans in 2 KB take five seconds.
_SEGMENTS: Final = frozenset([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE])
_PACKED: Final = (b"iCCP", b"iTXt", b"zTXt")

Parts = Iterator[tuple[int, bool]]
"""The offset of each marker, chunk or fill byte, and whether the image data begins there."""


class UnusablePicture(Exception):
    """The file is not a JPEG, PNG or WebP, is broken, or is a decompression bomb. The message is for the uploader."""


def check_file(file: bytes) -> None:
    """Check that Pillow will not take long over the parts around the image data. Takes 10 ms at most.

    Raises: UnusablePicture.
    """
    image_at = None
    for number, (at, is_image) in enumerate(_parts(file), start=1):
        if is_image and image_at is None:
            image_at = at
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
    """The parts up to the first scan. Pillow reads what follows in C."""
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
    """All parts: Pillow reads even those between and after the image data in Python."""
    at, kind, packed = 8, b"", 0
    while at + 8 <= len(file) and kind != b"IEND":
        kind = file[at + 4 : at + 8]
        yield at, kind == b"IDAT"
        packed += kind in _PACKED
        if packed > MAX_PACKED:
            raise UnusablePicture(f"Must have at most {MAX_PACKED} packed texts and profiles")
        at += 12 + int.from_bytes(file[at : at + 4])


def _webp_parts(file: bytes) -> Parts:
    """The parts up to the image data. Pillow reads what follows in C."""
    at, is_image = 12, False
    while at + 8 <= len(file) and not is_image:
        is_image = file[at : at + 4] in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
        yield at, is_image
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
