"""The client address, scheme and path of a request behind reverse proxies.

In a comparison with eleven forms of `X-Forwarded-For`, the `ProxyHeadersMiddleware` of uvicorn 0.54 read only one form
in the same way as this module. With `*`, uvicorn takes the first entry, which the client itself writes. It does not
find `::ffff:10.1.2.3` in `10.0.0.0/8`, and it accepts any text as an address. This module can be removed when uvicorn
reads these forms correctly.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_network
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from wxauth.core.logs import get_logger
from wxauth.settings.addresses import plain_address

log = get_logger()

# With this value, wxauth trusts every peer, and takes the last entry of `X-Forwarded-For` as the client.
ANYBODY: Final = "*"

_MAX_PROXIES: Final = 32  # behind more, the client's entry is not looked for
_MAX_ENTRY: Final = 64  # bytes: an IPv6 address with a zone, brackets and a port is shorter
_CACHED_ENTRIES: Final = 4096
# The groups are an IPv6 address in brackets, an IPv4 address, and an IPv6 address without brackets. The first two may
# have a port.
_ENTRY: Final = re.compile(r"\[([^]]+)\](?::\d{1,5})?|([^:]+)(?::\d{1,5})?|(.+)")
# The zone of a proxy's IPv6 address, for example `%eth0`, is ignored, because it has a meaning only on one machine.
_ZONE: Final = re.compile(r"%[^/]*")
_MAPPED_PREFIX: Final = "::ffff:"  # of a peer's IPv4 address on a socket for both IPv6 and IPv4
_SCHEMES: Final = {b"http": "http", b"https": "https"}


class _Host(NamedTuple):
    address: str | None
    is_trusted: bool


_NO_HOST: Final = _Host(None, is_trusted=False)


class BehindProxies:
    """Middleware that puts the client's address and scheme into the scope if the peer is a trusted proxy.

    Each proxy appends the address of its own peer to `X-Forwarded-For`, so the client is the last entry that is not a
    trusted proxy. The entries before that entry are ignored, because the client may have written them itself.

    Args:
        trusted: The addresses and networks of the proxies, or only `ANYBODY`.
        root_path: The issuer's path, whether or not a proxy has removed it. If empty, the server's own path is used.
        gateway_path: The path at which gateways ask whether to admit a request of a client.
        as_question: Removes the parts of the client's request from a scope whose path contains `gateway_path`.
    """

    def __init__(
        self,
        app: ASGIApp,
        trusted: Iterable[str],
        *,
        root_path: str = "",
        gateway_path: str | None = None,
        as_question: Callable[[Scope], Scope] = lambda scope: scope,
    ) -> None:
        self._app = app
        self._gateway_path = gateway_path
        self._as_question = as_question
        self._root_path = root_path
        trusted = tuple(trusted)
        self._trusts_anybody = trusted == (ANYBODY,)
        self._trusted = [] if self._trusts_anybody else [ip_network(_ZONE.sub("", item)) for item in trusted]
        self._parse_cached = lru_cache(_CACHED_ENTRIES)(self._parse_entry)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["root_path"] = self._root_path or scope.get("root_path", "")
            peer = scope.get("client")
            if peer is not None and peer[0].startswith(_MAPPED_PREFIX):
                scope["client"] = (peer[0].removeprefix(_MAPPED_PREFIX), peer[1])
            self._apply_forwarded_headers(scope)
            # This test is only coarse, because `as_question` decides.
            if self._gateway_path is not None and self._gateway_path in scope["path"]:
                scope = self._as_question(scope)
        await self._app(scope, receive, send)

    def _apply_forwarded_headers(self, scope: Scope) -> None:
        # Several `X-Forwarded-For` fields count as one list.
        forwarded_for: list[bytes] = []
        scheme = None
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                forwarded_for.append(value)
            elif name == b"x-forwarded-proto":
                # The nearest proxy writes the last field. A list does not tell which of its schemes is the client's.
                scheme = _SCHEMES.get(value)
        if not forwarded_for and scheme is None:
            return
        peer = scope.get("client")
        if not (self._trusts_anybody or (peer is not None and self._host_in(peer[0].encode()).is_trusted)):
            if forwarded_for:
                self._warn_once(peer)
            return
        if scheme is not None:
            scope["scheme"] = scheme
        if forwarded_for:
            address = self._client_of(forwarded_for)
            if address is not None:
                scope["client"] = (address, 0)  # the client's port is unknown

    def _client_of(self, forwarded_for: list[bytes]) -> str | None:
        # If there are more than `_MAX_PROXIES` commas, the first item contains several entries, and is not an address.
        entries = b",".join(forwarded_for).rsplit(b",", _MAX_PROXIES)
        if self._trusts_anybody:
            return self._host_in(entries[-1]).address
        host = _NO_HOST
        for entry in reversed(entries):
            host = self._host_in(entry)
            if not host.is_trusted:
                break
        # If all entries are trusted proxies, `host` is the first entry.
        return host.address

    def _host_in(self, entry: bytes) -> _Host:
        entry = entry.strip()
        return _NO_HOST if len(entry) > _MAX_ENTRY else self._parse_cached(entry)

    def _parse_entry(self, entry: bytes) -> _Host:
        match = _ENTRY.fullmatch(entry.decode("latin-1"))
        # In a match, exactly one group takes part. Its text is the address, unless the entry is not an address.
        text = "" if match is None or match.lastindex is None else match[match.lastindex]
        try:
            address = plain_address(text)
        except ValueError:  # for example "unknown", a name or a Unix socket
            return _NO_HOST
        return _Host(str(address), any(address in network for network in self._trusted))

    def _warn_once(self, peer: tuple[str, int] | None) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "forwarded_for_not_trusted",
                peer=None if peer is None else peer[0],
                consequence="its clients all count as one",
                what_to_change="if it is your reverse proxy, put its address into WXAUTH_TRUSTED_PROXIES",
            )
