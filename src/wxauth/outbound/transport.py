"""An httpx transport with its own connection pool. Its errors show whether the request might have arrived.

A request to WeChat might not be idempotent. For example, even a GET can use up the code that it contains. Therefore,
the transport sends no request twice, and a failure to connect means that the server has received no part of the
request. See docs/contribute/decisions/0005-httpx-over-our-transport.md.
"""

import asyncio
import math
import re
import ssl
from itertools import chain
from typing import Final

import httpx
from pydantic import SecretStr

from wxauth.outbound.connecting import Connector, Origin, Proxy, ProxyFailed, Resolve
from wxauth.outbound.connection import Connection, HttpAnswer

DEFAULT_MAX_BODY: Final = 64 * 1024
"""The size limit, in bytes, of a response's body, unless the request has the extension `max_body`."""
DEFAULT_MAX_CONNECTIONS: Final = 256
"""The largest number of requests that are in progress at the same time, by default."""
MAX_IDLE: Final = 128
"""The largest number of idle connections to one origin that are kept open."""
DEFAULT_IDLE_SECONDS: Final = 30.0
"""The time, in seconds, for which an idle connection is kept open by default."""
ANSWER: Final = "wxauth.answer"
"""The name of the response extension that contains the `HttpAnswer`."""
SHORTEST_SECONDS: Final = 0.05
"""The shortest remaining time, in seconds, for which a request is still sent.

If less time remains, the response would be too late.
"""

_WEIGHT_OF_LATEST: Final = 1 / 8
"""The weight of the latest response time in the moving average. TCP uses the same weight (RFC 6298, section 2)."""
_TARGET: Final = re.compile(rb"[!-~]+")
"""The pattern of a request target. A space or a line break in the target would change the request."""


class HttpTransport(httpx.AsyncBaseTransport):
    """A transport for httpx that sends each request at most once.

    Optional extensions of a request:

    - `target`: the request target (RFC 9112, section 3.2), in place of the URL's path and query. The target can contain
      secrets. If it is passed as an extension, no URL that is printed or logged contains these secrets.
    - `deadline`: the time by which the response must arrive, in the event loop's time. If too little time for a
      response remains after a connection is available, the request is not sent.
    - `max_body`: the size limit of the response's body in bytes.
    - `on_status`: a function that is called with the status. If the caller needs only the status, the function returns
      for how many seconds to wait for the body, so that the connection can be reused. Otherwise it returns None.

    If a request is cancelled, its connection is closed.

    A response has the status and the body. The body is not decoded. The extension `date` is the response's header
    `Date`, and the extension `ANSWER` is the whole `HttpAnswer`.

    The errors contain no other error, and no part of the request:

    - httpx.LocalProtocolError means that the request has an invalid target, or a body of unknown length.
    - httpx.ConnectError, httpx.ConnectTimeout and httpx.PoolTimeout mean that the server has certainly not received the
      request.
    - httpx.ReadError, httpx.ReadTimeout and httpx.RemoteProtocolError mean that the request might have arrived, but
      that no complete response has arrived.
    - httpx.DecodingError means that the response is not HTTP, or is too large.

    Args:
        connect_timeout: The time limit, in seconds, for opening a connection, including name resolution, TCP, proxy and
            TLS.
        proxy: The URL of the proxy for all requests, `http://[user:password@]host:port`. By default, there is none.
        tls: The TLS context. By default, it trusts the certificates that this machine trusts.
        resolve: The function that returns the addresses of a server or proxy. By default, the system resolves the name.
        max_connections: The largest number of requests that may be in progress at the same time. Further requests
            wait in order.
        idle_seconds: The time, in seconds, for which an idle connection is kept open.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        proxy: SecretStr | None = None,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        idle_seconds: float = DEFAULT_IDLE_SECONDS,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._proxy = None if proxy is None else Proxy.at(proxy.get_secret_value())
        self._connector = Connector(proxy=self._proxy, tls=tls, resolve=resolve)
        self._slots = asyncio.Semaphore(max_connections)
        self._idle_seconds = idle_seconds
        self._idle: dict[Origin, list[Connection]] = {}
        """The idle connections of each origin.

        The connection that was used last is at the end of the list, and is reused first. Therefore, connections that
        are not needed expire.
        """
        self._stale_timer: asyncio.TimerHandle | None = None
        """The timer of the next `_close_stale`; None if it is not set."""
        self._is_closed = False
        self._usual_seconds = 0.0
        """The moving average of the response time, in seconds."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the whole response. Raises: the errors that the class describes."""
        url = request.url
        origin = Origin(url.scheme, url.raw_host.decode(), url.port)
        # For https, the proxy only opens a tunnel.
        forward_proxy = self._proxy if origin.scheme == "http" else None
        stream = request.stream
        if isinstance(stream, httpx.ByteStream):
            body = b"".join(stream)  # if httpx has not stored the body, this is faster than `aread`
        else:
            body = await request.aread()
        request_bytes = _encoded(request, body, forward_proxy)
        deadline = request.extensions.get("deadline", math.inf)
        if self._slots.locked():
            await self._wait_for_slot(deadline)
        else:
            await self._slots.acquire()  # a slot is free, so this needs no time limit
        try:
            until = min(_now() + self._connect_timeout, deadline - SHORTEST_SECONDS)
            connection = self._take_idle(origin)
            if connection is None:
                connection = await self._connector.connect(origin, until=until)
            if _now() > deadline - SHORTEST_SECONDS:
                self._keep(connection, origin)
                raise httpx.PoolTimeout("too late to be answered")
            answer = await self._exchange(connection, request_bytes, request)
            self._keep(connection, origin)
        finally:
            self._slots.release()
        if forward_proxy is not None and answer.status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
            raise ProxyFailed("can't connect through the proxy: the proxy returned status 407")
        # The response has no header fields. If it had a Content-Encoding that nobody requested, httpx would decompress
        # the body to any size.
        response_body = httpx.ByteStream(answer.body)
        return httpx.Response(answer.status, stream=response_body, extensions={ANSWER: answer, "date": answer.date})

    async def aclose(self) -> None:
        """Close every idle connection. A connection in use is closed when its request has ended."""
        self._is_closed = True
        if self._stale_timer is not None:
            self._stale_timer.cancel()
        for connection in chain.from_iterable(self._idle.values()):
            connection.end()
        self._idle.clear()
        await asyncio.sleep(0)  # this lets the event loop close the transports

    async def _wait_for_slot(self, deadline: float) -> None:
        """Wait for a slot, and take it. Raises: httpx.PoolTimeout, if too little time for a response remains."""
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline - SHORTEST_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            pass
        else:
            # Requests wait because responses are slow. A request that cannot succeed in time would make the responses
            # even slower.
            if _now() + self._usual_seconds < deadline:
                return
            self._slots.release()
        raise httpx.PoolTimeout("all connections were in use")

    def _take_idle(self, origin: Origin) -> Connection | None:
        """Take and return the usable idle connection that was used last; None if there is none.

        End the unusable connections that this method finds before it.
        """
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.end()
        return None

    async def _exchange(self, connection: Connection, request_bytes: bytes, request: httpx.Request) -> HttpAnswer:
        """Send a request, read the response, and update the average response time.

        If the request fails or is cancelled, close the connection. Raises: the errors of `Connection.ask`.
        """
        asked_at = _now()
        extensions = request.extensions
        try:
            return await connection.ask(
                request_bytes,
                max_body=extensions.get("max_body", DEFAULT_MAX_BODY),
                has_body=request.method != "HEAD",
                on_status=extensions.get("on_status"),
                until=extensions.get("deadline", math.inf),
            )
        except BaseException:
            connection.end()
            raise
        finally:
            self._usual_seconds += (_now() - asked_at - self._usual_seconds) * _WEIGHT_OF_LATEST

    def _keep(self, connection: Connection, origin: Origin) -> None:
        """Keep a connection as idle.

        End it instead if it cannot be reused, if there are already `MAX_IDLE` idle connections to its origin, or if the
        transport is closed.
        """
        idle = self._idle.setdefault(origin, [])
        if self._is_closed or not connection.can_be_kept or len(idle) >= MAX_IDLE:
            connection.end()
            return
        connection.keep(self._idle_seconds)
        idle.append(connection)
        if self._stale_timer is None:
            self._stale_timer = asyncio.get_running_loop().call_at(connection.stale_at, self._close_stale)

    def _close_stale(self) -> None:
        """Close the connections that have been idle for too long, and set the timer for the next stale one."""
        now = _now()
        for connections in self._idle.values():
            for connection in connections:
                if connection.stale_at <= now:
                    connection.end()
            connections[:] = [connection for connection in connections if connection.stale_at > now]
        self._stale_timer = None
        next_stale_at = min(
            (connection.stale_at for connection in chain.from_iterable(self._idle.values())), default=None
        )
        if next_stale_at is not None:
            self._stale_timer = asyncio.get_running_loop().call_at(next_stale_at, self._close_stale)


def _encoded(request: httpx.Request, body: bytes, forward_proxy: Proxy | None) -> bytes:
    """Return the request as bytes. A proxy that forwards a request needs the whole URL (RFC 9112, section 3.2.2).

    Raises: httpx.LocalProtocolError, if the target is invalid, or if the length of the body is unknown.
    """
    target: bytes = request.extensions.get("target", request.url.raw_path)
    if not _TARGET.fullmatch(target) or (body and "Content-Length" not in request.headers):
        raise httpx.LocalProtocolError("must have a target without white space, and a body of known length")
    fields = b"".join([b"%b: %b\r\n" % field for field in request.headers.raw])
    if forward_proxy is not None:
        target = b"http://%b%b" % (request.url.netloc, target)
        fields += forward_proxy.authorization
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method.encode(), target, fields, body)


def _now() -> float:
    """Return the event loop's time, in seconds."""
    return asyncio.get_running_loop().time()
