"""A server of a test leaves no connection open: what stays open fails whichever test comes next."""

import asyncio
import socket
from contextlib import suppress
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

    async def connect_and_end(steps: int) -> socket.socket:
        async with Upstream(hang, tls=tls) as upstream:
            client = socket.create_connection(("127.0.0.1", upstream.port))
            for _ in range(steps):
                await asyncio.sleep(0)
        return client

    for steps in range(8):
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            client = runner.run(connect_and_end(steps))
        with client:
            client.setblocking(False)
            assert is_closed(client), f"after {steps} steps of the event loop"


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
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False
