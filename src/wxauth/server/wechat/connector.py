"""Connecting to a host: name resolution, TCP, TLS, and a forward proxy. No part of a request is sent here."""

import asyncio
import base64
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import httpx

from wxauth.server.wechat.connection import Connection

HEAD_START_SECONDS: Final = 0.25
"""Seconds after which the next address is tried in parallel (RFC 8305, section 5)."""
NAME_SECONDS: Final = 10.0
"""How long a resolved name is kept, so that connections opened at the same time resolve it only once."""

_MAX_REFUSAL: Final = 64 * 1024

SocketAddress = tuple[Any, ...]
"""An address from getaddrinfo: family, type, protocol, name, socket address."""


class ProxyFailed(httpx.ConnectError):
    """The proxy is unreachable, or refuses to connect us. Nothing has been sent to WeChat."""


class _Refused(OSError):
    """The proxy refuses a tunnel. The text is ours, and may be shown."""


class Origin(NamedTuple):
    """The server that a connection leads to."""

    scheme: str
    host: str
    named_port: int | None

    @property
    def port(self) -> int:
        """The port in the URL, or the default of its scheme."""
        return self.named_port or (443 if self.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy."""

    host: str
    port: int
    authorization: bytes = field(repr=False)
    """The header field with the proxy's credentials; empty if it needs none."""

    @classmethod
    def at(cls, url: str) -> Self:
        """The proxy at `http://[user:password@]host:port`."""
        parts = urlsplit(url)
        authorization = b""
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(credentials.encode())
        return cls(parts.hostname or "", parts.port or 80, authorization)


Resolve = Callable[[Origin | Proxy], Coroutine[Any, Any, Sequence[SocketAddress]]]
"""Returns the addresses of a server. Raises: OSError, ValueError."""


class Connector:
    """Opens connections.

    Args:
        proxy: The proxy for all connections, if any.
        tls: The certificates to trust. By default, those of this machine.
        resolve: Returns the addresses of a server. By default, all that the system knows.
    """

    def __init__(self, *, proxy: Proxy | None, tls: ssl.SSLContext | None, resolve: "Resolve | None" = None) -> None:
        self._proxy = proxy
        self._given_tls = tls
        self._resolve = resolve or _resolve
        self._lookups: dict[tuple[str, int], tuple[float, asyncio.Task[Sequence[SocketAddress]]]] = {}

    async def connect(self, origin: Origin, *, until: float) -> Connection:
        """Open a connection. `until` is the time limit, in the event loop's time.

        Raises: ProxyFailed, httpx.ConnectTimeout, httpx.ConnectError. In all these cases no request has been sent.
        """
        proxy, is_https = self._proxy, origin.scheme == "https"
        is_at_proxy = proxy is not None
        with ExitStack() as undo:
            try:
                async with asyncio.timeout_at(until):
                    connection = await self._open(proxy or origin)
                    undo.callback(connection.end)
                    if proxy is not None and is_https:
                        await _ask_for_tunnel(connection, proxy, origin)
                    is_at_proxy = False
                    if is_https:
                        connection = await self._secured(connection, origin.host)
                    undo.pop_all()
                    return connection
            except (OSError, ValueError, httpx.RequestError) as exc:  # ValueError: the host name is invalid
                failure = _failure(exc, is_at_proxy=is_at_proxy)
        raise failure  # outside the `except`, because the peer's text must not even be this error's context

    async def _open(self, end: Origin | Proxy) -> Connection:
        try:
            return await _first_connected(await self._addresses(end))
        except OSError:
            self._lookups.pop((end.host, end.port), None)  # the host may have moved: resolve its name again
            raise

    async def _addresses(self, end: Origin | Proxy) -> Sequence[SocketAddress]:
        loop = asyncio.get_running_loop()
        asked_at, lookup = self._lookups.get((end.host, end.port), (-math.inf, None))
        if lookup is None or loop.time() > asked_at + NAME_SECONDS:
            lookup = loop.create_task(self._resolve(end))
            self._lookups[end.host, end.port] = (loop.time(), lookup)
        return await asyncio.shield(lookup)

    async def _secured(self, connection: Connection, host: str) -> Connection:
        secured, loop, under = Connection(), asyncio.get_running_loop(), connection.transport
        if not under.is_closing():  # on a closing transport, the handshake would never end
            over = await loop.start_tls(under, secured, self._tls, server_hostname=host)
            if over is not None:
                secured.connection_made(over)
                return secured
        raise ConnectionResetError

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        if self._given_tls is not None:
            return self._given_tls
        context = ssl.create_default_context()  # takes 17 ms, and plain HTTP does not need it
        context.set_alpn_protocols(["http/1.1"])
        return context


async def _resolve(end: Origin | Proxy) -> Sequence[SocketAddress]:
    return await asyncio.get_running_loop().getaddrinfo(end.host, end.port, type=socket.SOCK_STREAM)


def _failure(exc: Exception, *, is_at_proxy: bool) -> httpx.TransportError:
    match exc:
        case TimeoutError():
            reason = "no answer in time"
        case ssl.SSLCertVerificationError():
            reason = f"{type(exc).__name__}: {exc.verify_message}"
        case _Refused() | httpx.RequestError():
            reason = str(exc)
        case _:
            reason = type(exc).__name__
    if is_at_proxy:
        return ProxyFailed(f"no way through the proxy: {reason}")
    return httpx.ConnectTimeout(reason) if isinstance(exc, TimeoutError) else httpx.ConnectError(reason)


async def _ask_for_tunnel(connection: Connection, proxy: Proxy, origin: Origin) -> None:
    """Have the proxy open a tunnel to the origin (RFC 9110, section 9.3.6)."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    head = f"CONNECT {host}:{origin.port} HTTP/1.1\r\nHost: {host}:{origin.port}\r\n"
    request = head.encode() + proxy.authorization + b"\r\n"
    answer = await connection.ask(request, max_body=_MAX_REFUSAL, has_body=False)
    if not httpx.codes.is_success(answer.status):
        raise _Refused(f"it answers with status {answer.status}")
    if answer.body:  # in TLS the client speaks first, so these bytes are the proxy's own
        raise _Refused("it says more than it was asked")


async def _first_connected(addresses: Sequence[SocketAddress]) -> Connection:
    """Connect to the address that answers first. IPv6 and IPv4 addresses are tried alternately (RFC 8305)."""
    families: dict[int, list[SocketAddress]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    untried = deque(filter(None, chain.from_iterable(zip_longest(*families.values()))))
    attempts: set[asyncio.Task[Connection]] = set()
    failure: BaseException | None = OSError()
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.create_task(_connected(untried.popleft())))
            patience = HEAD_START_SECONDS if untried else None
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                failure = attempt.exception()
                if failure is None:
                    return attempt.result()
        raise failure or OSError()
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_end)


async def _connected(address: SocketAddress) -> Connection:
    # No socket of our own is passed in: if it were reset before uvloop took it over, its file descriptor would be
    # closed twice, and by then might belong to another connection.
    family, _, protocol, _, (host, port, *_) = address
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, host, port, family=family, proto=protocol))[1]


def _end(attempt: asyncio.Task[Connection]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().end()
