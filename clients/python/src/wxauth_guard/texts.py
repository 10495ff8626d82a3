"""Checks of URLs and of JSON texts, and `to_json`, which writes JSON in the same form as pydantic-core.

This module needs only the standard library.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Final, NoReturn
from urllib.parse import urlsplit

_HTTP_URL: Final = re.compile(
    r"https?://(?:[^/?#\\]*@)?(?:\[[0-9a-f:.]+\]|\w[\w.-]*)(?::[0-9]{1,5})?(?=[/?#]|\Z)", re.IGNORECASE
)
"""The pattern of the beginning of a URL: its scheme, user, host and port, before the path, query or fragment."""
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""The pattern of a string in JSON.

A string without an end reaches to the end of the text. Otherwise, the search would try each of the text's quotes as the
beginning of a string.
"""


def is_loopback(host: str | None) -> bool:
    """Return whether plain http to this host stays on this machine. None means that a URL contains no host."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host or "") is not None


def is_http_url(url: str) -> bool:
    """Return whether this is an http or https URL with a host. A port in the URL must be valid."""
    try:
        return _HTTP_URL.match(url) is not None and urlsplit(url).port != 0
    except ValueError:
        # The port is too large, or Unicode normalization turned a character of the user name into a separator.
        return False


def is_secure(url: str) -> bool:
    """Return whether this URL is https or on loopback.

    Nobody on the network can alter the responses of such a URL.
    """
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (
        parts.scheme == "http" and is_loopback(parts.hostname)
    )


def to_json(value: object) -> bytes:
    """Return a value as compact JSON in UTF-8. A datetime becomes a text in ISO 8601, with Z for UTC.

    Raises: TypeError, if the value contains anything that is neither JSON nor a datetime.
    """
    return json.dumps(value, default=_datetime_text, ensure_ascii=False, separators=(",", ":")).encode()


def _datetime_text(value: object) -> str:
    """Return a datetime as text. `json.dumps` calls this function for each value that is not JSON.

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
