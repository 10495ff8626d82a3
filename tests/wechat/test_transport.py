"""The transport to WeChat reads every form of response over real sockets, and names each failure."""

import asyncio
import gzip
import os
import socket
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
import respx

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.listening import Listening
from tests.loops import let_pass, on_both_loops
from tests.sweeps import swept
from tests.upstream import Behaviour, Upstream, abort, after, answer, endless, hang, in_pieces, raw, reset
from tests.wechat.asking import BODY, IDENTITY, ask, ask_and_fail, deadline_in, transport
from tests.world import Stage, until
from wxauth.apps.registry import Apps
from wxauth.outbound.connection import MAX_OVERHEAD, AnswerTooLarge
from wxauth.outbound.transport import ANSWER, DEFAULT_MAX_BODY, MAX_IDLE
from wxauth.wechat.client import WeChat

PACKED = gzip.compress(BODY)
OK = answer(BODY)


secure_or_not = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


@pytest.fixture(scope="module")
def server_tls(authority: Authority) -> ssl.SSLContext:
    return authority.server("127.0.0.1")


# The forms in which a response can arrive.


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode()


CHUNKS = "Transfer-Encoding: chunked"
CHUNKED = head(CHUNKS) + b'5;a=1;b="2"\r\n{"ope\r\n15\r\nnid": "openid-alice"}\r\n0\r\n'
WHOLE = head(f"Content-Length: {len(BODY)}") + BODY
KEPT = [
    pytest.param(WHOLE, 200, BODY, id="length"),
    pytest.param(head(f"content-LENGTH:{len(BODY)}") + BODY, 200, BODY, id="length-in-another-case"),
    pytest.param(head("Content-Encoding: gzip", f"Content-Length: {len(PACKED)}") + PACKED, 200, PACKED, id="encoded"),
    pytest.param(head("Content-Length: 0"), 200, b"", id="nothing"),
    pytest.param(head(status="HTTP/1.1 204 No Content"), 204, b"", id="204"),
    pytest.param(head("Content-Length: 26", status="HTTP/1.1 304 Not Modified"), 304, b"", id="304-with-a-length"),
    pytest.param(CHUNKED + b"\r\n", 200, BODY, id="chunks-with-extensions"),
    pytest.param(CHUNKED + b"Date: never\r\nX-Sum: 3\r\n\r\n", 200, BODY, id="trailers"),
    pytest.param(head(status="HTTP/1.1 100 Continue") + WHOLE, 200, BODY, id="100"),
    pytest.param(head("Link: x", "Content-Length: 9", status="HTTP/1.1 103 Hints") * 3 + WHOLE, 200, BODY, id="103"),
    pytest.param(
        head("Content-Length: 5", status="HTTP/1.1 104 Odd") + b"hello" + WHOLE, 200, BODY, id="104-with-a-body"
    ),
    pytest.param(head(f"Content-Length: {len(BODY)}", status="HTTP/1.1 200") + BODY, 200, BODY, id="no-reason"),
    pytest.param(
        head("Upgrade: h2c", "Connection: Upgrade, Keep-Alive", f"Content-Length: {len(BODY)}") + BODY,
        200,
        BODY,
        id="an-upgrade-offered",
    ),
    pytest.param(
        head("Connection: keep-alive", f"Content-Length: {len(BODY)}", status="HTTP/1.0 200 OK") + BODY,
        200,
        BODY,
        id="HTTP/1.0-kept-alive",
    ),
    pytest.param(head("Content-Length: 26", status="HTTP/1.1 500 Oh") + BODY, 500, BODY, id="500"),
    pytest.param(head("Content-Length: 0", "Location: /x", status="HTTP/1.1 302 Oh"), 302, b"", id="302"),
    pytest.param(b"\r\n" + WHOLE, 200, BODY, id="a-line-before"),
]
NOT_KEPT = [
    pytest.param(raw(head() + BODY), 200, BODY, id="until-the-end"),
    pytest.param(raw(head(status="HTTP/1.0 200 OK") + BODY), 200, BODY, id="HTTP/1.0-until-the-end"),
    pytest.param(raw(head()), 200, b"", id="nothing-until-the-end"),
    pytest.param(answer(BODY, headers="Connection: close\r\n"), 200, BODY, id="close"),
    pytest.param(
        in_pieces(head("Content-Length: 26", status="HTTP/1.0 200 OK") + BODY, then=hang), 200, BODY, id="HTTP/1.0"
    ),
    pytest.param(in_pieces(WHOLE + b"rubbish"), 200, BODY, id="rubbish-behind"),
    pytest.param(in_pieces(WHOLE + b"H"), 200, BODY, id="a-byte-behind"),
    pytest.param(in_pieces(WHOLE + WHOLE.replace(b"alice", b"mallory")), 200, BODY, id="another-answer-behind"),
    pytest.param(in_pieces(CHUNKED + b"\r\n" + WHOLE), 200, BODY, id="another-answer-behind-chunks"),
    pytest.param(in_pieces(WHOLE, b"rubbish"), 200, BODY, id="rubbish-some-time-later"),
]


@pytest.mark.slow
@swept(("content", "status", "body"), KEPT)
@swept("in_bytes", [False, True], ids=["at-once", "byte-by-byte"])
@on_both_loops
async def test_an_answer_that_ends_where_it_says_leaves_its_connection_for_the_next(
    content: bytes, status: int, body: bytes, in_bytes: bool
) -> None:
    pieces = [content[i : i + 1] for i in range(len(content))] if in_bytes else [content]
    async with Upstream(in_pieces(*pieces)) as upstream, transport() as way:
        for _ in range(3):
            response = await ask(way, upstream.url)
            assert (response.status_code, response.content) == (status, body)
        assert (upstream.connections, len(upstream.requests)) == (1, 3)


@pytest.mark.slow
@swept(("behaviour", "status", "body"), NOT_KEPT)
@on_both_loops
async def test_any_other_answer_closes_its_connection(behaviour: Behaviour, status: int, body: bytes) -> None:
    async with Upstream(behaviour) as upstream, transport() as way:
        for _ in range(3):
            response = await ask(way, upstream.url)
            assert (response.status_code, response.content) == (status, body)
            await asyncio.sleep(0.01)  # time for the rest of the data
        assert (upstream.connections, len(upstream.requests)) == (3, 3)


@on_both_loops
async def test_an_answer_has_its_date_and_can_be_read_like_httpx_s() -> None:
    dated = answer({"a": 1}, headers="DATE: Fri, 20 Nov 2026 08:00:00 GMT\r\n")
    async with Upstream(dated, OK) as upstream, transport() as way:
        response = await ask(way, upstream.url)
        assert response.extensions["date"] == "Fri, 20 Nov 2026 08:00:00 GMT"
        assert response.json() == {"a": 1}
        assert await response.aread() == response.content
        assert response.is_success
        assert not response.headers
        assert (await ask(way, upstream.url)).extensions["date"] is None


@on_both_loops
async def test_a_call_may_allow_a_larger_answer() -> None:
    picture = bytes(range(256)) * 1200
    chunked = head(CHUNKS) + b"".join(
        b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (picture[i : i + 1000] for i in range(0, 307_200, 1000))
    )
    async with Upstream(answer(picture), in_pieces(chunked + b"0\r\n\r\n"), answer(picture)) as upstream:
        async with transport() as way:
            for _ in range(2):
                assert (await ask(way, upstream.url, max_body=len(picture))).content == picture
            await ask_and_fail(way, upstream.url, AnswerTooLarge, max_body=len(picture) - 1)
        assert upstream.connections == 1


@on_both_loops
async def test_head_and_body_are_sent_at_once() -> None:
    packets: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets.append(await reader.read(65536))
        writer.write(WHOLE)

    async with Listening(serve) as server, transport() as way:
        host = f"127.0.0.1:{server.port}"
        headers = {"User-Agent": "wxauth"}
        target = {"target": b"/cgi-bin/stable_token?x=%20"}
        request = httpx.Request("POST", f"http://{host}", headers=headers, content=b'{"a":1}', extensions=target)
        assert await (await way.handle_async_request(request)).aread() == BODY
    assert packets == [
        b"POST /cgi-bin/stable_token?x=%20 HTTP/1.1\r\n"
        b"Host: " + host.encode() + b"\r\nUser-Agent: wxauth\r\nContent-Length: 7\r\n\r\n"
        b'{"a":1}'
    ]


@on_both_loops
async def test_to_head_an_answer_has_no_body() -> None:
    async with Upstream(in_pieces(head("Content-Length: 26"), then=hang)) as upstream, transport() as way:
        for _ in range(2):
            response = await way.handle_async_request(httpx.Request("HEAD", upstream.url))
            assert (response.status_code, await response.aread()) == (200, b"")


@on_both_loops
async def test_where_the_status_is_enough_a_body_that_is_late_long_or_cut_off_only_costs_the_connection() -> None:
    begun = head("Content-Length: 99999999", "Retry-After: 7")
    in_two = in_pieces(head(f"Content-Length: {len(BODY)}"), BODY)
    spoilt = [in_pieces(begun, then=hang), endless(begun, b" " * 9999), in_pieces(begun, b" ", then=reset)]
    async with Upstream(in_two, *spoilt, in_two) as upstream, transport() as way:
        for connections, retry_after in ((1, None), (1, "7"), (2, "7"), (3, "7"), (4, None), (4, None)):
            response = await ask(way, upstream.url, on_status=lambda _: 0.2)
            assert (response.status_code, upstream.connections) == (200, connections)
            assert response.extensions[ANSWER].retry_after == retry_after


async def _pieces() -> AsyncIterator[bytes]:
    yield b"x"


@pytest.mark.parametrize(
    "request_",
    [
        httpx.Request("GET", "http://127.0.0.1:1", extensions={"target": b"/ HTTP/1.1\r\nX: y\r\n\r\n"}),
        httpx.Request("GET", "http://127.0.0.1:1", extensions={"target": b"/a b"}),
        httpx.Request("POST", "http://127.0.0.1:1", content=_pieces()),
    ],
)
async def test_a_request_that_cannot_be_sent_as_it_is_meant_is_not_sent(request_: httpx.Request) -> None:
    async with transport() as way:
        with pytest.raises(httpx.LocalProtocolError):
            await way.handle_async_request(request_)


# Failures after the request was sent or might have been sent.

SENT = {
    httpx.ReadError: {
        "closed-without-an-answer": abort,
        "reset-without-an-answer": reset,
        "reset-within-the-head": in_pieces(b"HTTP/1.1 2", then=reset),
        "reset-within-the-body": in_pieces(WHOLE[:-3], then=reset),
        "reset-where-the-end-says-that-it-is-whole": in_pieces(head(), BODY, then=reset),
    },
    httpx.RemoteProtocolError: {
        "closed-within-the-status": raw(b"HTT"),
        "closed-within-the-head": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "closed-behind-the-head": raw(head("Content-Length: 26")),
        "closed-within-the-body": raw(WHOLE[:-1]),
        "closed-within-the-trailers": raw(CHUNKED),
        "closed-behind-100": raw(head(status="HTTP/1.1 100 Go")),
        "a-coding-without-an-end": raw(head("Transfer-Encoding: gzip") + BODY),
    },
    httpx.DecodingError: {
        "garbage": raw(b"garbage\r\n\r\n"),
        "TLS": raw(b"\x15\x03\x01\x00\x02\x02\x16"),
        "SMTP": raw(b"220 mail.example ESMTP\r\n"),
        "status-99": in_pieces(head(status="HTTP/1.1 99 Oh"), then=hang),
        "099": in_pieces(head("Content-Length: 0", status="HTTP/1.1 099 Oh"), then=hang),
        "HTTP/3": in_pieces(head(status="HTTP/3.0 200 OK"), then=hang),
        "101": in_pieces(head("Upgrade: h2c", "Connection: upgrade", status="HTTP/1.1 101 Oh") + WHOLE, then=hang),
        "101-to-nothing": in_pieces(head(status="HTTP/1.1 101 Oh"), then=hang),
        "two-lengths": in_pieces(head("Content-Length: 26", "Content-Length: 26") + BODY, then=hang),
        "a-list-of-lengths": in_pieces(head("Content-Length: 2, 2") + b"{}", then=hang),
        "length-under-0": in_pieces(head("Content-Length: -1") + b"{}", then=hang),
        "length-too-long": in_pieces(head(f"Content-Length: {10**30}"), then=hang),
        "length-and-chunks": in_pieces(
            head("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n", then=hang
        ),
        "chunks-and-length": in_pieces(
            head("Transfer-Encoding: chunked", "Content-Length: 2") + b"0\r\n\r\n", then=hang
        ),
        "no-chunk": in_pieces(head(CHUNKS) + b"xyz\r\n", then=hang),
        "bare-LF": in_pieces(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", then=hang),
        "folded": in_pieces(head("A: b", " c", "Content-Length: 0"), then=hang),
    },
    AnswerTooLarge: {
        "a-body-over-64-KiB": answer(b" " * (DEFAULT_MAX_BODY + 1)),
        "50-MB": answer(b" " * 50_000_000),
        "a-body-without-end": endless(head(), b" " * 65536),
        "chunks-without-end": endless(head(CHUNKS), b"10000\r\n" + b" " * 65536 + b"\r\n"),
        "fields-without-end": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 999),
        "a-field-without-end": endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 9999),
        "103-without-end": endless(b"", head(status="HTTP/1.1 103 Oh") * 99),
        "an-extension-without-end": endless(head(CHUNKS) + b"2;", b"x" * 9999),
        "trailers-without-end": endless(head(CHUNKS) + b"0\r\n", b"X: y\r\n" * 999),
        "a-head-over-64-KiB": answer(b"", headers=f"X: {'y' * MAX_OVERHEAD}\r\n"),
    },
}


@pytest.mark.slow
@swept(("expected", "name"), [(expected, name) for expected, cases in SENT.items() for name in cases])
@secure_or_not
@on_both_loops
async def test_a_request_that_may_have_arrived_is_sent_once_and_reported_as_such(
    expected: type[httpx.RequestError], name: str, secure: bool, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    served = Upstream(SENT[expected][name], OK, tls=server_tls if secure else None)
    async with served as upstream, transport(tls=authority.trusted()) as way:
        await ask_and_fail(way, upstream.url, expected)
        assert (upstream.connections, len(upstream.requests)) == (1, 1)
        assert (await ask(way, upstream.url)).content == BODY
        assert upstream.connections == 2
        await until(lambda: upstream.open_connections == 1)


@pytest.mark.parametrize("behaviour", [abort, reset], ids=["closed", "reset"])
@on_both_loops
async def test_a_request_is_sent_once_on_a_kept_connection_that_ends(behaviour: Behaviour) -> None:
    async with Upstream(OK, behaviour) as upstream, transport() as way:
        await ask(way, upstream.url)
        await ask_and_fail(way, upstream.url, httpx.ReadError)
        assert (upstream.connections, len(upstream.requests)) == (1, 2)


@pytest.mark.parametrize("earlier", [0.1, PATIENCE], ids=["shorter", "longer"])
async def test_each_request_of_a_kept_connection_ends_at_its_own_deadline(earlier: float) -> None:
    async with Upstream(OK, hang) as upstream, transport() as way:
        await ask(way, upstream.url, deadline=deadline_in(earlier))
        deadline = deadline_in(0.3)
        await ask_and_fail(way, upstream.url, httpx.ReadTimeout, deadline=deadline)
        assert deadline_in(0) >= deadline
        assert (upstream.connections, len(upstream.requests)) == (1, 2)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(hang, id="hangs"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.01), id="drips-its-head"),
        pytest.param(endless(head("Content-Length: 500"), b" ", pause=0.01), id="drips-its-body"),
    ],
)
@on_both_loops
async def test_a_cancelled_request_closes_its_connection(behaviour: Behaviour) -> None:
    async with Upstream(behaviour, OK) as upstream, transport(max_connections=1) as way:
        asking = asyncio.create_task(ask(way, upstream.url))
        await until(lambda: upstream.requests)
        await asyncio.sleep(0.05)  # in the middle of the response
        asking.cancel()
        await until(lambda: upstream.open_connections == 0)
        assert (await ask(way, upstream.url)).content == BODY


# Connections that are kept open.


@pytest.mark.parametrize("behaviour", [abort, reset], ids=["closed", "reset"])
@on_both_loops
async def test_a_kept_connection_that_has_ended_is_not_taken(behaviour: Behaviour) -> None:
    async def answer_and_leave(writer: asyncio.StreamWriter) -> None:
        await OK(writer)
        await behaviour(writer)

    async with Upstream(answer_and_leave, OK) as upstream, transport() as way:
        await ask(way, upstream.url)
        await until(lambda: upstream.open_connections == 0)
        await asyncio.sleep(0.01)  # time for the end of the connection to arrive
        await ask(way, upstream.url)
        assert (upstream.connections, len(upstream.requests)) == (2, 2)


@secure_or_not
@on_both_loops
async def test_a_connection_that_only_the_kernel_knows_as_ended_is_not_used(
    secure: bool, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def answer_and_stay(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await OK(writer)

    served = Upstream(answer_and_stay, tls=server_tls if secure else None)
    async with served as upstream, transport(tls=authority.trusted()) as way:
        await ask(way, upstream.url)
        let_pass(2)  # the loop has had no time to look at the connection
        with socket.socket(fileno=os.dup(writers[0].get_extra_info("socket").fileno())) as connection:
            connection.shutdown(socket.SHUT_WR)
        assert (await ask(way, upstream.url)).content == BODY
        assert (upstream.connections, len(upstream.requests)) == (2, 2)
        let_pass(2)
        await ask(way, upstream.url)
        assert upstream.connections == 2


@pytest.mark.parametrize(
    ("keep_alive", "connections"),
    [("timeout=1, max=100", 2), ("max=100,  Timeout=0", 2), ("timeout=60", 1), ("timeout=soon", 1), ("", 1)],
)
@on_both_loops
async def test_wechat_says_how_long_it_keeps_a_connection(keep_alive: str, connections: int) -> None:
    async with Upstream(answer(BODY, headers=f"Keep-Alive: {keep_alive}\r\n")) as upstream, transport() as way:
        await ask(way, upstream.url)
        await ask(way, upstream.url)
        assert upstream.connections == connections


@on_both_loops
async def test_a_connection_without_use_is_closed_after_a_while() -> None:
    async with Upstream(OK) as upstream, transport(idle_seconds=0.05) as way:
        await asyncio.gather(*(ask(way, upstream.url) for _ in range(3)))
        assert upstream.open_connections == 3
        await until(lambda: upstream.open_connections == 0)
        await ask(way, upstream.url)
        assert upstream.connections == 4
        await until(lambda: upstream.open_connections == 0)


@on_both_loops
async def test_hosts_without_a_connection_leave_nothing_in_memory() -> None:
    async with (
        Upstream(OK) as kept,
        Upstream(answer(BODY, headers="Connection: close\r\n")) as closed,
        transport(idle_seconds=0.05) as way,
    ):
        await ask(way, kept.url)
        await ask(way, closed.url)
        assert len(way._idle) == 1
        await until(lambda: not way._idle)


@on_both_loops
async def test_the_connection_used_last_is_used_next_and_surplus_connections_are_closed() -> None:
    gate = asyncio.Event()

    async with Upstream(after(gate, OK)) as upstream, transport() as way:
        asking = [asyncio.create_task(ask(way, upstream.url)) for _ in range(MAX_IDLE + 20)]
        await until(lambda: len(upstream.requests) == len(asking))
        gate.set()
        await asyncio.gather(*asking)
        await until(lambda: upstream.open_connections == MAX_IDLE)
        for _ in range(3):
            await ask(way, upstream.url)
        assert upstream.connections == len(asking)
        await way.aclose()
        await until(lambda: upstream.open_connections == 0)


@on_both_loops
async def test_a_connection_in_use_when_all_are_closed_ends_with_its_request() -> None:
    gate = asyncio.Event()

    async with Upstream(after(gate, OK)) as upstream, transport() as way:
        asking = asyncio.create_task(ask(way, upstream.url))
        await until(lambda: upstream.requests)
        await way.aclose()
        gate.set()
        assert (await asking).content == BODY
        await until(lambda: upstream.open_connections == 0)


@on_both_loops
async def test_hosts_do_not_share_connections() -> None:
    async with Upstream(OK) as one, Upstream(answer(b"another")) as other, transport() as way:
        for _ in range(2):
            assert (await ask(way, one.url)).content == BODY
            assert (await ask(way, other.url)).content == b"another"
        assert (one.connections, other.connections) == (1, 1)


# Requests that wait for a connection.


class Gate:
    """An upstream that answers one request at a time, when the test permits it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        passed = asyncio.Event()
        self._waiting.put_nowait(passed)
        await passed.wait()
        await OK(writer)

    async def let_one_through(self) -> None:
        (await self._waiting.get()).set()


@pytest.mark.slow
@on_both_loops
async def test_waiting_for_a_connection_is_no_failure_to_connect() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream, transport(max_connections=1, connect_timeout=0.5) as way:
        asking = [asyncio.create_task(ask(way, upstream.url, deadline=deadline_in(20))) for _ in range(2)]
        await until(lambda: upstream.requests)
        await asyncio.sleep(0.6)
        for _ in asking:
            await gate.let_one_through()
        assert [response.content for response in await asyncio.gather(*asking)] == [BODY] * 2


@on_both_loops
async def test_a_request_that_waits_until_its_deadline_is_not_sent() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream, transport(max_connections=1) as way:
        asking = asyncio.create_task(ask(way, upstream.url, "first"))
        await until(lambda: upstream.requests)
        await ask_and_fail(way, upstream.url, httpx.PoolTimeout, deadline=deadline_in(0.2))
        await gate.let_one_through()
        await asking
        asking = asyncio.create_task(ask(way, upstream.url, "last"))
        await gate.let_one_through()
        await asking
        assert upstream.codes == ["first", "last"]


@on_both_loops
async def test_a_request_is_not_sent_if_recent_answers_take_longer_than_its_remaining_time() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream, transport(max_connections=1) as way:
        for count in range(1, 5):
            asking = asyncio.create_task(ask(way, upstream.url, "slow"))
            await until(lambda: len(upstream.requests) == count)  # noqa: B023
            let_pass(10)
            await gate.let_one_through()
            await asking
        asking = asyncio.create_task(ask(way, upstream.url, "slow"))
        hurried = asyncio.create_task(ask_and_fail(way, upstream.url, httpx.PoolTimeout, deadline=deadline_in(2)))
        patient = asyncio.create_task(ask(way, upstream.url, "patient", deadline=deadline_in(20)))
        await gate.let_one_through()
        await asyncio.gather(asking, hurried)
        await gate.let_one_through()
        await patient
        assert upstream.codes == ["slow"] * 5 + ["patient"]


@on_both_loops
async def test_a_request_too_late_for_an_answer_is_not_sent() -> None:
    async with Upstream(OK) as upstream, transport() as way:
        await ask(way, upstream.url, "kept")
        await ask_and_fail(way, upstream.url, httpx.PoolTimeout, deadline=deadline_in(0.04))
        await ask(way, upstream.url, "in-time", deadline=deadline_in(20))
        assert (upstream.codes, upstream.connections) == (["kept", "in-time"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["first", "second", "third"])
@on_both_loops
async def test_a_request_cancelled_at_any_moment_leaves_its_place_to_the_next(patient: str) -> None:
    async with Upstream(OK) as upstream:
        for moment in range(40):
            async with transport(max_connections=1) as way:
                asking = {
                    name: asyncio.create_task(ask(way, upstream.url, name)) for name in ("first", "second", "third")
                }
                for _ in range(moment):
                    await asyncio.sleep(0)
                for name, task in asking.items():
                    if name != patient:
                        task.cancel()
                async with asyncio.timeout(PATIENCE):
                    assert (await asking[patient]).content == BODY
                    assert (await ask(way, upstream.url)).content == BODY
        await until(lambda: upstream.open_connections == 0)


# Behavior of httpx's client that the transport must not have.


async def test_a_cookie_of_wechats_goes_along_with_no_other_request(stage: Stage) -> None:
    router = respx.MockRouter()
    route = router.get("https://wechat.test/sns/jscode2session")
    route.respond(json=IDENTITY, headers={"Set-Cookie": "person=alice; Path=/"})
    stage.services[WeChat].transport = httpx.MockTransport(router.async_handler)
    for _ in range(2):
        app = stage.services[Apps].for_login(None)
        assert (await stage.services[WeChat].exchange(app, "code")).openid == IDENTITY["openid"]
    assert [call.request.headers.get("cookie") for call in route.calls] == [None, None]
