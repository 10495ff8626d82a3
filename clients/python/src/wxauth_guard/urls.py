"""Checks of URLs, which need only the standard library."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_HTTP_URL: Final = re.compile(
    r"https?://(?:[^/?#\\]*@)?(?:\[[0-9a-f:.]+\]|\w[\w.-]*)(?::[0-9]{1,5})?(?=[/?#]|\Z)", re.IGNORECASE
)
"""The pattern of the beginning of a URL: its scheme, user, host and port, before the path, query or fragment."""


def is_loopback(host: str | None) -> bool:
    """Return whether plain http to this host stays on this machine. None means that a URL contains no host."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host or "") is not None


def is_http_url(url: str) -> bool:
    """Return whether this is an http or https URL with a host. A port in the URL must be valid."""
    try:
        return _HTTP_URL.match(url) is not None and urlsplit(url).port != 0
    except ValueError:
        # The port is too large, the IPv6 address is malformed, or Unicode normalization turned a character of the user
        # name into a separator.
        return False


def is_secure(url: str) -> bool:
    """Return whether this URL is https, or http on loopback.

    Nobody on the network can alter the responses of such a URL.

    Raises: ValueError, if the URL is malformed. `is_http_url` returns False for such a URL.
    """
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (
        parts.scheme == "http" and is_loopback(parts.hostname)
    )
