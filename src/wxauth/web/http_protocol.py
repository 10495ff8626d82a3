"""Uvicorn's HTTP/1.1 protocol with limits on heads, trailers and pipelining.

The protocol also reads the body of a request that asks for an upgrade, refuses a target with a fragment, and serves
requests that have arrived when the server shuts down. The module can be removed when uvicorn does all of this.
"""

import asyncio
import re
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wxauth.web.edge import MAX_FIELDS, MAX_HEAD, SENDING_SECONDS, TOO_MANY_COOKIES_PAGE

MAX_WAITING: Final = 32
"""The largest number of requests of one connection that may wait while another one is served.

uvicorn itself parses all requests that arrive, without a limit.
"""
_UNREAD_SECONDS: Final = 0.1
"""The time, in seconds, that an idle connection stays open when the server shuts down.

In this time, the server reads a request that may already have arrived.
"""
_FIRST_REQUEST_SECONDS: Final = 2
"""The time, in seconds, that a connection on which no request has arrived yet stays open when the server shuts down.

On a busy machine, some time may pass between a client's connection and its first request.
"""
_BODY_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))
"""The header fields that announce a body."""
_UPGRADE: Final = re.compile(rb"\nupgrade(?=[ \t]*:)", re.IGNORECASE)
"""The pattern of the name of the header field with which a client asks for another protocol."""
# The page in this response asks the user to clear the browser's cookies, because cookies are the usual cause of a head
# that is too large.
_HEAD_TOO_LARGE_RESPONSE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/html; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(TOO_MANY_COOKIES_PAGE), TOO_MANY_COOKIES_PAGE)
)


class HttpProtocol(HttpToolsProtocol):
    """The protocol of one connection.

    The class extends the callbacks of asyncio, the parser, the response and the server. Of uvicorn's other parts, it
    uses only `parser`, `headers` and `cycle`.
    """

    head_seconds = SENDING_SECONDS
    """The time limit, in seconds, within which a client must send a head, or the rest of a body that no route reads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_in_head = self._is_in_body = self._is_ending = False
        self._unanswered = 0
        """The number of requests whose heads have arrived, and whose responses have not been sent."""
        self._fields = 0
        """The number of header and trailer fields of the current request so far."""
        self._bytes_outside_body = 0
        """The number of bytes that have arrived outside of a body since the last reset.

        The end of a head, a part of a body, and the end of a request each reset the number to 0. The bytes that follow
        in the same read are not counted, either.
        """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit when a client has connected."""
        self._connection, self._loop = cast(asyncio.Transport, transport), asyncio.get_running_loop()
        self._timer = self._loop.call_later(self.head_seconds, self._connection.close)
        super().connection_made(self._connection)

    def data_received(self, data: bytes) -> None:
        """Parse data from the client, but hide a request for an upgrade from the parser.

        If a head or the trailers are too large, respond with 431.
        """
        self._bytes_outside_body += len(data)
        if not self._is_in_body and b"\nupgrade" in data[:MAX_HEAD].lower():
            # Java's client asks for HTTP/2 with each request, and the parser would drop the body of such a request.
            # Therefore the field is renamed. If the search misses the field, and the request has a body,
            # `on_headers_complete` refuses the request.
            head, blank_line, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\nx-upgrade", head) + blank_line + rest
        super().data_received(data)
        if self._bytes_outside_body > MAX_HEAD and not self._connection.is_closing():
            self._connection.write(_HEAD_TOO_LARGE_RESPONSE)
            self._connection.close()
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer when the client or the server has closed the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Note that the head of a request begins."""
        self._is_in_head, self._fields = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Refuse a target with a fragment. uvicorn would cut off the fragment, although a proxy may have matched it."""
        if b"#" in url:
            raise ValueError("a request target must have no fragment")  # the response is 400
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header field, and drop a trailer field, which is not a header field (RFC 9110, section 6.5.1).

        At most `MAX_FIELDS` + 1 fields are stored. `Edge` then notices that there are too many.
        """
        self._fields += 1
        if self._is_in_head and self._fields <= MAX_FIELDS + 1:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the timer when the head is complete. Refuse too many pipelined requests, and an upgrade with a body.

        The parser would not read the body of an upgrade, and the bytes of the body would become the next request. An
        upgrade gets here if `data_received` has not renamed the field, because the name of the field has arrived in two
        reads, or because the request was pipelined. The method CONNECT also asks for an upgrade, without the field.
        """
        self._timer.cancel()
        self._is_in_head, self._is_in_body, self._bytes_outside_body = False, True, 0
        self._unanswered += 1
        if self.parser.should_upgrade() and any(name in _BODY_FIELDS for name, _ in self.headers):
            raise ValueError("the body of an upgrade cannot be read")  # the response is 400
        if self._unanswered > 1 + MAX_WAITING:
            raise ValueError("too many requests at once")  # the response is 400
        super().on_headers_complete()
        if self._is_ending:
            super().shutdown()  # it closes the connection after the response

    def on_body(self, body: bytes) -> None:
        """Note that a part of the body has arrived."""
        self._bytes_outside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._is_in_body, self._bytes_outside_body = False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """After a response, start the time limit again if the rest of the body or another request is still arriving."""
        self._unanswered -= 1
        super().on_response_complete()
        if self._is_in_head or self._is_in_body:
            self._limit_time()

    def shutdown(self) -> None:
        """When the server shuts down, close the connection soon, but only after the arrived requests are served.

        uvicorn would close a connection without a running request at once, even if a request has arrived that has not
        been read yet.
        """
        if self._unanswered:
            super().shutdown()
            return
        self._is_ending = True
        self._timer.cancel()
        delay = _FIRST_REQUEST_SECONDS if self.cycle is None else _UNREAD_SECONDS
        self._timer = self._loop.call_later(delay, self._connection.close)

    def _limit_time(self) -> None:
        """Start the timer if it is not running, and no request waits for its response.

        The timer limits the time for an incomplete head, and for the rest of a body that no route reads.
        """
        if not self._unanswered and self._timer.cancelled():
            self._timer = self._loop.call_later(self.head_seconds, self._connection.close)
