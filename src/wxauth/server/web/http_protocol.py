"""HTTP/1.1 on one connection, with limits on the size and the time of requests.

uvicorn runs this protocol in place of its own. Both parse with httptools, and cost the same: with uvicorn's, a login
took 1.0 times as much CPU, and `GET /v1/me` 1.05 times (medians of eight rounds in turn). A subclass of uvicorn's was
tried: docs/decisions/0007-http-under-limits.md. What pays for this one is what uvicorn 0.54 lacks:

- A head or a body that never ends keeps its connection forever. 3,000 header fields are passed on, and thousands of
  pipelined requests are parsed at once.
- Trailers are passed on as header fields, even `Authorization`.
- If a request has an Upgrade that is ignored, as from `curl --http2`, the body is dropped, or served as the next
  request.
- When the service stops, idle connections are closed at once, while a proxy may be sending a request on one.

With all that in uvicorn, `"http": "httptools"` in `uvicorn_options` would replace it.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from math import inf
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from wxauth.errors import InternalError, InvalidRequest, WxAuthError
from wxauth.problems import accepted_request_id, problem_document
from wxauth.server.core.logs import get_logger

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request line and its header fields, and of everything between or after the chunks of a body."""
MAX_TARGET: Final = 8 * 1024
"""Bytes of a request target: decoding 60 KB of `%41` would take the loop 40 ms."""
MAX_FIELDS: Final = 128
"""Header fields of a request: the cost of a field is more than that of its bytes."""
MAX_PIECES: Final = 8192
"""Chunks of a body, or reads from the socket. 2 MiB in small TCP segments are 4,000; a million of one byte each would
take seconds."""
MAX_QUEUED: Final = 16
"""Pipelined requests that wait for earlier answers. Further ones are not read yet."""

LINGER_SECONDS: Final = 2.0
"""Seconds after our last answer during which the client's bytes are read and dropped. Closing at once might lose the
answer."""

MAX_UNREAD: Final = 64 * 1024
"""Bytes of a body that the app has not received yet. Beyond that, reading from the client pauses. Nor is more of an
answer written at once: the transport keeps a copy of what the client does not read."""
_MAPPED: Final = "::ffff:"
_BLANK_LINE: Final = b"\n\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_VERSIONS: Final = ("1.1", "1.0")
"""httptools also parses 0.9, whose requests and answers have no header fields, and 2.0."""
_CLIENTS_FAULTS: Final = (httptools.HttpParserError, UnicodeError, InvalidRequest)
"""What our parsing may raise. An invalid request target raises one of the first two."""
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY: Final = (204, 304)
_CLEAR_COOKIES: Final = """<!doctype html><html lang="zh-CN"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Cookie 过多 · Too many cookies</title>
<h1>Cookie 过多</h1><p>浏览器为此网站及其域名保存的 Cookie 过多。请清除后重新加载。</p>
<div lang="en"><h1>Too many cookies</h1><p>Your browser keeps too many cookies for this site and its domain.
Clear them, then load this page again.</p></div></html>
""".encode()
"""The answer with status 431 to a browser, whose cookies are all that makes its head so large."""

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Time limits for clients, in seconds."""

    request: float = 30.0
    """For sending a whole request, head and body; also for reading its answer."""
    longer_requests: Mapping[str, float] = field(default_factory=dict)
    """The same for paths with these endings, if it is longer."""
    idle: float = 75.0
    """Until the next request begins. Common proxies close their idle connections earlier."""

    def of(self, path: str) -> float:
        """The time limit of a request to this path."""
        return max((longer for end, longer in self.longer_requests.items() if path.endswith(end)), default=self.request)


class ServerConnections(ServerState):
    """The connections and tasks of the whole server."""

    is_leaving = False
    """Whether each connection is to be closed after its next answer."""


@dataclass(slots=True, eq=False, repr=False)
class Exchange:
    """Passes a request to the app in parts, and writes the app's answer."""

    _connection: "HttpProtocol"
    scope: Scope
    keeps_alive: bool = field(kw_only=True)
    """Whether the client may send another request on the connection."""
    expects_continue: bool = field(kw_only=True)
    """Whether the client waits for `100 Continue` before it sends the body."""

    _parts: list[bytes] = field(init=False, default_factory=list)
    unread: int = field(init=False, default=0)
    """Bytes of the body that the app has not received yet."""
    _is_whole: bool = field(init=False, default=False)
    _has_sent_all: bool = field(init=False, default=False)
    _failure: InvalidRequest | None = field(init=False, default=None)
    _is_gone: bool = field(init=False, default=False)
    _waiter: asyncio.Future[None] | None = field(init=False, default=None)

    _head: bytes | None = field(init=False, default=None)
    """The head of the answer, which is written together with the first part of its body."""
    _is_written: bool = field(init=False, default=False)
    is_answered: bool = field(init=False, default=False)
    _sends_body: bool = field(init=False, default=False)
    _is_chunked: bool = field(init=False, default=False)
    _body_left: int | None = field(init=False, default=None)
    """Bytes of the answer's body not sent yet, according to its content-length."""

    async def run(self, app: ASGIApp) -> None:
        """Run the app on this request."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass  # the server is stopping; the edge has answered, if it still could
        except Exception:
            log.exception("request_failed")
        if not (self.is_answered or self._is_gone):
            if self._is_written:
                self._connection.abort()
            else:
                self._connection.send_problem(self._failure or InternalError("the log has more"))
        self._failure = None  # its traceback refers to us: this cycle would have to wait for the garbage collector

    # What the app calls

    async def receive(self) -> Message:
        """The next part of the body, or `http.disconnect` if the client has disconnected or the answer is complete.

        Raises: InvalidRequest, if the rest of the body is invalid or does not arrive in time.
        """
        if self.expects_continue and not self._parts and not self._is_whole:
            self.expects_continue = False
            self._connection.write(_CONTINUE)
        while not (self._parts or self._failure or self.is_answered or self._is_gone):
            if self._is_whole and not self._has_sent_all:
                break
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        if self.is_answered or self._is_gone:
            return {"type": "http.disconnect"}
        body, self._parts, self.unread = b"".join(self._parts), [], 0
        self._connection.resume_or_pause_reading()
        self._has_sent_all = self._is_whole
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def send(self, message: Message) -> None:
        """Write a part of the answer."""
        body = message.get("body", b"")
        while len(body) > MAX_UNREAD:
            await self.send({**message, "body": body[:MAX_UNREAD], "more_body": True})
            body = memoryview(body)[MAX_UNREAD:]
        if self._connection.is_full:
            await self._connection.drain()
        if self._is_gone:
            return
        if self._head is None:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"{message['type']} before http.response.start")
            self._head = self._head_of(message["status"], message.get("headers", ()))
        elif not self.is_answered:
            if message["type"] != "http.response.body":
                raise RuntimeError(f"{message['type']} within an answer")
            self._write_body(body, is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} after the answer")

    # What the connection calls

    def take(self, body: bytes) -> None:
        """A part of the body has arrived."""
        if not self.is_answered:
            self._parts.append(body)
            self.unread += len(body)
            self._wake()

    def end_body(self) -> None:
        """The body is complete."""
        self._is_whole = True
        self._wake()

    def fail(self, error: InvalidRequest) -> None:
        """The rest of the body will not arrive, and nothing more can be read from this connection."""
        self._failure = error
        self.keeps_alive = False
        self._wake()

    def disconnect(self) -> None:
        """The client has disconnected."""
        self._is_gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        if self.expects_continue and not self._is_whole:
            self.keeps_alive = False  # without `100 Continue`, the client may next send the body or another request
        if self._connection.is_leaving:
            self.keeps_alive = False
        lines = [_STATUS_LINES[status]]
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        self._sends_body = self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY
        if self._sends_body:
            self._body_left = length
            if length is None and self.scope["http_version"] == "1.0":
                self.keeps_alive = False  # the end of the connection marks the end of the body
            elif length is None:
                self._is_chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keeps_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise RuntimeError("a header field with a line break")
        return head + b"\r\n"

    def _write_body(self, body: bytes, *, is_last: bool) -> None:
        if not self._sends_body:
            body = b""
        else:
            if self._body_left is not None:
                self._body_left -= len(body)
                if self._body_left < 0 or (is_last and self._body_left):
                    raise RuntimeError("a body of another length than its head has promised")
            elif self._is_chunked:
                body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                if is_last:
                    body += b"0\r\n\r\n"
        if not self._is_written:
            assert self._head is not None
            self._is_written = True
            body = self._head + body
        if body:
            self._connection.write(body)
        if is_last:
            self.is_answered = True
            self._parts.clear()
            self.unread = 0  # the rest of the body is read and dropped
            self._wake()
            self._connection.answered(self)


class HttpProtocol(asyncio.Protocol):
    """One connection, constructed by uvicorn. The server must call `check_deadline` regularly."""

    def __init__(
        self,
        config: Config,
        server_state: ServerConnections,
        app_state: Mapping[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        patience: Patience = Patience(),
    ) -> None:
        del app_state
        self._app = config.loaded_app
        self._server = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._patience = patience
        self._parser = self._new_parser()
        self._unfed = b""
        self._fed = 0
        """How many bytes at the beginning of `_unfed` have been fed already. Removing them each time would copy."""
        self._bytes_beside_body = 0
        self._pieces = 0
        """In how many pieces the body has arrived so far."""
        self._is_in_head = True
        self._is_resuming = False

        self._has_begun = False
        """Whether a request has arrived in part."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._arriving: Exchange | None = None
        """The exchange of the request that is arriving, once its head is complete."""
        self._answering: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._refusal: InvalidRequest | None = None
        """A refusal that is sent after the answers to earlier requests. Then the connection is closed."""
        self._is_lingering = False
        self._late_at = inf
        self._is_reading = True
        self._drained: asyncio.Future[None] | None = None

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._local, self._remote = get_local_addr(self._transport), get_remote_addr(self._transport)
        if self._remote is not None and self._remote[0].startswith(_MAPPED):  # to a socket of both IPv6 and IPv4
            self._remote = (self._remote[0].removeprefix(_MAPPED), self._remote[1])
        self._server.connections.add(self)  # type: ignore[arg-type]  # uvicorn's type has only its own protocols
        self._quiet_since = self._loop.time()
        self._late_at = self._quiet_since + self._patience.request

    def connection_lost(self, exc: Exception | None) -> None:
        """The client or we have closed the connection."""
        del exc
        self._server.connections.discard(self)
        self._unfed, self._fed = b"", 0
        for exchange in (self._answering, self._arriving, *self._queue):
            if exchange is not None:
                exchange.disconnect()
        self._queue.clear()
        self._end_drain()
        del self._parser  # it refers to us: this cycle would have to wait for the garbage collector
        self._answering = self._arriving = None

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if not self._ignores_input():
            self._unfed = self._unfed[self._fed :] + data if self._unfed else data
            self._fed = 0
            self._parse()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        self._drained = self._loop.create_future()
        self._late_at = self._loop.time() + self._patience.request

    def resume_writing(self) -> None:
        """The client continues to read its answer."""
        self._end_drain()
        self._set_deadline()

    # What the server calls

    def check_deadline(self, now: float) -> None:
        """Close the connection if the client has exceeded a time limit."""
        if now < self._late_at:
            return
        if self._transport.is_closing() or self.is_full:
            self._transport.abort()  # the client does not read its answer
        elif self._is_lingering:
            self._transport.close()
        elif self._refusal is not None:
            pass  # the client is about to get the refusal
        elif not self._is_reading:
            self._set_deadline()  # the client could not send, because we do not read
        elif self._arriving is not None:
            self._check_body_deadline(self._arriving, now)
        elif self._has_begun:
            self._refuse(InvalidRequest(f"the head was not here in {self._patience.request:g} s", status=408))
        else:
            self._close()

    def leave(self, *, quiet_since: float) -> None:
        """Close the connection if no request is in progress, and none has been since then."""
        if self._answering is None and not self._has_begun and self._quiet_since <= quiet_since:
            self._close()

    def abort(self) -> None:
        """Close the connection at once, even during a request."""
        self._transport.abort()

    # What the exchange calls

    @property
    def is_full(self) -> bool:
        """Whether the write buffer is full, because the client does not read its answer."""
        return self._drained is not None

    @property
    def is_leaving(self) -> bool:
        """Whether the answer that begins now is the last on the connection, because no further request has arrived."""
        return self._server.is_leaving and not self._queue and self._fed == len(self._unfed)

    async def drain(self) -> None:
        """Wait until the write buffer has room, or the client has disconnected."""
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def write(self, data: bytes) -> None:
        """Send data, or buffer it until it can be sent."""
        self._transport.write(data)

    def resume_or_pause_reading(self) -> None:
        """Resume reading from the client if there is room for more, or else pause it."""
        has_room = self._fed == len(self._unfed) and (self._arriving is None or self._arriving.unread <= MAX_UNREAD)
        if has_room is self._is_reading or self._transport.is_closing():
            return
        self._is_reading = has_room
        if has_room:
            self._transport.resume_reading()
            self._set_deadline()
        else:
            self._transport.pause_reading()

    def answered(self, exchange: Exchange) -> None:
        """The answer is written. Continue with the next request."""
        self._answering = None
        if not exchange.keeps_alive:
            self._close()
        elif self._queue:
            self._answer(self._queue.popleft())
            self._parse()
        elif self._refusal is not None:
            self.send_problem(self._refusal)
        else:
            self._set_deadline()
            self._parse()

    def send_problem(self, error: WxAuthError) -> None:
        """Send this error in place of an answer, and close the connection."""
        request_id = accepted_request_id(None)
        log.info("request_refused", status=error.status, code=error.code, detail=error.detail, request_id=request_id)
        kind, body = b"application/problem+json", to_json(problem_document(error, language="en", request_id=request_id))
        accepted = b",".join(value for name, value in self._headers if name == b"accept")
        if error.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and b"text/html" in accepted.lower():
            kind, body = b"text/html; charset=utf-8", _CLEAR_COOKIES
        head = (
            b"content-type: %b\r\ncache-control: no-store\r\nconnection: close\r\nx-content-type-options: nosniff\r\n"
            b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (kind, len(body), request_id.encode())
        )
        self._transport.write(_STATUS_LINES[error.status] + head + body)
        self._close()

    # What the parser calls. While `_is_resuming`, it parses the made-up head of `_ignore_upgrade`, which is no request.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_resuming:
            return
        self._has_begun = True
        self._late_at = self._loop.time() + self._patience.request
        self._url = b""
        self._headers = []
        self._has_host = self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        if not self._is_resuming:
            self._url += url
            if len(self._url) > MAX_TARGET:
                raise InvalidRequest(f"a request target must have at most {MAX_TARGET} bytes", status=414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer. Trailers must not be treated as header fields (RFC 9110, section 6.5.1)."""
        if self._is_in_head and not self._is_resuming:
            if len(self._headers) == MAX_FIELDS:
                raise InvalidRequest(f"a request must have at most {MAX_FIELDS} header fields", status=431)
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
            elif name == b"host":
                if self._has_host:  # RFC 9112, section 3.2: a proxy may have routed by the other one
                    raise InvalidRequest("a request must have one Host field", status=400)
                self._has_host = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        # This piece of input may have begun before the head, and end after it.
        if self._bytes_beside_body > MAX_HEAD and sum(map(len, chain.from_iterable(self._headers))) > MAX_HEAD:
            raise _too_long_a_head()
        self._is_in_head, self._bytes_beside_body, self._pieces = False, 0, 0
        if self._is_resuming:
            self._is_resuming = False
            return
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            raise InvalidRequest("the version of a request must be HTTP/1.1 or HTTP/1.0", status=400)
        exchange = self._arriving = Exchange(
            self,
            self._scope(version),
            keeps_alive=version != "1.0" and self._parser.should_keep_alive(),
            expects_continue=self._expects_continue,
        )
        if self._answering is None:
            self._answer(exchange)
        else:
            self._queue.append(exchange)

    def on_body(self, body: bytes) -> None:
        """A part of the body. The app limits its size."""
        self._bytes_beside_body = 0
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            raise InvalidRequest(f"a body must arrive in at most {MAX_PIECES} pieces", status=400)
        assert self._arriving is not None
        self._arriving.take(body)

    def on_message_complete(self) -> None:
        """The request is complete. Another one may follow."""
        self._is_in_head, self._bytes_beside_body = True, 0
        assert self._arriving is not None
        if self._parser.should_upgrade() and any(name in _FRAMING for name, _ in self._headers):
            return  # not yet: `_ignore_upgrade` reads the body
        self._arriving.end_body()
        self._arriving = None
        self._has_begun = False
        self._set_deadline()

    # Parsing

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Otherwise bytes after a request with `Connection: close` are an error, and its answer is lost.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _parse(self) -> None:
        """Feed the parser while there is room in the queue for the requests that it may find."""
        while self._fed < len(self._unfed) and len(self._queue) < MAX_QUEUED and not self._ignores_input():
            end = _end_of_blank_line(self._unfed, self._fed, MAX_QUEUED - len(self._queue))
            self._bytes_beside_body += end - self._fed
            self._feed(end)
            if self._bytes_beside_body > MAX_HEAD and not self._ignores_input():
                self._refuse(_too_long_a_head())
        if self._fed == len(self._unfed):
            self._unfed, self._fed = b"", 0
        self.resume_or_pause_reading()

    def _ignores_input(self) -> bool:
        return self._refusal is not None or self._is_lingering or self._transport.is_closing()

    def _feed(self, end: int) -> None:
        data = memoryview(self._unfed)[self._fed : end]
        self._fed = end
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                self._fed -= len(data) - stopped.args[0]
                self._ignore_upgrade()  # inside the outer try, because the framing is parsed there, and may be invalid
        except httptools.HttpParserError as exc:
            cause = exc.__context__
            if isinstance(exc, httptools.HttpParserCallbackError) and not isinstance(cause, _CLIENTS_FAULTS):
                log.error("request_not_parsed", exc_info=cause)
            refusal = InvalidRequest("invalid http request received", status=400)
            # Without its traceback, which refers to us: this cycle would have to wait for the garbage collector.
            self._refuse(cause.with_traceback(None) if isinstance(cause, InvalidRequest) else refusal)

    def _ignore_upgrade(self) -> None:
        """Serve a request and ignore its Upgrade, which we do not support (RFC 9110, section 7.8).

        httptools stops at an Upgrade and treats the request as complete. So a new parser gets a made-up head with only
        the length, and reads the body.
        """
        self._parser = self._new_parser()
        framing = [b"%b: %b\r\n" % field for field in self._headers if field[0] in _FRAMING]
        if framing:
            self._is_resuming = True
            self._parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))

    def _scope(self, version: str) -> Scope:
        if b"#" in self._url:  # RFC 9112, section 3.2: we would cut it off, though a proxy may have matched it
            raise InvalidRequest("a request target must have no fragment", status=400)
        target = httptools.parse_url(self._url)
        raw_path = target.path or b"/"
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._local,
            "client": self._remote,
            "scheme": "http",
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": target.query or b"",
            "headers": self._headers,
        }

    # Answering

    def _answer(self, exchange: Exchange) -> None:
        self._answering = exchange
        # In a context of its own: a pipelined request is begun by the answer before, whose ids its log would have.
        task = self._loop.create_task(exchange.run(self._app), context=Context())
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _check_body_deadline(self, exchange: Exchange, now: float) -> None:
        patience = self._patience.of(exchange.scope["path"])
        if now < self._late_at - self._patience.request + patience:
            return
        if exchange.is_answered:
            self._close()
        else:
            self._refuse(InvalidRequest(f"the body was not here in {patience:g} s", status=408))

    def _refuse(self, error: InvalidRequest) -> None:
        """Stop reading, and send this refusal after the answers to earlier requests."""
        self._refusal = error
        self._unfed, self._fed = b"", 0
        if self._arriving is not None and not self._arriving.is_answered:
            self._arriving.fail(error)
        elif self._answering is None:
            self.send_problem(error)

    def _close(self) -> None:
        """Close the connection after what was written. While the client still sends, closing at once might lose it."""
        if self._has_begun or self._refusal is not None:
            self._is_lingering = True
            self._transport.write_eof()
            self.resume_or_pause_reading()
            self._late_at = self._loop.time() + LINGER_SECONDS
        else:
            self._transport.close()
            self._late_at = self._loop.time() + self._patience.request

    def _set_deadline(self) -> None:
        """Set the client's time limit again; there is none while the app is answering."""
        if self._transport.is_closing() or self._is_lingering or self.is_full:
            return
        if self._has_begun:
            self._late_at = self._loop.time() + self._patience.request
        elif self._answering is not None:
            self._late_at = inf
        else:
            self._quiet_since = self._loop.time()
            self._late_at = self._quiet_since + self._patience.idle

    def _end_drain(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None


def _end_of_blank_line(data: bytes, start: int, number: int) -> int:
    """The end of the blank line of this number. As each head ends with one, at most as many requests precede it."""
    for _ in range(number):
        found = data.find(_BLANK_LINE, start)
        if found < 0:
            return len(data)
        start = found + len(_BLANK_LINE)
    return start


def _too_long_a_head() -> InvalidRequest:
    return InvalidRequest(f"the head of a request, cookies included, may have {MAX_HEAD} bytes", status=431)
