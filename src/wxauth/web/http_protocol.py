"""Uvicorn's HTTP/1.1 protocol with limits for what an ASGI app cannot see.

The module can be removed when uvicorn has these limits and serves requests that ask for an upgrade.
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
from wxauth.web.edge import IGNORES_UPGRADES, MAX_FIELDS, MAX_HEAD, SENDING_SECONDS, TOO_MANY_COOKIES_PAGE

MAX_WAITING: Final = 32  # requests of one connection, while another one is served
# The server may have accepted a connection, but not have read the request that has arrived on it.
_UNREAD_SECONDS: Final = 0.1
# On a busy machine, some time passes between a client's connection and its first request.
_FIRST_REQUEST_SECONDS: Final = 2
_TAKING_SECONDS: Final = 60.0
_ACKNOWLEDGED: Final = slice(120, 128)  # `tcpi_bytes_acked` in Linux's `struct tcp_info`
_LOOKS: Final = 12  # so a client is disconnected at most a twelfth of the limit too late
_BODY_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))
_EXTENSIONS: Final[dict[str, dict[object, object]]] = {IGNORES_UPGRADES: {}}
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
    """Reads on where httptools stops: after the head of a request for an upgrade."""

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
        # This parser would ignore what follows `Connection: close`, even the body.
        self._protocol.parser = successor = _Parser(self._protocol)
        successor.feed_data(self._protocol.framing)
        successor.feed_data(rest)


class HttpProtocol(HttpToolsProtocol):
    """The protocol of one connection.

    Of uvicorn's protocol, it uses `parser`, `headers`, `cycle` and the callbacks of asyncio, parser and response.
    """

    head_seconds = SENDING_SECONDS  # also for the rest of a body that no route reads
    taking_seconds = _TAKING_SECONDS  # for a client that takes nothing of its responses
    framing = b""
    """A head with which another parser reads the body of a request for an upgrade.

    Its fields are those from which the first parser has read how long the body is. wxauth itself reads no length.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)
        self._is_in_head = self._is_in_body = self._is_ending = False
        self._unanswered: deque[RequestResponseCycle] = deque()
        self.refusal: bytes | None = None  # the last response: once it is known, nothing more is read
        self._watch: asyncio.TimerHandle | None = None
        self._untaken, self._acknowledged, self._taken_at = 0, b"", 0.0
        self._fields = 0
        # Since the last head, part of a body, or end of a request, without what followed these in the same read.
        self._bytes_outside_body = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit the time for the first head."""
        self._connection, self._loop = cast(asyncio.Transport, transport), asyncio.get_running_loop()
        self._timer = self._loop.call_later(self.head_seconds, self._connection.close)
        super().connection_made(self._connection)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and limit what stands outside of bodies."""
        self._bytes_outside_body += len(data)
        super().data_received(data)
        if self._bytes_outside_body > MAX_HEAD and self.refusal is None:
            self.refuse(_HEAD_TOO_LARGE_RESPONSE)
        self._limit_time()

    def refuse(self, response: bytes) -> None:
        """Read no more. Send this response, and close the connection, after the whole requests have been answered."""
        self.refusal = response
        if self._is_in_body and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.refusal = b""
            _disconnect(self._unanswered.pop())
        self._finish_refusal()
        self._watch_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all apps. uvicorn itself tells only the newest one."""
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        for cycle in self._unanswered:
            _disconnect(cycle)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a head, unless it is `framing`."""
        if not self.framing:
            self._is_in_head, self._fields = True, 0
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Refuse a fragment. uvicorn would cut it off, although a proxy may have matched its rules against it."""
        if b"#" in url:
            raise ValueError("a request target must have no fragment")  # the response is 400
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header field, but no trailer field, which is no header field (RFC 9110, section 6.5.1)."""
        self._fields += 1
        # `Edge` refuses a request with a field too many.
        if self._is_in_head and self._fields <= MAX_FIELDS + 1:
            super().on_header(name, value.rstrip())  # the parser leaves white space at the end

    def on_headers_complete(self) -> None:
        """Start the request, or let it wait."""
        if self.framing:
            self.framing = b""
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
        if self._fields > MAX_FIELDS:
            raise ValueError("too many header fields")  # those that announce the body may not have been stored
        fields = [field for field in self.headers if field[0] in _BODY_FIELDS]
        if not self.parser.should_keep_alive():
            fields.append((b"connection", b"close"))
        self.framing = b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in fields)

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._bytes_outside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless httptools has stopped before its body."""
        if not self.framing:
            self._is_in_body, self._bytes_outside_body = False, 0
            if not self.parser.should_keep_alive():
                # The parser may have read `Connection: close` in the trailers, and ignores what follows.
                self.cycle.keep_alive = False
                if self.cycle.response_complete:
                    self._connection.close()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit the time for what is still arriving."""
        self._unanswered.popleft()
        if self.refusal is not None:
            self._finish_refusal()
        super().on_response_complete()
        if self._watch is None:
            self._watch_taking()
        if self._is_in_head or self._is_in_body:
            self._limit_time()

    def pause_writing(self) -> None:
        """Let the app wait for the client, but not for ever."""
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        """Let the app go on, because the client has taken something."""
        self._taken_at = self._loop.time()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close the connection soon, but serve what has arrived. uvicorn would not read it any more."""
        if self._unanswered:
            super().shutdown()
            return
        self._is_ending = True
        self._timer.cancel()
        delay = _FIRST_REQUEST_SECONDS if self.cycle is None else _UNREAD_SECONDS
        self._timer = self._loop.call_later(delay, self._connection.close)

    def _finish_refusal(self) -> None:
        if self.refusal is not None and not self._unanswered and not self._connection.is_closing():
            self._connection.write(self.refusal)
            self._connection.close()

    def _watch_taking(self) -> None:
        # At most one timer runs for a connection, so this costs nothing per request.
        if self._watch is None:
            self._untaken, self._taken_at = sys.maxsize, self._loop.time()
            self._watch = self._loop.call_later(self.taking_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        self._watch = None
        untaken = self._connection.get_write_buffer_size() + _in_system(self._connection)
        if not untaken:
            return
        now = self._loop.time()
        # Each look may find another response of the same size on its way.
        before, self._acknowledged = self._acknowledged, _acknowledged(self._connection)
        if untaken < self._untaken or self._acknowledged != before:
            self._taken_at = now
        elif now - self._taken_at >= self.taking_seconds:
            # With this option, the system forgets at once what it keeps for the client.
            option = struct.pack("ii", 1, 0)
            self._connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            self._connection.abort()
            return
        self._untaken = untaken
        self._watch = self._loop.call_later(self.taking_seconds / _LOOKS, self._look)

    def _limit_time(self) -> None:
        if not self._unanswered and self._timer.cancelled():
            self._timer = self._loop.call_later(self.head_seconds, self._connection.close)


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


def _in_system(connection: asyncio.Transport) -> int:
    """Return how many bytes the system keeps that the client has not acknowledged.

    A system keeps megabytes for a connection, and takes more only when a third of them is gone. A slow client would
    seem to take nothing for minutes.
    """
    peer = connection.get_extra_info("socket")
    if peer is not None:
        with suppress(OSError):  # only Linux tells it
            return int.from_bytes(ioctl(peer.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


def _acknowledged(connection: asyncio.Transport) -> bytes:
    peer = connection.get_extra_info("socket")
    if peer is not None:
        with suppress(AttributeError, OSError):  # only Linux tells it
            return bytes(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)[_ACKNOWLEDGED])
    return b""
