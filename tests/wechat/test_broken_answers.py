"""A response that is truncated, split or altered at any byte is never mistaken for another response."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import count

import httpx
import pytest

from tests.clock import PATIENCE
from tests.listening import Listening
from tests.loops import on_both_loops
from tests.wechat.asking import transport
from wxauth.outbound.transport import HttpTransport

SEED = 20261120

Answer = Callable[[bytes], bytes]
"""A function that makes the response to the request with this number."""
PIECES = [b"\r\n", b"\n", b" ", b"0", b":", b"\0", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff\x00\x7f"]
Spoil = Callable[[bytes, int, random.Random], bytes]
SPOILS: list[Spoil] = [
    lambda answer, at, dice: answer[:at] + dice.randbytes(1) + answer[at + 1 :],
    lambda answer, at, dice: answer[:at] + bytes([answer[at] ^ 1 << dice.randrange(8)]) + answer[at + 1 :],
    lambda answer, at, dice: answer[:at] + answer[at + dice.randrange(1, 4) :],
    lambda answer, at, dice: answer[:at] + dice.choice(PIECES) + answer[at:],
    lambda answer, at, dice: answer[:at] + answer[max(0, at - dice.randrange(1, 30)) :],
]


class Server(Listening):
    """A server whose response depends on the number in the request."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.serve: Callable[[asyncio.StreamWriter, bytes], None] = well
        self.requests: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        while True:
            number = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].removeprefix(b"/")
            self.requests.append(number)
            self.serve(writer, number)


def of_length(number: bytes) -> bytes:
    body = b'{"openid": "openid-of-%b"}' % number
    return b"HTTP/1.1 200 OK\r\nDate: Fri, 20 Nov 2026 08:00:00 GMT\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def in_chunks(number: bytes) -> bytes:
    head = b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b'12;a="b"\r\n{"openid": "openid\r\n%x\r\n-of-%b"}\r\n0\r\nX-Sum: 9\r\n\r\n' % (
        len(number) + 6,
        number,
    )


def well(connection: asyncio.StreamWriter, number: bytes) -> None:
    connection.write(of_length(number))


both_framings = pytest.mark.parametrize("answer", [of_length, in_chunks])


class Client:
    """A client that sends a new number with each request, so it knows the only correct response."""

    def __init__(self, way: HttpTransport, server: Server) -> None:
        self._way = way
        self._server = server
        self._numbers: Iterator[int] = count(10_000)

    async def is_answered(self, *, is_whole: bool = True) -> bool:
        """Send a request, and tell whether the response is correct.

        If the response might be incomplete, close the server's connection soon.
        """
        number = b"%d" % next(self._numbers)
        request = httpx.Request("GET", f"http://{self._server.address}", extensions={"target": b"/" + number})
        asking = asyncio.create_task(self._way.handle_async_request(request))
        if not is_whole:
            while not asking.done() and number not in self._server.requests:  # noqa: ASYNC110 - no event says both
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            if not asking.done():
                self._server.connections[-1].close()
        async with asyncio.timeout(PATIENCE):
            try:
                response = await asking
            except (httpx.ReadError, httpx.RemoteProtocolError, httpx.DecodingError):
                return False
        return response.status_code == 200 and await response.aread() == b'{"openid": "openid-of-%b"}' % number


@pytest.mark.slow
@both_framings
@pytest.mark.parametrize("end", ["close", "reset"])
@on_both_loops
async def test_an_answer_that_is_cut_off_at_any_byte_is_none(answer: Answer, end: str) -> None:
    async with Server() as server, transport() as way:
        client = Client(way, server)
        length = len(answer(b"10000"))
        for position in range(length + 1):

            def cut(connection: asyncio.StreamWriter, number: bytes, position: int = position) -> None:
                connection.write(answer(number)[:position])
                if end == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close()

            server.serve = cut
            assert await client.is_answered() is (position == length) or (position, end) == (length, "reset"), position
            server.serve = well
            assert await client.is_answered()
        assert len(server.requests) == 2 * (length + 1)


@both_framings
@on_both_loops
async def test_an_answer_may_come_in_two_pieces_torn_at_any_byte(answer: Answer) -> None:
    async with Server() as server, transport() as way:
        client = Client(way, server)
        for position in range(len(answer(b"10000")) + 1):

            def tear(connection: asyncio.StreamWriter, number: bytes, position: int = position) -> None:
                connection.write(answer(number)[:position])
                asyncio.get_running_loop().call_soon(connection.write, answer(number)[position:])

            server.serve = tear
            assert await client.is_answered(), position
        assert len(server.connections) == 1


@pytest.mark.slow
@both_framings
@on_both_loops
async def test_an_answer_that_is_spoilt_at_any_byte_spoils_no_other(answer: Answer) -> None:
    dice = random.Random(SEED)
    async with Server() as server, transport() as way:
        client = Client(way, server)
        for position in range(len(answer(b"10000"))):
            for spoil in SPOILS:

                def spoilt(
                    connection: asyncio.StreamWriter, number: bytes, position: int = position, spoil: Spoil = spoil
                ) -> None:
                    connection.write(spoil(answer(number), position, dice))

                server.serve = spoilt
                await client.is_answered(is_whole=False)
                server.serve = well
                assert await client.is_answered(), (position, spoil)
        assert len(server.requests) == len(set(server.requests))
