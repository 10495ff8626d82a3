"""The tests' servers leave no connection open, which would fail a later test."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from errno import ECONNRESET, ENOTCONN

import pytest
from fastapi import FastAPI

from tests.serving import server_of
from tests.upstream import Upstream, hang
from tests.world import until


@asynccontextmanager
async def plain_server() -> AsyncIterator[int]:
    async with Upstream(hang) as upstream:
        yield upstream.port


@asynccontextmanager
async def apps_server() -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = server_of(FastAPI(), lifespan="off")
        task = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.end()
            await task


@pytest.mark.slow
@pytest.mark.parametrize("serve", [plain_server, apps_server])
def test_a_connection_that_comes_as_its_server_ends_is_closed(
    serve: Callable[[], AbstractAsyncContextManager[int]],
) -> None:
    async def connect_as_it_ends(steps: int) -> socket.socket:
        """Connect so many steps of the event loop before the server begins to end, or behind that."""
        async with serve() as port:
            client = asyncio.create_task(connect(port, later=-steps))
            for _ in range(steps):
                await asyncio.sleep(0)
        return await client

    for steps in range(-12, 8):
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            client = runner.run(connect_as_it_ends(steps))
        with client:
            client.setblocking(False)
            assert is_closed(client), f"at step {steps} of the event loop"


async def connect(port: int, *, later: int) -> socket.socket:
    for _ in range(later):
        await asyncio.sleep(0)
    client = socket.socket()
    try:
        client.connect(("127.0.0.1", port))
    except ConnectionRefusedError:
        assert later > 0, "it was still to be listened to"
    return client


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except OSError as exc:
        return exc.errno in (ECONNRESET, ENOTCONN)
