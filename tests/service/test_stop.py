"""`wxauth serve` opens its port when it can answer, and stops without losing a request."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from tests.fakes import service_env
from tests.loops import on_both_loops
from tests.processes import PATIENCE, WXAUTH, Running, free_port, is_free, is_served, until
from tests.web.misbehaving import read_all
from tests.world import Server
from wxauth.core.background import LAST_ROUND_SECONDS, LAST_STORE_SECONDS
from wxauth.core.connecting import CLOSE_TIMEOUT_SECONDS
from wxauth.phones.phones import FAREWELL_SECONDS
from wxauth.service import server as own_server
from wxauth.service.probes import PROXY_NOTICE_SECONDS

BODY = b'{"refresh_token": "forged"}'
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SO_GET_FILTER = 26  # of Linux
LOGOUT = b"POST /v1/logout HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.mark.no_database
def test_a_worker_is_not_killed_before_its_parts_have_ended() -> None:
    parts = FAREWELL_SECONDS + LAST_ROUND_SECONDS + LAST_STORE_SECONDS + CLOSE_TIMEOUT_SECONDS
    assert PROXY_NOTICE_SECONDS + own_server.DRAIN_SECONDS + parts <= own_server.END_SECONDS


@pytest.mark.process
def test_on_sigterm_a_replica_is_not_ready_and_answers_to_the_last_request(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    env = service_env(database_url, wechat_base_url="http://127.0.0.1:1", port=port)
    with (
        Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        command.wait_for('"started"')
        assert client.get("/readyz").status_code == 200
        slow = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        slow.sendall(LOGOUT[:-1])
        asked_at = time.monotonic()
        command.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
        answer = client.get("/readyz")
        assert (answer.json()["status"], answer.headers["connection"]) == ("unavailable", "close")
        assert "ending" in answer.json()["checks"]["process"]
        answer = client.get("/livez")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        until(lambda: is_free(port))
        assert time.monotonic() - asked_at >= 2
        slow.sendall(LOGOUT[-1:])
        last = read_all(slow)
        assert (last[:12], b"connection: close" in last) == (b"HTTP/1.1 204", True)
        assert command.process.wait(PATIENCE) == 0


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_sigterm_does_not_wait_for_a_request(tmp_path: Path, database_url: str, workers: int) -> None:
    port = free_port()
    env = service_env(database_url, wechat_base_url="http://127.0.0.1:1", port=port, workers=workers)
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
        until(lambda: command.output.count('"started"') == workers)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as slow:
            slow.sendall(LOGOUT[:-1])
            command.process.send_signal(signal.SIGTERM)
            until(lambda: command.output.count('"leaving"') == workers)
            assert command.end(signal.SIGTERM) == 0
            assert b"HTTP/1.1 204" not in read_all(slow)
    assert '"stopped"' not in command.output


@pytest.mark.process
def test_workers_that_get_a_sigterm_of_their_own_wait_all_the_same(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    env = service_env(database_url, wechat_base_url="http://127.0.0.1:1", port=port, workers=2)
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
        service = Server(command, port)
        until(lambda: service.has_started == 2)
        slow = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        slow.sendall(LOGOUT[:-1])
        until(lambda: service.is_ready())  # a later request is answered, so the first part was read
        for pid in (*service.workers(), command.process.pid):  # as systemd does with KillMode=control-group
            os.kill(pid, signal.SIGTERM)
        until(lambda: is_free(port))
        slow.sendall(LOGOUT[-1:])
        assert read_all(slow).startswith(b"HTTP/1.1 204")
        assert command.process.wait(PATIENCE) == 0
        service.client.close()


@pytest.mark.process
@pytest.mark.no_database
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sigterm_while_the_database_is_silent_ends_a_start_at_once(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as database:
        url = f"postgresql://wxauth@127.0.0.1:{database.getsockname()[1]}/wxauth"
        env = service_env(url, port=free_port(), workers=workers)
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
            asked = [database.accept() for _ in range(workers)]
            assert command.end(signal.SIGTERM) == 0
            assert '"started"' not in command.output
            for connection, _address in asked:
                connection.close()


@pytest.mark.process
@pytest.mark.no_database
@pytest.mark.parametrize("workers", [1, 2])
def test_no_client_can_connect_before_a_process_can_answer(tmp_path: Path, workers: int) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as database:
        url = f"postgresql://wxauth@127.0.0.1:{database.getsockname()[1]}/wxauth"
        env = service_env(url, port=port, workers=workers)
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
            asked, _address = database.accept()  # by a process that waits for its first look at the database
            assert not is_served(port)
            asked.close()
            database.close()
            command.wait_for('"started"')
            assert is_served(port)


@pytest.mark.process
@pytest.mark.no_database
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_another_program_opens_during_a_start_ends_this_start(tmp_path: Path, workers: int) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as database:
        url = f"postgresql://wxauth@127.0.0.1:{database.getsockname()[1]}/wxauth"
        env = service_env(url, port=port, workers=workers)
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
            asked, _address = database.accept()
            with own_server.listen("127.0.0.1", port):
                asked.close()
                database.close()
                assert command.process.wait(PATIENCE) == 1
            assert f"127.0.0.1:{port} is already in use" in command.output
            assert "Traceback" not in command.output


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[uvicorn.Server, socket.socket]]:
    """Give a server that listens, and its socket."""
    with own_server.listen("127.0.0.1", 0) as listener:
        app = PlainTextResponse("served")
        server = own_server.Server(uvicorn.Config(app, lifespan="off", **own_server.uvicorn_options()))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([listener])
        yield server, listener


@on_both_loops
async def test_a_request_that_arrives_as_the_port_is_closed_is_answered() -> None:
    async with serving() as (server, listener):
        address = listener.getsockname()
        with socket.create_connection(address, timeout=PATIENCE) as late:  # it is not accepted before the port closes
            late.sendall(REQUEST)
            await server.shutdown([listener])
            assert late.recv(4096).endswith(b"served")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)


@on_both_loops
@pytest.mark.parametrize("rounds", range(3))
async def test_a_connection_that_is_accepted_as_the_port_is_closed_does_not_stay_open(rounds: int) -> None:
    async with serving() as (server, listener):
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as late:
            late.sendall(REQUEST)
            for _round in range(rounds):  # after one round, uvloop has accepted it, but uvicorn does not know it
                await asyncio.sleep(0)
            await server.shutdown([listener])
            assert not server.server_state.connections
            assert read_all(late).endswith(b"served")


@pytest.mark.slow  # the system repeats an attempt after a second
@on_both_loops
async def test_a_client_that_asks_for_a_connection_as_the_port_is_closed_is_refused() -> None:
    async with serving() as (server, listener):
        address = listener.getsockname()
        ending = asyncio.create_task(server.shutdown([listener]))
        await asyncio.sleep(0)
        if not listener.getsockopt(socket.SOL_SOCKET, SO_GET_FILTER, 64):
            await ending
            pytest.skip("this kernel runs programs at sockets for root alone")
        with pytest.raises(ConnectionRefusedError):  # the connection would be reset if it was made and not accepted
            await asyncio.to_thread(socket.create_connection, address, PATIENCE)
        await ending


@on_both_loops
async def test_a_client_that_has_just_connected_may_be_slow_to_send_its_request_as_the_port_is_closed() -> None:
    async with serving() as (server, listener):
        with await accepted(server, listener) as late:
            ending = asyncio.create_task(server.shutdown([listener]))
            await asyncio.sleep(0.3)  # as if the client's machine was busy
            late.sendall(REQUEST)
            await ending
            assert read_all(late).endswith(b"served")


@on_both_loops
async def test_the_next_request_of_a_connection_that_arrives_as_the_port_is_closed_is_answered() -> None:
    async with serving() as (server, listener):
        with await accepted(server, listener) as kept:
            kept.sendall(REQUEST)
            answer = b""
            while not answer.endswith(b"served"):
                answer += await asyncio.to_thread(kept.recv, 4096)
            kept.sendall(REQUEST)  # the server has no time to read it before it closes its port
            await server.shutdown([listener])
            assert read_all(kept).endswith(b"served")


@on_both_loops
async def test_a_client_that_has_connected_and_sends_nothing_does_not_delay_the_end() -> None:
    async with serving() as (server, listener):
        with await accepted(server, listener) as silent:
            await server.shutdown([listener])
            assert read_all(silent) == b""


async def accepted(server: uvicorn.Server, listener: socket.socket) -> socket.socket:
    """Return a client's connection that the server has accepted."""
    connection = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
    await asyncio.to_thread(until, lambda: server.server_state.connections)
    return connection
