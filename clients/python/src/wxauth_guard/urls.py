"""Checks of URLs, which need only the standard library."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

_HTTP_URL: Final = re.compile(  # the scheme, user, host and port of a URL
    r"https?://(?:[^/?#\\]*@)?(?:\[[0-9a-f:.]+\]|\w[\w.-]*)(?::[0-9]{1,5})?(?=[/?#]|\Z)", re.IGNORECASE
)
_DECIMAL_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"{_DECIMAL_BYTE}(?:\.{_DECIMAL_BYTE}){{3}}", re.ASCII)
# Browsers and many resolvers read such a host as an IPv4 address (https://url.spec.whatwg.org/#ends-in-a-number):
# `127.1`, `0x7f000001` and `0177.0.0.1.` as 127.0.0.1. They refuse any other host of this form, such as `foo.1`.
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.ASCII | re.IGNORECASE)


def is_loopback(host: str | None) -> bool:
    """Return whether plain http to this host stays on this machine. None means that a URL contains no host."""
    if host is None:
        return False
    if ":" not in host:
        return host == "localhost" or (host.startswith("127.") and _IPV4.fullmatch(host) is not None)
    try:
        return IPv6Address(host).is_loopback  # also in a longer spelling, such as 0:0:0:0:0:0:0:1
    except ValueError:
        return False


def is_http_url(url: str) -> bool:
    """Return whether this is an http or https URL with a host, and with a valid port, if any."""
    try:
        if _HTTP_URL.match(url) is None or urlsplit(url).port == 0:
            return False
        host = urlsplit(url).hostname or ""
        return _ENDS_IN_A_NUMBER.fullmatch(host) is None or _IPV4.fullmatch(host) is not None
    except ValueError:
        # The port is too large, the IPv6 address is malformed, or Unicode normalization turned a character of the user
        # name into a separator.
        return False


def is_secure(url: str) -> bool:
    """Return whether this URL is https, or http on loopback, so that nobody on the network can alter its responses.

    Raises: ValueError, if the URL is malformed. `is_http_url` returns False for such a URL.
    """
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (
        parts.scheme == "http" and is_loopback(parts.hostname)
    )
