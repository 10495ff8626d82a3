"""Clients that are slow, send too much at once, or disconnect during a request."""

import json
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.processes import serving, until
from tests.web.misbehaving import GET, LARGE, App, behind_edge, connected, options, read_all
from wxauth.server.web.http_server import Server

SOON = 0.3
"""Seconds for which a client is waited for here."""

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture(scope="module")
def app() -> App:
    return App()


Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def connect(app: App) -> Iterator[Connect]:
    with serving(behind_edge(app, seconds=SOON), kind=Server, **options(seconds=SOON)) as url:
        yield partial(connected, url)


@pytest.fixture(scope="module")
def connect_patiently(app: App) -> Iterator[Connect]:
    """To a server with its own limits, for clients that send much: a busy machine may take longer than `SOON`."""
    with serving(behind_edge(app), kind=Server, **options()) as url:
        yield partial(connected, url)


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails if the block takes a megabyte for what no client wants yet."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def exchange(connect: Connect, sent: bytes) -> bytes:
    connection = connect()
    connection.sendall(sent)
    return read_all(connection)


def answer_to_a_little_now_and_then(connect: Connect, first: bytes, little: bytes) -> bytes:
    with connect() as connection:
        connection.sendall(first)
        connection.settimeout(SOON / 10)
        for _ in range(999):
            try:
                connection.sendall(little)
                return connection.recv(65536)
            except TimeoutError:
                pass
            except ConnectionError:  # it was closed, without an answer, as this was on its way
                return b""
    pytest.fail("still open")


def problem_in(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    assert b"\r\nconnection: close" in head
    return problem["status"], problem["code"]


# Slow


def test_a_connection_that_is_silent_or_falls_silent_is_closed(connect: Connect) -> None:
    assert read_all(connect()) == b""
    answer = exchange(connect, GET % b"a")
    assert (answer[:12], answer[-3:]) == (b"HTTP/1.1 200", b"/a ")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"GET", b"GET / HTTP/1.1\r\nHost:", POST % b"a", POST % b"a" + b"12"])
def test_a_request_that_does_not_come_whole_is_given_up(connect: Connect, sent: bytes) -> None:
    assert problem_in(exchange(connect, sent)) == (408, "invalid_request")


def test_a_request_that_trickles_in_is_given_up(connect: Connect) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n"
    assert problem_in(answer_to_a_little_now_and_then(connect, head, b"x")) == (408, "invalid_request")


@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_nobody_reads_has_no_more_time_and_is_no_request(connect: Connect, expects: bytes) -> None:
    answer = exchange(connect, b"POST /unread HTTP/1.1\r\nHost: a\r\n" + expects + b"Content-Length: 4\r\n\r\n")
    assert (answer[:12], answer.count(b"HTTP/1.1")) == (b"HTTP/1.1 413", 1)
    assert (b"connection: close" in answer) is bool(expects)


def test_empty_lines_are_no_request(connect: Connect) -> None:
    assert answer_to_a_little_now_and_then(connect, b"", b"\r\n") == b""


def test_a_path_may_have_more_time(connect: Connect) -> None:
    connection = connect()
    connection.sendall(POST % b"auth/slow" + b"12")
    assert problem_in(exchange(connect, POST % b"begun-later")) == (408, "invalid_request")
    connection.sendall(b"34" + LAST)
    answer = read_all(connection)
    assert answer.count(b"/auth/slow 1234") == answer.count(b"/last") == 1


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_for_a_client_that_does_not_read_little_is_kept_until_it_is_disconnected(loop: str) -> None:
    app = App()
    with serving(behind_edge(app), kind=Server, **options(seconds=SOON) | {"loop": loop}) as url:
        connection = connected(url)
        with little_memory():
            connection.sendall(GET % b"large")
            until(lambda: app.ended.pop("/large", 0))
        assert len(read_all(connection)) < LARGE
    with serving(behind_edge(app), kind=Server, **options() | {"loop": loop}) as url:
        connection = connected(url)
        connection.sendall((GET % b"large").replace(b"Host", b"Connection: close\r\nHost"))
        assert len(read_all(connection)) > LARGE


def test_of_an_answer_of_unknown_length_the_head_does_not_wait(connect: Connect, app: App) -> None:
    app.let_go.clear()
    with connect() as connection:
        connection.sendall(GET % b"begins")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        app.let_go.set()
        assert read_all(connection).endswith(b"2\r\nok\r\n0\r\n\r\n")


def test_of_an_answer_to_head_there_is_no_more(connect: Connect) -> None:
    answer = exchange(connect, (GET % b"a").replace(b"GET", b"HEAD") + LAST)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.endswith(b"/last ")


# Much at once


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"", b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_of_many_requests_at_once_few_are_looked_at(connect_patiently: Connect, app: App, first: bytes) -> None:
    connection = connect_patiently()
    number = 5000
    sent = first + GET % b"waits" + GET % b"a" * number + LAST
    app.let_go.clear()
    with little_memory():
        sending = threading.Thread(target=connection.sendall, args=(sent,))
        sending.start()
        until(lambda: app.begun.pop("/waits", 0))
        sending.join(SOON)
    app.let_go.set()
    answer = read_all(connection)
    sending.join()
    assert answer.count(b"HTTP/1.1 200") == number + 2 + bool(first)
    assert answer.endswith(b"/last ")


def test_requests_with_bodies_are_answered_in_their_order(connect_patiently: Connect) -> None:
    bodies = [b"\r\n\r\n" * 40, b"", b"x" * 100_000, b"GET / HTTP/1.1\r\n\r\n" * 40]
    sent = [
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (number, len(body), body)
        for number, body in enumerate(bodies * 10)
    ]
    answer = exchange(connect_patiently, b"".join(sent) + LAST)
    wanted = [b"/%d %b" % (number, body) for number, body in enumerate(bodies * 10)]
    positions = [answer.find(text) for text in wanted]
    assert -1 not in positions
    assert positions == sorted(positions)
    assert answer.endswith(b"/last ")


def test_upgrades_at_once_are_all_ignored(connect_patiently: Connect) -> None:
    upgrade = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    with_body = upgrade.replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 4\r\nHost") + b"body"
    answer = exchange(connect_patiently, upgrade * 3000 + with_body * 1000 + LAST)
    assert (answer.count(b"HTTP/1.1 200"), answer.count(b"/a body")) == (4001, 1000)


# Wrong, or broken off


def test_an_invalid_request_is_refused_after_earlier_requests_are_answered(connect: Connect) -> None:
    answer = exchange(connect, GET % b"a" + POST % b"b" + b"body" + b"nonsense\r\n\r\n")
    first, second, refusal = answer.split(b"HTTP/1.1 ")[1:]
    assert (first[-3:], second[-7:]) == (b"/a ", b"/b body")
    assert problem_in(b"HTTP/1.1 " + refusal) == (400, "invalid_request")


def test_a_client_refused_while_still_sending_can_read_the_answer(connect: Connect) -> None:
    with connect() as connection, connection.makefile("rb") as received:
        connection.sendall(b"nonsense\r\n\r\n" + b"x" * 4 * 2**20)
        answer = received.read()  # a reset would be an error
    assert problem_in(answer) == (400, "invalid_request")


@pytest.mark.parametrize("target", [b"a", b"/\xff", b"http:///"])
def test_a_target_that_is_no_path_is_refused(connect: Connect, target: bytes) -> None:
    assert problem_in(exchange(connect, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)) == (400, "invalid_request")


def test_a_proxys_form_of_target_is_a_path(connect: Connect) -> None:
    answer = exchange(connect, b"GET http://a/b%63 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"/bc ")


def test_a_fault_is_answered_as_a_problem(connect: Connect) -> None:
    sent = (GET % b"fails").replace(b"Host", b"Connection: close\r\nHost")
    assert problem_in(exchange(connect, sent)) == (500, "internal_error")


@pytest.mark.parametrize("line_break", [b"\r\n", b"\n", b"\r"])
def test_a_header_field_does_not_become_two(connect: Connect, line_break: bytes) -> None:
    body = b"a" + line_break + b"Injected: b"
    answer = exchange(connect, b"POST /split HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer == b""


def test_a_truncated_answer_is_distinguishable_from_a_whole_answer(connect: Connect) -> None:
    for path, sent in ((b"breaks", b"in "), (b"fails-later", b"")):
        answer = exchange(connect, GET % path + GET % b"a")
        assert b"content-length: 9" in answer
        assert answer.endswith(b"\r\n\r\n" + sent)


def test_a_client_that_expects_100_continue_gets_100_continue(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"body" + LAST)
    answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"/a body" in answer


# What an answer says of its length


@pytest.mark.parametrize(
    ("request_line", "body"),
    [
        (b"GET /unmeasured HTTP/1.1", b"3\r\nin \r\n5\r\nparts\r\n0\r\n\r\n"),
        (b"HEAD /unmeasured HTTP/1.1", b""),
        (b"HEAD /a HTTP/1.1", b""),
    ],
)
def test_a_body_without_a_length_ends_as_http_specifies(connect: Connect, request_line: bytes, body: bytes) -> None:
    answer = exchange(connect, request_line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2] == body
    assert (b"transfer-encoding: chunked" in answer) is body.endswith(b"0\r\n\r\n")
