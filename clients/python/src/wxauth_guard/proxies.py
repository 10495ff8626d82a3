"""The choice of the proxy for a request, according to environment variables, whose values might be malformed.

httpx refuses every request if it cannot read one of these variables, so the guard reads them itself.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from wxauth_guard.urls import is_http_url

_NO_PROXY_DOMAIN: Final = re.compile(r"\*|\*?\.?(?P<name>\w[\w-]*(?:\.[\w-]+)*)(?::(?P<port>\d+))?")
"""The pattern of an entry of `NO_PROXY` that is `*`, or a domain or IPv4 address with or without a port."""
_SOCKS: Final = re.compile(r"socks5h?(?=://)", re.IGNORECASE)
"""The pattern of the schemes of SOCKS proxies that httpx supports."""
_log = logging.getLogger(__name__)


class Proxy(NamedTuple):
    """A proxy, and the variable that sets it."""

    url: str
    variable: str
    """The name of the variable, for example `HTTPS_PROXY` or `all_proxy`, as `_variable` returns it."""


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for this URL; None if there is no proxy, or if `NO_PROXY` covers the URL.

    A variable with a proxy that cannot be used, or a malformed entry of `NO_PROXY`, is ignored. The log contains one
    warning about each such variable, even if this URL uses another variable. If `NO_PROXY` covers the URL, no other
    variable is checked.
    """
    value_by_kind = getproxies()  # for example {"https": "http://proxy:3128", "no": "localhost"}
    parts = urlsplit(url)
    if _is_covered(value_by_kind.get("no", ""), parts):
        return None
    proxies = _usable_proxies(value_by_kind)
    for kind in (parts.scheme, "all"):
        if kind in proxies:
            return Proxy(proxies[kind], _variable(kind))
    return None


def _usable_proxies(value_by_kind: Mapping[str, str]) -> dict[str, str]:
    """Return the URLs of the proxies that can be used, by kind. Log a warning about every other proxy."""
    proxies = {}
    for kind in ("http", "https", "all"):
        value = value_by_kind.get(kind)
        if value:
            proxy = value if "://" in value else f"http://{value}"
            if _is_usable(proxy):
                proxies[kind] = proxy
            else:
                _warn(kind, "has no URL of a proxy that can be used (SOCKS needs the package socksio), and is left out")
    return proxies


def _is_covered(no_proxy: str, parts: SplitResult) -> bool:
    """Return whether any entry of `NO_PROXY` covers a URL. Log a warning about malformed entries."""
    is_covered = False
    # The entries after a match are read, too, so that a malformed entry is reported wherever it is.
    for entry in no_proxy.lower().split(","):
        if not entry.strip():
            continue
        try:
            is_covered |= _covers(entry.strip(), parts)
        except ValueError:
            _warn("no", "has entries that cannot be read, which are left out")
    return is_covered


def _covers(entry: str, parts: SplitResult) -> bool:
    """Return whether this entry of `NO_PROXY` covers a URL, by its host, scheme and port.

    An entry is `*`, an address, a range of addresses, or a domain. A domain or an IPv4 address may have a port, and any
    entry may begin with a scheme.

    Raises: ValueError, if the entry is malformed.
    """
    scheme, _separator, host_or_range = entry.rpartition("://")
    fits_scheme = scheme in ("", "all", parts.scheme)
    host = (parts.hostname or "").rstrip(".")
    network = _network_in(host_or_range)
    if network is not None:
        return fits_scheme and _is_address(host) and ip_address(host) in network
    domain = _NO_PROXY_DOMAIN.fullmatch(host_or_range)
    if domain is None:
        raise ValueError("neither `*` nor an address, a range or a domain")
    name = domain["name"] or host  # `*` covers every host
    fits_host = host == name or (host.endswith(f".{name}") and not _is_address(host))
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    fits_port = domain["port"] in (None, str(port))
    return fits_scheme and fits_host and fits_port


def _network_in(text: str) -> IPv4Network | IPv6Network | None:
    """Return the range of addresses that a text names; None if it is neither an address nor a range."""
    try:
        return ip_network(re.sub(r"[\[\]]", "", text), strict=False)  # an IPv6 address may be in brackets
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    """Return whether this is an IP address instead of a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_usable(proxy: str) -> bool:
    """Return whether httpx can use the proxy with this URL."""
    is_socks = _SOCKS.match(proxy) is not None
    # Apart from its scheme, a SOCKS proxy's URL has the form of an http URL.
    as_http = _SOCKS.sub("http", proxy, count=1)
    # In a user or password, the characters / ? # must be percent-encoded.
    has_raw_separator = re.search("[/?#].*@", as_http.partition("://")[2]) is not None
    lacks_package = is_socks and find_spec("socksio") is None
    return is_http_url(as_http) and not has_raw_separator and not lacks_package


@cache
def _warn(kind: str, fault: str) -> None:
    """Log a fault of a variable, once in this process.

    The log does not show the value, which might contain a password.
    """
    _log.warning("%s %s", _variable(kind), fault)


def _variable(kind: str) -> str:
    """Return the name of the variable that sets the proxy of this kind, in the spelling that has priority.

    If no variable sets the proxy, return the name in lower case. On macOS and Windows, `getproxies` can also find the
    proxy in the settings of the system.
    """
    # In reverse order, lower case comes before upper case, and `getproxies` prefers the variable in lower case.
    names = sorted((name for name in os.environ if name.lower() == f"{kind}_proxy"), reverse=True)
    return next(iter(names), f"{kind}_proxy")
