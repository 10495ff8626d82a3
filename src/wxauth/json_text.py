"""JSON as pydantic-core writes it, for services that verify tokens and have no Pydantic; and how nested a text is."""

import json
import re
from datetime import datetime

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8. Raises: TypeError, for what is neither JSON nor a date with a time."""
    return json.dumps(value, default=_text, ensure_ascii=False, separators=(",", ":")).encode()


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


def has_too_many_containers(text: str, most: int) -> bool:
    """Whether JSON has more than so many objects and lists. Brackets in its strings do not count."""
    return _opened(text) > most and _opened(_STRING.sub("", text)) > most


def _opened(text: str) -> int:
    return text.count("{") + text.count("[")
