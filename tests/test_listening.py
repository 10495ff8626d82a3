"""A server of a test leaves no connection open: what stays open fails whichever test comes next."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.upstream import Upstream, hang


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


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False
