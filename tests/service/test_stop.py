"""`wxauth serve` stops without the loss of a request by a proxy in front of several replicas."""

import asyncio
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.fakes import service_env
from tests.loops import let_pass
from tests.processes import PATIENCE, WXAUTH, Running, free_port, is_free, until
from tests.web.misbehaving import GET, App, behind_edge, options, read_all
from wxauth.server.service.server import listen
from wxauth.server.web.http_server import Server

LEARNING = 20.0
"""Seconds in which a proxy may learn here that the server leaves, on a clock that the tests move.
Fewer than a request may take, or the server would close connections for that."""
BODY = b'{"refresh_token": "forged"}'
LOGOUT = b"POST /v1/logout HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class ObservedServer(Server):
    """A server that shows when it has begun to leave."""

    def __init__(self, config: uvicorn.Config, *, learning: float) -> None:
        super().__init__(config, learning=learning)
        self.has_begun_to_leave = threading.Event()
        self.at_the_last_moment: Callable[[], object] = bool

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.has_begun_to_leave.set()
        await super().shutdown(sockets)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        self.at_the_last_moment()
        await super()._stop_listening(sockets)


@dataclass
class Leaving:
    """A server, and a way to ask it to end as a signal does."""

    server: ObservedServer
    port: int
    app: App
    thread: threading.Thread

    def connect(self) -> socket.socket:
        """A connection that the server has accepted."""
        number = len(self.server.server_state.connections)
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        until(lambda: len(self.server.server_state.connections) > number)
        return connection

    def ask_to_end(self, number: int = signal.SIGTERM) -> None:
        self.server.handle_exit(number, None)
        assert self.server.has_begun_to_leave.wait(PATIENCE)

    def let_pass(self, seconds: float) -> None:
        """Move the server's clock."""
        self.server.loop.call_soon_threadsafe(let_pass, seconds)


@pytest.fixture
def leaving() -> Iterator[Leaving]:
    app = App()
    its = options() | {"timeout_graceful_shutdown": 30, "loop": "tests.loops:UnhurriedLoop"}
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = ObservedServer(uvicorn.Config(behind_edge(app), **its), learning=LEARNING)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        until(lambda: server.started)
        yield Leaving(server, port, app, thread)
        app.let_go.set()
        server.should_exit = server.force_exit = True
        thread.join()


def ask(connection: socket.socket, path: bytes = b"a") -> bytes:
    """One answer."""
    connection.sendall(GET % path)
    answer = b""
    while not answer.endswith(b"/%b " % path):
        answer += connection.recv(65536)
    return answer


def test_an_idle_connection_and_a_new_one_are_there_for_one_more_request(leaving: Leaving) -> None:
    idle = leaving.connect()
    assert b"connection: close" not in ask(idle)
    leaving.ask_to_end()
    for connection in (idle, leaving.connect()):
        connection.sendall(GET % b"last")
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
    leaving.let_pass(LEARNING)
    until(lambda: is_free(leaving.port))


def test_an_idle_connection_is_closed_when_no_proxy_should_use_it_any_more(leaving: Leaving) -> None:
    connection = leaving.connect()
    ask(connection)
    leaving.ask_to_end()
    leaving.let_pass(LEARNING - 10)
    assert is_quiet(connection)
    leaving.let_pass(10)
    assert read_all(connection) == b""
    until(lambda: not leaving.thread.is_alive())


def test_a_client_that_connects_late_can_still_send_a_request(leaving: Leaving) -> None:
    early = leaving.connect()
    leaving.ask_to_end()
    leaving.let_pass(LEARNING / 2)
    assert is_quiet(early)
    late = leaving.connect()
    leaving.let_pass(LEARNING / 2)
    assert read_all(early) == b""
    late.sendall(GET % b"late")
    assert read_all(late).startswith(b"HTTP/1.1 200")


def test_a_client_in_the_backlog_when_the_port_is_closed_is_answered(leaving: Leaving) -> None:
    connections: list[socket.socket] = []

    def connect() -> None:
        connections.append(socket.create_connection(("127.0.0.1", leaving.port), timeout=PATIENCE))
        connections[0].sendall(GET % b"last")

    leaving.server.at_the_last_moment = connect
    leaving.ask_to_end()
    leaving.let_pass(LEARNING)
    until(lambda: connections)
    assert read_all(connections[0]).startswith(b"HTTP/1.1 200")


def test_a_request_of_which_a_part_is_here_may_arrive(leaving: Leaving) -> None:
    connection, request = leaving.connect(), GET % b"slow"
    connection.sendall(request[:9])
    leaving.ask_to_end()
    leaving.let_pass(LEARNING)
    until(lambda: is_free(leaving.port))
    assert is_quiet(connection)
    connection.sendall(request[9:])
    assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_requests_in_hand_are_all_answered(leaving: Leaving) -> None:
    connection = leaving.connect()
    connection.sendall(GET % b"waits" + (GET % b"a") * 100)
    until(lambda: leaving.server.server_state.tasks)
    leaving.ask_to_end()
    leaving.app.let_go.set()
    answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200") == 101
    assert answer.count(b"connection: close") == 1


def test_a_request_that_takes_too_long_is_answered_with_an_error(leaving: Leaving) -> None:
    connection = leaving.connect()
    connection.sendall(GET % b"waits")
    until(lambda: leaving.server.server_state.tasks)
    leaving.ask_to_end()
    leaving.let_pass(LEARNING + 20)
    assert is_quiet(connection)
    leaving.let_pass(10)
    assert read_all(connection).startswith(b"HTTP/1.1 500")


def test_a_person_does_not_wait_for_proxies(leaving: Leaving) -> None:
    connection = leaving.connect()
    ask(connection)
    leaving.ask_to_end(signal.SIGINT)
    assert read_all(connection) == b""


def is_quiet(connection: socket.socket) -> bool:
    """Whether the server neither sends anything nor closes the connection, in a few of its looks."""
    return not select.select([connection], [], [], 0.2)[0]


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
