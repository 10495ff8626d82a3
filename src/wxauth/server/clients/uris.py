"""Redirect and logout URIs: how they are validated and compared (RFC 9700, section 2.1)."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from wxauth.urls import is_secure

MAX_URI_LENGTH: Final = 2048
_LONGEST_SHOWN: Final = 200
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
URI_RULE: Final = "must be https://host/path, or http on a loopback address; no fragment, user or pattern"

# A URI (RFC 3986) without fragment, user information or `*`, which might be meant as a pattern.
_FORM: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?][A-Za-z0-9._~:/?\[\]!$&'()+,;=%@-]*)?", re.ASCII)
# A program on the person's own machine may use another port each time (RFC 8252, section 7.3).
_ON_LOOPBACK: Final = re.compile(r"(https?://(?:127(?:\.[0-9]{1,3}){3}|\[::1\]))(?::[0-9]{1,5})?((?:[/?].*)?)")


def check_uri(uri: str) -> str:
    """Check a URI that is to be registered. Raises: ValueError."""
    try:
        parts = urlsplit(uri)
        is_good = bool(_FORM.fullmatch(uri)) and is_secure(uri) and parts.port != 0 and len(uri) <= MAX_URI_LENGTH
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(URI_RULE)
    return uri


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    """Whether this URI is registered. It must be identical, except for the port of a loopback address."""
    without_port = _without_port(uri)
    return any(
        uri == other or (without_port is not None and without_port == _without_port(other)) for other in registered
    )


def loggable_uri(uri: str) -> str:
    """A URI for the log, without the parts that may contain secrets: user, query and fragment."""
    head = re.split(r"[?#]", uri, maxsplit=1)[0]
    cut = re.sub(r"//[^/]*@", "//…@", head)[:_LONGEST_SHOWN]
    return cut if head == uri else f"{cut}?…"


def origin_of(uri: str) -> str:
    """Scheme, host and port as browsers send them: in lower case, and without the default port (RFC 6454)."""
    parts = urlsplit(uri)
    host = re.sub(r":[0-9]*$", "", parts.netloc).lower()
    is_default = parts.port in (None, _DEFAULT_PORTS[parts.scheme])
    return f"{parts.scheme}://{host}" if is_default else f"{parts.scheme}://{host}:{parts.port}"


def _without_port(uri: str) -> tuple[str, ...] | None:
    """The parts before and after the port; None if the host is no loopback address."""
    found = _ON_LOOPBACK.fullmatch(uri)
    if found is None:
        return None
    try:
        if urlsplit(uri).port == 0:
            return None
    except ValueError:  # the port is above 65535
        return None
    return found.groups()
