"""Mini-program codes, drawn as ordinary QR codes with the content of a mini-program code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlencode

import segno
from PIL import Image, ImageOps

from wxauth.server.dev.wechat.controls import Account
from wxauth.server.dev.wechat.faults import CallRefused

PICTURES_A_MINUTE: Final = 5000

_SCENE_CHARACTERS: Final = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]*")
_LONGEST_SCENE: Final = 32
_HOME: Final = "pages/index/index"
_ENVS: Final = ("release", "trial", "develop")
_WIDTHS: Final = (280, 1280)
_WIDTH: Final = 430
_BORDER: Final = 4
"""Modules of white border around a code."""


@dataclass(frozen=True, slots=True)
class DrawnCode:
    """A picture with its content type."""

    content: bytes
    content_type: str


def read_code_request(values: Mapping[str, Any], account: Account) -> str:
    """The content of the requested code. Raises: CallRefused."""
    scene, page, env = values.get("scene"), values.get("page", _HOME), values.get("env_version", "release")
    if not isinstance(scene, str) or not 0 < len(scene) <= _LONGEST_SCENE:
        raise CallRefused(40169)
    if not _SCENE_CHARACTERS.fullmatch(scene):
        raise CallRefused(40129)
    if env not in _ENVS:
        raise CallRefused(40097)
    is_unknown = values.get("check_path", True) is not False and page not in account.pages
    is_unknown |= env == "release" and not account.pages  # before the first release
    if not isinstance(page, str) or page.startswith("/") or "?" in page or is_unknown:
        raise CallRefused(41030)
    query = urlencode({"page": page, "scene": scene, "env": env}, safe="/:")
    return f"wxa:{account.app_id}?{query}"


def width_of(values: Mapping[str, Any]) -> int:
    """The requested width. WeChat does not document what a wrong one does: here it is clamped to the allowed range."""
    width = values.get("width", _WIDTH)
    return min(max(width, _WIDTHS[0]), _WIDTHS[1]) if type(width) is int else _WIDTH


def draw(code: str, *, has_transparent_ground: bool, width: int = _WIDTH) -> DrawnCode:
    """Draw a code: a PNG if the background is transparent, otherwise a JPEG."""
    qr = segno.make_qr(code, error="m")
    drawn = BytesIO()
    qr.save(drawn, kind="png", scale=width // qr.symbol_size(border=_BORDER)[0], border=_BORDER)
    modules = Image.open(drawn).convert("L")
    dark = Image.new("L", (width, width), 255)
    dark.paste(modules, ((width - modules.width) // 2, (width - modules.height) // 2))
    output = BytesIO()
    if has_transparent_ground:
        picture = Image.new("LA", dark.size)
        picture.putalpha(ImageOps.invert(dark))
        picture.save(output, "PNG")
        return DrawnCode(output.getvalue(), "image/png")
    dark.save(output, "JPEG", quality=90)
    return DrawnCode(output.getvalue(), "image/jpeg")
