"""JSON in the form that pydantic-core writes, and checks of JSON that a caller sends.

This module needs only the standard library.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Final, NoReturn

_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""The pattern of a string in JSON.

A string without an end extends to the end of the text. Otherwise, the search would try each of the text's quotes as the
beginning of a string, and take quadratic time.
"""


def to_json(value: object) -> bytes:
    """Return a value as compact JSON in UTF-8. A datetime becomes a text in ISO 8601, with Z for UTC.

    NaN and infinity are not refused, although the result is then not JSON.

    Raises: TypeError, if the value contains an object that JSON cannot represent, except a datetime;
        UnicodeEncodeError, if a text contains a lone surrogate.
    """
    return json.dumps(value, default=_datetime_text, ensure_ascii=False, separators=(",", ":")).encode()


def _datetime_text(value: object) -> str:
    """Return a datetime as text. `json.dumps` calls this function for each object that it cannot write.

    Raises: TypeError, if the value is not a datetime.
    """
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which are not JSON numbers. `json.loads` calls this function for each of them.

    Raises: ValueError.
    """
    raise ValueError(f"{name} is not JSON")


def has_too_many_containers(text: str, limit: int) -> bool:
    """Return whether JSON contains more objects and lists than the limit. Brackets in its strings do not count."""
    if text.count("{") + text.count("[") <= limit:
        return False
    without_strings = _STRING.sub("", text)
    return without_strings.count("{") + without_strings.count("[") > limit
