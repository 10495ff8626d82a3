"""Whether answers from a URL are safe from being altered on the way."""

import re
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Whether plain http to this host stays on this machine."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host or "") is not None


def is_secure(url: str) -> bool:
    """Whether nobody on the way can alter what is read at this URL: it is https, or on loopback."""
    parts = urlsplit(url)
    return (parts.scheme == "https" and bool(parts.hostname)) or (
        parts.scheme == "http" and is_loopback(parts.hostname)
    )
