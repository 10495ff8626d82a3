"""Random streams of HTTP/1.1, and the requests that h11 and wxauth see in them."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tests.web.misbehaving import behind_edge, options
from wxauth.web.edge import MAX_HEAD
from wxauth.web.http_protocol import HttpProtocol

TARGETS = ["/", "/v1/me?a=b", "http://a/b", "*", "/%41", "/early", "/#a", "a:1", "/\x7f", "/é", "//", ""]
METHODS = ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "PRI", "M-SEARCH", "get", "BREW", "G T", ""]
UPGRADES = [
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ["UPGRADE: websocket", "CONNECTION: keep-alive, UPGRADE"],
    ["upgrade: a", "connection: upgrade"],
    ["Connection: upgrade"],
    ["Upgrade: h2c"],
    ["Upgrade:", "Connection:Upgrade"],
    ["Upgrade: h2c", "Connection: Upgrade, close"],
    ["uPgRaDe:\th2c", "cOnNeCtIoN:\tuPgRaDe"],
]
LENGTHS = ["+%d", "-%d", "0x%x", "%d;x", "%d %d", "%d, %d", "%d,%d", "%d.0", "%de0", "", "\t", "%020d", "%021d",
           "%0400d", "%05000d", "18446744073709551615", "18446744073709551616", "9223372036854775808", "%d\x0b", "１",
           "%d\r\n ", "%d_0", "%d\xa0", "%d\x00", '"%d"']  # fmt: skip
CODINGS = ["chunked", "Chunked", "CHUNKED", "gzip, chunked", "chunked, gzip", "chunked,", "gzip", "identity",
           "xchunked", "", "chunked;a", "\x0bchunked", "chunked\tx", ",chunked", '"chunked"']  # fmt: skip
ODD_FIELDS = ["X : a", " X: a", "X", ": a", "X: a\r\n b", "X: a\r\n\tb", "X: a\rb", "X: a\nY: b", "X: \x00", "X\x00: a",
              "X: \x01", "X:\x0ba", "X: \xe9", "X\xe9: a", "X: a\r", "Host: b", "X: a  ", "X:  \t a \t", "X: ", "X:",
              "Expect: 100-continue", "Expect: a", "(: a", "Connection:", "Connection: keep-alive, x",
              "Proxy-Connection: close", "Trailer: X", "TE: trailers", "Keep-Alive: a"]  # fmt: skip
SIZES = ["%x", "%X", "%04x", "%x ", " %x", "%x;a", "%x;a=b", '%x;a="b c;\\"d"', "%x ;a", "%x; a", "%x;", "0x%x", "+%x",
         "%020x", "%x\t", "%x;a=\x01", "%x;;", "-%x", "", "%x;a=b;c", "%x;a =b", "%x\x00"]  # fmt: skip


class Generator:
    """Draws a stream."""

    def __init__(self, random: Random, *, oddness: float) -> None:
        self._random = random
        self._oddness = oddness

    def stream(self) -> bytes:
        parts = [self._request() for _ in range(self._random.choice((1, 1, 2, 2, 3, 4)))]
        if self._is_odd():
            parts.insert(
                self._random.randrange(len(parts) + 1), self._random.choice((b"\r\n", b"\n", b"\0", b" ", b"\r"))
            )
        if self._random.random() < 0.003:
            parts = [b"GET /many HTTP/1.1\r\nHost: a\r\n\r\n"] * self._random.randint(30, 40)
        stream = b"".join(parts)
        if self._is_odd():
            place = self._random.randrange(len(stream) + 1)
            change = self._random.choice((b"", b"\r", b"\n", b"\0", b":", b" ", b"\t", b"\r\n", b"0", b"\xff"))
            stream = stream[:place] + change + stream[place + self._random.randrange(2) :]
        if self._random.random() < 0.05 and len(stream) < MAX_HEAD:
            stream = stream[: self._random.randrange(len(stream) + 1)]
        return stream

    def _is_odd(self, times: float = 1) -> bool:
        return self._random.random() < self._oddness * times

    def _request(self, *, depth: int = 0) -> bytes:
        draw = self._random
        method = draw.choice(METHODS if self._is_odd() else METHODS[:5])
        target = draw.choice(TARGETS if self._is_odd() else TARGETS[:6])
        version = draw.choice(
            ("1.0", "2.0", "0.9", "1.2", "1", "1.10", "11", "1.1 ") if self._is_odd() else ("1.1",) * 9 + ("1.0",)
        )
        line = f"{method} {target} HTTP/{version}"
        if self._is_odd(0.5):
            line = draw.choice(
                (line.replace(" ", "  "), line.replace(" ", "\t"), line.lower(), f"{method} {target}", " " + line)
            )
        fields = ["Host: a"] * (not self._is_odd())
        if draw.random() < 0.35:
            fields += draw.choice(UPGRADES)
        if draw.random() < 0.1:
            fields.append(
                draw.choice(
                    ("Connection: close", "Connection: keep-alive", "connection: CLOSE", "Connection: close, a")
                )
            )
        if draw.random() < 0.1:
            fields.append(draw.choice(("Expect: 100-continue", "X: upgrade: h2c", "X-Upgrade: a")))
        while self._is_odd():
            fields.append(draw.choice(ODD_FIELDS))
        if depth == 0 and self._is_odd(0.3):
            fields.append("X: " + "a" * draw.choice((1000, 60_000, 80_000)))
        if self._is_odd(0.3):
            fields += ["X: a"] * draw.choice((100, 124, 125, 126, 127, 128, 129, 130, 140))
        body, announced = self._body(depth)
        fields += announced
        if draw.random() < 0.5:
            draw.shuffle(fields)
        if self._is_odd(0.2):
            fields += announced
        end = draw.choice(("\n", "\r", "\r\r\n", "\n\r\n")) if self._is_odd(0.3) else "\r\n"
        return (end.join([line, *fields]) + end + end).encode("latin-1", "replace") + body

    def _body(self, depth: int) -> tuple[bytes, list[str]]:
        draw = self._random
        if draw.random() < 0.35:
            return b"", []
        body = self._content(depth)
        if draw.random() < 0.55:
            length = draw.choice(LENGTHS) if self._is_odd() else "%d"
            text = length % ((len(body),) * length.count("%")) if "%" in length else length
            if self._is_odd(0.3):
                text = str(max(0, len(body) + draw.choice((-2, -1, 1, 2))))
            announced = [f"Content-Length:{draw.choice((' ', '', '  ', chr(9)))}{text}{draw.choice(('', '', ' '))}"]
            if self._is_odd(0.3):
                announced.append(draw.choice((announced[0], "Content-Length: 0", "Transfer-Encoding: chunked")))
            return body, announced
        coding = draw.choice(CODINGS) if self._is_odd() else "chunked"
        announced = [f"{draw.choice(('Transfer-Encoding', 'transfer-encoding', 'TRANSFER-ENCODING'))}: {coding}"]
        if self._is_odd(0.3):
            announced.append(draw.choice((announced[0], "Transfer-Encoding: gzip", "Content-Length: 3")))
        return self._chunks(body), announced

    def _chunks(self, body: bytes) -> bytes:
        draw, chunks = self._random, []
        while body:
            size = draw.randint(1, len(body))
            piece, body = body[:size], body[size:]
            form = draw.choice(SIZES) if self._is_odd(0.5) else draw.choice([*SIZES[:3], "%x;a=b"])
            head = form % size if "%" in form else form
            end = draw.choice((b"\n", b"\r", b"", b"\r\n\r\n")) if self._is_odd(0.2) else b"\r\n"
            chunks.append(head.encode("latin-1") + b"\r\n" + piece + end)
        last = draw.choice(("00", "0;a", "0 ", "")) if self._is_odd(0.5) else "0"
        trailers = []
        if draw.random() < 0.2:
            trailers = draw.choice(
                (["X: a"], ["Upgrade: h2c", "Connection: Upgrade"], ["Content-Length: 7"], ["Host: b"])
            )
        if self._is_odd(0.5):
            trailers = [draw.choice(ODD_FIELDS)]
        if self._is_odd(0.2):
            trailers = ["Transfer-Encoding: chunked"]
        return b"".join(chunks) + "\r\n".join([last, *trailers, "", ""]).encode("latin-1")

    def _content(self, depth: int) -> bytes:
        draw = self._random
        match draw.randrange(6):
            case 0 if depth == 0:
                return self._request(depth=1)
            case 1:
                inner = b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n"
                return b"upgrade:" + b"\nupgrade:" * draw.randint(0, len(inner) // 2) + b"\n" + inner
            case 2:
                return b"\r\n".join(
                    draw.choice((b"upgrade: a", b"", b"0", b"Host: a")) for _ in range(draw.randint(1, 9))
                )
            case 3:
                return draw.randbytes(draw.randint(1, 50))
            case 4 if self._is_odd():
                return bytes(draw.choice((4096, 60_000)))
            case _:
                return b'{"code": "h2c"}'

    def cuts(self, stream: bytes) -> list[bytes]:
        draw = self._random
        match draw.randrange(4):
            case 0:
                places = [draw.randrange(len(stream) + 1)]
            case 1:
                places = sorted(draw.randrange(len(stream) + 1) for _ in range(draw.randint(2, 9)))
            case 2 if len(stream) < 700:
                places = list(range(len(stream)))
            case _:
                places = []
        return pieces(stream, places)


def pieces(stream: bytes, places: Sequence[int]) -> list[bytes]:
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if a < b]


@dataclass
class Request:
    method: str
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes | None
    """None if the app responds without reading it."""


@dataclass
class Seen:
    requests: list[Request]
    is_refused: bool = False
    responses: list[int] = field(default_factory=list)
    is_closed: bool = False


def is_early(target: bytes) -> bool:
    """Tell whether the app responds before it has read the body."""
    return b"/early" in target


def by_h11(stream: bytes) -> Seen:
    """Return what h11 sees. Each request gets a connection of its own, which begins where the one before has ended."""
    requests: list[Request] = []
    while True:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        stream = _as_h11_demands(stream)
        fed = 0
        try:
            while (event := connection.next_event()) is not h11.PAUSED:
                if event is h11.NEED_DATA:
                    if fed >= len(stream):
                        return Seen(requests)
                    connection.receive_data(stream[fed : fed + 4096])
                    fed += 4096
                elif isinstance(event, h11.Request):
                    request = _seen(event)
                    if request.body is None:
                        requests.append(request)
                elif isinstance(event, h11.Data) and request.body is not None:
                    request.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    if request.body is not None:
                        requests.append(request)
                    connection.send(h11.Response(status_code=400, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is not h11.DONE:
                        return Seen(requests)
                    break
        except h11.RemoteProtocolError:
            return Seen(requests, is_refused=True)
        stream = connection.trailing_data[0] + stream[fed:]


def _as_h11_demands(stream: bytes) -> bytes:
    """Drop empty lines before a request, and double spaces in its first line.

    RFC 9112 (sections 2.2 and 3) lets a server ignore them, and httptools does. h11 would refuse the request.
    """
    stream = stream.lstrip(b"\r\n")
    line = re.match(rb"([^ \r\n]+) +([^ \r\n]+) +(HTTP/\d\.\d\r\n)", stream)
    return stream if line is None else b" ".join(line.groups()) + stream[line.end() :]


def _seen(event: h11.Request) -> Request:
    target = event.target
    if b"://" in target:  # uvicorn gives an app only the path
        url = urlsplit(target)
        target = url.path + (b"?" + url.query if url.query else b"")
    return Request(event.method.decode(), target, list(event.headers), None if is_early(target) else b"")


class Transport(asyncio.Transport):
    """A transport without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.is_paused, self._is_closing = bytearray(), False, False

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Wxauth:
    """The protocol and the edge, around an app that notes its requests."""

    def __init__(self) -> None:
        self._config = uvicorn.Config(behind_edge(self._note), **options())
        self._config.load()
        self._requests: list[Request] = []

    async def _note(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        fields = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in scope["headers"]]
        body, has_more = (None, False) if is_early(target) else (b"", True)
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, has_more = body + message["body"], message["more_body"]
        self._requests.append(Request(scope["method"], target, fields, body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def see(self, reads: Sequence[bytes], random: Random) -> Seen:
        """Return what wxauth sees. Sometimes, a read arrives before the app has seen the one before."""
        self._requests, state, transport, hurry = [], ServerState(), Transport(), random.random()
        protocol = HttpProtocol(config=self._config, server_state=state, app_state={})
        protocol.connection_made(transport)
        for read in reads:
            if transport.is_paused or random.random() > hurry:
                await self._rest(state, transport)
            if transport.is_closing():
                break
            assert not transport.is_paused
            protocol.data_received(read)
        await self._rest(state, transport)
        is_closed = transport.is_closing()
        protocol.connection_lost(None)
        await asyncio.gather(*state.tasks)
        responses = [int(status) for status in re.findall(rb"HTTP/1\.1 ([2-5]\d\d) ", transport.written)]
        return Seen(self._requests, responses=responses, is_closed=is_closed)

    async def _rest(self, state: ServerState, transport: Transport) -> None:
        """Let the app run until it waits for more of a body."""
        rounds_without_progress, progress = 0, None
        while state.tasks and rounds_without_progress < 8:
            await asyncio.sleep(0)
            before, progress = progress, (len(transport.written), len(self._requests), transport.is_paused)
            rounds_without_progress = rounds_without_progress + 1 if progress == before else 0
