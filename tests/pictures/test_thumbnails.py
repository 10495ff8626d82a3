"""Untrusted pictures become upright, small and free of metadata. wxauth rejects files that need too much work."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from tests.pictures.samples import BLUE, GREEN, MAKER, ORIENTATION, RED, encoded, every_format, is_close, plain
from tests.sweeps import swept
from wxauth.pictures.thumbnails import (
    MAX_PIXELS,
    MAX_SIDE,
    UnreadablePicture,
    UnusablePicture,
    check_file,
    thumbnail_of,
)

pytestmark = pytest.mark.no_database


def two_halves() -> Image.Image:
    """Return a picture that is red on the left and blue on the right."""
    image = plain(size=(80, 40))
    image.paste(BLUE, (40, 0, 80, 40))
    return image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour_type: int = 2) -> bytes:
    """Build a PNG from its header, any further chunks, and its end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IEND", b"")


def webp(width: int, height: int) -> bytes:
    """Build a lossless WebP that has only a header."""
    bits = struct.pack("<I", width - 1 | (height - 1) << 14)
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f" + bits + bytes(5)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Build a WebP from chunks of even length, each with its name."""
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def begun_with(parts: bytes) -> bytes:
    """Return a JPEG with these bytes at its beginning."""
    return b"\xff\xd8" + parts + encoded(plain())[2:]


def shown(file: bytes) -> Image.Image:
    """Return the picture that other users see."""
    check_file(file)
    content_type, content = thumbnail_of(file)
    image = Image.open(BytesIO(content))
    image.load()
    assert content_type == Image.MIME[image.format or ""]
    return image


@pytest.mark.slow
@swept(
    ("size", "expected"),
    [
        ((1, 1), (1, 1)),
        ((512, 511), (512, 511)),
        ((1024, 512), (512, 256)),
        ((513, 1000), (263, 512)),
        ((2000, 1500), (512, 384)),
        ((1, 5000), (1, 512)),
    ],
)
@every_format
def test_a_picture_is_made_small_and_never_larger(kind: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert (shown(encoded(plain(size=size), kind))).size == expected


@swept(
    ("orientation", "red", "blue"),
    [
        (1, (0.2, 0.5), (0.8, 0.5)),
        (2, (0.8, 0.5), (0.2, 0.5)),
        (3, (0.8, 0.5), (0.2, 0.5)),
        (4, (0.2, 0.5), (0.8, 0.5)),
        (5, (0.5, 0.2), (0.5, 0.8)),
        (7, (0.5, 0.8), (0.5, 0.2)),
        (6, (0.5, 0.2), (0.5, 0.8)),
        (8, (0.5, 0.8), (0.5, 0.2)),
    ],
)
@every_format
@pytest.mark.slow
def test_a_picture_is_made_upright(
    kind: str, orientation: int, red: tuple[float, float], blue: tuple[float, float]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = shown(encoded(two_halves(), kind, exif=exif))
    assert image.size == ((80, 40) if orientation <= 4 else (40, 80))
    for (x, y), colour in ((red, RED), (blue, BLUE)):
        assert is_close(image.getpixel((int(image.width * x), int(image.height * y))), colour)


@pytest.mark.parametrize(("kilobytes", "size"), [(60, (40, 80)), (65, (80, 40))])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_in_exif_of_over_64_kib_no_orientation_is_looked_for(kind: str, kilobytes: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[MAKER] = "x" * kilobytes * 1024
    assert (shown(encoded(two_halves(), kind, exif=exif))).size == size


@pytest.mark.slow
def test_the_largest_picture_is_taken() -> None:
    assert (shown(encoded(plain("1", (4096, MAX_PIXELS // 4096), 1), "PNG"))).size == (512, 512)
    # A WebP may have at most four megapixels, because its decoder blocks all other requests.
    assert shown(encoded(plain(size=(2048, 2048)), "WEBP")).size == (512, 512)
    with pytest.raises(UnusablePicture):
        shown(encoded(plain(size=(2048, 2049)), "WEBP"))


@swept(
    ("file", "kind", "colour"),
    [
        pytest.param(encoded(plain("CMYK", colour=(0, 255, 255, 0))), "JPEG", (254, 0, 0), id="cmyk"),
        pytest.param(encoded(plain("L", colour=90)), "JPEG", (90, 90, 90), id="gray"),
        pytest.param(encoded(plain("1", colour=1), "PNG"), "JPEG", (255, 255, 255), id="black-and-white"),
        pytest.param(encoded(plain("I;16", colour=90 * 256), "PNG"), "JPEG", (90, 90, 90), id="16-bit-gray"),
        pytest.param(
            png(1, 1, chunk(b"IDAT", zlib.compress(b"\0" + bytes((200, 0, 20, 0, 30, 0)))), depth=16),
            "JPEG",
            RED,
            id="16-bit",
        ),
        pytest.param(encoded(plain().quantize(2), "PNG"), "JPEG", RED, id="palette"),
        pytest.param(encoded(plain().quantize(2), "PNG", transparency=0), "PNG", (*RED, 0), id="palette-clear"),
        pytest.param(encoded(plain(), "PNG", transparency=RED), "PNG", (*RED, 0), id="colour-clear"),
        pytest.param(encoded(plain("LA", colour=(90, 128)), "PNG"), "PNG", (90, 90, 90, 128), id="gray-alpha"),
        pytest.param(encoded(plain("RGBA", colour=(*RED, 128)), "PNG"), "PNG", (*RED, 128), id="alpha"),
        pytest.param(encoded(plain("RGBA", colour=(*RED, 128)), "WEBP"), "PNG", (*RED, 128), id="webp-alpha"),
        pytest.param(encoded(plain("RGBA", colour=(*RED, 255)), "PNG"), "JPEG", RED, id="alpha-unused"),
    ],
)
def test_every_kind_of_colour_is_kept(file: bytes, kind: str, colour: tuple[int, ...]) -> None:
    image = shown(file)
    assert image.format == kind
    pixel: Any = image.getpixel((0, 0))
    assert pixel[3:] == colour[3:]
    assert (not any(colour[3:]) and colour[3:]) or is_close(pixel, colour)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "MPO"])
def test_of_several_frames_the_first_is_kept(kind: str) -> None:
    file = encoded(plain(), kind, save_all=True, append_images=[plain(colour=BLUE), plain(colour=GREEN)])
    image = shown(file)
    assert getattr(image, "n_frames", 1) == 1
    assert is_close(image.getpixel((30, 20)), RED)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_picture_is_good_though_its_exif_is_not() -> None:
    assert (shown(encoded(plain(), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))).size == (60, 40)


# Rejected files.


@swept(
    "file",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a picture", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"\0\0\0\x18ftypheic" + bytes(100), id="HEIC"),
        *(pytest.param(encoded(plain(), kind), id=kind) for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "AVIF")),
        *(
            pytest.param(encoded(Image.effect_noise((200, 200), 80), kind)[:-3000], id=f"{kind}-cut-off")
            for kind in ("JPEG", "PNG", "WEBP")
        ),
        *(pytest.param(encoded(plain(), kind)[:20], id=f"{kind}-header") for kind in ("JPEG", "PNG", "WEBP")),
        pytest.param(encoded(plain(), "PNG").replace(b"IDAT", b"IDAX"), id="without-data"),
        # A file of 2 KB can contain a hundred scans of this kind, which take five seconds.
        pytest.param(encoded(plain(), progressive=True).replace(b"\xff\xc2", b"\xff\xca"), id="arithmetic-coding"),
        pytest.param(png(0, 1), id="of-no-width"),
        pytest.param(png(100_000, 100_000), id="png-bomb"),
        pytest.param(png(2**31 - 1, 2**31 - 1), id="png-bomb-of-all"),
        pytest.param(encoded(plain("1", (4096, MAX_PIXELS // 4096 + 1), 1), "PNG"), id="one-row-too-many"),
        pytest.param(encoded(plain("L", (1, MAX_SIDE + 1), 90), "PNG"), id="too-long"),
        pytest.param(webp(16384, 16384), id="webp-bomb"),
        pytest.param(encoded(plain()).replace(struct.pack(">HH", 40, 60), b"\xff\xdc" * 2, 1), id="jpeg-bomb"),
        pytest.param(
            png(
                1,
                1,
                chunk(b"zTXt", b"t\0\0" + zlib.compress(bytes(2 * 2**20))),
                chunk(b"IDAT", zlib.compress(bytes(4))),
            ),
            id="text-bomb",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_incomplete_picture_is_refused(file: bytes) -> None:
    with pytest.raises(UnusablePicture) as refused:
        shown(file)
    is_of_another_kind = isinstance(refused.value, UnreadablePicture)
    assert is_of_another_kind or file.startswith((b"\x89PNG", b"RIFF", b"\xff\xd8")) or not file


def test_exif_that_says_the_same_bytes_again_and_again_takes_no_memory() -> None:
    entries = b"".join(struct.pack("<HHLL", 0x9000 + number, 7, 10**6, 8) for number in range(200))
    exif = b"II*\0" + struct.pack("<LH", 8, 200) + entries + bytes(10**6)
    file = png(1, 1, chunk(b"IDAT", zlib.compress(bytes(4))), chunk(b"eXIf", exif))
    tracemalloc.start()
    try:
        shown(file)
        assert tracemalloc.get_traced_memory()[1] < 50 * 10**6
    finally:
        tracemalloc.stop()


DATA = chunk(b"IDAT", zlib.compress(bytes((60 * 3 + 1) * 40)))
COMMENT = b"\xff\xfe\0\2"
WEBP_HEADER, WEBP_DATA = (b"VP8X", struct.pack("<IIH", 0, 59 | 39 << 24, 0)), (b"VP8 ", encoded(plain(), "WEBP")[20:])


PROGRESSIVE = encoded(plain("L", (64, 64), 90), progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
PACKED = zlib.compress(bytes(1000))[:-4] + b"sums"


@swept(
    ("what", "make", "taken", "refused"),
    [
        ("jpeg-scans", lambda number: PROGRESSIVE[:-2] + LAST_SCAN * number + b"\xff\xd9", 80, 100),
        ("jpeg-many-scans", lambda number: PROGRESSIVE[:-2] + LAST_SCAN * number + b"\xff\xd9", 0, 60_000),
        ("png-iCCP", lambda number: png(60, 40, chunk(b"iCCP", b"p\0\0" + PACKED) * number, DATA), 100, 101),
        ("png-iTXt", lambda number: png(60, 40, chunk(b"iTXt", b"t\0\1\0\0\0" + PACKED) * number, DATA), 100, 101),
        ("png-zTXt", lambda number: png(60, 40, chunk(b"zTXt", b"t\0\0" + PACKED) * number, DATA), 100, 101),
        # At most a thousand parts.
        ("jpeg-fill", lambda number: begun_with(b"\xff" * number), 900, 1001),
        ("jpeg-junk", lambda number: begun_with(COMMENT + b"\0" * number), 900, 1001),
        ("jpeg-markers", lambda number: begun_with(COMMENT * number), 900, 1001),
        ("png-before", lambda number: png(60, 40, chunk(b"tEXt", b"") * number, DATA), 999, 1000),
        ("png-empty-data", lambda number: png(60, 40, chunk(b"IDAT", b"") * number, DATA), 900, 1001),
        ("png-after", lambda number: png(60, 40, DATA, chunk(b"tEXt", b"") * number), 900, 1001),
        ("webp-parts", lambda number: riff(WEBP_HEADER, *[(b"JUNK", b"")] * number, WEBP_DATA), 900, 1001),
        # At most 256 KiB before the picture.
        ("jpeg-late", lambda number: begun_with((b"\xff\xef\x80\0" + bytes(32766)) * number), 7, 8),
        ("png-late", lambda number: png(60, 40, chunk(b"eXIf", bytes(number * 1024)), DATA), 250, 256),
        ("webp-late", lambda number: riff(WEBP_HEADER, (b"JUNK", bytes(number * 1024)), WEBP_DATA), 250, 256),
    ],
)
def test_a_file_that_is_more_work_than_a_picture_is_refused(
    what: str, make: Callable[[int], bytes], taken: int, refused: int
) -> None:
    shown(make(taken))
    with pytest.raises(UnusablePicture):
        shown(make(refused))
