"""Tests of clients that take nothing, or little, of their responses. Each test sets the time itself."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tests.web.misbehaving import GET, behind_edge, options
from wxauth.web.http_protocol import HttpProtocol

LARGE = 8 * 2**20
SMALL = 60_000
MEANWHILE = 80
"""Seconds until a client is disconnected whose system has taken a last piece while the test waited."""
CLOSE = GET.replace(b"Host", b"Connection: close\r\nHost")


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop whose time a test sets."""

    now = 0.0

    def time(self) -> float:
        return self.now


async def app(scope: Scope, _: Receive, send: Send) -> None:
    """Send a body that has the size in the path, or wait for ever after the beginning of one."""
    size = scope["path"].removeprefix("/")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(int(size or 1)), "more_body": True})
    if not size:
        await asyncio.Event().wait()
    await send({"type": "http.response.body"})


class Exchange:
    """A connection between a client and the protocol, over loopback."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._state = ServerState()
        config = uvicorn.Config(behind_edge(app), **options())
        config.load()
        self.protocol = HttpProtocol(config=config, server_state=self._state, app_state={})
        self.client = socket.socket()

    @property
    def is_open(self) -> bool:
        return bool(self._state.connections)

    async def begin(self, sent: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # Otherwise the system would take the whole response.
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            self.client.connect(listener.getsockname())
            accepted, _ = listener.accept()
        self.client.setblocking(False)
        await self._loop.connect_accepted_socket(lambda: self.protocol, accepted)
        self.client.sendall(sent)
        await self.rest()

    async def rest(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self._loop.now += 1  # type: ignore[attr-defined]
            await self.rest()

    async def take(self, most: int) -> int:
        taken = 0
        with suppress(BlockingIOError):
            while taken < most:
                taken += len(self.client.recv(most - taken))
                await self.rest()
        return taken

    async def end(self) -> None:
        self.client.close()
        for task in self._state.tasks:
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        if self.is_open:  # asyncio fails to abort a transport that has closed itself after sending the rest
            self.protocol.transport.abort()
        await self.rest()


def run(scenario: Callable[[Exchange], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        exchange = Exchange()
        try:
            await scenario(exchange)
        finally:
            await exchange.end()

    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        runner.run(whole())


@pytest.mark.parametrize(
    "sent",
    [GET % b"%d" % LARGE, GET % b"%d" % LARGE * 8, GET % b"%d" % SMALL, GET % b"%d" % SMALL * 8, CLOSE % b"%d" % SMALL],
)
@pytest.mark.parametrize("does_server_end", [False, True])
def test_a_client_that_takes_nothing_is_disconnected_after_60_s(sent: bytes, does_server_end: bool) -> None:
    async def scenario(exchange: Exchange) -> None:
        await exchange.begin(sent)
        if does_server_end:
            exchange.protocol.shutdown()
        await exchange.wait(58)
        assert exchange.is_open
        await exchange.wait(MEANWHILE)
        assert not exchange.is_open
        with pytest.raises(ConnectionResetError):
            await exchange.take(2 * LARGE)

    run(scenario)


def test_the_time_begins_again_with_each_byte_that_has_been_taken() -> None:
    async def scenario(exchange: Exchange) -> None:
        await exchange.begin(GET % b"%d" % LARGE)
        for _ in range(12):
            await exchange.wait(50)
            assert exchange.is_open
            assert await exchange.take(100_000)
        await exchange.wait(50)
        assert exchange.is_open
        await exchange.wait(MEANWHILE)
        assert not exchange.is_open

    run(scenario)


def test_a_client_may_always_be_taking_another_response_of_the_same_size() -> None:
    async def scenario(exchange: Exchange) -> None:
        await exchange.begin(GET % b"%d" % SMALL)
        for _ in range(200):
            await exchange.wait(1)
            assert exchange.is_open
            assert await exchange.take(LARGE) > SMALL
            exchange.client.sendall(GET % b"%d" % SMALL)
            await exchange.rest()
        await exchange.wait(58 + MEANWHILE)
        assert not exchange.is_open

    run(scenario)


def test_a_client_that_has_taken_everything_may_stay_until_the_connection_is_idle_for_too_long() -> None:
    async def scenario(exchange: Exchange) -> None:
        exchange.protocol.timeout_keep_alive = 75
        await exchange.begin(GET % b"%d" % SMALL)
        assert await exchange.take(LARGE) > SMALL
        await exchange.wait(70)
        assert exchange.is_open
        await exchange.wait(10)
        assert not exchange.is_open

    run(scenario)


def test_a_response_that_takes_long_to_produce_is_waited_for() -> None:
    async def scenario(exchange: Exchange) -> None:
        await exchange.begin(GET % b"")
        assert await exchange.take(LARGE)
        await exchange.wait(600)
        assert exchange.is_open

    run(scenario)
