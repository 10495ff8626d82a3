"""A connection of an HTTP/1.1 client, which sends requests and parses the responses.

If a response cannot be read completely, the connection is closed.
"""

import asyncio
import math
import re
import selectors
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_OVERHEAD: Final = 64 * 1024  # bytes of head, 1xx responses, sizes of chunks and trailers
# Asking the kernel whether the peer has closed the connection takes some µs, so wxauth asks only after this idle time.
_SURELY_OPEN_SECONDS: Final = 1.0
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:^|,)\s*timeout=(\d+)\s*(?:,|$)", re.IGNORECASE)
_STORED_FIELDS: Final = {
    b"date": "date",
    b"content-type": "content_type",
    b"retry-after": "retry_after",
    b"cache-control": "cache_control",
    b"location": "location",
}

OnStatus = Callable[[int], float | None]  # see `HttpTransport`


class HttpAnswer(NamedTuple):
    """A response. The body is not decoded, even if the response has a Content-Encoding."""

    status: int
    body: bytes
    is_encoded: bool
    date: str | None = None
    content_type: str | None = None
    retry_after: str | None = None
    cache_control: str | None = None
    location: str | None = None


class AnswerTooLarge(httpx.DecodingError):
    """The body of a response is larger than its limit, or the rest of the response than `MAX_OVERHEAD`."""


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._on_status: OnStatus | None = None
        self._until = math.inf  # the time limit of the response
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ends_at = math.inf
        self._reset_head()
        # `connection_made`, `ask` and `keep` create the other attributes, before any other method reads them.
        self.stale_at = math.inf  # when the idle connection must be closed
        self.can_be_kept = True  # it is new, or the last response keeps it open

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

        A caller that stops waiting must close the connection, because the response might still arrive. `until` is the
        time limit of the response, in the event loop's time. `has_body` is False if the response has no body although
        its head may declare one, as for HEAD. If `on_status` returns a number of seconds, the caller needs only the
        status. The request then succeeds even if the body is too large, cut off, or incomplete after that time.

        After a failure, the connection has been closed, and the future raises httpx.ReadError or
        httpx.RemoteProtocolError (the connection ended before the response was complete), httpx.ReadTimeout, or
        httpx.DecodingError (not HTTP, or too large).

        Raises: httpx.ConnectError, if the connection was closed already. In this case, nothing was sent.
        """
        if self.transport.is_closing():
            raise httpx.ConnectError("closed before anything was sent")
        self._answer = self._loop.create_future()
        self._needs_only_status = False
        self._set_time_limit(until)
        self._max_body = max_body
        self._has_body = has_body
        self._on_status = on_status
        self._overhead = 0  # bytes of the response except its body
        self._body_size = 0
        self._body: list[bytes] = []
        self._is_complete = False
        self.can_be_kept = False
        self._reset_head()
        self.transport.write(request)
        return self._answer

    def keep(self, seconds: float) -> None:
        """Mark the connection as idle, for `seconds`, or for less if the response's `Keep-Alive` says so."""
        self._kept_at = self._loop.time()
        self.stale_at = self._kept_at + min(seconds, self._peer_keeps_seconds)

    def is_usable(self) -> bool:
        """Return whether an idle connection is not stale, and is still open as far as this machine can know."""
        now = self._loop.time()
        if self.transport.is_closing() or now >= self.stale_at:
            return False
        if now < self._kept_at + _SURELY_OPEN_SECONDS:
            return True
        # If the socket is readable, the peer has closed the connection or sent unexpected data, but the event loop has
        # not noticed this yet.
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return not selector.select(0)

    def end(self) -> None:
        self.transport.abort()

    # The event loop calls the following methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.end()  # no request is waiting for a response
            return
        is_valid = True
        self._overhead += len(data)  # while the parser reads the data, `on_body` subtracts the parts of the body
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):  # the parser turns any error of a method below into such an error
            is_valid = False
        if self._overhead > MAX_OVERHEAD or self._body_size > self._max_body:
            self._fail(AnswerTooLarge("the answer is too large"))
        elif self._is_complete:
            # The connection cannot be reused if more bytes follow the response, or if part of the request has not been
            # sent yet.
            self.can_be_kept &= is_valid and self.transport.get_write_buffer_size() == 0
            self._succeed()
        elif not is_valid:
            self._fail(httpx.DecodingError("the answer is not HTTP"))

    def eof_received(self) -> None:
        """Handle the end of the stream, after which the peer sends nothing more."""
        self._handle_end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handle_end(exc)
        if self._timer is not None:
            self._timer.cancel()

    # The parser calls the following methods.

    def on_message_begin(self) -> None:
        """Raise an error if bytes follow a complete response."""
        if self._is_complete:
            raise ValueError("more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header field, and ignore a trailer field."""
        if self._status:  # the head is complete, so this is a trailer field
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
        """Read the status. 101 is an error, because wxauth never requests an upgrade."""
        self._status = self._parser.get_status_code()
        if self._status < httpx.codes.CONTINUE or self._status == httpx.codes.SWITCHING_PROTOCOLS:
            raise ValueError("no such answer")
        if self._status < httpx.codes.OK:  # the response follows this one
            return
        self._is_complete = not self._has_body
        seconds_for_body = None if self._on_status is None else self._on_status(self._status)
        if seconds_for_body is not None:
            self._needs_only_status = True
            self._set_time_limit(self._loop.time() + seconds_for_body)

    def on_body(self, chunk: bytes) -> None:
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
        self._status = 0
        self._fields: dict[str, str] = {}
        self._is_encoded = False
        self._ends_with_connection = True  # no declared length
        self._peer_keeps_seconds = math.inf

    def _handle_end(self, exc: Exception | None) -> None:
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
        self._until = until
        # A timer that ends early enough is kept, because a timer for each request would cost 4 µs. When it ends, it is
        # set again for a request that may still wait.
        if until < self._timer_ends_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_ends_at = self._loop.call_at(until, self._check_time_limit), until

    def _check_time_limit(self) -> None:
        ended_at, self._timer, self._timer_ends_at = self._timer_ends_at, None, math.inf
        if self._answer is None:
            return
        # The clock isn't read, because uvloop's timers may end up to 0.5 ms early.
        if self._until <= ended_at:
            self._fail(httpx.ReadTimeout("no response in time"))
        else:
            self._set_time_limit(self._until)

    def _succeed(self) -> None:
        answer = self._end_wait()
        if answer is not None:
            answer.set_result(HttpAnswer(self._status, b"".join(self._body), self._is_encoded, **self._fields))

    def _fail(self, failure: httpx.RequestError) -> None:
        if self._needs_only_status:
            self._succeed()  # after that, no future is left for the failure
        answer = self._end_wait()
        if answer is not None:
            answer.set_exception(failure)
        self.end()

    def _end_wait(self) -> asyncio.Future[HttpAnswer] | None:
        """Return the future of the response, whose result or failure must now be set."""
        answer = self._answer
        self._answer = None
        if answer is None or answer.done():  # a future whose caller was cancelled is done, too
            return None
        return answer


def _seconds_in(keep_alive: bytes) -> float:
    timeout = _KEEP_ALIVE_TIMEOUT.search(keep_alive)
    # The result is a second shorter than the peer's timeout, because a request takes some time to arrive.
    return math.inf if timeout is None else float(timeout[1]) - 1
