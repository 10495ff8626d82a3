"""A cheap stand-in for WeChat, with fixed responses, kept-alive connections, a delay, and a count of calls.

It runs as a process: `python -m benchmarks.standin PORT`. `GET /stand-in/delay/30` sets the delay in ms. `GET
/stand-in/calls` returns the number of code2Session calls.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

CODE2SESSION = b"GET /sns/jscode2session?"

_STABLE_TOKEN = b"POST /cgi-bin/stable_token"
_MINI_PROGRAM_CODE = b"POST /wxa/getwxacodeunlimit"
_PICTURE = b"\xff\xd8\xff\xe0" + bytes(40_000) + b"\xff\xd9"
"""A picture as large as WeChat's. It has an end marker, because the service replaces a truncated picture."""
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_END_OF_REQUEST = b"\r\n\r\n"
_OPENID = "oBenchmark{:018d}"
_UNIONID = "uBenchmark{:018d}"


def code_for(person: int, number: int) -> bytes:
    """Return an unused code, as long as WeChat's own."""
    return b"%012d%020d" % (person, number)


def openid_of(person: int) -> bytes:
    """Return the openid for a person's codes, which has 28 characters, like WeChat's."""
    return _OPENID.format(person).encode()


def code2session(target: bytes) -> bytes:
    """Return the body of the response to a request with this target."""
    start = target.index(b"js_code=") + len(b"js_code=")
    person = int(target[start : start + 12])
    unionid = _UNIONID.format(person).encode()
    return b'{"session_key":"tiihtNczf5v6AKRyjwEUhQ==","openid":"%b","unionid":"%b"}' % (openid_of(person), unionid)


class StandIn:
    """The state that all connections share."""

    def __init__(self) -> None:
        self.calls = 0
        self.delay = 0.0

    def answer(self, request: bytes) -> bytes:
        if request.startswith(CODE2SESSION):
            self.calls += 1
            return _answer(code2session(request))
        if request.startswith(_STABLE_TOKEN):
            return _answer(b'{"access_token":"stand-in","expires_in":7200}')
        if request.startswith(_MINI_PROGRAM_CODE):
            return _answer(_PICTURE, b"image/jpeg")
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/stand-in/delay/"):
            self.delay = int(path.rpartition(b"/")[2]) / 1000
        return _answer(b"%d" % self.calls)


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._unread = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (request := self._next()) is not None:
            answer = self._stand_in.answer(request)
            if self._stand_in.delay and request.startswith(CODE2SESSION):
                self._loop.call_later(self._stand_in.delay, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _next(self) -> bytes | None:
        """Return the head of the next whole request."""
        head, end, rest = self._unread.partition(_END_OF_REQUEST)
        length = _LENGTH.search(head) if head.startswith(b"POST ") else None
        body = int(length[1]) if length else 0
        if not end or len(rest) < body:
            return None
        self._unread = rest[body:]
        return head


def _answer(body: bytes, content_type: bytes = b"text/plain") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
    return head % (content_type, len(body), body)


async def _serve(port: int) -> None:
    stand_in = StandIn()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(stand_in), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
