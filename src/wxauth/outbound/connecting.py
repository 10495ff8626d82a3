"""The opening of connections for an HTTP/1.1 client, with name resolution, TCP, TLS and forward proxies.

A client sends no part of a request before its connection is open.
"""

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
from itertools import zip_longest
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import httpx

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.outbound.connection import Connection

HEAD_START_SECONDS: Final = 0.25
"""The time, in seconds, that an address has before the next one is tried in parallel (RFC 8305, section 5)."""
NAME_SECONDS: Final = 10.0
"""The time, in seconds, for which a resolved name is reused.

Connections to one host that are opened at the same time share one lookup.
"""

_MAX_REFUSAL: Final = 64 * 1024
"""The size limit, in bytes, of the body of a proxy's response to a CONNECT request."""
_UNKNOWN_AUTHORITY_CODES: Final = range(18, 22)
"""OpenSSL's error codes for a self-signed certificate, or for an authority that this machine does not trust."""
STRICT_FORM_CODES: Final = range(80, 94)
"""OpenSSL's error codes that occur only with `VERIFY_X509_STRICT`, which Python 3.13 and later set by default."""

AddressInfo = tuple[Any, ...]
"""An address in the form in which getaddrinfo returns it: family, type, protocol, name, socket address."""


class ProxyFailed(httpx.ConnectError):
    """The error for a proxy that is unreachable, or refuses to pass on a connection or a request.

    In all these cases, the server has not received a request.
    """


class Refused(OSError):
    """The error for a tunnel that the proxy refuses, or a host whose name does not resolve to an allowed address.

    A proxy that sends unexpected data after it has opened a tunnel causes this error, too. The message contains no text
    from the proxy.
    """


class Origin(NamedTuple):
    """The server that a request is for. A connection may reach it through a proxy."""

    scheme: str
    host: str
    named_port: int | None
    """The port in the URL; None if the URL contains no port, or the default port of the scheme."""

    @property
    def port(self) -> int:
        """The port in the URL, or the default port of the scheme."""
        return self.named_port or (443 if self.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy."""

    host: str
    port: int
    authorization: bytes = field(repr=False)
    """The header field with the credentials for the proxy; empty if the URL contains none."""

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the proxy at `http://[user:password@]host:port`. The settings have checked this URL."""
        parts = urlsplit(url)
        authorization = b""
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(credentials.encode())
        return cls(parts.hostname or "", parts.port or 80, authorization)


Resolve = Callable[[Origin | Proxy], Coroutine[Any, Any, Sequence[AddressInfo]]]
"""A function that returns the addresses of a server or proxy. Raises: OSError, ValueError."""


class Connector:
    """The part of a client that opens connections, through a proxy if one is given.

    Args:
        proxy: The proxy for all connections, if any.
        tls: The TLS context. By default, it trusts the certificates that this machine trusts.
        resolve: The function that returns the addresses of a server or proxy. By default, the system resolves the name.
    """

    def __init__(self, *, proxy: Proxy | None, tls: ssl.SSLContext | None, resolve: Resolve | None = None) -> None:
        self._proxy = proxy
        self._given_tls = tls
        self._resolve = resolve or _resolve
        self._lookups: dict[Origin | Proxy, tuple[float, asyncio.Task[Sequence[AddressInfo]]]] = {}
        """The latest lookup of each server or proxy, and the time at which it began.

        The key contains the scheme, because fewer addresses might be allowed without TLS.
        """

    async def connect(self, origin: Origin, *, until: float) -> Connection:
        """Open a connection to a server. `until` is the time limit, in the event loop's time.

        Raises: ProxyFailed, if the proxy causes the failure; httpx.ConnectTimeout, if the time limit is exceeded;
            httpx.ConnectError, after any other failure. In all these cases, no request has been sent.
        """
        proxy = self._proxy
        is_https = origin.scheme == "https"
        is_at_proxy = proxy is not None  # until the connection to the server is open, a failure is the proxy's
        # If an error occurs, `undo` closes the connection.
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
            except (OSError, ValueError, httpx.RequestError) as exc:
                # A ValueError means that the host name is invalid.
                failure = _failure(exc, is_at_proxy=is_at_proxy)
        # The failure is raised outside of the `except` block, so that its context does not contain text from the peer.
        raise failure

    async def _open(self, peer: Origin | Proxy) -> Connection:
        """Open a TCP connection to a server or proxy. Raises: OSError; ValueError, if the host name is invalid."""
        try:
            return await _first_connected(await self._addresses(peer))
        except OSError:
            # The host might have a new address, so the next attempt resolves its name again.
            self._lookups.pop(peer, None)
            raise

    async def _addresses(self, peer: Origin | Proxy) -> Sequence[AddressInfo]:
        """Return the addresses of a server or proxy, from a lookup that began at most `NAME_SECONDS` ago.

        Raises: OSError, ValueError.
        """
        loop = asyncio.get_running_loop()
        asked_at, lookup = self._lookups.get(peer, (-math.inf, None))
        if lookup is None or loop.time() > asked_at + NAME_SECONDS:
            lookup = loop.create_task(self._resolve(peer))
            self._lookups[peer] = (loop.time(), lookup)
        # If this request is cancelled, the lookup goes on, because other requests might wait for it, too.
        return await asyncio.shield(lookup)

    async def _secured(self, connection: Connection, host: str) -> Connection:
        """Return a connection that uses TLS over this connection. Raises: OSError, if the TLS handshake fails."""
        plain = connection.transport
        if plain.is_closing():  # the handshake would never end
            raise ConnectionResetError
        secured = Connection()
        transport = await asyncio.get_running_loop().start_tls(plain, secured, self._tls, server_hostname=host)
        if transport is None:  # the connection was closed during the handshake
            raise ConnectionResetError
        secured.connection_made(transport)
        return secured

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The TLS context. It is created for the first TLS connection, unless it was given."""
        if self._given_tls is not None:
            return self._given_tls
        context = ssl.create_default_context()  # this call takes 17 ms, and plain HTTP does not need it
        context.set_alpn_protocols(["http/1.1"])
        return context


async def _resolve(peer: Origin | Proxy) -> Sequence[AddressInfo]:
    """Look up the addresses of a server or proxy with the system's resolver.

    Raises: OSError, if the name cannot be resolved; ValueError, if it is not a valid host name.
    """
    return await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)


def refusal_of(exc: ssl.SSLCertVerificationError) -> Text:
    """Return a text with OpenSSL's reason for refusing a certificate.

    If the authority is unknown, or if the certificate does not conform to RFC 5280, the text also says what to do.
    """
    reason = exc.verify_message
    if exc.verify_code in _UNKNOWN_AUTHORITY_CODES:
        return _(
            "{reason}. To trust this certificate, set SSL_CERT_FILE to the file of its certificate authority",
            reason=reason,
        )
    if exc.verify_code not in STRICT_FORM_CODES:
        return Text("{reason}", reason=reason)
    return _(
        "{reason}. Python 3.13 and later require certificates that conform to RFC 5280. Ask the "
        "certificate authority to issue a new certificate",
        reason=reason,
    )


def _failure(exc: Exception, *, is_at_proxy: bool) -> httpx.TransportError:
    """Return the error to raise for a failure to connect. It contains no text from the peer.

    `is_at_proxy` says whether the proxy, and not the server, has caused the failure.
    """
    match exc:
        case TimeoutError():
            reason: str = _("no response in time")
        case ssl.SSLCertVerificationError():
            reason = _("{name}: {rule}", name=type(exc).__name__, rule=refusal_of(exc))
        case Refused() | httpx.RequestError():
            reason = exc.args[0]
        case _:
            reason = type(exc).__name__
    if is_at_proxy:
        return ProxyFailed(_("can't connect through the proxy: {reason}", reason=reason))
    return httpx.ConnectTimeout(reason) if isinstance(exc, TimeoutError) else httpx.ConnectError(reason)


async def _ask_for_tunnel(connection: Connection, proxy: Proxy, origin: Origin) -> None:
    """Ask the proxy to open a tunnel to the origin (RFC 9110, section 9.3.6).

    Raises: Refused, if the proxy does not open the tunnel, or sends unexpected data; httpx.RequestError, if it sends no
        complete response.
    """
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    head = f"CONNECT {host}:{origin.port} HTTP/1.1\r\nHost: {host}:{origin.port}\r\n"
    request = head.encode() + proxy.authorization + b"\r\n"
    answer = await connection.ask(request, max_body=_MAX_REFUSAL, has_body=False)
    if not httpx.codes.is_success(answer.status):
        raise Refused(_("the proxy returned status {status}", status=answer.status))
    # In TLS, the client sends the first bytes, so the proxy itself must have sent these bytes.
    if answer.body:
        raise Refused(_("the proxy returned more data than requested"))


async def _first_connected(addresses: Sequence[AddressInfo]) -> Connection:
    """Return a connection to the first address that accepts one.

    IPv6 and IPv4 addresses are tried alternately, each `HEAD_START_SECONDS` after the previous one, or as soon as an
    attempt fails (RFC 8305).

    Raises: OSError, if no attempt succeeds. The error is the failure of the address that failed last, or an error
        without a text if there are no addresses.
    """
    untried = deque(_alternating(addresses))
    attempts: set[asyncio.Task[Connection]] = set()
    failure: BaseException = OSError()
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.create_task(_connected(untried.popleft())))
            head_start = HEAD_START_SECONDS if untried else None
            done, _pending = await asyncio.wait(attempts, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                exc = attempt.exception()
                if exc is None:
                    return attempt.result()
                failure = exc
        raise failure
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_end_unused)


def _alternating(addresses: Sequence[AddressInfo]) -> Sequence[AddressInfo]:
    """Return the addresses in the order in which they are tried: the first of each family, then the second, and so on.

    The families are IPv4 and IPv6. The family of the first address comes first.
    """
    families: dict[int, list[AddressInfo]] = {}
    for address in addresses:
        family = address[0]
        families.setdefault(family, []).append(address)
    return [address for group in zip_longest(*families.values()) for address in group if address is not None]


async def _connected(address: AddressInfo) -> Connection:
    """Return a new connection to an address. Raises: OSError."""
    # uvloop creates the socket. If wxauth passed in a socket, and the peer reset it before uvloop took it over, its
    # file descriptor would be closed twice. The second time, the descriptor might belong to another connection.
    family, _type, protocol, _name, (host, port, *_flow_and_scope) = address
    loop = asyncio.get_running_loop()
    _transport, connection = await loop.create_connection(Connection, host, port, family=family, proto=protocol)
    return connection


def _end_unused(attempt: asyncio.Task[Connection]) -> None:
    """End the connection of an attempt that succeeded before it could be cancelled."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().end()
