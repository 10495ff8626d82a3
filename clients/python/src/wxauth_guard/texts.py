"""Texts, with the standard library alone: URLs that are safe to use; JSON as pydantic-core writes it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Final, NoReturn
from urllib.parse import urlsplit

_HTTP_URL: Final = re.compile(
    r"https?://(?:[^/?#\\]*@)?(?:\[[0-9a-f:.]+\]|\w[\w.-]*)(?::[0-9]{1,5})?(?![^/?#])", re.IGNORECASE
)
# One without an end reaches to the end of the text: else each of its quotes would be tried as a beginning.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def is_loopback(host: str | None) -> bool:
    """Whether plain http to this host stays on this machine."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host or "") is not None


def is_http_url(url: str) -> bool:
    """Whether this is an http or https URL with a host, and with a port that may be one if any."""
    try:
        return _HTTP_URL.match(url) is not None and urlsplit(url).port != 0
    except ValueError:  # the port is too large, or Unicode takes a character of the user's for one that separates
        return False


def is_secure(url: str) -> bool:
    """Whether this URL is https or on loopback, so that nobody on the way can alter its responses."""
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (
        parts.scheme == "http" and is_loopback(parts.hostname)
    )


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8. Raises: TypeError, for what is neither JSON nor a date with a time."""
    return json.dumps(value, default=_text, ensure_ascii=False, separators=(",", ":")).encode()


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


def refuse_constant(name: str) -> NoReturn:
    """For JSON's `parse_constant`: NaN and Infinity are no numbers of JSON. Raises: ValueError."""
    raise ValueError(f"{name} is not JSON")


def has_too_many_containers(text: str, most: int) -> bool:
    """Whether JSON has more than so many objects and lists. Brackets in its strings do not count."""
    return _opened(text) > most and _opened(_STRING.sub("", text)) > most


def _opened(text: str) -> int:
    return text.count("{") + text.count("[")
