"""The connections of an HTTP/1.1 client, with name resolution, TCP, TLS and forward proxies.

A client sends no part of a request before its connection is open. If a response cannot be read completely, the
connection is closed.
"""

import asyncio
import base64
import math
import re
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple, Self, cast
from urllib.parse import unquote, urlsplit

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from wxauth.i18n import Text, lazy_gettext as _

MAX_OVERHEAD: Final = 64 * 1024
"""The size limit, in bytes, of everything in a response except its body.

That is the head, the 1xx responses before it, the sizes of chunks, and the trailers.
"""

_SURELY_OPEN_SECONDS: Final = 1.0
"""The idle time, in seconds, after which wxauth asks the kernel whether the peer has closed the connection.

Before that, wxauth assumes that the connection is open, because the system call takes some µs.
"""

HEAD_START_SECONDS: Final = 0.25
"""The time, in seconds, after which the next address is tried in parallel (RFC 8305, section 5)."""
NAME_SECONDS: Final = 10.0
"""The time, in seconds, for which a resolved name is reused.

Connections that are opened at the same time resolve the name only once.
"""

_MAX_REFUSAL: Final = 64 * 1024
"""The size limit, in bytes, of a proxy's response to a CONNECT request."""
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:^|,)\s*timeout=(\d+)\s*(?:,|$)", re.IGNORECASE)
_STORED_FIELDS: Final = {
    b"date": "date",
    b"content-type": "content_type",
    b"retry-after": "retry_after",
    b"cache-control": "cache_control",
    b"location": "location",
}
"""The header fields of a response that `HttpAnswer` contains, each with the name of its attribute."""
_UNKNOWN_AUTHORITY_CODES: Final = range(18, 22)
"""OpenSSL's error codes for a self-signed certificate, or for an authority that this machine does not trust."""
STRICT_FORM_CODES: Final = range(80, 94)
"""OpenSSL's error codes that occur only with `VERIFY_X509_STRICT`, which Python 3.13 and later set by default."""


OnStatus = Callable[[int], float | None]
"""A function that is called with a response's status.

If only the status is needed, the function returns the time limit, in seconds, for the body. Otherwise it returns None.
"""

AddressInfo = tuple[Any, ...]
"""An address in the form in which getaddrinfo returns it: family, type, protocol, name, socket address."""


class HttpAnswer(NamedTuple):
    """A response. The body is not decoded, even if the response has a Content-Encoding."""

    status: int
    body: bytes
    is_encoded: bool
    """Whether the response has a Content-Encoding."""
    date: str | None = None
    content_type: str | None = None
    retry_after: str | None = None
    cache_control: str | None = None
    location: str | None = None


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._on_status: OnStatus | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reset_head()
        self.stale_at = math.inf
        """The time at which the idle connection must be closed, in the event loop's time."""
        self.can_be_kept = True
        """Whether another request may follow, because the last response was complete and keeps the connection open."""

    def ask(
        self,
        request: bytes,
        *,
        max_body: int,
        has_body: bool = True,
        on_status: OnStatus | None = None,
        until: float = math.inf,
    ) -> asyncio.Future[HttpAnswer]:
        """Send a request, and return the future of its response.

        A caller that stops waiting must close the connection, because the response may still arrive.

        `until` is the time limit of the response, in the event loop's time. `max_body` is the size limit of the body,
        in bytes. `has_body` is False if the response has no body even if its head declares one, as for HEAD. If
        `on_status` returns a number of seconds, the caller needs only the status. The request then succeeds even if the
        body is too large, cut off, or incomplete after that time.

        After a failure, the connection has been closed, and the future raises:

        - httpx.ReadError or httpx.RemoteProtocolError, if the connection ended before the response did.
        - httpx.ReadTimeout, if the response is late.
        - httpx.DecodingError, if the response is not HTTP, or is too large.

        Raises: httpx.ConnectError, if the connection was closed already. In this case, nothing was sent.
        """
        if self.transport.is_closing():
            raise httpx.ConnectError("closed before anything was sent")
        self._answer = self._loop.create_future()
        self._needs_only_status = False
        if until < math.inf:
            self._set_time_limit(until)
        self._max_body = max_body
        self._has_body = has_body
        self._on_status = on_status
        self._overhead = self._body_size = 0  # in bytes; everything outside of the body is overhead
        self._body: list[bytes] = []
        self._is_complete = self.can_be_kept = False
        self._reset_head()
        self.transport.write(request)
        return self._answer

    def keep(self, seconds: float) -> None:
        """Mark the connection as idle.

        The connection may be reused for `seconds`, or for a shorter time if the header `Keep-Alive` of the response
        names one.
        """
        self._kept_at = self._loop.time()
        self.stale_at = self._kept_at + min(seconds, self._peer_keeps_seconds)

    def is_usable(self) -> bool:
        """Return whether an idle connection is still open, as far as this machine can know."""
        now = self._loop.time()
        if self.transport.is_closing() or now >= self.stale_at:
            return False
        if now < self._kept_at + _SURELY_OPEN_SECONDS:
            return True
        # If the socket is readable, the peer has closed the connection or sent unexpected data, and the event loop has
        # not noticed yet.
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return not selector.select(0)

    def end(self) -> None:
        """Abort the connection."""
        self.transport.abort()

    # The event loop calls the following methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport when the connection is open."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse a part of the response."""
        if self._answer is None:
            self.end()  # no request is waiting for a response
            return
        is_http = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            is_http = False
        if self._overhead > MAX_OVERHEAD or self._body_size > self._max_body:
            self._fail(httpx.DecodingError("the answer is too large"))
        elif self._is_complete:
            # The connection cannot be reused if more bytes follow the response, or if part of the request has not been
            # sent yet.
            self.can_be_kept &= is_http and self.transport.get_write_buffer_size() == 0
            self._succeed()
        elif not is_http:
            self._fail(httpx.DecodingError("the answer is not HTTP"))

    def eof_received(self) -> None:
        """Handle the end of the stream: the peer has closed the connection."""
        self._handle_end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._handle_end(exc)

    # The parser calls the following methods.

    def on_message_begin(self) -> None:
        """Raise an error if bytes follow a complete response."""
        if self._is_complete:
            raise ValueError("more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header field, and ignore a trailer."""
        if self._status:
            return
        name = name.lower()
        if name in _STORED_FIELDS:
            self._fields[_STORED_FIELDS[name]] = value.decode("latin-1")
        elif name == b"content-encoding":
            self._is_encoded = value.lower() != b"identity"
        elif name in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False
        elif name == b"keep-alive":
            self._peer_keeps_seconds = _seconds_in(value)

    def on_headers_complete(self) -> None:
        """Check the status when the head is complete.

        The status 101 raises an error, because wxauth never requests an upgrade. After any other 1xx, the response
        follows.
        """
        self._status = self._parser.get_status_code()
        if self._status < httpx.codes.CONTINUE or self._status == httpx.codes.SWITCHING_PROTOCOLS:
            raise ValueError("no such answer")
        if self._status < httpx.codes.OK:
            return
        self._is_complete = not self._has_body
        seconds_for_body = None if self._on_status is None else self._on_status(self._status)
        if seconds_for_body is not None:
            self._needs_only_status = True
            self._set_time_limit(self._loop.time() + seconds_for_body)

    def on_body(self, chunk: bytes) -> None:
        """Add a part of the body."""
        self._overhead -= len(chunk)
        self._body_size += len(chunk)
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        """Note that the response, or a 1xx response before it, is complete."""
        if self._status < httpx.codes.OK:
            self._reset_head()
            self._body.clear()
        else:
            self._is_complete = True
            self.can_be_kept = self._parser.should_keep_alive()

    def _reset_head(self) -> None:
        """Reset the fields that depend on the head, because the head of another response follows."""
        self._status = 0
        self._fields: dict[str, str] = {}
        self._is_encoded = False
        self._ends_with_connection = True
        """Whether the body has no declared length, so that it ends when the peer closes the connection."""
        self._peer_keeps_seconds = math.inf
        """The time, in seconds, for which the peer keeps an idle connection open; infinite if the peer names none."""

    def _handle_end(self, exc: Exception | None) -> None:
        """Give the caller the response if it ends with the connection; otherwise give the caller a failure."""
        if self._answer is None:
            return
        if exc is not None:
            self._fail(httpx.ReadError(type(exc).__name__))
        elif self._status and self._ends_with_connection:
            self._succeed()
        elif self._overhead:
            self._fail(httpx.RemoteProtocolError("the answer was cut off"))
        else:
            self._fail(httpx.ReadError("the connection was closed without an answer"))

    def _set_time_limit(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(until, self._time_out)

    def _time_out(self) -> None:
        self._fail(httpx.ReadTimeout("no response in time"))

    def _succeed(self) -> None:
        """Give the caller the response."""
        if (answer := self._end_wait()) is not None:
            answer.set_result(HttpAnswer(self._status, b"".join(self._body), self._is_encoded, **self._fields))

    def _fail(self, failure: httpx.RequestError) -> None:
        """Give the caller the failure, or the response if the caller needs only its status. Close the connection."""
        if self._needs_only_status:
            self._succeed()  # after that, no future is left for the failure
        if (answer := self._end_wait()) is not None:
            answer.set_exception(failure)
        self.end()

    def _end_wait(self) -> asyncio.Future[HttpAnswer] | None:
        """Cancel the time limit, and return the future of the response, which the connection then no longer has.

        Return None if nobody waits for the response.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answer, self._answer = self._answer, None
        return None if answer is None or answer.done() else answer


def _seconds_in(keep_alive: bytes) -> float:
    """Return the time, in seconds, for which an idle connection may be reused, from the value of `Keep-Alive`.

    For example, the value may be `timeout=5`. If it contains no timeout, the time is infinite.
    """
    timeout = _KEEP_ALIVE_TIMEOUT.search(keep_alive)
    # The result is a second shorter than the peer's timeout, because a request takes some time to arrive.
    return math.inf if timeout is None else float(timeout[1]) - 1


class ProxyFailed(httpx.ConnectError):
    """The error if the proxy is unreachable, or refuses to open a connection to the server.

    In both cases, no request has been sent.
    """


class Refused(OSError):
    """The error if the proxy refuses a tunnel, or if the host has no allowed address.

    The message contains no text from the proxy.
    """


class Origin(NamedTuple):
    """The server at the other end of a connection."""

    scheme: str
    host: str
    named_port: int | None
    """The port in the URL; None if the URL contains no port."""

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
"""A function that returns the addresses of a server. Raises: OSError, ValueError."""


class Connector:
    """The part of a client that opens connections, through a proxy if one is given.

    Args:
        proxy: The proxy for all connections, if any.
        tls: The TLS context. By default, it trusts the certificates that this machine trusts.
        resolve: Returns the addresses of a server. By default, the system resolves its name.
    """

    def __init__(self, *, proxy: Proxy | None, tls: ssl.SSLContext | None, resolve: Resolve | None = None) -> None:
        self._proxy = proxy
        self._given_tls = tls
        self._resolve = resolve or _resolve
        self._lookups: dict[Origin | Proxy, tuple[float, asyncio.Task[Sequence[AddressInfo]]]] = {}
        """The lookups in progress, and recent ones.

        The key contains the scheme, because fewer addresses may be allowed without TLS.
        """

    async def connect(self, origin: Origin, *, until: float) -> Connection:
        """Open a connection to a server. `until` is the time limit, in the event loop's time.

        Raises: ProxyFailed, if the proxy causes the failure; httpx.ConnectTimeout, if the time limit is exceeded;
            httpx.ConnectError, after any other failure. In all these cases, no request has been sent.
        """
        proxy, is_https = self._proxy, origin.scheme == "https"
        is_at_proxy = proxy is not None  # whether the next failure would be the proxy's
        # Unless the connection is returned, `undo` closes it.
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
            # The host may have a new address, so the next attempt resolves its name again.
            self._lookups.pop(peer, None)
            raise

    async def _addresses(self, peer: Origin | Proxy) -> Sequence[AddressInfo]:
        """Return the addresses of a server or proxy, from a lookup that began at most `NAME_SECONDS` ago."""
        loop = asyncio.get_running_loop()
        asked_at, lookup = self._lookups.get(peer, (-math.inf, None))
        if lookup is None or loop.time() > asked_at + NAME_SECONDS:
            lookup = loop.create_task(self._resolve(peer))
            self._lookups[peer] = (loop.time(), lookup)
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
        if self._given_tls is not None:
            return self._given_tls
        context = ssl.create_default_context()  # this call takes 17 ms, and plain HTTP does not need it
        context.set_alpn_protocols(["http/1.1"])
        return context


async def _resolve(peer: Origin | Proxy) -> Sequence[AddressInfo]:
    return await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)


def refusal_of(exc: ssl.SSLCertVerificationError) -> Text:
    """Return OpenSSL's reason for refusing a certificate.

    Also say what to do if the authority is unknown, or if the certificate does not conform to RFC 5280.
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
    """Return the error to raise for a failure to connect. Its text contains nothing that the peer has sent.

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
    """Connect to the address that responds first. IPv6 and IPv4 addresses are tried alternately (RFC 8305).

    Raises: OSError, if there is no connection. This is the failure of the address that failed last, or an error without
        a text if there are no addresses.
    """
    families: dict[int, list[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    untried = deque(filter(None, chain.from_iterable(zip_longest(*families.values()))))
    attempts: set[asyncio.Task[Connection]] = set()
    failure: BaseException = OSError()
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.create_task(_connected(untried.popleft())))
            patience = HEAD_START_SECONDS if untried else None
            done, _pending = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                if (exc := attempt.exception()) is None:
                    return attempt.result()
                failure = exc
        raise failure
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_end_unused)


async def _connected(address: AddressInfo) -> Connection:
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
