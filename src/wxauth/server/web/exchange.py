"""One request and its answer, between the ASGI app and an HTTP/1.1 connection."""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Scope

from wxauth.errors import InternalError, InvalidRequest, WxAuthError
from wxauth.server.core.logs import get_logger

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY: Final = (204, 304)

log = get_logger()


class Connection(Protocol):
    """What an exchange requires of its connection."""

    @property
    def is_full(self) -> bool:
        """Whether the client reads its answers too slowly."""

    @property
    def is_leaving(self) -> bool:
        """Whether it ends after the answer that begins now."""

    def write(self, data: bytes) -> None:
        """Send this."""

    async def drain(self) -> None:
        """Wait until it is no longer full."""

    def resume_or_pause_reading(self) -> None:
        """Read on, or pause, by what the app has received."""

    def answered(self, exchange: "Exchange") -> None:
        """The answer is complete."""

    def fail_answer(self, error: WxAuthError | None) -> None:
        """The app gave no answer, or half of one: send this error, or close."""


class Exchange:
    """Passes a request to the app in parts, and writes the app's answer.

    Args:
        keeps_alive: Whether the client may send another request on the connection.
        expects_continue: Whether the client waits for `100 Continue` before it sends the body.
    """

    __slots__ = (
        "_body_left",
        "_connection",
        "_expects_continue",
        "_failure",
        "_has_sent_all",
        "_head",
        "_is_chunked",
        "_is_gone",
        "_is_whole",
        "_is_written",
        "_parts",
        "_sends_body",
        "_waiter",
        "is_answered",
        "keeps_alive",
        "scope",
        "unread",
    )

    def __init__(self, connection: Connection, scope: Scope, *, keeps_alive: bool, expects_continue: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keeps_alive = keeps_alive
        self._expects_continue = expects_continue

        self._parts: list[bytes] = []
        self.unread = 0
        """Bytes of the body that the app has not received yet."""
        self._is_whole = self._has_sent_all = False
        self._failure: InvalidRequest | None = None
        self._is_gone = False
        self._waiter: asyncio.Future[None] | None = None

        self._head: bytes | None = None
        """The head of the answer, which is written together with the first part of its body."""
        self._is_written = self.is_answered = False
        self._sends_body = self._is_chunked = False
        self._body_left: int | None = None
        """Bytes of the answer's body still to come, according to its content-length."""

    async def run(self, app: ASGIApp) -> None:
        """Run the app on this request."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass  # the server is stopping; the edge has answered, if it still could
        except Exception:
            log.exception("request_failed")
        if not (self.is_answered or self._is_gone):
            self._connection.fail_answer(
                None if self._is_written else self._failure or InternalError("the log has more")
            )
        self._failure = None  # its traceback refers to us: this cycle would have to wait for the garbage collector

    # What the app calls

    async def receive(self) -> Message:
        """The next part of the body, or `http.disconnect` if the client is gone or the answer is complete.

        Raises: InvalidRequest, if the rest of the body is invalid or does not arrive in time.
        """
        if self._expects_continue and not self._parts and not self._is_whole:
            self._expects_continue = False
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
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
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
        """The client is gone."""
        self._is_gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        if self._expects_continue and not self._is_whole:
            self.keeps_alive = False  # without `100 Continue`, the client may next send the body or another request
        if self._connection.is_leaving:
            self.keeps_alive = False
        lines = [STATUS_LINES[status]]
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
