"""The service copes with a misbehaving WeChat or network. These tests use real sockets and the real transport."""

import asyncio
from functools import partial

import pytest

from tests.certificates import Authority
from tests.fakes import APP
from tests.forward_proxy import ForwardProxy
from tests.problems import problem_of
from tests.processes import free_port
from tests.upstream import Upstream, abort, after, answer, endless, hang
from tests.wechat.asking import CODE, IDENTITY, OK, ServiceAsking, log_in
from tests.world import until
from wxauth.errors import WeChatTimeout
from wxauth.outbound.transport import DEFAULT_MAX_CONNECTIONS
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.client import WeChat
from wxauth.wechat.errcodes import Api

SHORT = 1.0
"""The seconds until a deadline that must end the request."""


@pytest.mark.slow
async def test_an_api_that_hangs_takes_no_connection_from_the_logins(service_asking: ServiceAsking) -> None:
    access_token = answer({"access_token": "token-of-wechat", "expires_in": 7200})
    async with Upstream(access_token, *[hang] * DEFAULT_MAX_CONNECTIONS, OK) as upstream:
        client = await service_asking(upstream.url)
        api, app = service_asking.stage.services[WeChatApi], service_asking.stage.services.settings.apps[0]
        openid, key = IDENTITY["openid"], IDENTITY["session_key"].encode()
        hanging = [
            asyncio.create_task(api.check_session_key(app, openid=openid, session_key=key))
            for _ in range(DEFAULT_MAX_CONNECTIONS)
        ]
        await until(lambda: len(upstream.requests) > DEFAULT_MAX_CONNECTIONS)  # one more is for the access token
        assert (await log_in(client)).status_code == 200
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


@pytest.mark.slow
async def test_a_slow_wechat_ends_at_the_deadline_be_it_busy_at_first(service_asking: ServiceAsking) -> None:
    busy = answer({"errcode": -1, "errmsg": "system error"})
    drips = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b" ", pause=0.02)
    async with Upstream(busy, drips, OK) as upstream:
        client = await service_asking(upstream.url, wechat_timeout=SHORT)
        loop = asyncio.get_running_loop()
        started = loop.time()
        problem_of(await log_in(client), "wechat_timeout", 504)
        assert SHORT <= loop.time() - started < SHORT + 1
        assert upstream.codes == [CODE] * 2
        assert (await log_in(client)).status_code == 200  # on a new connection


async def test_a_timeout_names_the_time_limit_of_its_call(service_asking: ServiceAsking) -> None:
    async with Upstream(hang, hang) as upstream:
        await service_asking(upstream.url, wechat_timeout=0.2)
        wechat, app = service_asking.stage.services[WeChat], service_asking.stage.services.settings.apps[0]
        call = partial(wechat.call, Api.CODE2SESSION, app, "js_code=slow", read=lambda _: None)
        with pytest.raises(WeChatTimeout, match=r"did not respond in 0\.2 s"):
            await call()
        with pytest.raises(WeChatTimeout, match=r"did not respond in 0\.6 s"):
            await call(deadline=wechat.deadline(extra_seconds=0.4))


# Connections that fail.


async def test_a_refused_connect_is_tried_on_the_fallback_host(service_asking: ServiceAsking) -> None:
    async with Upstream(OK) as fallback:
        nobody, other = f"http://127.0.0.1:{free_port()}", f"{fallback.url}/other"
        answered = await log_in(await service_asking(nobody, wechat_fallback_url=other))
        assert answered.status_code == 200
        assert fallback.codes == [CODE]
        assert fallback.requests[0].startswith("/other/sns/")
    [line] = service_asking.stage.logged("wechat_not_connected")
    assert line["reason"] == "ConnectionRefusedError"


@pytest.mark.parametrize("fallback", [None, "http://127.0.0.1:{port}/relay"])
async def test_a_wechat_that_cannot_be_reached_is_not_called_busy_and_no_other_host_is_named(
    service_asking: ServiceAsking, fallback: str | None
) -> None:
    port = free_port()
    url = fallback and fallback.format(port=port)
    refused = await log_in(await service_asking(f"http://127.0.0.1:{port}", wechat_fallback_url=url))
    assert "busy" not in problem_of(refused, "wechat_unavailable", 503)["title"]
    assert refused.headers["retry-after"] == "3"
    [line] = service_asking.stage.logged("wechat_not_connected")
    assert line["host"] == f"127.0.0.1:{port}"
    assert "next_host" not in line


@pytest.mark.slow
async def test_a_tls_handshake_that_hangs_leaves_the_fallback_host_its_time(service_asking: ServiceAsking) -> None:
    async with Upstream(OK, on_connect=hang) as upstream, Upstream(OK) as fallback:
        client = await service_asking(
            f"https://127.0.0.1:{upstream.port}", wechat_fallback_url=fallback.url, wechat_timeout=2
        )
        assert (await log_in(client)).status_code == 200


# Requests that don't reach WeChat, and requests through a proxy.


@pytest.mark.slow
async def test_a_login_for_which_no_connection_gets_free_keeps_its_code(service_asking: ServiceAsking) -> None:
    gate = asyncio.Event()

    async with Upstream(after(gate, OK)) as upstream:
        client = await service_asking(upstream.url, wechat_timeout=2)
        wechat, app = service_asking.stage.services[WeChat], service_asking.stage.services.settings.apps[0]
        another = partial(wechat.call, Api.CODE2SESSION, app, "js_code=another", read=lambda _: None)
        later = wechat.deadline(extra_seconds=60)
        others = [asyncio.create_task(another(deadline=later)) for _ in range(DEFAULT_MAX_CONNECTIONS)]
        await until(lambda: len(upstream.requests) == DEFAULT_MAX_CONNECTIONS)
        answered = await log_in(client)
        problem = problem_of(answered, "wechat_unavailable", 503)
        assert (
            problem["detail"] == "wxauth didn't send the request to WeChat, because no connection became free in time"
        )
        assert int(answered.headers["retry-after"]) > 0
        assert set(upstream.codes) == {"another"}
        gate.set()
        await asyncio.gather(*others)
        assert (await log_in(client)).status_code == 200
        assert not service_asking.stage.logged("wechat_not_connected")


async def test_a_login_goes_by_the_proxy(
    service_asking: ServiceAsking, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with Upstream(OK, tls=authority.server("127.0.0.1")) as upstream, ForwardProxy() as proxy:
        client = await service_asking(upstream.url, wechat_proxy=proxy.url)
        assert [(await log_in(client)).status_code for _ in range(2)] == [200, 200]
        assert (len(proxy.heads), len(upstream.codes)) == (1, 2)
        assert APP["app_secret"] not in proxy.heads[0]


async def test_no_other_proxy_is_used(service_asking: ServiceAsking, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream(OK) as upstream, ForwardProxy() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await log_in(await service_asking(upstream.url))).status_code == 200
        assert proxy.heads == []


async def test_a_proxy_that_refuses_is_asked_for_the_fallback_host_too(service_asking: ServiceAsking) -> None:
    async with Upstream(OK) as upstream, ForwardProxy(instead=abort) as proxy:
        url = f"https://127.0.0.1:{upstream.port}"
        client = await service_asking(url, wechat_fallback_url="https://localhost:1", wechat_proxy=proxy.url)
        problem_of(await log_in(client), "wechat_unavailable", 503)
        assert [head.split()[1] for head in proxy.heads] == [f"127.0.0.1:{upstream.port}", "localhost:1"]
        assert upstream.connections == 0
    (line,) = service_asking.stage.logged("wechat_not_connected")
    assert line["reason"] == "can't connect through the proxy: the connection was closed without an answer"
    assert (line["host"], line["next_host"]) == (f"127.0.0.1:{upstream.port}", "localhost:1")
    assert "wxauth check" in line["what_to_change"]
