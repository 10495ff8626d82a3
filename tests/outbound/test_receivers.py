"""A webhook connects to the address that was checked, even if its name later resolves to another address."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from threading import Event

import httpx
import pytest

from tests.processes import PATIENCE, free_port
from tests.receiver import receiving
from tests.sweeps import swept
from tests.upstream import Upstream, hang, in_pieces
from tests.world import until
from wxauth.events.sending import BODY_SECONDS, send
from wxauth.outbound.connection import MAX_OVERHEAD
from wxauth.outbound.receivers import ReceiverTransport, ResolveName
from wxauth.outbound.urls import MAX_CONCURRENT_NAMES, NameResolver
from wxauth.settings.addresses import is_refused

pytestmark = pytest.mark.no_database


def every_name_has(*addresses: str) -> ResolveName:
    async def resolve(_host: str) -> Sequence[str]:
        return addresses

    return resolve


async def failure_of(url: str, *addresses: str) -> str:
    transport = ReceiverTransport(resolve=every_name_has(*addresses) if addresses else NameResolver().resolve)
    try:
        with pytest.raises(httpx.TransportError) as failed:
            await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
        return str(failed.value)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["100.100.100.200"],
        ["fd00:ec2::254"],
        ["64:ff9b::a9fe:a9fe"],
        ["169.254.169.254", "fe80::1"],
    ],
    ids=" ".join,
)
async def test_a_name_that_now_resolves_to_metadata_is_not_connected_to(scheme: str, addresses: Sequence[str]) -> None:
    assert await failure_of("http://orders.example.com/hook", "93.184.215.14") == "the address is not allowed"
    assert await failure_of(f"{scheme}://orders.example.com/hook", *addresses) == "the address is not allowed"


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0.0.0.0"])
async def test_an_address_in_the_url_is_looked_at_each_time(host: str) -> None:
    assert await failure_of(f"https://{host}/hook") == "the address is not allowed"


async def test_of_several_addresses_one_that_may_be_is_used() -> None:
    async with receiving() as receiver:
        port = httpx.URL(receiver.url).port
        transport = ReceiverTransport(resolve=every_name_has("169.254.169.254", "127.0.0.1"))
        request = httpx.Request("POST", f"http://orders.example.com:{port}/hook", content=b"{}")
        assert (await transport.handle_async_request(request)).status_code == 204
        await transport.aclose()


async def test_an_address_allowed_with_tls_is_judged_anew_without() -> None:
    found = iter([["127.0.0.1"], ["93.184.215.14"]])

    async def resolve(_host: str) -> Sequence[str]:
        return next(found)

    async with receiving() as receiver:
        transport = ReceiverTransport(resolve=resolve)
        for scheme, failure in (("https", "TLS failed"), ("http", "the address is not allowed")):
            url = f"{scheme}://orders.example.com:{httpx.URL(receiver.url).port}/"
            with pytest.raises(httpx.ConnectError, match=failure):
                await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
        await transport.aclose()
        assert receiver.got == []


async def test_a_port_without_a_listener_is_reported() -> None:
    assert await failure_of(f"http://orders.example.com:{free_port()}/", "127.0.0.1") == "could not connect"


async def test_an_invalid_certificate_is_reported_and_nothing_is_sent() -> None:
    async with receiving() as receiver:
        assert await failure_of(receiver.url.replace("http:", "https:")) == "TLS failed"
        assert receiver.got == []


@pytest.mark.parametrize(
    ("answer", "told", "translated"),
    [
        (b"220 mail ESMTP\r\n\r\n", "answer is not HTTP", "响应不是 HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_OVERHEAD, "answer is too large", "响应过大"),
    ],
    ids=["garbage", "large"],
)
async def test_an_answer_that_cannot_be_read_is_told_in_the_readers_language(
    answer: bytes, told: str, translated: str
) -> None:
    async with Upstream(in_pieces(answer)) as upstream:
        transport = ReceiverTransport(resolve=NameResolver().resolve)
        with pytest.raises(httpx.RemoteProtocolError) as failed:
            await transport.handle_async_request(httpx.Request("POST", upstream.url, content=b"{}"))
        await transport.aclose()
    reason = failed.value.args[0]
    assert (reason, reason.translated("zh-CN")) == (told, translated)


@pytest.mark.slow
async def test_a_status_in_time_counts_and_is_timed_even_if_its_body_takes_longer() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with Upstream(in_pieces(head, then=hang), in_pieces(head, b" " * 4097, then=hang)) as upstream:
        transport = ReceiverTransport(resolve=NameResolver().resolve)
        # first for a body that hangs, then for a body that is too long
        for longest in (2 * BODY_SECONDS, BODY_SECONDS / 2):
            started = asyncio.get_running_loop().time()
            answer = await send(transport, upstream.url, content=b"{}", headers={}, patience=BODY_SECONDS / 2)
            assert (answer.status, answer.error) == (200, None)
            assert answer.milliseconds < 1000 * BODY_SECONDS / 2
            assert asyncio.get_running_loop().time() - started < longest
        await transport.aclose()


async def test_a_message_that_is_not_sent_because_it_is_too_late_is_not_told_as_a_lost_connection() -> None:
    async with receiving() as receiver:
        transport = ReceiverTransport(resolve=NameResolver().resolve)
        assert await status_at(transport, receiver.url) == 204
        late = httpx.Request("POST", receiver.url, extensions={"deadline": asyncio.get_running_loop().time()})
        with pytest.raises(httpx.PoolTimeout, match="too late to be answered"):
            await transport.handle_async_request(late)
        await transport.aclose()
        assert len(receiver.got) == 1


class NameServer:
    """A name server that resolves every name to this machine.

    For names that begin with `hanging`, it doesn't respond until the test releases it.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = Event()

    def look_up(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("hanging"):
            self.released.wait(PATIENCE)
        return ["127.0.0.1"]


@asynccontextmanager
async def sending(server: NameServer, patience: float) -> AsyncIterator[ReceiverTransport]:
    transport = ReceiverTransport(resolve=NameResolver(server.look_up, patience=patience).resolve)
    yield transport
    server.released.set()
    await transport.aclose()


async def status_at(transport: ReceiverTransport, url: str) -> int:
    return (await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))).status_code


async def test_a_name_that_is_not_answered_delays_no_other_webhook_and_holds_one_thread() -> None:
    server = NameServer()
    async with receiving() as receiver, sending(server, patience=2 * PATIENCE) as transport:
        port = httpx.URL(receiver.url).port
        hanging = [
            asyncio.create_task(status_at(transport, f"http://hanging:{port}/"))
            for _ in range(MAX_CONCURRENT_NAMES + 1)
        ]
        await until(lambda: server.asked)
        async with asyncio.timeout(PATIENCE / 2):
            assert await status_at(transport, f"http://orders:{port}/") == 204
        assert server.asked == ["hanging", "orders"]
        server.released.set()
        assert await asyncio.gather(*hanging) == [204] * (MAX_CONCURRENT_NAMES + 1), (
            "the one answer is for all who have waited"
        )


@pytest.mark.slow
async def test_a_name_is_given_up_after_its_time_and_a_hundred_such_hold_so_many_threads() -> None:
    server = NameServer()
    async with sending(server, patience=0.2) as transport:
        urls = [f"http://hanging-{number}/" for number in range(100)]
        failures = await asyncio.gather(*(status_at(transport, url) for url in urls), return_exceptions=True)
        assert {str(failure) for failure in failures} == {"no DNS response for the host name"}
        assert len(server.asked) == MAX_CONCURRENT_NAMES


SILENT = """
import asyncio, time
from wxauth.outbound.urls import NameResolver

try:
    asyncio.run(NameResolver(lambda _: time.sleep(3600), patience=0.1).resolve("silent.example"))
except TimeoutError:
    print("given up")
"""


@pytest.mark.process
def test_a_process_ends_although_a_name_is_still_looked_up() -> None:
    ended = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.stdout, ended.stderr) == ("given up\n", "")


ALLOWED = {
    "by both": [
        *("10.1.2.3", "172.31.255.255", "192.168.0.1", "127.0.0.1", "::1", "fd12:3456::1"),
        *("::ffff:10.0.0.1", "2002:a00:1::1", "64:ff9b::10.0.0.1", "100.64.0.1", "100.127.255.254", "100.100.100.199"),
    ],
    "by https": [
        *("8.8.8.8", "2606:4700::1111", "172.32.0.1", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8"),
        *("100.63.255.255", "100.128.0.1", "2a01:4f8:0:64::8.8.8.8"),
    ],
    "by none": [
        *("168.63.129.16", "192.0.0.192", "::ffff:100.100.100.200"),
        *("100.100.100.200", "fe80::1%eth0", "2001::5601:5601", "2a01:4f8:0:64::169.254.169.254"),
        "2a01:4f8::5efe:100.100.100.200",
    ],
}


@swept(("how", "address"), [(how, address) for how, each in ALLOWED.items() for address in each])
def test_an_address_is_allowed_or_refused_by_its_network(how: str, address: str) -> None:
    assert (is_refused(address, "https"), is_refused(address, "http")) == (how == "by none", how != "by both")
