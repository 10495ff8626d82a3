"""The tests' servers leave no connection open, which would fail a later test."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from errno import ECONNRESET, ENOTCONN
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from tests.clock import PATIENCE
from tests.serving import server_of, serving
from tests.upstream import Upstream, hang
from tests.world import until
from wxauth.server.service.server import uvicorn_options
from wxauth.server.web.http_server import Server


@asynccontextmanager
async def plain_server(_folder: Path) -> AsyncIterator[int]:
    async with Upstream(hang) as upstream:
        yield upstream.port


@asynccontextmanager
async def apps_server(_folder: Path) -> AsyncIterator[int]:
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
    serve: Callable[[Path], AbstractAsyncContextManager[int]], tmp_path: Path
) -> None:
    async def connect_as_it_ends(steps: int) -> socket.socket:
        """Connect so many steps of the event loop before the server begins to end, or behind that."""
        async with serve(tmp_path) as port:
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


@pytest.mark.parametrize("path", ["/answered", "/hanging"])
@pytest.mark.parametrize(
    "options",
    [{"loop": "asyncio"}, {"loop": "uvloop"}, {"kind": Server, **uvicorn_options()}],
    ids=["uvicorn's, on asyncio", "uvicorn's, on uvloop", "our own"],
)
def test_an_apps_server_closes_connections_that_stay_open(options: dict[str, Any], path: str) -> None:
    app, is_asked = FastAPI(), Event()

    @app.get("/hanging")
    async def hang_for_ever() -> None:
        is_asked.set()
        await asyncio.Event().wait()

    with serving(app, **{**options, "lifespan": "off"}) as url:
        client = socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=PATIENCE)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert is_asked.wait(PATIENCE) if path == "/hanging" else client.recv(65536).startswith(b"HTTP/1.1 404")
    with client, suppress(ConnectionResetError):
        while client.recv(65536):  # to the end, or it raises
            pass


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except OSError as exc:
        return exc.errno in (ECONNRESET, ENOTCONN)
