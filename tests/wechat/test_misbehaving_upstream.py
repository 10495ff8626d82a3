"""A WeChat, or a network on the way to it, that misbehaves: over real sockets, by the real transport."""

import asyncio
import gzip
import json
import socket
from collections.abc import Callable

import httpx
import pytest

from tests.fakes import APP, Clock
from tests.problems import problem_of
from tests.upstream import Behaviour, Upstream, abort, answer, endless, hang, raw, reset
from tests.wechat.asking import CODE, IDENTITY, OK, ServiceAsking, log_in
from tests.world import LogLines, MakeClient, until
from wxauth.server.core.settings import Settings
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.build import build_services
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.transport import MAX_CONNECTIONS

SHORT = 1.0
"""Seconds of a deadline that must end the exchange."""


async def test_connections_are_kept_alive(service_asking: ServiceAsking) -> None:
    async with Upstream(OK) as upstream:
        client = await service_asking(upstream.url)
        assert [(await log_in(client)).status_code for _ in range(3)] == [200] * 3
        assert (upstream.connections, upstream.codes) == (1, [CODE] * 3)


@pytest.mark.slow
async def test_an_api_that_hangs_takes_no_connection_from_the_logins(
    make_settings: Callable[..., Settings], make_client: MakeClient, clock: Clock
) -> None:
    access_token = answer({"access_token": "token-of-wechat", "expires_in": 7200})
    async with Upstream(access_token, *[hang] * MAX_CONNECTIONS, OK) as upstream:
        services = build_services(make_settings(wechat_base_url=upstream.url), clock=clock)
        await services[KeyRing].refresh()
        api, app = services[WeChatApi], services.settings.apps[0]
        openid, key = IDENTITY["openid"], IDENTITY["session_key"].encode()
        hanging = [
            asyncio.create_task(api.check_session_key(app, openid=openid, session_key=key))
            for _ in range(MAX_CONNECTIONS)
        ]
        await until(lambda: len(upstream.requests) > MAX_CONNECTIONS)  # the access token's is one more
        async with asyncio.timeout(2):
            assert (await log_in(make_client(services))).status_code == 200
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        await services.aclose()


async def test_the_request_is_the_one_that_wechat_documents(service_asking: ServiceAsking) -> None:
    async with Upstream(OK) as upstream:
        await log_in(await service_asking(f"{upstream.url}/by/a/proxy"))
        (target,) = upstream.requests
        url = httpx.URL(upstream.url + target)
        assert url.path == "/by/a/proxy/sns/jscode2session"
        assert dict(url.params) == {
            "appid": APP["app_id"],
            "secret": APP["app_secret"],
            "js_code": CODE,
            "grant_type": "authorization_code",
        }


MISBEHAVIOURS = [
    pytest.param(abort, "wechat_unavailable", 503, id="closed-without-an-answer"),
    pytest.param(reset, "wechat_unavailable", 503, id="reset"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Le"), "wechat_unavailable", 503, id="half-a-head"),
    pytest.param(answer(IDENTITY, length=500), "wechat_unavailable", 503, id="half-a-body"),
    pytest.param(answer(b"<html>", status="500 Oh"), "wechat_unavailable", 503, id="500"),
    pytest.param(answer(IDENTITY, status="500 Oh"), "wechat_unavailable", 503, id="500-with-an-identity"),
    pytest.param(answer(b"", status="503 Oh"), "wechat_unavailable", 503, id="503"),
    pytest.param(raw(b"\x16\x03\x01 not HTTP\r\n\r\n"), "wechat_bad_response", 502, id="garbage"),
    pytest.param(raw(b"220 mail.example ESMTP\r\n"), "wechat_bad_response", 502, id="another-protocol"),
    pytest.param(answer(b"<html>Welcome to the hotel"), "wechat_bad_response", 502, id="html"),
    pytest.param(answer(b""), "wechat_bad_response", 502, id="empty"),
    pytest.param(answer(b'{"openid": "\xff\xfe'), "wechat_bad_response", 502, id="invalid-utf-8"),
    pytest.param(answer(b"[" * 60_000), "wechat_bad_response", 502, id="deep-nesting"),
    pytest.param(answer(b'{"a":' * 5_000 + b"1" + b"}" * 5_000), "wechat_bad_response", 502, id="deep-objects"),
    pytest.param(answer(b"9" * 60_000), "wechat_bad_response", 502, id="a-long-number"),
    pytest.param(answer(IDENTITY, status="404 Not Found"), "wechat_bad_response", 502, id="404"),
    pytest.param(
        answer(IDENTITY, status="302 Found", headers="Location: /elsewhere?js_code=x\r\n"),
        "wechat_bad_response",
        502,
        id="a-redirect",
    ),
    pytest.param(
        answer(gzip.compress(json.dumps(IDENTITY).encode()), headers="Content-Encoding: gzip\r\n"),
        "wechat_bad_response",
        502,
        id="gzip-that-nobody-asked-for",
    ),
    pytest.param(
        answer(gzip.compress(b" " * 10_000_000), headers="Content-Encoding: gzip\r\n"),
        "wechat_bad_response",
        502,
        id="a-gzip-bomb",
    ),
    pytest.param(answer(b" " * 65_537), "wechat_bad_response", 502, id="over-64-KiB"),
    pytest.param(answer(b" " * 50_000_000), "wechat_bad_response", 502, id="50-MB"),
    pytest.param(endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65_536), "wechat_bad_response", 502, id="no-end"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("behaviour", "code", "status"), MISBEHAVIOURS)
async def test_a_misbehaving_wechat_gets_the_code_once(
    service_asking: ServiceAsking, behaviour: Behaviour, code: str, status: int
) -> None:
    async with Upstream(behaviour) as upstream:
        problem = problem_of(await log_in(await service_asking(upstream.url)), code, status)
        assert (upstream.connections, upstream.codes) == (1, [CODE])
        assert str(upstream.port) not in problem["detail"]


@pytest.mark.parametrize("behaviour", [abort, reset])
async def test_a_kept_alive_connection_that_breaks_under_a_request_gets_the_code_once(
    service_asking: ServiceAsking, behaviour: Behaviour
) -> None:
    async with Upstream(OK, behaviour) as upstream:
        client = await service_asking(upstream.url)
        assert (await log_in(client)).status_code == 200
        problem_of(await log_in(client), "wechat_unavailable", 503)
        assert (upstream.connections, upstream.codes) == (1, [CODE] * 2)


@pytest.mark.parametrize("behaviour", [abort, reset])
async def test_a_connection_that_wechat_has_closed_meanwhile_is_replaced(
    service_asking: ServiceAsking, behaviour: Behaviour
) -> None:
    async def answer_and_leave(writer: asyncio.StreamWriter) -> None:
        await OK(writer)
        await behaviour(writer)

    async with Upstream(answer_and_leave, OK) as upstream:
        client = await service_asking(upstream.url)
        assert (await log_in(client)).status_code == 200
        await asyncio.sleep(0.05)  # the end of the connection is on its way
        assert (await log_in(client)).status_code == 200
        assert (upstream.connections, upstream.codes) == (2, [CODE] * 2)


async def test_a_reset_before_the_request_was_read_is_not_tried_again(service_asking: ServiceAsking) -> None:
    async def reset_unread(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)  # in which the request is sent
        await reset(writer)

    async with Upstream(OK, on_connect=reset_unread) as upstream:
        problem_of(await log_in(await service_asking(upstream.url)), "wechat_unavailable", 503)
        assert (upstream.connections, upstream.codes) == (1, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(hang, id="hangs"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.02), id="drips-headers"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b" ", pause=0.02), id="drips-a-body"),
    ],
)
async def test_a_slow_wechat_ends_at_the_deadline(service_asking: ServiceAsking, behaviour: Behaviour) -> None:
    async with Upstream(behaviour, OK) as upstream:
        client = await service_asking(upstream.url, wechat_timeout=SHORT)
        loop = asyncio.get_running_loop()
        started = loop.time()
        problem_of(await log_in(client), "wechat_timeout", 504)
        assert SHORT <= loop.time() - started < SHORT + 1
        assert upstream.codes == [CODE]
        assert (await log_in(client)).status_code == 200  # on a new connection


@pytest.mark.slow
async def test_a_busy_answer_and_then_none_ends_at_the_same_deadline(service_asking: ServiceAsking) -> None:
    async with Upstream(answer({"errcode": -1, "errmsg": "system error"}), hang) as upstream:
        client = await service_asking(upstream.url, wechat_timeout=SHORT)
        async with asyncio.timeout(SHORT + 1):
            problem_of(await log_in(client), "wechat_timeout", 504)
        assert upstream.codes == [CODE] * 2


# No connection.


@pytest.fixture
def nobody() -> str:
    """A URL at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def test_a_refused_connect_is_tried_on_the_fallback_host(
    service_asking: ServiceAsking, nobody: str, log_lines: LogLines
) -> None:
    async with Upstream(OK) as fallback:
        answered = await log_in(await service_asking(nobody, wechat_fallback_url=f"{fallback.url}/other"))
        assert answered.status_code == 200
        assert fallback.codes == [CODE]
        assert fallback.requests[0].startswith("/other/sns/")
    assert [line["reason"] for line in log_lines() if line["event"] == "wechat_not_connected"] == [
        "ConnectionRefusedError"
    ]


async def test_without_a_fallback_host_a_refused_connect_is_tried_once_more(
    service_asking: ServiceAsking, nobody: str, log_lines: LogLines
) -> None:
    answered = await log_in(await service_asking(nobody))
    problem_of(answered, "wechat_unavailable", 503)
    assert int(answered.headers["retry-after"]) > 0
    assert sum(line["event"] == "wechat_not_connected" for line in log_lines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "on_connect",
    [
        pytest.param(raw(b"HTTP/1.1 400 this is no TLS\r\n\r\n"), id="no-TLS"),
        pytest.param(abort, id="closed"),
        pytest.param(reset, id="reset"),
    ],
)
async def test_a_tls_handshake_that_fails_is_no_connection(
    service_asking: ServiceAsking, on_connect: Behaviour
) -> None:
    async with Upstream(OK, on_connect=on_connect) as upstream, Upstream(OK) as fallback:
        client = await service_asking(f"https://127.0.0.1:{upstream.port}", wechat_fallback_url=fallback.url)
        assert (await log_in(client)).status_code == 200
        assert (upstream.connections, upstream.codes, fallback.codes) == (1, [], [CODE])


@pytest.mark.slow
async def test_a_tls_handshake_that_hangs_leaves_the_fallback_host_its_time(service_asking: ServiceAsking) -> None:
    async with Upstream(OK, on_connect=hang) as upstream, Upstream(OK) as fallback:
        client = await service_asking(
            f"https://127.0.0.1:{upstream.port}", wechat_fallback_url=fallback.url, wechat_timeout=2
        )
        assert (await log_in(client)).status_code == 200


async def test_a_lost_connection_is_not_tried_on_the_fallback_host(service_asking: ServiceAsking) -> None:
    async with Upstream(reset) as upstream, Upstream(OK) as fallback:
        client = await service_asking(upstream.url, wechat_fallback_url=fallback.url)
        problem_of(await log_in(client), "wechat_unavailable", 503)
        assert (upstream.codes, fallback.codes) == ([CODE], [])
