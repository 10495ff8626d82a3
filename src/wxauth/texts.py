"""Texts, with the standard library alone: URLs and names safe to use; secrets; JSON as pydantic-core writes it."""

import json
import re
import secrets
import unicodedata
from datetime import datetime
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

_SECRET_BYTES: Final = 32
_UNPRINTED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""The Unicode categories of controls, formats (bidirectional ones, too), surrogates, and ends of lines."""
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and symbols of other categories that show nothing, such as the fillers of Hangul."""
_HTTP_URL: Final = re.compile(
    r"https?://(?:[^/?#\\]*@)?(?:\[[0-9a-f:.]+\]|\w[\w.-]*)(?::[0-9]{1,5})?(?![^/?#])", re.IGNORECASE
)
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


def plain(text: str) -> str:
    """The text without characters that show nothing, or that reorder or break what surrounds it."""
    return "".join(each for each in text if unicodedata.category(each) not in _UNPRINTED and each not in _INVISIBLE)


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """The hash that is stored in place of a secret with 128 random bits or more."""
    # Slow hashes protect passwords that people choose. Nobody can guess such a secret, however fast the hash is, and a
    # slow one would slow down every request.
    return sha256(secret.encode()).digest()


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
