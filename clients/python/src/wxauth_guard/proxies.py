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

# This pattern matches an entry of `NO_PROXY` that is `*`, or a domain or IPv4 address with or without a port.
_NO_PROXY_DOMAIN: Final = re.compile(r"\*|\*?\.?(?P<name>\w[\w-]*(?:\.[\w-]+)*)(?::(?P<port>\d+))?")
_BRACKETS: Final = re.compile(r"\[([^][]*)\](?=/|\Z)")  # around an IPv6 address, which may have a range, but no port
_SOCKS: Final = re.compile(r"socks5h?(?=://)", re.IGNORECASE)  # the SOCKS proxies that httpx supports
_log = logging.getLogger(__name__)


class Proxy(NamedTuple):
    """A proxy, and the variable that sets it, for example `HTTPS_PROXY` or `all_proxy`."""

    url: str
    variable: str


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for this URL; None if there is no proxy, or if `NO_PROXY` covers the URL.

    A variable that cannot be used is ignored, after one warning in the log, even if this URL uses another variable.
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
    """Return whether this entry of `NO_PROXY` covers a URL.

    An entry is `*`, an address, a range of addresses, or a domain. A domain or an IPv4 address may have a port, and any
    entry may begin with a scheme.
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
    try:
        return ip_network(_BRACKETS.sub(r"\1", text), strict=False)
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_usable(proxy: str) -> bool:
    is_socks = _SOCKS.match(proxy) is not None
    # Apart from its scheme, a SOCKS proxy's URL has the form of an http URL.
    as_http = _SOCKS.sub("http", proxy, count=1)
    # In a user or password, the characters / ? # must be percent-encoded.
    has_raw_separator = re.search("[/?#].*@", as_http.partition("://")[2]) is not None
    lacks_package = is_socks and find_spec("socksio") is None
    return is_http_url(as_http) and not has_raw_separator and not lacks_package


@cache  # so that each fault is logged once
def _warn(kind: str, fault: str) -> None:
    # The value of the variable might contain a password, so the log does not show it.
    _log.warning("%s %s", _variable(kind), fault)


def _variable(kind: str) -> str:
    # In reverse order, lower case comes before upper case, and `getproxies` prefers the variable in lower case.
    names = sorted((name for name in os.environ if name.lower() == f"{kind}_proxy"), reverse=True)
    # On macOS and Windows, `getproxies` can also find the proxy in the settings of the system.
    return next(iter(names), f"{kind}_proxy")
