"""Tests that send valid and invalid HTTP over a socket."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.processes import serving
from tests.web.misbehaving import behind_edge, connected, options, read_all
from tests.world import LogLines
from wxauth.web.edge import MAX_HEAD, MAX_TARGET

Exchange = Callable[..., bytes]

GET_THE_NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


noted: ContextVar[str] = ContextVar("noted", default="nothing")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the method, the path, the body, and the headers as they are after the body has ended."""
    if scope["type"] == "http":
        request = Request(scope, receive)
        if request.url.path == "/early":
            await Response(status_code=413)(scope, receive, send)
            return
        noted.set(f"{noted.get()}, {request.url.path}")
        if request.url.path == "/noted":
            await Response(noted.get())(scope, receive, send)
            return
        text = f"{request.method} {request.url.path} ".encode() + await request.body()
        await Response(text + f" {scope['headers']}".encode())(scope, receive, send)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that responds with what it has received."""
    with serving(behind_edge(echo), **options()) as url:
        yield url


@pytest.fixture(scope="module")
def exchange(server: str) -> Exchange:
    """A function that sends these parts over one connection and returns everything that it receives."""

    def send(*parts: bytes) -> bytes:
        connection = connected(server)
        with suppress(ConnectionError):  # the server may reject a request before it has read all of it
            for part in parts:
                connection.sendall(part)
        return read_all(connection)

    return send


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("framing", "sent", "body"),
    [
        (b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, SMUGGLED),
        (b"Transfer-Encoding: chunked\r\n", b'e\r\n{"code":"h2c"}\r\n0\r\n\r\n', b'{"code":"h2c"}'),
    ],
)
def test_an_upgrade_that_is_not_taken_is_ignored_and_its_body_no_request(
    exchange: Exchange, framing: bytes, sent: bytes, body: bytes, split: bool
) -> None:
    head = b"POST /v1/login HTTP/1.1\r\nHost: a\r\n" + UPGRADE + framing + b"\r\n"
    answer = exchange(*([head, sent, NEXT] if split else [head + sent + NEXT]))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"POST /v1/login " + body in answer
    assert b"GET /next " in answer


def answers_in_turn(url: str, reads: list[bytes]) -> bytes:
    """Send each part after a response to the part before has arrived, so that the server reads the parts one by one."""
    answers = b""
    with connected(url) as connection, suppress(ConnectionError):
        for sent in reads:
            connection.sendall(sent)
            answered = answers.count(b"HTTP/1.1 ")
            while answers.count(b"HTTP/1.1 ") == answered and (received := connection.recv(65536)):
                answers += received
        answers += read_all(connection)
    return answers


def split_in_its_name(sent: bytes) -> list[bytes]:
    """Split the requests within the name of the field `Upgrade`."""
    place = sent.index(b"\nUpgrade:") + len(b"\nUp")
    return [sent[:place], sent[place:]]


POST = b"POST / HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
UPGRADING_GET = b"GET / HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n"
CONNECT = b"CONNECT /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)


@pytest.mark.parametrize(
    ("reads", "number"),
    [
        (split_in_its_name(GET_THE_NEXT + POST + SMUGGLED), 2),
        ([GET_THE_NEXT + POST, SMUGGLED], 2),
        ([GET_THE_NEXT + CHUNKED, b"1\r\nx\r\n0\r\n\r\n" + POST, SMUGGLED], 3),
        ([GET_THE_NEXT + POST, SMUGGLED + POST, SMUGGLED + POST + SMUGGLED + GET_THE_NEXT], 5),
    ],
)
def test_an_upgrade_is_ignored_wherever_it_is_and_its_body_read(server: str, reads: list[bytes], number: int) -> None:
    answers = answers_in_turn(server, [*reads, NEXT])
    assert len(re.findall(rb"HTTP/1.1 200 ", answers)) == answers.count(b"HTTP/1.1 2") == number + 1
    assert b"POST / GET /smuggled" in answers


@pytest.mark.parametrize("reads", [split_in_its_name(GET_THE_NEXT + UPGRADING_GET), [GET_THE_NEXT + UPGRADING_GET]])
def test_an_upgrade_without_a_body_is_ignored_wherever_it_is(server: str, reads: list[bytes]) -> None:
    answers = answers_in_turn(server, [*reads, NEXT])
    assert b"GET / " in answers
    assert answers.endswith(b"(b'connection', b'close')]")


async def test_a_connect_request_is_refused_and_logged(exchange: Exchange, log_lines: LogLines) -> None:
    for target in (b"/a", b"example.com:443"):
        answer = exchange(CONNECT.replace(b"/a", target) + SMUGGLED + NEXT)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
    assert {(line["level"], line["event"]) for line in log_lines()} == {("info", "connection_refused")}


def test_whole_requests_before_a_malformed_one_are_answered_in_their_order(exchange: Exchange) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
    answer = exchange(head + b"x" + GET_THE_NEXT + b"hello\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d{3})", answer) == [b"200", b"200", b"400"]
    answer = exchange(GET_THE_NEXT + CHUNKED + b"x\r\n")
    assert re.findall(rb"HTTP/1.1 (\d{3})", answer) == [b"200", b"400"]


@pytest.mark.parametrize(
    ("head", "answered"), [(POST, b"POST / "), (GET_THE_NEXT + POST, b"POST / "), (CONNECT, b"CONNECT /a ")]
)
def test_under_uvicorns_own_protocol_the_body_of_an_upgrade_is_lost_but_no_request(
    head: bytes, answered: bytes
) -> None:
    with serving(behind_edge(echo), **options() | {"http": "httptools"}) as url:
        answers = answers_in_turn(url, [head, SMUGGLED])
    assert answered in answers
    assert b"GET /smuggled" not in answers


def test_under_uvicorns_other_protocol_the_body_of_an_upgrade_is_kept() -> None:
    with serving(behind_edge(echo), **options() | {"http": "h11"}) as url:
        assert b"POST / " + SMUGGLED in answers_in_turn(url, [POST + SMUGGLED])


def test_after_an_early_answer_the_rest_of_the_body_is_read_and_the_next_request_answered(exchange: Exchange) -> None:
    head = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n"
    answer = exchange(head, bytes(8_000_000), NEXT)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"GET /next " in answer


def test_a_pipelined_request_has_no_context_of_the_one_before(exchange: Exchange) -> None:
    heads = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /noted HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert exchange(heads).endswith(b"nothing, /noted")


def test_a_websocket_handshake_is_an_ordinary_request(exchange: Exchange) -> None:
    head = b"GET /v1/me HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    answer = exchange(head + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"Transfer-Encoding: xchunked\r\n\r\n",
        b"GET /metrics#a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_or_too_much_is_refused(exchange: Exchange, sent: bytes) -> None:
    assert exchange(sent).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: " + b"a" * (8 * MAX_HEAD)),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: a\r\n" * 2 * MAX_HEAD),
        (CHUNKED + b"1;", b"x" * (8 * MAX_HEAD)),
        (CHUNKED + b"0\r\n", b"X: " + b"a" * (8 * MAX_HEAD)),
        (CHUNKED + b"0\r\n", b"X: a\r\n" * 2 * MAX_HEAD),
    ],
)
def test_a_head_and_what_stands_beside_a_body_must_end(exchange: Exchange, begun: bytes, more: bytes) -> None:
    assert exchange(begun, more).startswith(b"HTTP/1.1 431 ")


CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * (MAX_TARGET - 1) + b" HTTP/1.1\r\nHost: a\r\n", 200),
        (b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1\r\nHost: a\r\n", 414),
        (b"GET /?" + b"a" * (MAX_TARGET - 2) + b" HTTP/1.1\r\nHost: a\r\n", 200),
        (b"GET /?" + b"a" * (MAX_TARGET - 1) + b" HTTP/1.1\r\nHost: a\r\n", 414),
        (b"GET /" + b"%41" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * MAX_HEAD + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX" + b"a" * MAX_HEAD + b": x\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        (b"GET / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.0\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000000000000000000002\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000002\r\n", 200),
    ],
)
def test_a_whole_head_is_refused_by_the_edge_whatever_is_pipelined_before_it(
    exchange: Exchange, head: bytes, status: int
) -> None:
    body = b"{}" if head.startswith(b"POST") else b""
    for first in (b"", b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000002\r\n\r\n{}"):
        answer = exchange(first + head + CLOSE + b"\r\n" + body)
        assert b"HTTP/1.1 %d " % status in answer
        assert len(re.findall(rb"HTTP/1.1 \d{3} ", answer)) == 1 + bool(first)


def test_32_requests_wait_at_most(exchange: Exchange) -> None:
    assert exchange(GET_THE_NEXT * 32 + NEXT).count(b"HTTP/1.1 200") == 33
    for number in (34, 9000):
        answer = exchange(GET_THE_NEXT * number)
        assert re.findall(rb"HTTP/1.1 (\d{3})", answer) == [b"200"] * 33 + [b"400"]


@pytest.mark.parametrize("accept", [b"", b"Accept: text/html,application/xhtml+xml\r\n"])
def test_a_browser_with_too_many_cookies_is_told_what_to_do(exchange: Exchange, accept: bytes) -> None:
    cookies = b"Cookie: " + b"; ".join([b"a=" + b"x" * 4000] * 17) + b"\r\n"
    answer = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n" + accept + CLOSE + cookies + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert (b"Clear them" in answer) is bool(accept)


def test_a_request_with_60_kib_of_cookies_is_read(exchange: Exchange) -> None:
    fields = b"Cookie: " + b"; ".join([b"a=" + b"x" * 4000] * 15) + b"\r\nConnection: close\r\n\r\n"
    assert exchange(b"GET /v1/authorize HTTP/1.1\r\nHost: a\r\n" + fields).startswith(b"HTTP/1.1 200 ")


def test_a_request_has_128_header_fields_at_most_and_so_has_the_next(exchange: Exchange) -> None:
    fields = b"Host: a\r\n" + b"x:\r\n" * 126
    one, last = b"GET /one HTTP/1.1\r\n", b"GET /last HTTP/1.1\r\n"
    answer = exchange(one + fields + b"x:\r\n\r\n" + last + fields + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 2
    answer = exchange(one + fields + b"x:\r\n\r\n" + last + fields + b"x:\r\nConnection: close\r\n\r\n")
    assert (answer.count(b"HTTP/1.1 200"), answer.count(b"HTTP/1.1 431")) == (1, 1)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("upgrade", [b"", UPGRADE])
def test_a_trailer_is_no_header(exchange: Exchange, upgrade: bytes, split: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nX-Sent: header\r\nTransfer-Encoding: chunked\r\n" + upgrade + b"\r\n"
    body = b"2\r\n{}\r\n0\r\n"
    trailers = b"Authorization: Bearer eyJ\r\nX-Forwarded-For: 203.0.113.7\r\nX-Sent: trailer\r\n\r\n"
    last = b"GET /next HTTP/1.1\r\nHost: a\r\nX-Sent: next\r\nConnection: close\r\n\r\n"
    answer = exchange(*([head, body, trailers, last] if split else [head + body + trailers + last]))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"(b'x-sent', b'header')" in answer
    assert b"(b'x-sent', b'next')" in answer
    assert not any(sent in answer for sent in (b"eyJ", b"203.0.113.7", b"trailer"))


def test_a_body_in_many_pieces_is_read(exchange: Exchange) -> None:
    head, piece = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;extension=1\r\nx\r\n"
    assert len(piece * 8192) > 2 * MAX_HEAD, "which is no large head"
    assert exchange(head, piece * 8192 + b"0\r\n\r\n", NEXT).count(b"HTTP/1.1 200") == 2


def test_a_large_body_is_no_large_head(exchange: Exchange) -> None:
    body = b"x" * (60 * 1024)
    one = b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 10_000 + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    answer = exchange(one * 3 + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 4
