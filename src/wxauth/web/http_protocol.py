"""uvicorn's HTTP/1.1 on one connection, with the limits that uvicorn lacks: on heads, trailers and pipelining."""

import asyncio
import re
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wxauth.web.edge import CLEAR_COOKIES, MAX_FIELDS, MAX_HEAD, SENDING_SECONDS

MAX_WAITING: Final = 32  # requests of one connection: uvicorn parses all that arrive at once
_UPGRADE: Final = re.compile(rb"\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/html; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(CLEAR_COOKIES), CLEAR_COOKIES)
)


class HttpProtocol(HttpToolsProtocol):
    """One connection. It adds to callbacks of asyncio, of the parser and of the answer, and uses nothing else."""

    head_seconds = SENDING_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_in_head = self._is_in_body = False
        self._unanswered = self._fields = self._beside_body = 0  # bytes since the last of a head or body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._connection, self._loop = cast(asyncio.Transport, transport), asyncio.get_running_loop()
        self._timer = self._loop.call_later(self.head_seconds, self._connection.close)
        super().connection_made(self._connection)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        self._beside_body += len(data)
        if not self._is_in_body and b"\nupgrade" in data[:MAX_HEAD].lower():
            head, blank_line, rest = data.partition(b"\r\n\r\n")  # for an upgrade, the parser would drop the body
            data = _UPGRADE.sub(b"\nx-upgrade", head) + blank_line + rest
        super().data_received(data)
        if self._beside_body > MAX_HEAD and not self._connection.is_closing():
            self._connection.write(_TOO_LONG)
            self._connection.close()
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client or the server has closed the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_in_head, self._fields = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target. uvicorn would cut off a fragment, although a proxy may have matched it."""
        if b"#" in url:
            raise ValueError("a request target must have no fragment")  # answered with 400
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, or a trailer, which is none (RFC 9110, section 6.5.1). The edge refuses one more than MAX_FIELDS."""
        self._fields += 1
        if self._is_in_head and self._fields <= MAX_FIELDS + 1:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._timer.cancel()
        self._is_in_head, self._is_in_body, self._beside_body = False, True, 0
        self._unanswered += 1
        if self._unanswered > 1 + MAX_WAITING:
            raise ValueError("too many requests at once")  # answered with 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._is_in_body, self._beside_body = False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer has been written."""
        self._unanswered -= 1
        super().on_response_complete()
        if self._is_in_head or self._is_in_body:
            self._limit_time()

    def _limit_time(self) -> None:  # of a part of a head, and of the rest of a body that nobody reads
        if not self._unanswered and self._timer.cancelled():
            self._timer = self._loop.call_later(self.head_seconds, self._connection.close)
