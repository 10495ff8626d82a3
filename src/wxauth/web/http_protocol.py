"""Uvicorn's HTTP/1.1 protocol with limits for what an ASGI app cannot see.

The module can be removed when uvicorn has these limits and serves requests that ask for an upgrade. The reasons are in
docs/contribute/decisions/0007-uvicorns-server.md.
"""

import asyncio
import socket
import struct
import sys
from collections import deque
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from wxauth.core.logs import get_logger
from wxauth.web.edge import BODY_ARRIVED, IGNORES_UPGRADES, MAX_FIELDS, MAX_HEAD, SENDING_SECONDS, TOO_MANY_COOKIES_PAGE

MAX_WAITING: Final = 32  # requests of one connection, while another one is served
# When the server ends, a request might have arrived on an open connection without having been read yet.
_UNREAD_REQUEST_SECONDS: Final = 0.1
# On a busy machine, some time passes between a client's connection and its first request.
_FIRST_REQUEST_SECONDS: Final = 2
_STALL_SECONDS: Final = 60.0
_STALL_CHECKS: Final = 12  # during the limit, so a client is disconnected at most a twelfth of the limit too late
_ACKNOWLEDGED_COUNT: Final = slice(120, 128)  # `tcpi_bytes_acked` in Linux's `struct tcp_info`
_BODY_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))
_EXTENSIONS: Final[dict[str, dict[object, object]]] = {IGNORES_UPGRADES: {}}
_EXTENSIONS_WITH_BODY: Final = {**_EXTENSIONS, BODY_ARRIVED: {}}
_BAD_REQUEST_RESPONSE: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 20\r\nconnection: close\r\n\r\ninvalid HTTP request"
)
# Cookies are the usual cause of a head that is too large.
_HEAD_TOO_LARGE_RESPONSE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/html; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(TOO_MANY_COOKIES_PAGE), TOO_MANY_COOKIES_PAGE)
)

log = get_logger()


class _Parser(HttpRequestParser):
    """A parser that continues after the head of a request for an upgrade, where httptools stops."""

    def __init__(self, protocol: "HttpProtocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol
        # Data that follows `Connection: close` must not replace the response with a refusal.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: Any) -> None:
        if self._protocol.refusal is not None:
            return
        try:
            super().feed_data(data)
            return
        except HttpParserError as exc:
            # uvicorn would write a warning, with which a stranger could fill the log.
            log.info("connection_refused", reason=str(exc.__context__ or exc))
            self._protocol.refuse(_BAD_REQUEST_RESPONSE)
            return
        except HttpParserUpgrade as stopped:
            rest = data[stopped.args[0] :]
        # A new parser is necessary, because this one would ignore everything after `Connection: close`, even the body.
        self._protocol.parser = successor = _Parser(self._protocol)
        successor.feed_data(self._protocol.upgrade_framing)
        successor.feed_data(rest)


class HttpProtocol(HttpToolsProtocol):
    """The protocol of one connection.

    Of uvicorn's protocol, the class uses only `parser`, `headers`, `cycle` and the callbacks of asyncio, of the parser
    and of the response.
    """

    head_seconds = SENDING_SECONDS  # also for the rest of a body that no route reads
    stall_seconds = _STALL_SECONDS  # after which a client that accepts no byte of its responses is disconnected
    upgrade_framing = b""
    """The head with which the next parser reads the body of a request for an upgrade.

    Its fields are those from which the first parser has read the length of the body. wxauth itself reads no length.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)
        self._is_in_head = self._is_in_body = self._is_ending = False
        self._unanswered: deque[RequestResponseCycle] = deque()
        self.refusal: bytes | None = None  # the last response, after which nothing more is read
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unacknowledged_size, self._acknowledged_count, self._progress_at = 0, b"", 0.0
        self._field_count = 0
        # These bytes have arrived since the last head, part of a body or end of a request. Bytes that arrived in the
        # same read as one of these do not count.
        self._bytes_outside_body = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the connection, and limit the time for the first head."""
        self._connection, self._loop = cast(asyncio.Transport, transport), asyncio.get_running_loop()
        self._timer = self._loop.call_later(self.head_seconds, self._connection.close)
        super().connection_made(self._connection)

    def data_received(self, data: bytes) -> None:
        """Parse the data, and limit the size of everything outside of bodies."""
        self._bytes_outside_body += len(data)
        super().data_received(data)
        if self._bytes_outside_body > MAX_HEAD and self.refusal is None:
            self.refuse(_HEAD_TOO_LARGE_RESPONSE)
        self._limit_time()

    def refuse(self, response: bytes) -> None:
        """Stop reading. Answer the complete requests, then send this response, and close the connection."""
        self.refusal = response
        if self._is_in_body and not self.cycle.response_complete:  # the last request is incomplete
            if self.cycle.response_started:
                self.refusal = b""  # the client would read it as part of the response that has begun
            _disconnect(self._unanswered.pop())
        self._finish_refusal(self.refusal)
        self._watch_for_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the apps of all requests that the client has disconnected. uvicorn tells only the newest one."""
        self._timer.cancel()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        for cycle in self._unanswered:
            _disconnect(cycle)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request, unless the parser is reading `upgrade_framing`."""
        if not self.upgrade_framing:
            self._is_in_head, self._field_count = True, 0
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Refuse a fragment, which uvicorn would cut off, although a proxy may have matched its rules against it."""
        if b"#" in url:
            raise ValueError("a request target must have no fragment")  # the response is 400
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header field, but not a trailer field (RFC 9110, section 6.5.1)."""
        self._field_count += 1
        # A single field too many is stored, so that `Edge` refuses the request.
        if self._is_in_head and self._field_count <= MAX_FIELDS + 1:
            super().on_header(name, value.rstrip())  # the parser leaves white space at the end

    def on_headers_complete(self) -> None:
        """Start the request, or queue it behind the requests before it."""
        if self.upgrade_framing:
            self.upgrade_framing = b""
            return
        if len(self._unanswered) > MAX_WAITING:
            raise ValueError("too many requests at once")  # the response is 400
        if self.parser.should_upgrade():
            self._frame_body()
        super().on_headers_complete()
        self.cycle.scope["extensions"] = _EXTENSIONS
        self._timer.cancel()
        self._is_in_head, self._is_in_body, self._bytes_outside_body = False, True, 0
        self._unanswered.append(self.cycle)
        if self._is_ending:
            super().shutdown()  # it closes the connection after the response

    def _frame_body(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("the method must not be CONNECT")
        if self._field_count > MAX_FIELDS:
            raise ValueError("too many header fields")  # those that announce the body may not have been stored
        fields = [field for field in self.headers if field[0] in _BODY_FIELDS]
        if not self.parser.should_keep_alive():
            fields.append((b"connection", b"close"))
        self.upgrade_framing = b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in fields)

    def on_body(self, body: bytes) -> None:
        self._bytes_outside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless httptools has stopped before its body."""
        if self.upgrade_framing:
            return
        self._is_in_body, self._bytes_outside_body = False, 0
        self.cycle.scope["extensions"] = _EXTENSIONS_WITH_BODY
        if not self.parser.should_keep_alive():
            # The parser may have read `Connection: close` in the trailers, and ignores what follows.
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self._connection.close()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with a refusal that waits for this response, and limit the time for the rest of a request."""
        self._unanswered.popleft()
        if self.refusal is not None:
            self._finish_refusal(self.refusal)
        super().on_response_complete()
        if self._stall_timer is None:
            self._watch_for_stall()
        if self._is_in_head or self._is_in_body:
            self._limit_time()

    def pause_writing(self) -> None:
        """Make the app wait for the client, but only until the client counts as stalled."""
        super().pause_writing()
        self._watch_for_stall()

    def resume_writing(self) -> None:
        """Let the app continue, because the client has accepted part of a response."""
        self._progress_at = self._loop.time()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close the connection soon, but serve the requests that are just arriving, which uvicorn would not read."""
        if self._unanswered:
            super().shutdown()
            return
        self._is_ending = True
        self._timer.cancel()
        delay = _FIRST_REQUEST_SECONDS if self.cycle is None else _UNREAD_REQUEST_SECONDS
        self._timer = self._loop.call_later(delay, self._connection.close)

    def _finish_refusal(self, response: bytes) -> None:
        if not self._unanswered and not self._connection.is_closing():
            self._connection.write(response)
            self._connection.close()

    def _watch_for_stall(self) -> None:
        # At most one timer runs for a connection, so most requests set none.
        if self._stall_timer is None:
            self._unacknowledged_size, self._progress_at = sys.maxsize, self._loop.time()
            self._stall_timer = self._loop.call_later(self.stall_seconds / _STALL_CHECKS, self._check_for_stall)

    def _check_for_stall(self) -> None:
        self._stall_timer = None
        unacknowledged_size = self._connection.get_write_buffer_size() + _unacknowledged_in_system(self._connection)
        if not unacknowledged_size:
            return
        now = self._loop.time()
        # The number of acknowledged bytes counts, too, because each check may find another response of the same size.
        before, self._acknowledged_count = self._acknowledged_count, _acknowledged_count(self._connection)
        if unacknowledged_size < self._unacknowledged_size or self._acknowledged_count != before:
            self._progress_at = now
        elif now - self._progress_at >= self.stall_seconds:
            # With this option, the system immediately drops the data that it keeps for the client.
            option = struct.pack("ii", 1, 0)
            self._connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            self._connection.abort()
            return
        self._unacknowledged_size = unacknowledged_size
        self._stall_timer = self._loop.call_later(self.stall_seconds / _STALL_CHECKS, self._check_for_stall)

    def _limit_time(self) -> None:
        # A timer that runs is not replaced, so that a client cannot extend the time by sending a head byte by byte.
        if not self._unanswered and self._timer.cancelled():
            self._timer = self._loop.call_later(self.head_seconds, self._connection.close)


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


# The system keeps megabytes for a connection, and accepts more only when a third of them is gone. Without this number,
# a slow client would seem to accept nothing for minutes.
def _unacknowledged_in_system(connection: asyncio.Transport) -> int:
    peer = connection.get_extra_info("socket")
    if peer is not None:
        with suppress(OSError):  # only Linux reports the number
            return int.from_bytes(ioctl(peer.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


def _acknowledged_count(connection: asyncio.Transport) -> bytes:
    peer = connection.get_extra_info("socket")
    if peer is not None:
        with suppress(AttributeError, OSError):  # only Linux reports the number
            info: bytes = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED_COUNT.stop)
            return info[_ACKNOWLEDGED_COUNT]  # not as an int, because it is only compared
    return b""
