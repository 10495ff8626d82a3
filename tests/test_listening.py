"""A server of a test leaves no connection open: what stays open fails whichever test comes next."""

import asyncio
import socket
from contextlib import suppress
from errno import ECONNRESET, ENOTCONN
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from tests.certificates import Authority
from tests.serving import PATIENCE, serving
from tests.upstream import Upstream, hang
from wxauth.service.server import uvicorn_options
from wxauth.web.http_server import Server


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_connection_that_comes_as_its_server_ends_is_closed(secure: bool, tmp_path: Path) -> None:
    tls = Authority(tmp_path).server("127.0.0.1") if secure else None

    async def connect_as_it_ends(steps: int) -> socket.socket:
        """Connect so many steps of the event loop before the server begins to end, or behind that."""
        async with Upstream(hang, tls=tls) as upstream:
            client = asyncio.create_task(connect(upstream.port, later=-steps))
            for _ in range(steps):
                await asyncio.sleep(0)
        return await client

    for steps in range(-8, 8):
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            client = runner.run(connect_as_it_ends(steps))
        with client:
            client.setblocking(False)
            assert is_closed(client), f"at step {steps} of the event loop"


async def connect(port: int, *, later: int) -> socket.socket:
    for _ in range(later):
        await asyncio.sleep(0)
    client = socket.socket()
    with suppress(ConnectionRefusedError):
        client.connect(("127.0.0.1", port))
    return client


@pytest.mark.parametrize("options", [{}, {"kind": Server, **uvicorn_options()}], ids=["uvicorn's", "our own"])
def test_an_apps_server_hangs_up_on_those_who_stay(options: dict[str, Any]) -> None:
    app = FastAPI()
    with serving(app, **{**options, "lifespan": "off"}) as url:
        client = socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=PATIENCE)
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 404")
    with client, suppress(ConnectionResetError):
        while client.recv(65536):  # to the end, or it raises
            pass


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except OSError as exc:
        return exc.errno in (ECONNRESET, ENOTCONN)
