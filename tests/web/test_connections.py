"""Tests of clients that are slow, send too much at once, or disconnect during a request."""

import json
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.processes import serving, until
from tests.web.misbehaving import GET, App, behind_edge, connected, options, read_all
from tests.world import LogLines

SOON = 0.3
"""Seconds that the server under test waits for a client."""

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture(scope="module")
def app() -> App:
    return App()


Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def connect(app: App) -> Iterator[Connect]:
    with serving(behind_edge(app, seconds=SOON), **options(seconds=SOON)) as url:
        yield partial(connected, url)


@pytest.fixture(scope="module")
def patient_app() -> App:
    return App()


@pytest.fixture(scope="module")
def connect_patiently(patient_app: App) -> Iterator[Connect]:
    """A function that connects to a server with the production limits.

    Clients that send much need it, because a busy machine can take longer than `SOON`.
    """
    with serving(behind_edge(patient_app), **options()) as url:
        yield partial(connected, url)


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
            except ConnectionError:  # the server closed it without a response while this data was on its way
                return b""
    pytest.fail("still open")


def problem_in(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    assert b"\r\nconnection: close" in head
    return problem["status"], problem["code"]


# Tests of slow clients.


def test_a_connection_that_is_silent_or_falls_silent_is_closed(connect: Connect) -> None:
    assert read_all(connect()) == b""
    answer = exchange(connect, GET % b"a")
    assert (answer[:12], answer[-3:]) == (b"HTTP/1.1 200", b"/a ")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [POST % b"a", POST % b"a" + b"12"])
def test_a_request_that_does_not_come_whole_is_given_up(connect: Connect, sent: bytes) -> None:
    assert problem_in(exchange(connect, sent)) == (408, "invalid_request")


def test_a_request_that_trickles_in_is_given_up(connect: Connect) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n"
    # If data was on its way when the server closed the connection, its system may drop the response or its end.
    answers = (answer_to_a_little_now_and_then(connect, head, b"x") for _attempt in range(20))
    whole = (answer for answer in answers if answer.endswith(b"}"))
    assert problem_in(next(whole)) == (408, "invalid_request")


@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_nobody_reads_has_no_more_time_and_is_no_request(connect: Connect, expects: bytes) -> None:
    answer = exchange(connect, b"POST /unread HTTP/1.1\r\nHost: a\r\n" + expects + b"Content-Length: 4\r\n\r\n")
    assert (answer[:12], answer.count(b"HTTP/1.1")) == (b"HTTP/1.1 413", 1)
    assert (b"connection: close" in answer) is bool(expects)


@pytest.mark.parametrize(
    ("first", "little"),
    [
        (GET % b"a" + b"GET /next HTTP/1.1\r\nX: ", b"a"),
        (GET % b"a", b"\r\n"),
        (b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n", b"x"),
    ],
)
def test_what_trickles_in_after_an_answer_has_no_more_time(connect: Connect, first: bytes, little: bytes) -> None:
    received = b""
    with connect() as connection:
        connection.sendall(first)
        connection.settimeout(SOON / 10)
        for _ in range(999):
            try:
                connection.sendall(little)
                if not (part := connection.recv(65536)):
                    break
                received += part
            except TimeoutError:
                pass
            except ConnectionError:
                break
        else:
            pytest.fail("still open")
    assert received.count(b"HTTP/1.1 ") == 1


def test_empty_lines_are_no_request(connect: Connect) -> None:
    assert answer_to_a_little_now_and_then(connect, b"", b"\r\n") == b""


def test_a_path_may_have_more_time(connect: Connect) -> None:
    connection = connect()
    connection.sendall(POST % b"auth/slow" + b"12")
    assert problem_in(exchange(connect, POST % b"begun-later")) == (408, "invalid_request")
    connection.sendall(b"34" + LAST)
    answer = read_all(connection)
    assert answer.count(b"/auth/slow 1234") == answer.count(b"/last") == 1


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


# Tests of what clients can write into the log.


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stop_sending(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def stop_sending_and_reset(connection: socket.socket) -> None:
    stop_sending(connection)
    reset(connection)


WAITS, UPGRADE = GET % b"waits", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("leave", [reset, stop_sending, stop_sending_and_reset])
@pytest.mark.parametrize(
    "sent",
    [
        WAITS,
        WAITS + GET % b"a" + GET % b"a",
        WAITS * 3,
        WAITS + POST % b"a",
        WAITS + b"hello\r\n\r\n",
        WAITS + CHUNKED + b"\r\nx\r\n",
        POST % b"a",
        POST % b"a" + b"12",
        POST % b"unread" + b"12" + WAITS,
        (POST % b"a").replace(b"Host", UPGRADE + b"Host") + b"12",
        (POST % b"a").replace(b"Host", b"Expect: 100-continue\r\nHost"),
        CHUNKED + b"\r\n1\r\n",
        CHUNKED + UPGRADE + b"\r\n1\r\n",
        CHUNKED + b"\r\n0\r\nX: a",
        CHUNKED + b"\r\nx\r\n",
        GET % b"begins" + WAITS,
        GET % b"large" + WAITS,
        GET % b"large" + b"hello\r\n\r\n",
    ],
)
def test_no_client_writes_an_error_into_the_log(
    connect_patiently: Connect, patient_app: App, log_lines: LogLines, sent: bytes, leave: Callable[..., None]
) -> None:
    patient_app.let_go.clear()
    begun = patient_app.begun.total()
    with connect_patiently() as connection:
        connection.sendall(sent)
        until(lambda: patient_app.begun.total() > begun)
        leave(connection)
    # The next connection is accepted after the reset has been noticed.
    assert exchange(connect_patiently, LAST).endswith(b"/last ")
    patient_app.let_go.set()
    until(lambda: patient_app.begun == patient_app.ended)
    assert not [line for line in log_lines() if line["level"] in ("warning", "error")]


# Tests of wrong requests, and of requests or responses that break off.


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


# Tests of how a response states its length.


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
