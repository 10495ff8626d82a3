"""uvicorn's HTTP/1.1 on one connection, with limits on what one client may send, and for how long.

What this adds is what uvicorn 0.54 lacks; docs/decisions/0007-http-under-limits.md names all that it uses of uvicorn's.
"""

import asyncio
import re
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from math import inf
from typing import Any, Final, Self, cast

from pydantic_core import to_json
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from wxauth.errors import InvalidRequest
from wxauth.problems import accepted_request_id, problem_document
from wxauth.server.core.logs import get_logger

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request line and its header fields, and of everything between or after the chunks of a body."""
MAX_TARGET: Final = 8 * 1024
"""Bytes of a request target: decoding 60 KB of `%41` would take the loop 40 ms."""
MAX_FIELDS: Final = 128
"""Header fields of a request: the cost of a field is more than that of its bytes."""
SENDING_SECONDS: Final = 30.0
"""For sending the head of a request, or the rest of an answered one; also for reading an answer."""
LINGER_SECONDS: Final = 2.0
"""After our last answer, during which the client's bytes are dropped. Closing at once might lose the answer."""

_BLANK_LINE: Final = re.compile(rb"\n\r\n")
_NO_HTTP: Final = re.compile(rb"[^A-Za-z]|.*\n\n", re.DOTALL)
"""What never becomes a head: TLS, or lines without CR."""
_LENGTH: Final = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r", re.IGNORECASE)
_NAMED: Final = re.compile(rb"\n(?:(upgrade)|host):", re.IGNORECASE)
_UPGRADE: Final = re.compile(rb"\nupgrade:", re.IGNORECASE)
_ACCEPTS_HTML: Final = re.compile(rb"\naccept:[^\n]*text/html", re.IGNORECASE)
_VERSIONS: Final = (b"HTTP/1.1\r", b"HTTP/1.0\r")
_CONNECTION: Final = "wxauth.connection"
_CLEAR_COOKIES: Final = """<!doctype html><html lang="zh-CN"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Cookie 过多 · Too many cookies</title>
<h1>Cookie 过多</h1><p>浏览器为此网站及其域名保存的 Cookie 过多。请清除后重新加载。</p>
<div lang="en"><h1>Too many cookies</h1><p>Your browser keeps too many cookies for this site and its domain.
Clear them, then load this page again.</p></div></html>
""".encode()
"""The answer with status 431 to a browser, whose cookies are all that makes its head so large."""

log = get_logger()


class ServerConnections(ServerState):
    """The connections and tasks of the whole server."""

    is_leaving = False
    """Whether each connection is to be closed after its next answer."""
    learning = 0.0
    """Seconds for which an idle connection is kept, for a proxy that does not know yet that the server leaves."""


class _Transport:
    """The transport as uvicorn has it: it does not close while the client sends, nor read while a request waits."""

    write: Callable[[bytes], None]

    def __init__(self, transport: asyncio.Transport, by: "HttpProtocol | asyncio.Transport") -> None:
        self.write, self.get_extra_info = transport.write, transport.get_extra_info
        self.close, self.is_closing = by.close, by.is_closing
        self.pause_reading, self.resume_reading = by.pause_reading, by.resume_reading


class HttpProtocol(HttpToolsProtocol):
    """One connection, constructed by uvicorn. The server must call `check_deadline` regularly."""

    def __init__(
        self,
        config: Config,
        server_state: ServerConnections,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        seconds: float = SENDING_SECONDS,
    ) -> None:
        self._state = {**app_state, _CONNECTION: self}
        super().__init__(config, server_state, self._state, _loop)
        self._server, self._seconds = server_state, seconds
        self._now = asyncio.get_running_loop().time
        self._unfed, self._fed = b"", 0
        """What has arrived, and how much of it uvicorn has been given."""
        self._head = b""
        """Of an answer of known length, until its body is there: a call to the kernel less, and a segment."""
        self._body_left: int | None = None
        self._beside_body = 0
        self._is_answering = self._has_begun_answer = self._is_full = False
        self.is_in_body = self._is_closing = False
        self._reads = self._lets_read = True

    @classmethod
    def of(cls, scope: MutableMapping[str, Any]) -> Self | None:
        """The connection of a request, once: a reference kept in the scope would be a cycle."""
        return cast("Self | None", scope.get("state", {}).pop(_CONNECTION, None))

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._seen = _Transport(self._transport, self)
        self._quiet_since = self._now()
        self._late_at = self._quiet_since + self._seconds
        super().connection_made(cast(asyncio.Transport, self._seen))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client or we have closed the connection."""
        self._is_closing = True
        self._unfed, self._fed = b"", 0
        self._state.clear()
        super().connection_lost(None)  # with `exc`, uvicorn's timer would keep all this for another 75 s
        self._seen.__init__(self._transport, self._transport)  # type: ignore[misc]  # no cycle

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if not self._is_closing:
            self._unfed, self._fed = self._unfed[self._fed :] + data if self._unfed else data, 0
            self._feed()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        self._is_full, self._late_at = True, self._now() + self._seconds
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client continues to read its answer."""
        self._is_full, self._late_at = False, self._now() + self._seconds if self.is_in_body else inf
        super().resume_writing()

    # What uvicorn calls

    def pause_reading(self) -> None:
        """The app has not received yet what has arrived of a body."""
        self._lets_read = False
        self._read_or_not()

    def resume_reading(self) -> None:
        """The app wants more of a body."""
        self._lets_read = True
        self._read_or_not()

    def send_400_response(self, msg: str) -> None:
        """The parser, or uvicorn's reading of the target, has failed."""
        self.refuse(InvalidRequest(msg.rstrip(".").lower(), status=400))

    def on_response_complete(self) -> None:
        """An answer is written."""
        self._write_head()
        super().on_response_complete()
        self._is_answering, self._quiet_since = False, self._now()
        if self._unfed or not self._reads:
            self._feed()

    def shutdown(self) -> None:
        """Close the connection if no request is in progress, and a proxy had time to learn that the server leaves."""
        is_idle = not (self._is_answering or self.is_in_body or self._unfed)
        if is_idle and self._quiet_since + self._server.learning <= self._now():
            self.close()

    def close(self) -> None:
        """Close the connection after what was written. While the client still sends, closing at once might lose it."""
        if self._is_closing:
            return
        self._is_closing = True
        self._write_head()
        if self.is_in_body or self._unfed:
            self._unfed, self._fed = b"", 0
            self._transport.write_eof()
            self._late_at = self._now() + LINGER_SECONDS
            self._read_or_not()
        else:
            self._transport.close()
            self._late_at = self._now() + self._seconds

    def is_closing(self) -> bool:
        """Whether nothing more is read from the connection."""
        return self._is_closing

    # What the server and the edge call

    def check_deadline(self) -> None:
        """Close the connection if the client has exceeded a time limit. The edge limits the time of a body."""
        if self._now() < self._late_at:
            return
        if self._is_full or self._transport.is_closing():
            self._transport.abort()
        elif self._is_closing:
            self._transport.close()
            self._late_at = self._now() + self._seconds
        elif self._is_answering:
            pass
        elif self._unfed:
            self.refuse(InvalidRequest(f"the head was not here in {self._seconds:g} s", status=408))
        else:
            self.close()

    def abort(self) -> None:
        """Close the connection at once, even during a request."""
        self._transport.abort()

    def begin_answer(self) -> bool:
        """An answer begins. Returns whether it is the last: the server leaves, and no further request has arrived."""
        self._has_begun_answer = True
        if not self._is_closing:
            self._seen.write = self._keep_head
        return self._server.is_leaving and self._fed == len(self._unfed)

    def refuse(self, error: InvalidRequest) -> None:
        """Answer with this error, unless another answer has begun, and close the connection."""
        self._head, self._seen.write = b"", lambda data: None  # the app does not know
        if not (self.is_in_body and self._has_begun_answer):
            request_id = accepted_request_id(None)
            log.info(
                "request_refused", status=error.status, code=error.code, detail=error.detail, request_id=request_id
            )
            kind, body = (
                b"application/problem+json",
                to_json(problem_document(error, language="en", request_id=request_id)),
            )
            if error.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and _ACCEPTS_HTML.search(self._unfed):
                kind, body = b"text/html; charset=utf-8", _CLEAR_COOKIES
            self._transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
                b"connection: close\r\nx-content-type-options: nosniff\r\nx-request-id: %b\r\n\r\n%b"
                % (error.status, HTTPStatus(error.status).phrase.encode(), kind, len(body), request_id.encode(), body)
            )
        self._unfed = self._unfed or b"."  # it may be sending still
        self.close()

    def _keep_head(self, head: bytes) -> None:
        self._head, self._seen.write = head, self._write_head
        if b"content-length: " not in head:  # its client may wait for no more than the head
            self._write_head()

    def _write_head(self, body: bytes = b"") -> None:
        if self._head:
            head, self._head, self._seen.write = self._head, b"", self._transport.write
            self._transport.write(head + body)

    # What the parser calls

    def on_headers_complete(self) -> None:
        """The head is complete. Trailers must not be treated as header fields (RFC 9110, section 6.5.1)."""
        super().on_headers_complete()
        self.headers = []  # to which uvicorn adds them: cheaper than to look at each field
        self.is_in_body = self._is_answering = True
        self._has_begun_answer = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        super().on_message_complete()
        self.is_in_body, self._late_at = False, inf

    # One request at a time

    def _feed(self) -> None:
        """Give uvicorn a head that is whole when the answer before is written, and a body as it arrives."""
        while self._fed < len(self._unfed) and not self._is_closing:
            if self.is_in_body:
                self._feed_body()
            elif self._is_answering or not self._feed_head():
                break
        if self._fed == len(self._unfed):
            self._unfed, self._fed = b"", 0
        if self._unfed or not self._reads:
            self._read_or_not()

    def _feed_head(self) -> bool:
        """Returns whether there was a whole one."""
        while self._unfed.startswith(b"\r\n", self._fed):
            self._fed += 2
        start, found = self._fed, _BLANK_LINE.search(self._unfed, self._fed)
        if found is None:
            if len(self._unfed) - start > MAX_HEAD:
                self.refuse(_too_long_a_head())
            elif start == len(self._unfed) or self._unfed.endswith(b"\r", start, start + 1):
                pass
            elif _NO_HTTP.match(self._unfed, start):
                self.send_400_response("Invalid HTTP request received.")
            elif self._late_at == inf:
                self._late_at = self._now() + self._seconds
                super().data_received(b"")  # ends uvicorn's time limit for the next request
            return False
        head = self._unfed[start : found.end()]
        named = _NAMED.findall(head)
        if (fault := _fault_of(head, hosts=named.count(b""))) is not None:
            self.refuse(fault)
            return False
        if any(named):  # ignored (RFC 9110, section 7.8): the parser would drop the body
            head = _UPGRADE.sub(b"\nx-upgrade:", head)
        self._fed = found.end()
        super().data_received(head)
        if self.is_in_body:
            self._late_at, self._beside_body = self._now() + self._seconds, 0
            length = _LENGTH.search(head)
            self._body_left = None if length is None else int(length[1])
        return True

    def _feed_body(self) -> None:
        """Feed the parser not far beyond the end of this request, which it alone decides."""
        start = self._fed
        if self._body_left is None:
            found = _BLANK_LINE.search(self._unfed, start)
            end = len(self._unfed) if found is None else found.end()
        else:
            end = min(start + self._body_left, len(self._unfed))
            self._body_left -= end - start
        self._fed = end
        self._beside_body += end - start
        super().data_received(memoryview(self._unfed)[start:end])  # type: ignore[arg-type]  # as httptools takes it
        if self.is_in_body and self._beside_body > MAX_HEAD:
            self.refuse(_too_long_a_head())

    def _read_or_not(self) -> None:
        waits = self._is_answering and self._fed < len(self._unfed)
        reads = self._is_closing or (self._lets_read and not waits)
        if reads is not self._reads and not self._transport.is_closing():
            self._reads = reads
            (self._transport.resume_reading if reads else self._transport.pause_reading)()


def _fault_of(head: bytes, *, hosts: int) -> InvalidRequest | None:
    """Why a head is refused, or None."""
    lines = head.split(b"\n", MAX_FIELDS + 3)
    line = lines[0].split(b" ")
    if len(line) != 3:
        return InvalidRequest("invalid http request received", status=400)
    if line[2] not in _VERSIONS:  # httptools also parses 0.9, without header fields, and 2.0
        return InvalidRequest("the version of a request must be HTTP/1.1 or HTTP/1.0", status=400)
    if len(line[1]) > MAX_TARGET:
        return InvalidRequest(f"a request target must have at most {MAX_TARGET} bytes", status=414)
    if b"#" in line[1]:  # RFC 9112, section 3.2: uvicorn would cut it off, though a proxy may have matched it
        return InvalidRequest("a request target must have no fragment", status=400)
    if len(head) > MAX_HEAD:
        return _too_long_a_head()
    if len(lines) > MAX_FIELDS + 3:  # beside the request line, the blank line and nothing
        return InvalidRequest(f"a request must have at most {MAX_FIELDS} header fields", status=431)
    if hosts > 1:  # RFC 9112, section 3.2: a proxy may have routed by the other one
        return InvalidRequest("a request must have one Host field", status=400)
    return None


def _too_long_a_head() -> InvalidRequest:
    return InvalidRequest(f"the head of a request, cookies included, may have {MAX_HEAD} bytes", status=431)
