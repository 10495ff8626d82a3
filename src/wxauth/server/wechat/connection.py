"""An HTTP/1.1 client connection. If an answer cannot be read completely, the connection is ended."""

import asyncio
import math
import selectors
from typing import Final, NamedTuple, cast

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_OVERHEAD: Final = 64 * 1024
"""Bytes of an answer besides its body: head, earlier 1xx answers, chunk sizes and extensions, trailers."""

_SURELY_OPEN_SECONDS: Final = 1.0
"""Seconds of idle time after which the kernel is asked whether the peer has closed, which takes some µs."""


class HttpAnswer(NamedTuple):
    """An answer. Its body is not decoded, even if it has a Content-Encoding."""

    status: int
    body: bytes
    date: str | None
    content_type: str | None
    is_encoded: bool
    """Whether it has a Content-Encoding."""


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._date: str | None = None
        self._content_type: str | None = None
        self._begin_head()
        self.stale_at = math.inf
        """When the idle connection must be closed, in the event loop's time."""
        self.can_be_kept = True
        """Whether another request may follow, because the last answer was complete and keeps the connection open."""

    def ask(self, request: bytes, *, max_body: int, has_body: bool = True) -> asyncio.Future[HttpAnswer]:
        """Send a request. A caller that stops waiting for the answer must end the connection.

        `has_body` is False if the answer has no body even if its head says so, as for HEAD.

        Raises: httpx.ConnectError, if the connection is closed already, so that nothing was sent. The future raises
            httpx.ReadError or httpx.RemoteProtocolError, if the connection ends before the answer does, and
            httpx.DecodingError, if the answer is not HTTP or too large. The connection is then ended.
        """
        if self.transport.is_closing():
            raise httpx.ConnectError("closed before anything was sent")
        self._answer = self._loop.create_future()
        self._max_body = max_body
        self._has_body = has_body
        self._overhead = self._body_size = 0
        self._body: list[bytes] = []
        self._is_complete = self.can_be_kept = False
        self._begin_head()
        self.transport.write(request)
        return self._answer

    def keep(self, seconds: float) -> None:
        """Mark the connection as idle. It may be reused for `seconds`, or less if the answer's `Keep-Alive` says so."""
        self._kept_at = self._loop.time()
        self.stale_at = self._kept_at + min(seconds, self._patience)

    def is_usable(self) -> bool:
        """Whether an idle connection is still open, as far as our side can know."""
        now = self._loop.time()
        if self.transport.is_closing() or now >= self.stale_at:
            return False
        if now < self._kept_at + _SURELY_OPEN_SECONDS:
            return True
        with selectors.DefaultSelector() as selector:  # readable means an end of file that the loop has not seen yet
            selector.register(self.transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return not selector.select(0)

    def end(self) -> None:
        """Abort the connection."""
        self.transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A part of the answer has arrived."""
        if self._answer is None:
            self.end()  # no request is waiting for an answer
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
            # Not kept if more bytes follow the answer, or if the peer has not read the whole request.
            self.can_be_kept &= is_http and self.transport.get_write_buffer_size() == 0
            self._succeed()
        elif not is_http:
            self._fail(httpx.DecodingError("the answer is not HTTP"))

    def eof_received(self) -> None:
        """The peer has closed the connection."""
        self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._lose(exc)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins, or more bytes follow a complete answer."""
        if self._is_complete:
            raise ValueError("more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer, which is ignored."""
        if self._status:
            return
        match name.lower():
            case b"date":
                self._date = value.decode("latin-1")
            case b"content-type":
                self._content_type = value.decode("latin-1")
            case b"content-encoding":
                self._is_encoded = value.lower() != b"identity"
            case b"content-length" | b"transfer-encoding":
                self._ends_with_connection = False
            case b"keep-alive":
                self._patience = _seconds_in(value)

    def on_headers_complete(self) -> None:
        """The head is complete. 101 is refused, because we never ask for it. After another 1xx the answer follows."""
        self._status = self._parser.get_status_code()
        if self._status < httpx.codes.CONTINUE or self._status == httpx.codes.SWITCHING_PROTOCOLS:
            raise ValueError("no such answer")
        self._is_complete = self._status >= httpx.codes.OK and not self._has_body

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        self._overhead -= len(chunk)
        self._body_size += len(chunk)
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        """The answer is complete, or a 1xx before it."""
        if self._status < httpx.codes.OK:
            self._begin_head()
            self._body.clear()
        else:
            self._is_complete = True
            self.can_be_kept = self._parser.should_keep_alive()

    def _begin_head(self) -> None:
        self._status = 0
        self._date = self._content_type = None
        self._is_encoded = False
        self._ends_with_connection = True
        self._patience = math.inf

    def _lose(self, exc: Exception | None) -> None:
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

    def _succeed(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            body = b"".join(self._body)
            answer.set_result(HttpAnswer(self._status, body, self._date, self._content_type, self._is_encoded))

    def _fail(self, failure: httpx.RequestError) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(failure)
        self.end()


def _seconds_in(keep_alive: bytes) -> float:
    """For how many seconds to reuse an idle connection, by the peer's `Keep-Alive: timeout=5`."""
    for parameter in keep_alive.split(b","):
        name, _, value = parameter.strip().partition(b"=")
        if name.lower() == b"timeout" and value.isdigit():
            return float(value) - 1  # because a request takes a while to arrive
    return math.inf
