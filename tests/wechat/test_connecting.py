"""If a connection fails because of a name, an address, TLS or a proxy, no request has been sent."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.certificates import Authority
from tests.forward_proxy import CREDENTIALS, PASSWORD, USER, ForwardProxy
from tests.loops import let_pass, on_both_loops
from tests.processes import free_port
from tests.sweeps import swept
from tests.upstream import Behaviour, Upstream, abort, answer, endless, hang, in_pieces, raw, reset
from tests.wechat.asking import BODY, SECRET, ask, ask_and_fail, transport
from tests.world import until
from wxauth.outbound.connecting import ADDRESSES_REUSED_SECONDS, Connector, Origin, Proxy, ProxyFailed
from wxauth.outbound.transport import HttpTransport

OK = answer(BODY)


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """Yield an address that does not answer new connections, because its queue is full."""
    with socket.socket() as listener, socket.socket() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


class Names:
    """A resolver for the running loop, with the addresses of each name."""

    def __init__(self, **addresses: list[tuple[int, tuple[Any, ...]]]) -> None:
        self._addresses = addresses
        self.lookups: list[str] = []
        loop = asyncio.get_running_loop()
        self._look_up_literal = loop.__class__.getaddrinfo.__get__(loop)
        loop.getaddrinfo = self._look_up  # type: ignore[method-assign, assignment]

    async def _look_up(self, host: str, port: int, **hints: Any) -> list[tuple[Any, ...]]:
        if not host.isalpha():
            return await self._look_up_literal(host, port, **hints)
        self.lookups.append(host)
        await asyncio.sleep(0.01)
        if host not in self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(family, socket.SOCK_STREAM, 6, "", place) for family, place in self._addresses[host]]


def ipv4(port: int) -> tuple[int, tuple[str, int]]:
    return socket.AF_INET, ("127.0.0.1", port)


# Names and addresses.


@pytest.mark.parametrize("name", ["nobody", f"{'a' * 64}.invalid", "a..b"])
@on_both_loops
async def test_a_name_that_is_none_is_no_connection(name: str) -> None:
    Names()
    async with transport() as way:
        await ask_and_fail(way, f"http://{name}", httpx.ConnectError)


@on_both_loops
async def test_a_name_that_fails_after_its_request_was_given_up_is_not_logged_by_asyncio() -> None:
    Names()
    logged: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context["message"]))
    async with transport() as way:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await ask(way, "http://nobody")
        await until(lambda: len(asyncio.all_tasks()) == 1)
    del way
    gc.collect()
    assert logged == []


@on_both_loops
async def test_a_connect_ends_when_too_little_time_is_left_to_be_answered(
    black_hole: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wxauth.outbound.transport.SHORTEST_SECONDS", 10)
    host, port = black_hole
    loop = asyncio.get_running_loop()
    async with transport() as way:
        started = loop.time()
        await ask_and_fail(way, f"http://{host}:{port}", httpx.ConnectTimeout, deadline=started + 10.1)
        assert loop.time() - started < 4  # one attempt to connect may take `PATIENCE`


@on_both_loops
async def test_a_cancelled_connection_attempt_leaves_nothing_behind(black_hole: tuple[str, int]) -> None:
    host, port = black_hole
    async with Upstream(OK) as upstream, transport(max_connections=1) as way:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(way, f"http://{host}:{port}")
        assert (await ask(way, upstream.url)).content == BODY


@pytest.mark.parametrize("first", ["silent", "refusing", "eight of IPv6"])
@on_both_loops
async def test_an_address_without_answer_is_left(first: str, black_hole: tuple[str, int]) -> None:
    before: dict[str, list[Any]] = {"silent": [ipv4(black_hole[1])], "refusing": [ipv4(free_port())]}
    before["eight of IPv6"] = [(socket.AF_INET6, ("::ffff:127.0.0.1", black_hole[1]))] * 8
    async with Upstream(OK) as upstream, transport(connect_timeout=1) as way:
        Names(wechat=[*before[first], ipv4(upstream.port)])
        assert (await ask(way, "http://wechat")).content == BODY
        assert upstream.connections == 1


@on_both_loops
async def test_of_two_addresses_that_answer_one_is_used_and_the_other_is_left() -> None:
    async with Upstream(OK) as upstream, transport() as way:
        Names(wechat=[ipv4(upstream.port)] * 3)
        await ask(way, "http://wechat")
        await ask(way, "http://wechat")
        assert (upstream.connections, len(upstream.requests)) == (1, 2)


@on_both_loops
async def test_many_connections_at_once_ask_for_a_name_once() -> None:
    async with Upstream(OK) as upstream, transport() as way:
        names = Names(wechat=[ipv4(upstream.port)])
        await asyncio.gather(*(ask(way, "http://wechat") for _ in range(20)))
        assert names.lookups == ["wechat"]
        let_pass(ADDRESSES_REUSED_SECONDS - 1)
        await asyncio.gather(*(ask(way, "http://wechat") for _ in range(30)))
        assert names.lookups == ["wechat"]
        let_pass(2)
        await asyncio.gather(*(ask(way, "http://wechat") for _ in range(40)))
        assert names.lookups == ["wechat"] * 2


@on_both_loops
async def test_a_name_whose_addresses_fail_is_resolved_again() -> None:
    async with Upstream(OK) as upstream, transport() as way:
        Names(wechat=[ipv4(free_port())])
        await ask_and_fail(way, "http://wechat", httpx.ConnectError)
        Names()
        await ask_and_fail(way, "http://wechat", httpx.ConnectError)
        Names(wechat=[ipv4(upstream.port)])
        assert (await ask(way, "http://wechat")).content == BODY


@on_both_loops
async def test_a_connection_that_ends_before_anything_is_sent_is_none() -> None:
    async with Upstream(OK) as upstream:
        origin = httpx.URL(upstream.url)
        connection = await Connector(proxy=None, tls=None).connect(
            Origin(origin.scheme, origin.host, origin.port), until=asyncio.get_running_loop().time() + 5
        )
        connection.end()
        with pytest.raises(httpx.ConnectError):
            _ = connection.ask(b"GET / HTTP/1.1\r\n\r\n", max_body=1)
        await asyncio.sleep(0.01)
        assert upstream.requests == []


# TLS connections.


@swept(
    ("hosts", "days", "is_trusted", "reason"),
    [
        pytest.param(["wechat.test"], 2, True, "not valid for '127.0.0.1'", id="another-host"),
        pytest.param(["127.0.0.1"], -1, True, "expired", id="expired"),
        pytest.param(["127.0.0.1"], 2, False, "SSL_CERT_FILE", id="not-trusted"),
    ],
)
@on_both_loops
async def test_a_certificate_that_is_not_the_hosts_is_no_connection(
    authority: Authority, hosts: list[str], days: int, is_trusted: bool, reason: str
) -> None:
    tls = authority.trusted() if is_trusted else None
    async with Upstream(OK, tls=authority.server(*hosts, days=days)) as upstream, transport(tls=tls) as way:
        failure = await ask_and_fail(way, upstream.url, httpx.ConnectError)
        assert reason in str(failure)
        assert upstream.requests == []


@swept(
    "on_connect",
    [
        pytest.param(raw(b"HTTP/1.1 400 this is no TLS\r\n\r\n"), id="no-TLS"),
        pytest.param(raw(b"\x15\x03\x03\x00\x02\x02\x28"), id="an-alert"),
        pytest.param(raw(b"\x16\x03\x03"), id="cut-off"),
        pytest.param(abort, id="closed"),
        pytest.param(reset, id="reset"),
    ],
)
@on_both_loops
async def test_a_handshake_that_fails_is_no_connection(on_connect: Behaviour) -> None:
    async with Upstream(OK, on_connect=on_connect) as upstream, transport() as way:
        await ask_and_fail(way, f"https://127.0.0.1:{upstream.port}", httpx.ConnectError)
        await asyncio.sleep(0.01)  # uvloop closes the socket during this time
        assert (upstream.connections, upstream.requests) == (1, [])


@on_both_loops
async def test_a_handshake_without_an_end_leaves_the_caller_time() -> None:
    async with Upstream(OK, on_connect=hang) as upstream, transport(connect_timeout=0.1) as way:
        await ask_and_fail(way, f"https://127.0.0.1:{upstream.port}", httpx.ConnectTimeout)
        await until(lambda: upstream.open_connections == 0)


# Connections through a proxy.


@asynccontextmanager
async def by_proxy(proxy: ForwardProxy, **arguments: Any) -> AsyncIterator[HttpTransport]:
    async with proxy, transport(proxy=SecretStr(proxy.url), **arguments) as way:
        yield way


@on_both_loops
async def test_a_proxy_makes_a_tunnel_to_wechat_and_sees_nothing_of_a_request(authority: Authority) -> None:
    proxy = ForwardProxy()
    async with Upstream(OK, tls=authority.server("127.0.0.1")) as upstream:
        async with by_proxy(proxy, tls=authority.trusted()) as way:
            for _ in range(3):
                assert (await ask(way, upstream.url)).content == BODY
        assert (upstream.connections, len(upstream.requests)) == (1, 3)
        (head,) = proxy.heads
        assert head.startswith(f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1\r\nHost: 127.0.0.1:{upstream.port}\r\n")
        assert SECRET not in head
        assert not any(b"proxy" in head.lower() for head in upstream.heads)


@on_both_loops
async def test_a_wechat_without_tls_is_asked_by_its_whole_url() -> None:
    proxy = ForwardProxy()
    async with Upstream(OK) as upstream, by_proxy(proxy) as way:
        assert (await ask(way, upstream.url)).content == BODY
        (head,) = proxy.heads
        assert head.startswith(f"GET {upstream.url}/sns?secret={SECRET}&js_code=alice HTTP/1.1\r\nHost: 127.0.0.1:")
        assert not any(b"proxy" in head.lower() for head in upstream.heads)


@on_both_loops
async def test_a_proxy_gets_an_ipv6_address_in_brackets_and_no_password_that_it_does_not_require() -> None:
    proxy = ForwardProxy(instead=abort)
    async with proxy, transport(proxy=SecretStr(f"http://127.0.0.1:{proxy.port}")) as way:
        await ask_and_fail(way, "https://[::1]:8443", ProxyFailed)
    assert proxy.heads == ["CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n"]
    shown = Proxy.at(f"http://{CREDENTIALS}@proxy.test:3128")
    assert (shown.host, shown.port) == ("proxy.test", 3128)
    assert shown.authorization
    assert not any(text in repr(shown) for text in (USER, PASSWORD, CREDENTIALS, "Basic"))


def refusal(status: str) -> Behaviour:
    return in_pieces(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno".encode())


@pytest.mark.slow
@swept(
    ("instead", "reason"),
    [
        pytest.param(refusal("403 No"), "the proxy returned status 403", id="403"),
        pytest.param(refusal("407 Who are you"), "the proxy returned status 407", id="407"),
        pytest.param(refusal("502 Gone"), "the proxy returned status 502", id="502"),
        pytest.param(refusal("302 Go away"), "the proxy returned status 302", id="302"),
        pytest.param(abort, "the connection was closed without an answer", id="closed"),
        pytest.param(raw(b"HTTP/1.1 200 Conn"), "the answer was cut off", id="closed-within-the-head"),
        pytest.param(reset, "ConnectionResetError", id="reset"),
        pytest.param(hang, "no response in time", id="hangs"),
        pytest.param(in_pieces(b"HTTP/1.1 200 Conn", then=hang), "no response in time", id="hangs-within-the-head"),
        pytest.param(in_pieces(b"220 mail ESMTP\r\n\r\n"), "the answer is not HTTP", id="garbage"),
        pytest.param(
            in_pieces(b"HTTP/1.1 200 OK\r\n\r\nmore"),
            "the proxy returned more data than requested",
            id="more-than-a-head",
        ),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 999), "the answer is too large", id="no-end"),
    ],
)
@on_both_loops
async def test_a_proxy_that_makes_no_tunnel_is_no_connection(instead: Behaviour, reason: str) -> None:
    proxy = ForwardProxy(instead=instead)
    async with Upstream(OK) as upstream, by_proxy(proxy, connect_timeout=1) as way:
        failure = await ask_and_fail(way, f"https://127.0.0.1:{upstream.port}", ProxyFailed)
        assert isinstance(failure, httpx.ConnectError)  # so that the fallback host is tried
        assert str(failure) == f"can't connect through the proxy: {reason}"
        assert len(proxy.heads) == 1
        assert upstream.connections == 0
        await until(lambda: proxy.open_connections == 0)


@on_both_loops
async def test_a_proxy_that_cannot_be_connected_to_is_no_connection(black_hole: tuple[str, int]) -> None:
    urls = [f"http://127.0.0.1:{free_port()}", f"http://{black_hole[0]}:{black_hole[1]}", "http://a..b:3128"]
    for url in urls:
        for wechat in ("https://wechat.test", "http://127.0.0.1:1"):
            async with transport(proxy=SecretStr(url), connect_timeout=0.1) as way:
                failure = await ask_and_fail(way, wechat, ProxyFailed)
                assert str(failure).startswith("can't connect through the proxy: ")


@on_both_loops
async def test_a_wrong_password_is_the_proxys_refusal_also_without_a_tunnel() -> None:
    async with Upstream(OK) as upstream, ForwardProxy() as proxy:
        url = proxy.url.replace(CREDENTIALS, "wxauth:wrong")
        async with transport(proxy=SecretStr(url)) as way:
            for wechat in (upstream.url, f"https://127.0.0.1:{upstream.port}"):
                failure = await ask_and_fail(way, wechat, ProxyFailed)
                assert str(failure) == "can't connect through the proxy: the proxy returned status 407"
        assert upstream.connections == 0


@pytest.mark.slow
@on_both_loops
async def test_behind_a_tunnel_a_failure_is_wechats(authority: Authority) -> None:
    proxy = ForwardProxy()
    for served, expected in [
        (Upstream(OK, tls=authority.server("wechat.test")), httpx.ConnectError),
        (Upstream(OK, on_connect=hang), httpx.ConnectTimeout),
        (Upstream(abort, tls=authority.server("127.0.0.1")), httpx.ReadError),
        (Upstream(answer(b"", status="407 Oh"), tls=authority.server("127.0.0.1")), None),
    ]:
        async with served as upstream, by_proxy(proxy, tls=authority.trusted(), connect_timeout=1) as way:
            url = f"https://127.0.0.1:{upstream.port}"
            if expected is None:
                assert (await ask(way, url)).status_code == 407
            else:
                await ask_and_fail(way, url, expected)
