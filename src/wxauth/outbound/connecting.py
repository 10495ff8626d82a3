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

from wxauth.core.background import retrieve_exception
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.outbound.connection import Connection

HEAD_START_SECONDS: Final = 0.25  # before the next address is tried in parallel (RFC 8305, section 5)
ADDRESSES_REUSED_SECONDS: Final = 10.0  # since the lookup of a name began

_MAX_REFUSAL: Final = 64 * 1024  # bytes of a proxy's response to a CONNECT request
_UNKNOWN_AUTHORITY_CODES: Final = range(18, 22)  # OpenSSL: self-signed, or an untrusted authority
STRICT_FORM_CODES: Final = range(80, 94)  # OpenSSL: only with `VERIFY_X509_STRICT`, a default from Python 3.13 on

AddressInfo = tuple[Any, ...]
"""An address in the form in which getaddrinfo returns it: family, type, protocol, name, socket address."""


class ProxyFailed(httpx.ConnectError):
    """The proxy is unreachable, or refuses a connection or a request. The server has not received a request."""

    status: int | None = None  # that the proxy returned in response to CONNECT


class Refused(OSError):
    """The proxy refuses a tunnel or sends unexpected data after it, or no allowed address has been found.

    The message contains no text from the proxy.
    """

    def __init__(self, reason: Text, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class Origin(NamedTuple):
    """The server that a request is for. A connection may reach it through a proxy."""

    scheme: str
    host: str
    named_port: int | None  # None for the scheme's default port

    @property
    def port(self) -> int:
        """The port in the URL, or the default port of the scheme."""
        return self.named_port or (443 if self.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class Proxy:
    scheme: str  # of the connection to the proxy; WECHAT_PROXY allows only http
    host: str
    port: int
    authorization: bytes = field(repr=False)  # a header field

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the proxy at `http[s]://[user:password@]host:port`, which the settings have checked."""
        parts = urlsplit(url)
        authorization = b""
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(credentials.encode())
        return cls(parts.scheme, parts.hostname or "", parts.port or 80, authorization)


Resolve = Callable[[Origin | Proxy], Coroutine[Any, Any, Sequence[AddressInfo]]]  # raises OSError, ValueError


class Connector:
    """Opens connections, through a proxy if one is given. By default, the system resolves names."""

    def __init__(self, *, proxy: Proxy | None, tls: ssl.SSLContext | None, resolve: Resolve | None = None) -> None:
        self._proxy = proxy
        self._given_tls = tls
        self._resolve = resolve or _resolve
        # The values are the time at which the lookup began, and its task. The key contains the scheme, because fewer
        # addresses might be allowed without TLS.
        self._lookups: dict[Origin | Proxy, tuple[float, asyncio.Task[Sequence[AddressInfo]]]] = {}

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
                    if proxy is not None and proxy.scheme == "https":
                        connection = await self._secured(connection, proxy.host)
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
        try:
            return await _first_connected(await self._addresses(peer))
        except OSError:
            # The host might have a new address, so the next attempt resolves its name again.
            self._lookups.pop(peer, None)
            raise

    async def _addresses(self, peer: Origin | Proxy) -> Sequence[AddressInfo]:
        loop = asyncio.get_running_loop()
        asked_at, lookup = self._lookups.get(peer, (-math.inf, None))
        if lookup is None or loop.time() > asked_at + ADDRESSES_REUSED_SECONDS:
            lookup = loop.create_task(self._resolve(peer))
            lookup.add_done_callback(retrieve_exception)
            self._lookups[peer] = (loop.time(), lookup)
        # If this request is cancelled, the lookup goes on, because other requests might wait for it, too.
        return await asyncio.shield(lookup)

    async def _secured(self, connection: Connection, host: str) -> Connection:
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
        if self._given_tls is not None:
            return self._given_tls
        context = ssl.create_default_context()  # this call takes 17 ms, and plain HTTP does not need it
        context.set_alpn_protocols(["http/1.1"])
        return context


async def _resolve(peer: Origin | Proxy) -> Sequence[AddressInfo]:
    return await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)


def refusal_of(exc: ssl.SSLCertVerificationError) -> Text:
    """Explain why OpenSSL refuses a certificate, and what to do about it."""
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
    match exc:
        case TimeoutError():
            reason: str = _("no response in time")
        case ssl.SSLCertVerificationError():
            reason = _("{name}: {rule}", name=type(exc).__name__, rule=refusal_of(exc))
        case Refused() | httpx.RequestError():
            reason = exc.args[0]
        case _:
            reason = type(exc).__name__  # the message might contain text from the peer
    if is_at_proxy:
        failure = ProxyFailed(_("can't connect through the proxy: {reason}", reason=reason))
        failure.status = exc.status if isinstance(exc, Refused) else None
        return failure
    return httpx.ConnectTimeout(reason) if isinstance(exc, TimeoutError) else httpx.ConnectError(reason)


async def _ask_for_tunnel(connection: Connection, proxy: Proxy, origin: Origin) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    head = f"CONNECT {host}:{origin.port} HTTP/1.1\r\nHost: {host}:{origin.port}\r\n"  # RFC 9110, section 9.3.6
    request = head.encode() + proxy.authorization + b"\r\n"
    answer = await connection.ask(request, max_body=_MAX_REFUSAL, has_body=False)
    if not httpx.codes.is_success(answer.status):
        raise Refused(_("the proxy returned status {status}", status=answer.status), status=answer.status)
    # In TLS, the client sends the first bytes, so the proxy itself must have sent these bytes.
    if answer.body:
        raise Refused(_("the proxy returned more data than requested"))


# IPv6 and IPv4 addresses alternate, each `HEAD_START_SECONDS` after the previous one, or as soon as an attempt fails
# (RFC 8305).
async def _first_connected(addresses: Sequence[AddressInfo]) -> Connection:
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
    families: dict[int, list[AddressInfo]] = {}
    for address in addresses:
        family = address[0]
        families.setdefault(family, []).append(address)
    return [address for group in zip_longest(*families.values()) for address in group if address is not None]


async def _connected(address: AddressInfo) -> Connection:
    # uvloop creates the socket. If wxauth passed in a socket, and the peer reset it before uvloop took it over, its
    # file descriptor would be closed twice. The second time, the descriptor might belong to another connection.
    family, _type, protocol, _name, (host, port, *_flow_and_scope) = address
    loop = asyncio.get_running_loop()
    _transport, connection = await loop.create_connection(Connection, host, port, family=family, proto=protocol)
    return connection


def _end_unused(attempt: asyncio.Task[Connection]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().end()
