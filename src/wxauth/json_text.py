"""JSON as pydantic-core writes it, for services that verify tokens and have no Pydantic."""

import json
from datetime import datetime


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8. Raises: TypeError, for what is neither JSON nor a date with a time."""
    return json.dumps(value, default=_text, ensure_ascii=False, separators=(",", ":")).encode()


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")
