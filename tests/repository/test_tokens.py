"""The colors that all pages share."""

import re

import pytest

from scripts.write_tokens import TOKENS

LIGHT, DARK = (
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", part)) for part in TOKENS.read_text().split("@media", maxsplit=1)
)


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    shares = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_and_the_edges_of_controls_stand_out_from_every_ground(colors: dict[str, str]) -> None:
    low = {
        (name, ground): contrast(colors[name], colors[ground])
        for name, least in {"ink": 4.5, "quiet": 4.5, "accent": 4.5, "edge": 3.0}.items()
        for ground in ("paper", "card")
        if contrast(colors[name], colors[ground]) < least
    }
    assert not low
    assert contrast(colors["on-accent"], colors["accent"]) >= 4.5
