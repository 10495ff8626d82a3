"""Whether responses from a URL are protected from tampering on the way."""

import re
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Whether plain http to this host stays on this machine."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host or "") is not None


def is_secure(url: str) -> bool:
    """Whether this URL is https or on loopback, so that nobody on the way can alter its responses."""
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (
        parts.scheme == "http" and is_loopback(parts.hostname)
    )
