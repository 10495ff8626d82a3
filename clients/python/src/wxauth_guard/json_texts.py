"""JSON in the form that pydantic-core writes, checks of JSON from others, and base64url."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Final, NoReturn

# A string without an end extends to the end of the text. Otherwise, the search would try each of the text's quotes as
# the beginning of a string, and take quadratic time.
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def to_json(value: object) -> bytes:
    """Return a value as compact JSON in UTF-8. A datetime becomes a text in ISO 8601, with Z for UTC.

    NaN and infinity are not refused, although the result is then not JSON.
    """
    return json.dumps(value, default=_datetime_text, ensure_ascii=False, separators=(",", ":")).encode()


def base64url(data: bytes) -> str:
    """Encode bytes without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decode base64url without padding. The caller has checked the characters, and that their number is valid."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _datetime_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which are not JSON numbers, for `json.loads`."""
    raise ValueError(f"{name} is not JSON")


def has_too_many_containers(text: str, limit: int) -> bool:
    """Return whether JSON contains more objects and lists than the limit. Brackets in its strings do not count."""
    if text.count("{") + text.count("[") <= limit:
        return False
    without_strings = _STRING.sub("", text)
    return without_strings.count("{") + without_strings.count("[") > limit
