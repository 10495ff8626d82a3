"""Pictures that tests upload."""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

RED, BLUE, GREEN = (200, 20, 30), (20, 40, 220), (30, 160, 60)
ORIENTATION, MAKER = 0x0112, 0x010F
every_format = pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def plain(mode: str = "RGB", size: tuple[int, int] = (60, 40), colour: Any = RED) -> Image.Image:
    return Image.new(mode, size, colour)


def is_close(pixel: Any, colour: tuple[int, ...]) -> bool:
    return all(abs(one - other) <= 8 for one, other in zip(pixel, colour, strict=True))
