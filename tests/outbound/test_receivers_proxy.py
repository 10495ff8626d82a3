"""Requests to webhooks and hooks go through `RECEIVERS_PROXY`, which alone resolves the names of their hosts."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from tests.certificates import Authority
from tests.forward_proxy import CREDENTIALS, PASSWORD, ForwardProxy
from tests.processes import free_port
from tests.upstream import Behaviour, Upstream, answer, endless, hang, know_no_name, raw
from wxauth.outbound.connection import MAX_OVERHEAD
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.outbound.urls import NameResolver

pytestmark = pytest.mark.no_database
NAME = "hooks.example.com"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine resolve no names."""
    monkeypatch.setattr(NameResolver, "resolve", know_no_name)


@asynccontextmanager
async def transport_by(url: str, authority: Authority) -> AsyncIterator[ReceiverTransport]:
    transport = ReceiverTransport(proxy=SecretStr(url), tls=authority.trusted())
    assert PASSWORD not in repr(vars(transport))
    try:
        yield transport
    finally:
        await transport.aclose()


async def failure_by(url: str, authority: Authority, target: str = f"https://{NAME}/hook") -> str:
    async with transport_by(url, authority) as transport:
        with pytest.raises(httpx.TransportError) as failed:
            async with asyncio.timeout(20):
                await transport.handle_async_request(httpx.Request("POST", target, content=b"{}"))
    assert failed.value.__context__ is None
    assert PASSWORD not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize("has_tls", [False, True], ids=["http", "https"])
async def test_the_proxy_gets_the_name_and_the_receiver_alone_reads_the_request(
    authority: Authority, *, has_tls: bool
) -> None:
    server = authority.server(NAME)
    own = authority.server("127.0.0.1") if has_tls else None
    async with (
        Upstream(answer({"ok": True}), tls=server) as upstream,
        ForwardProxy(tls=own, hosts={NAME: "127.0.0.1"}) as proxy,
        transport_by(proxy.url, authority) as transport,
    ):
        for _ in range(2):  # the second request uses the same tunnel
            request = httpx.Request("POST", f"https://{NAME}:{upstream.port}/secret-path", content=b"{}")
            assert (await transport.handle_async_request(request)).status_code == 200
    [head] = proxy.heads
    assert head.startswith(f"CONNECT {NAME}:{upstream.port} HTTP/1.1\r\nHost: {NAME}:{upstream.port}\r\n")
    assert "secret-path" not in head


@pytest.mark.parametrize("of_proxy", [False, True], ids=["receiver", "proxy"])
async def test_a_certificate_for_another_name_is_refused(authority: Authority, *, of_proxy: bool) -> None:
    def server(name: str, *, is_right: bool) -> ssl.SSLContext:
        return authority.server(name if is_right else "other.example.com")

    own = server("127.0.0.1", is_right=False) if of_proxy else None
    async with (
        Upstream(answer({}), tls=server(NAME, is_right=of_proxy)) as upstream,
        ForwardProxy(tls=own, hosts={NAME: "127.0.0.1"}) as proxy,
    ):
        failure = await failure_by(proxy.url, authority, f"https://{NAME}:{upstream.port}/")
        assert upstream.requests == []
    if of_proxy:
        assert failure.startswith("can't connect through the proxy: SSLCertVerificationError")
    else:
        assert failure == "the certificate is not valid"


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        (raw(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"), "the proxy returned status 407"),
        (raw(b"HTTP/1.1 403 Forbidden\r\n\r\nleaked-by-the-proxy"), "the proxy returned status 403"),
        (raw(b"HTTP/1.1 502 leaked-by-the-proxy\r\n\r\n"), "the proxy returned status 502"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\nleaked-by-the-proxy"), "the proxy returned more data than requested"),
        (raw(b"220 leaked-by-the-proxy ESMTP\r\n\r\n"), ""),
        (raw(b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_OVERHEAD), ""),
        (endless(b"HTTP/1.1 200 OK\r\nA: ", b"a" * 4096), ""),
        (hang, "no response in time"),
    ],
    ids=["407", "403", "502", "more", "garbage", "large", "endless", "hangs"],
)
async def test_a_proxy_that_misbehaves_is_told_apart_without_its_words(
    authority: Authority, instead: Behaviour, reason: str
) -> None:
    async with ForwardProxy(instead=instead) as proxy:
        failure = await failure_by(proxy.url, authority)
    assert failure.startswith(f"can't connect through the proxy: {reason}")
    assert "leaked" not in failure


async def test_a_proxy_that_is_away_is_reported(authority: Authority) -> None:
    failure = await failure_by(f"http://{CREDENTIALS}@127.0.0.1:{free_port()}", authority)
    assert failure == "can't connect through the proxy: ConnectionRefusedError"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "orders",
        "orders.",
        "printer.local",
        "db.internal.",
        "metadata.google.internal",
        "169.254.169.254",
        "169.254.169.254.",
        "0xa9fea9fe",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "0.0.0.0",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
async def test_what_only_this_network_knows_is_refused_before_the_proxy_is_asked(
    authority: Authority, host: str
) -> None:
    async with ForwardProxy() as proxy:
        assert await failure_by(proxy.url, authority, f"https://{host}/hook") == "the address is not allowed"
        assert proxy.heads == []


async def test_a_plain_url_of_the_private_network_does_not_use_the_proxy(authority: Authority) -> None:
    async def resolve(_host: str) -> list[str]:
        return ["127.0.0.1"]

    async with Upstream(answer({})) as upstream, ForwardProxy() as proxy:
        transport = ReceiverTransport(resolve=resolve, proxy=SecretStr(proxy.url))
        request = httpx.Request("POST", f"http://orders:{upstream.port}/", content=b"{}")
        assert (await transport.handle_async_request(request)).status_code == 200
        await transport.aclose()
        assert proxy.heads == []
