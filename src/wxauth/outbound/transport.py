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

DEFAULT_MAX_BODY: Final = 64 * 1024  # WeChat's JSON needs a few KB
DEFAULT_MAX_CONNECTIONS: Final = 256  # requests in progress
MAX_IDLE: Final = 128  # connections to one origin; more are needed only while its responses are slow
DEFAULT_IDLE_SECONDS: Final = 30.0
ANSWER: Final = "wxauth.answer"  # the response extension with the `HttpAnswer`
SHORTEST_SECONDS: Final = 0.05  # with less time, the response would be too late, so the request isn't sent

_WEIGHT_OF_LATEST: Final = 1 / 8  # of the moving average, as in TCP (RFC 6298, section 2)
_TARGET: Final = re.compile(rb"[!-~]+")  # a space or a line break would change the request


class HttpTransport(httpx.AsyncBaseTransport):
    """A transport for httpx that sends each request at most once.

    Optional extensions of a request:

    - `target`: the request target (RFC 9112, section 3.2), in place of the URL's path and query. It can contain
      secrets, which no URL that is printed or logged then contains.
    - `deadline`: the time by which the response must arrive, in the event loop's time. If too little time for a
      response remains after a connection is available, the request is not sent.
    - `max_body`: the size limit of the response's body in bytes.
    - `on_status`: a function that is called with the status. If the caller needs only the status, the function returns
      for how many seconds to wait for the body, so that the connection can be reused. Otherwise it returns None.

    The errors contain no other error, and no part of the request:

    - httpx.LocalProtocolError means that the request has an invalid target, or a body of unknown length.
    - httpx.ConnectError, httpx.ConnectTimeout and httpx.PoolTimeout mean that the server has certainly not received the
      request.
    - httpx.ReadError, httpx.ReadTimeout and httpx.RemoteProtocolError mean that the request might have arrived, but
      that no complete response has arrived.
    - httpx.DecodingError means that the response is not HTTP, or is too large.
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
        # The one that was used last is at the end, and is reused first, so that connections that are not needed expire.
        self._idle: dict[Origin, list[Connection]] = {}
        self._stale_timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._usual_seconds = 0.0  # the moving average of the response time

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
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
        loop = asyncio.get_running_loop()
        try:
            connection = self._take_idle(origin)
            if connection is None:
                until = min(loop.time() + self._connect_timeout, deadline - SHORTEST_SECONDS)
                connection = await self._connector.connect(origin, until=until)
            if loop.time() > deadline - SHORTEST_SECONDS:
                self._keep(connection, origin)
                raise httpx.PoolTimeout("too late to be answered")
            answer = await self._exchange(connection, request_bytes, request)
            self._keep(connection, origin)
        finally:
            self._slots.release()
        if forward_proxy is not None and answer.status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
            raise ProxyFailed("can't connect through the proxy: the proxy returned status 407")
        # The response has no header fields. If it had a Content-Encoding that nobody requested, httpx would decompress
        # the body to any size. `wxauth check` reads the server's clock from the extension `date`.
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
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline - SHORTEST_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            pass
        else:
            # Requests wait because responses are slow. A request that cannot succeed in time would make the responses
            # even slower.
            if asyncio.get_running_loop().time() + self._usual_seconds < deadline:
                return
            self._slots.release()
        raise httpx.PoolTimeout("all connections were in use")

    def _take_idle(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.end()
        return None

    async def _exchange(self, connection: Connection, request_bytes: bytes, request: httpx.Request) -> HttpAnswer:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
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
            self._usual_seconds += (loop.time() - asked_at - self._usual_seconds) * _WEIGHT_OF_LATEST

    def _keep(self, connection: Connection, origin: Origin) -> None:
        idle = self._idle.get(origin, [])
        if self._is_closed or not connection.can_be_kept or len(idle) >= MAX_IDLE:
            connection.end()
            return
        connection.keep(self._idle_seconds)
        idle.append(connection)
        self._idle[origin] = idle
        if self._stale_timer is None:
            self._stale_timer = asyncio.get_running_loop().call_at(connection.stale_at, self._close_stale)

    def _close_stale(self) -> None:
        now = asyncio.get_running_loop().time()
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if connection.stale_at <= now:
                    connection.end()
            connections[:] = [connection for connection in connections if connection.stale_at > now]
            if not connections:  # clients choose some of the origins, so there can be any number of them
                del self._idle[origin]
        self._stale_timer = None
        next_stale_at = min(
            (connection.stale_at for connection in chain.from_iterable(self._idle.values())), default=None
        )
        if next_stale_at is not None:
            self._stale_timer = asyncio.get_running_loop().call_at(next_stale_at, self._close_stale)


def _encoded(request: httpx.Request, body: bytes, forward_proxy: Proxy | None) -> bytes:
    target: bytes = request.extensions.get("target", request.url.raw_path)
    if not _TARGET.fullmatch(target) or (body and "Content-Length" not in request.headers):
        raise httpx.LocalProtocolError("must have a target without white space, and a body of known length")
    fields = b"".join([b"%b: %b\r\n" % field for field in request.headers.raw])
    if forward_proxy is not None:
        target = b"http://%b%b" % (request.url.netloc, target)  # the whole URL (RFC 9112, section 3.2.2)
        fields += forward_proxy.authorization
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method.encode(), target, fields, body)
