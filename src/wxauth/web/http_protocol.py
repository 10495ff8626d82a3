"""HTTP/1.1 over one connection: requests in, one after the other, each with its size and its time.

It is uvicorn's place for a protocol, and httptools parses. uvicorn's own has no time for a request, parses whatever
is pipelined, takes trailers for headers, and reads the body behind an upgrade that is not taken as the next request.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from pydantic_core import to_json
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from wxauth.core.logs import get_logger
from wxauth.errors import InvalidRequest, WxAuthError
from wxauth.problems import accepted_request_id, problem_document
from wxauth.web.exchange import STATUS_LINES, Exchange

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request line and its header fields, and of what comes between or behind the chunks of a body."""
MAX_QUEUED: Final = 16
"""Requests that wait for the answer to the one before. What the client sends beyond them is not read yet."""

LINGER: Final = 2.0
"""Seconds for which what a client goes on sending is dropped, so that it gets to read why."""

_MAX_UNREAD: Final = 64 * 1024
"""Bytes of a body that wait for the app; then the client waits."""
_BLANK_LINE: Final = b"\n\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_FRAMING: Final = (b"content-length", b"transfer-encoding")

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """For how long a client is waited for, in seconds."""

    request: float = 30.0
    """Until a request is there, head and body; also until an answer has been taken."""
    longer_requests: Mapping[str, float] = field(default_factory=dict)
    """The same, by how a path ends that takes more."""
    idle: float = 75.0
    """Until the next request begins. Longer than the usual proxy keeps its own idle connections."""

    def of(self, path: str) -> float:
        """How long a request to this path may take."""
        return max((longer for end, longer in self.longer_requests.items() if path.endswith(end)), default=self.request)


class State(ServerState):
    """What is open and under way, of the whole server."""

    def __init__(self) -> None:
        super().__init__()
        self.is_leaving = False
        """Whether each connection is to be closed after what it is answered next."""


class HttpProtocol(asyncio.Protocol):
    """One connection.

    Args:
        config: uvicorn's, with the app.
        server_state: Shared by all connections.
        app_state: Not used.
        patience: For how long the client is waited for, as far as the server has `look_at_clock` called.
    """

    def __init__(
        self,
        config: Config,
        server_state: State,
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
        """Bytes at the beginning of what is unfed that have been fed all the same, and are not cut off one by one."""
        self._bytes_beside_body = 0
        self._is_in_head = True
        self._is_resuming = False

        self._has_begun = False
        """Whether a request has begun to come that is not there whole."""
        self._arriving: Exchange | None = None
        """Its exchange, when its head is there."""
        self._answering: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._refusal: InvalidRequest | None = None
        """What is answered when all before it is, and the connection closed."""
        self._is_lingering = False
        self._late_at = inf
        self._is_reading = True
        self._drained: asyncio.Future[None] | None = None

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._local, self._remote = get_local_addr(self._transport), get_remote_addr(self._transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own protocols alone
        self._quiet_since = self._loop.time()
        self._late_at = self._quiet_since + self._patience.request

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or we have closed."""
        del exc
        self._server.connections.discard(self)
        self._unfed, self._fed = b"", 0
        for exchange in (self._answering, self._arriving, *self._queue):
            if exchange is not None:
                exchange.forget()
        self._queue.clear()
        self._end_drain()
        del self._parser  # which knows us: together they would wait for the garbage collector
        self._answering = self._arriving = None

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if not self._is_deaf():
            self._unfed = self._unfed[self._fed :] + data if self._unfed else data
            self._fed = 0
            self._parse()

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        self._drained = self._loop.create_future()
        self._late_at = self._loop.time() + self._patience.request

    def resume_writing(self) -> None:
        """It goes on taking it."""
        self._end_drain()
        self._wait_anew()

    # What the server calls

    def look_at_clock(self, now: float) -> None:
        """Give the client up where it has been waited for in vain."""
        if now < self._late_at:
            return
        if self._transport.is_closing() or self.is_full:
            self._transport.abort()  # it does not take its answer
        elif self._is_lingering:
            self._transport.close()
        elif self._refusal is not None:
            pass  # it is about to get it
        elif not self._is_reading:
            self._wait_anew()  # it was not waited for, it could not send
        elif self._arriving is not None:
            self._look_at_body(self._arriving, now)
        elif self._has_begun:
            self._refuse(InvalidRequest(f"the head was not here in {self._patience.request:g} s", status=408))
        else:
            self._close()

    def leave(self, *, quiet_since: float) -> None:
        """Close, where there has been nothing since then, and nothing is under way."""
        if self._answering is None and not self._has_begun and self._quiet_since <= quiet_since:
            self._close()

    def hang_up(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    # What the exchange calls

    @property
    def is_full(self) -> bool:
        """Whether the client has not taken what was written."""
        return self._drained is not None

    @property
    def is_leaving(self) -> bool:
        """Whether the answer that begins is to be the last. Not while there are requests in hand."""
        return self._server.is_leaving and not self._queue and self._fed == len(self._unfed)

    async def drain(self) -> None:
        """Wait until the client has taken it, or is gone."""
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def write(self, data: bytes) -> None:
        """Send it, or keep it until it can be sent."""
        self._transport.write(data)

    def go_on_reading(self) -> None:
        """Take more from the client, where there is room for it."""
        has_room = self._fed == len(self._unfed) and (self._arriving is None or self._arriving.unread <= _MAX_UNREAD)
        if has_room is self._is_reading or self._transport.is_closing():
            return
        self._is_reading = has_room
        if has_room:
            self._transport.resume_reading()
            self._wait_anew()
        else:
            self._transport.pause_reading()

    def answered(self, exchange: Exchange) -> None:
        """The answer is written: on to the next request."""
        self._answering = None
        if not exchange.keeps_alive:
            self._close()
        elif self._queue:
            self._answer(self._queue.popleft())
            self._parse()
        elif self._refusal is not None:
            self._say(self._refusal)
        else:
            self._wait_anew()
            self._parse()

    def give_up(self, error: WxAuthError | None) -> None:
        """Nobody will answer: say this instead, or where an answer has begun, break it off."""
        if error is None:
            self._transport.abort()
        else:
            self._say(error)

    # What the parser calls. The head that resumes a body is no request of its own.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_resuming:
            return
        self._has_begun = True
        self._late_at = self._loop.time() + self._patience.request
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        if not self._is_resuming:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer, which may pass for none (RFC 9110, section 6.5.1)."""
        if self._is_in_head and not self._is_resuming:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._is_in_head, self._bytes_beside_body = False, 0
        if self._is_resuming:
            self._is_resuming = False
            return
        version = self._parser.get_http_version()
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
        """A part of the body, whose size is the app's to judge."""
        self._bytes_beside_body = 0
        assert self._arriving is not None
        self._arriving.take(body)

    def on_message_complete(self) -> None:
        """The body is over; a head may follow."""
        self._is_in_head, self._bytes_beside_body = True, 0
        assert self._arriving is not None
        if self._parser.should_upgrade() and any(name in _FRAMING for name, _ in self._headers):
            return  # it is to come yet, see `_ignore_upgrade`
        self._arriving.end_body()
        self._arriving = None
        self._has_begun = False
        self._wait_anew()

    # Parsing

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Else what follows a request with `Connection: close` would be an error, in place of that request's answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _parse(self) -> None:
        """Feed the parser, for as long as there is room for the requests that it may find."""
        while self._fed < len(self._unfed) and len(self._queue) < MAX_QUEUED and not self._is_deaf():
            end = _end_of_blank_line(self._unfed, self._fed, MAX_QUEUED - len(self._queue))
            self._bytes_beside_body += end - self._fed
            self._feed(end)
            if self._bytes_beside_body > MAX_HEAD and not self._is_deaf():
                self._refuse(InvalidRequest(f"the head of a request may have {MAX_HEAD} bytes", status=431))
        if self._fed == len(self._unfed):
            self._unfed, self._fed = b"", 0
        self.go_on_reading()

    def _is_deaf(self) -> bool:
        return self._refusal is not None or self._is_lingering or self._transport.is_closing()

    def _feed(self, end: int) -> None:
        """Feed what is unfed up to here."""
        data = memoryview(self._unfed)[self._fed : end]
        self._fed = end
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._fed -= len(data) - stopped.args[0]
            self._ignore_upgrade()
        except httptools.HttpParserError as exc:
            if isinstance(exc, httptools.HttpParserCallbackError) and not _is_clients_fault(exc.__context__):
                log.error("request_not_parsed", exc_info=exc.__context__)
            self._refuse(InvalidRequest("invalid http request received", status=400))

    def _ignore_upgrade(self) -> None:
        """Serve a request whose Upgrade we do not take (RFC 9110, section 7.8).

        httptools stops at an Upgrade and treats the request as finished. A second parser, fed a made-up head with only
        the length, reads the body.
        """
        self._parser = self._new_parser()
        framing = [b"%b: %b\r\n" % field for field in self._headers if field[0] in _FRAMING]
        if framing:
            self._is_resuming = True
            self._parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))

    def _scope(self, version: str) -> Scope:
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
        task = self._loop.create_task(exchange.run(self._app))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _look_at_body(self, exchange: Exchange, now: float) -> None:
        patience = self._patience.of(exchange.scope["path"])
        if now < self._late_at - self._patience.request + patience:
            return
        if exchange.is_answered:
            self._close()
        else:
            self._refuse(InvalidRequest(f"the body was not here in {patience:g} s", status=408))

    def _refuse(self, error: InvalidRequest) -> None:
        """Read no further; answer this when all before it is answered."""
        self._refusal = error
        self._unfed, self._fed = b"", 0
        if self._arriving is not None and not self._arriving.is_answered:
            self._arriving.fail(error)
        elif self._answering is None:
            self._say(error)

    def _say(self, error: WxAuthError) -> None:
        request_id = accepted_request_id(None)
        log.info("request_refused", status=error.status, code=error.code, detail=error.detail, request_id=request_id)
        body = to_json(problem_document(error, language="en", request_id=request_id))
        head = (
            b"content-type: application/problem+json\r\ncache-control: no-store\r\nconnection: close\r\n"
            b"content-length: %d\r\nx-request-id: %s\r\n\r\n" % (len(body), request_id.encode())
        )
        self._transport.write(STATUS_LINES[error.status] + head + body)
        self._close()

    def _close(self) -> None:
        """After the answers that are on their way. Closed at once, a client that is still sending might lose them."""
        if self._has_begun or self._refusal is not None:
            self._is_lingering = True
            self._transport.write_eof()
            self.go_on_reading()
            self._late_at = self._loop.time() + LINGER
        else:
            self._transport.close()
            self._late_at = self._loop.time() + self._patience.request

    def _wait_anew(self) -> None:
        """For what is to come next of the client; for nothing, while it is our turn."""
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
    """Where the blank line of that number ends; each request has one, so that there are no more than that before it."""
    for _ in range(number):
        found = data.find(_BLANK_LINE, start)
        if found < 0:
            return len(data)
        start = found + len(_BLANK_LINE)
    return start


def _is_clients_fault(exc: BaseException | None) -> bool:
    return isinstance(exc, httptools.HttpParserError | UnicodeError)  # of the request target
