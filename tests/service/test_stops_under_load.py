"""`wxauth serve` stops and starts while clients connect, with several workers, and no connection is lost or waits."""

import asyncio
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.deploy.shipped_nginx import shipped_nginx
from tests.fakes import service_env
from tests.processes import WXAUTH, Running, free_port, until

pytestmark = pytest.mark.operations

BODY = b'{"refresh_token": "forged"}'
LOGOUT = b"POST /v1/logout HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CLIENTS = 12
STRAIGHT, ROUNDS = 6, 2
"""With two and with four workers, one replica is stopped 6 times and two replicas twice each: 20 stops."""
SLOW_SECONDS = 2.0
"""The time that nginx allows for a connection, which is enough for an attempt that the system repeats after 1 s."""

Start = Callable[[int], Running]


@contextmanager
def clients(port: int, trusted: ssl.SSLContext | None = None) -> Iterator[Counter[str]]:
    """Let clients send requests during the block, each on its own connection, and count how the requests end."""
    seen: Counter[str] = Counter()
    is_over = Event()

    async def ask() -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted)
        except ConnectionRefusedError:
            return "refused"
        try:
            writer.write(LOGOUT)
            return (await reader.read())[9:12].decode() or "closed"
        except OSError as exc:
            return repr(exc)
        finally:
            writer.close()

    async def use() -> None:
        while not is_over.is_set():
            began_at = time.monotonic()
            end = await ask()
            seen[end if time.monotonic() - began_at < SLOW_SECONDS else f"{end}, slow"] += 1
            await asyncio.sleep(0.01)  # leaves the replicas some of the machine

    async def use_together() -> None:
        await asyncio.gather(*(use() for _ in range(CLIENTS)))

    thread = Thread(target=asyncio.run, args=(use_together(),))
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


@pytest.fixture(params=[2, 4], ids=["two workers", "four workers"])
def start(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(port: int) -> Running:
            env = service_env(database_url, wechat_base_url="http://127.0.0.1:1", port=port, workers=request.param)
            return stack.enter_context(Running(WXAUTH, "serve", cwd=tmp_path, env=env))

        yield start


def test_a_replica_answers_each_client_that_it_lets_connect(start: Start) -> None:
    port = free_port()
    with clients(port) as seen:
        for _stop in range(STRAIGHT):
            replica, so_far = start(port), seen["204"]
            until(lambda: seen["204"] > so_far + 100)  # noqa: B023 - called at once
            assert replica.end(signal.SIGTERM) == 0
    assert set(seen) == {"204", "refused"}, seen


@pytest.mark.proxy
def test_behind_nginx_nobody_notices_that_two_replicas_are_restarted_in_turn(start: Start, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    replicas = [start(port) for port in ports]
    for replica in replicas:
        replica.wait_for('"started"')
    with (
        shipped_nginx(tmp_path, [f"127.0.0.1:{port}" for port in ports]) as front,
        clients(front.port, front.trusted) as seen,
    ):
        for number in (0, 1) * ROUNDS:
            so_far = seen["204"]
            until(lambda: seen["204"] > so_far + 100)  # noqa: B023 - called at once
            assert replicas[number].end(signal.SIGTERM) == 0
            replicas[number] = start(ports[number])
            replicas[number].wait_for('"started"')
    assert set(seen) == {"204"}, seen
