"""With `push_forward`, the team's own handler gets each message as WeChat sent it, and responds to WeChat."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from aiohttp import web

from tests.clock import PATIENCE
from tests.database_proxy import Proxy
from tests.loops import let_pass
from tests.problems import problem_of
from tests.push.messages import LEFT, NOW, PLAIN, REVOKED, SEALED, Inbox, Way, assert_taken, every_way, message, signed
from tests.receiver import Receiver
from tests.sweeps import swept
from tests.world import BESIDE_LOGINS, Body, MakeServices, Stage, unread, until
from wxauth.core.background import Retries
from wxauth.core.services import Services
from wxauth.errors import PushNotForwarded
from wxauth.outbound.connecting import ADDRESSES_REUSED_SECONDS
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.outbound.urls import NameResolver
from wxauth.push.forwarding import MAX_FORWARDED_AT_ONCE, PushForwarding, PushRequest
from wxauth.push.receiving import ANSWER_SECONDS
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth_desk.wechat.push import Mode, SignedPush, make_verdict_message

OTHER = {
    "app_id": "wxtest0000000000d4",
    "app_secret": "7c6a180b36896a0a8c02787eeafb0e4c",
    "push_token": "OneMoreToken4Push",
}
PAID = {"MsgType": "event", "Event": "xpay_goods_deliver_notify", "OutTradeNo": "A-1", "CreateTime": NOW}
TEXT = {"MsgType": "text", "Content": "退款！ <b>&", "FromUserName": "o-alice", "CreateTime": NOW}
DELIVERED = b'{"ErrCode":0,"ErrMsg":"success"}'


def answering(body: bytes, status: int = 200, **headers: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=body, status=status, headers={name.replace("_", "-"): it for name, it in headers.items()}
        )

    return answer


@pytest.fixture
def handler(receiver: Receiver) -> Receiver:
    """The server of a team's own handler, which responds like the handler of any SDK."""
    receiver.usual = answering(DELIVERED)
    return receiver


@dataclass(slots=True)
class Relay(Inbox):
    """An inbox whose messages wxauth forwards to the team's handler."""

    handler: Receiver
    forwarded: Mapping[str, Any]

    async def push(self, content: Mapping[str, Any], app: Mapping[str, str] = PLAIN) -> httpx.Response:
        mode: Mode = "aes" if "push_aes_key" in app else "plain"
        return await self.post(signed(content, app, mode), app)

    async def fail(self, content: Mapping[str, Any], app: Mapping[str, str] = PLAIN) -> Body:
        """Push a message that the handler doesn't get or doesn't accept, and return the problem.

        WeChat would send it again.
        """
        return problem_of(await self.push(content, app), "push_not_forwarded", 503)

    async def hang(self, _: web.Request) -> web.Response:
        await self.handler.released.wait()
        return web.Response(body=DELIVERED)

    async def counts(self) -> set[str]:
        lines = (await self.stage.client.get("/metrics")).text.splitlines()
        found = [line.removeprefix("wxauth_push_messages_total") for line in lines]
        return {line for line in found if line.startswith("{")}


@pytest.fixture
def relay(stage: Stage, handler: Receiver, forwarded: Mapping[str, Any]) -> Relay:
    return Relay(stage, handler, forwarded)


@pytest.fixture
def forwarded(handler: Receiver) -> Mapping[str, Any]:
    """The settings of a service that forwards the messages of all its apps except the last to the handler."""
    apps = [{**app, "push_forward": f"{handler.url}?own=1"} for app in (PLAIN, SEALED)]
    return {"apps": [*apps, OTHER]}


@pytest.fixture
async def services(make_services: MakeServices, forwarded: Mapping[str, Any]) -> Services:
    return await make_services(**forwarded)


def count(kind: str, outcome: str, number: int = 1, *, app: Mapping[str, str] = PLAIN) -> str:
    return f'{{app_id="{app["app_id"]}",kind="{kind}",outcome="{outcome}"}} {number}.0'


# Forwarded messages and their responses.


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("content", [PAID, TEXT], ids=["payment", "text"])
async def test_a_message_is_handed_on_as_it_came_and_its_answer_back(relay: Relay, way: Way, content: Body) -> None:
    sent = signed(content, *way)
    relay.handler.usual = answering(
        b"<xml>\xff\x00</xml>", Content_Type="text/xml; charset=GBK", X_Own="1", Set_Cookie="a=b"
    )
    raw_query = f"{urlencode(sent.query)}&x=%7e+%2B%zz&&a"
    answer = await relay.stage.client.post(
        f"/v1/wechat/push/{way.app['app_id']}?{raw_query}",
        content=sent.body,
        headers={"Content-Type": sent.content_type, "Cookie": "c=d", "Authorization": "Basic YTpi", "X-Other": "1"},
    )
    assert (answer.status_code, answer.content) == (200, b"<xml>\xff\x00</xml>")
    assert answer.headers["content-type"] == "text/xml; charset=GBK"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.keys().isdisjoint(("x-own", "set-cookie", "server", "date"))
    [got] = relay.handler.requests
    assert (got.method, got.raw_path) == ("POST", f"/hook?own=1&{raw_query}")
    assert relay.handler.bodies == [sent.body]
    headers = {name.lower(): value for name, value in got.headers.items()}
    assert headers.keys() == {
        *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "wxauth-forwarded")
    }
    assert headers["content-type"] == sent.content_type
    assert (headers["wxauth-forwarded"], headers["accept-encoding"]) == ("1", "identity")


@swept("own", ["", "?", "?a=1", "/?a=1&", "/%7e?x=%2F"])
async def test_the_query_comes_after_the_urls_own(relay: Relay, own: str) -> None:
    await relay.receive_with(apps=[{**PLAIN, "push_forward": relay.handler.url + own}])
    sent = signed(PAID)
    assert (await relay.post(sent)).status_code == 200
    separator = "?" if "?" not in own else "" if own.endswith("?") else "&"
    assert relay.handler.requests[-1].raw_path == f"/hook{own}{separator}{urlencode(sent.query)}"


async def test_the_content_type_is_wechats_and_nothing_else(relay: Relay) -> None:
    async def ask(type: bytes | None) -> httpx.Response:
        sent, headers = signed(PAID), [] if type is None else [(b"content-type", type)]
        path = f"/v1/wechat/push/{PLAIN['app_id']}"
        return await relay.stage.client.post(path, params=dict(sent.query), content=sent.body, headers=headers)

    for type in (None, b"text/plain", b'a/b; x="\t\xe9"', b"application/json, text/xml"):
        assert (await ask(type)).status_code == 200
        assert dict(relay.handler.requests[-1].raw_headers).get(b"Content-Type") == type
    for smuggled in (b"text/xml\r\nX-Evil: 1", b"a\nb", b"a\x00b"):
        problem_of(await ask(smuggled), "push_not_forwarded", 503)
    assert len(relay.handler.got) == 4


async def test_a_message_may_have_1_mib_and_its_answer_64_kib(relay: Relay) -> None:
    relay.handler.usual = answering(b"x" * 64 * 1024)
    room = 1024 * 1024 - len(json.dumps({**TEXT, "Content": ""}, separators=(",", ":"), ensure_ascii=False).encode())
    sent = signed({**TEXT, "Content": "x" * room})
    assert len(sent.body) == 1024 * 1024
    assert (await relay.post(sent)).content == b"x" * 64 * 1024
    assert relay.handler.bodies == [sent.body]
    longer = signed({**TEXT, "Content": "x" * (room + 1)})
    problem_of(await relay.post(longer), "payload_too_large", 413)
    assert len(relay.handler.got) == 1


async def test_what_can_be_read_neither_as_json_nor_as_xml_is_handed_on(relay: Relay) -> None:
    for body in (b"\xff\xfe", b"", b"[1]", b"<xml>" + b"<a/>" * 1001 + b"</xml>"):
        assert (await relay.post(SignedPush(signed({}).query, body, "text/plain"))).content == DELIVERED
        assert relay.handler.bodies[-1] == body
    assert await relay.counts() == {count("other", "forwarded", 4)}


# Messages that wxauth itself handles.


@pytest.mark.slow
@every_way
async def test_a_withdrawal_is_carried_out_first_and_handed_on_too(relay: Relay, way: Way) -> None:
    openid = await relay.openid(way.app)
    users: list[int] = []

    async def look(_: web.Request) -> web.Response:
        users.append(await relay.stage.number("users"))
        return web.Response(body=DELIVERED)

    relay.handler.usual = look
    sent = signed(message(openid, LEFT, app=way.app), *way)
    assert (await relay.post(sent, way.app)).content == DELIVERED
    assert (users, relay.handler.bodies) == ([0], [sent.body])
    assert await relay.counts() == {count("withdrawal", "forwarded", app=way.app)}
    assert "wxauth_push_forward_seconds_count 1.0" in (await relay.stage.client.get("/metrics")).text


async def test_what_wxauth_did_is_not_done_twice_if_the_handler_wants_it_again(relay: Relay) -> None:
    openid = await relay.openid()
    relay.handler.usual = answering(b"", status=500)
    content = message(openid)
    await relay.fail(content)
    relay.handler.usual = answering(DELIVERED)
    assert (await relay.push(content)).content == DELIVERED
    assert await relay.stage.number(f"events WHERE {BESIDE_LOGINS}") == 1
    assert await relay.counts() == {count("withdrawal", "not_forwarded"), count("withdrawal", "forwarded")}


async def test_what_cannot_be_carried_out_is_not_handed_on(relay: Relay, proxy: Proxy) -> None:
    await relay.cut_off(proxy, **relay.forwarded)
    content = message(await relay.openid(SEALED), LEFT, app=SEALED)
    problem_of(await relay.push(content, SEALED), "storage_unavailable", 503)
    assert not relay.handler.got
    assert await relay.counts() == {count("withdrawal", "refused", app=SEALED)}
    await proxy.accept()
    await relay.stage.services[Retries].drain()


async def test_during_an_outage_sealed_messages_are_handed_on_and_plain_ones_wait(relay: Relay, proxy: Proxy) -> None:
    await relay.cut_off(proxy, **relay.forwarded)
    other_code = message("o-1", REVOKED, "15", app=SEALED)  # code 15 means addresses, which wxauth doesn't store
    for content in (PAID, TEXT, other_code):
        assert (await relay.push(content, SEALED)).content == DELIVERED
    for app in (PLAIN, OTHER):
        problem_of(await relay.push(PAID, app), "storage_unavailable", 503)
    assert len(relay.handler.got) == 3
    await proxy.accept()
    await relay.cut_off(proxy, apps=[SEALED])
    assert_taken(await relay.push(PAID, SEALED))
    await proxy.accept()


# Limits.


@pytest.mark.slow
@swept(
    "answer",
    [answering(DELIVERED, status=status) for status in (201, 204, 301, 302, 307, 400, 403, 404, 500, 502)]
    + [
        answering(b"", status=302, Location="http://127.0.0.1:1/"),
        answering(b"x" * (64 * 1024 + 1)),
        answering(b"\x1f\x8b", Content_Encoding="gzip"),
    ],
    ids=[*map(str, (201, 204, 301, 302, 307, 400, 403, 404, 500, 502)), "redirect", "long", "compressed"],
)
async def test_any_other_answer_makes_wechat_send_again(relay: Relay, answer: Any) -> None:
    relay.handler.usual = answer
    before = len(relay.handler.got)
    problem = await relay.fail(PAID, SEALED)
    assert len(relay.handler.got) == before + 1, "no redirect is followed, and nothing is tried again"
    assert str(httpx.URL(relay.handler.url).port) not in problem["detail"]
    counted = count("payment", "not_forwarded", app=SEALED).rpartition(" ")[0]
    assert [line.rpartition(" ")[0] for line in await relay.counts()] == [counted]


async def test_a_handler_has_four_seconds_from_the_requests_arrival(relay: Relay) -> None:
    relay.handler.usual = relay.hang
    loop = asyncio.get_running_loop()
    sent = signed(PAID)
    asked = asyncio.create_task(relay.post(sent))
    await until(lambda: relay.handler.under_way)
    let_pass(ANSWER_SECONDS - 0.5)
    assert not asked.done()
    began = loop.time()
    problem_of(await asked, "push_not_forwarded", 503)
    assert loop.time() - began < 1
    assert ANSWER_SECONDS == 4


async def test_what_the_request_and_wxauth_take_counts_towards_the_four_seconds(relay: Relay) -> None:
    sent = signed(PAID)

    async def slowly() -> AsyncIterator[bytes]:
        let_pass(ANSWER_SECONDS)
        yield sent.body

    answer = await relay.stage.client.post(
        f"/v1/wechat/push/{PLAIN['app_id']}", params=dict(sent.query), content=slowly(), headers={"Content-Type": "a/b"}
    )
    problem_of(answer, "push_not_forwarded", 503)
    assert not relay.handler.got


@pytest.mark.slow
async def test_sixty_four_are_handed_on_at_once_and_beyond_only_wxauths_own_is_done(relay: Relay) -> None:
    openid = await relay.openid(SEALED)
    relay.handler.usual = relay.hang
    waiting = [asyncio.create_task(relay.push(PAID, SEALED)) for _ in range(MAX_FORWARDED_AT_ONCE)]
    await until(lambda: relay.handler.under_way == MAX_FORWARDED_AT_ONCE)
    assert MAX_FORWARDED_AT_ONCE == 64
    for content in (PAID, message(openid, LEFT, app=SEALED)):
        await relay.fail(content, SEALED)
    assert await relay.stage.number("users") == 0
    assert relay.handler.under_way == MAX_FORWARDED_AT_ONCE
    relay.handler.released.set()
    assert {answer.content for answer in await asyncio.gather(*waiting)} == {DELIVERED}
    assert (await relay.push(PAID, SEALED)).content == DELIVERED


@pytest.mark.slow
async def test_a_handler_that_hangs_delays_no_other_app_no_login_and_no_withdrawal(relay: Relay) -> None:
    apps = [
        {**PLAIN, "push_forward": relay.handler.url},
        SEALED,
        {**OTHER, "push_forward": f"{relay.handler.url}/other"},
    ]
    await relay.receive_with(apps=apps)
    people = [await relay.openid(SEALED, f"person{n}") for n in range(20)]
    relay.handler.usual = relay.hang
    hanging = [asyncio.create_task(relay.push(PAID)) for _ in range(MAX_FORWARDED_AT_ONCE + 20)]
    await until(lambda: relay.handler.under_way == MAX_FORWARDED_AT_ONCE)
    relay.handler.usual = answering(DELIVERED)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.gather(
        *(relay.stage.login.ask(f"newcomer{n}", at=relay.stage.client) for n in range(200)),
        *(relay.push(message(openid, LEFT, app=SEALED), SEALED) for openid in people),
        *(relay.push(PAID, OTHER) for _ in range(20)),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert loop.time() - began < 2
    assert not any(task.done() and task.result().status_code == 200 for task in hanging)
    assert await relay.stage.number("users") == 200
    relay.handler.released.set()
    await asyncio.gather(*hanging)


async def test_two_that_hand_on_to_each_other_make_no_circle(relay: Relay) -> None:
    openid = await relay.openid(SEALED)
    relay.stage.client.headers["Wxauth-Forwarded"] = "1"
    for content in (PAID, message(openid, LEFT, app=SEALED)):
        await relay.fail(content, SEALED)
    assert not relay.handler.got
    assert await relay.stage.number("users") == 0
    assert_taken(await relay.push(PAID, OTHER))  # the last service in a chain forwards nothing


async def test_who_has_seen_a_query_cannot_fill_the_memory_with_long_bodies(relay: Relay) -> None:
    openid = await relay.openid()
    caught, path, released = signed(PAID), f"/v1/wechat/push/{PLAIN['app_id']}", asyncio.Event()
    reading = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal reading
        reading += 1
        await released.wait()
        yield caught.body

    sent = [
        asyncio.create_task(relay.stage.client.post(path, params=dict(caught.query), content=slowly()))
        for _ in range(65)
    ]
    done, _ = await asyncio.wait(sent, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    assert ([problem_of(await it, "push_not_forwarded", 503)["status"] for it in done], reading) == ([503], 64)
    assert (await relay.push(message(openid, LEFT))).content == DELIVERED, "short ones are received"
    assert await relay.stage.number("users") == 0
    released.set()
    await asyncio.gather(*sent)


# Forged and replayed messages.


@pytest.mark.slow
@pytest.mark.parametrize("app", [PLAIN, SEALED], ids=["plain", "sealed"])
@pytest.mark.parametrize("wrong", [{"signature": "0" * 40}, {"timestamp": str(NOW - 301)}, {"signature": None}])
async def test_the_query_is_checked_before_the_body_is_read(relay: Relay, app: Mapping[str, str], wrong: Body) -> None:
    query = {**signed(PAID, app, "aes" if app is SEALED else "plain").query, **wrong}
    query = {name: value for name, value in query.items() if value is not None}
    answer = await relay.stage.client.post(f"/v1/wechat/push/{app['app_id']}", params=query, content=unread())
    problem_of(answer, "invalid_signature", 403)
    assert not relay.handler.got
    assert await relay.counts() == {count("other", "refused", app=app)}


async def test_a_sealed_messages_query_is_worth_nothing_beside_another_body(relay: Relay) -> None:
    openid = await relay.openid(SEALED)
    caught = signed(PAID, SEALED, "aes")
    assert (await relay.post(caught, SEALED)).content == DELIVERED
    for body in (signed(message(openid, LEFT, app=SEALED), SEALED, mode).body for mode in ("plain", "aes")):
        problem_of(await relay.post(SignedPush(caught.query, body, ""), SEALED), "invalid_signature", 403)
    assert await relay.stage.number("users") == 1


async def test_a_name_that_now_leads_elsewhere_is_not_connected_to(handler: Receiver) -> None:
    addresses = ["127.0.0.1"]
    resolver = NameResolver(lambda _: addresses)
    forwarding = PushForwarding(transport=ReceiverTransport(resolve=resolver.resolve))
    app_id, url = PLAIN["app_id"], handler.url.replace("127.0.0.1", "handler.test")
    request = PushRequest(b"a=1", None, is_forwarded=False, body=b"")

    async def hand_on() -> bytes:
        let_pass(ADDRESSES_REUSED_SECONDS)  # so that neither the resolved name nor a connection is reused
        return (
            await forwarding.forward(app_id, request, url=url, deadline=asyncio.get_running_loop().time() + 4)
        ).content

    assert await hand_on() == DELIVERED
    for address in ("169.254.169.254", "100.100.100.200", "8.8.8.8", "::ffff:169.254.169.254"):
        addresses[:] = [address]
        with pytest.raises(PushNotForwarded, match="the address is not allowed"):
            await hand_on()
    await forwarding.transport.aclose()


# Apps without `push_forward`.


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        (PAID, "payment", "xpay_goods_deliver_notify"),
        (TEXT, "customer_service", "text"),
        ({"MsgType": "event", "Event": "user_enter_tempsession"}, "customer_service", "user_enter_tempsession"),
        ({"MsgType": "event", "Event": "subscribe_msg_popup_event"}, "other", "subscribe_msg_popup_event"),
        (message("o-1", REVOKED, "15"), "other", REVOKED),
        (make_verdict_message("trace-1", "risky", 20001, app_id=OTHER["app_id"], now=NOW), "other", "wxa_media_check"),
        ({"MsgType": "event", "Event": "\r\n\x1b[31m" + "x" * 100}, "other", "[31m" + "x" * 60),
        ({}, "other", ""),
    ],
)
async def test_what_nobody_gets_is_answered_counted_and_warned_of(relay: Relay, case: tuple[Body, str, str]) -> None:
    content, kind, name = case
    for _ in range(3):
        assert_taken(await relay.push(content, OTHER))
    [line] = relay.stage.logged("push_ignored")
    assert (line["level"], line["app_id"], line["message"]) == ("warning", OTHER["app_id"], name)
    assert "push_forward" in line["what_to_change"]
    assert await relay.counts() == {count(kind, "ignored", 3, app=OTHER)}


async def test_a_warning_comes_once_a_utc_day_for_each_app_and_name(relay: Relay) -> None:
    def warned() -> int:
        return len(relay.stage.logged("push_ignored"))

    for content in (PAID, TEXT, PAID):
        await relay.push(content, OTHER)
    assert warned() == 2
    relay.stage.clock.advance(days=1)
    sent = signed(PAID, OTHER, timestamp=str(int(relay.stage.clock().timestamp())))
    assert_taken(await relay.post(sent, OTHER))
    assert warned() == 3


async def test_wxauths_own_is_done_and_what_names_nothing_here_is_not_its_own(relay: Relay) -> None:
    openid = await relay.openid(OTHER)
    await relay.receive_with(apps=[OTHER])
    verdict = make_verdict_message("trace-1", "risky", 20001, app_id=OTHER["app_id"], now=NOW)
    for content in (message(openid, app=OTHER), message(openid, LEFT, app=OTHER)):
        assert_taken(await relay.push(content, OTHER))
    done = {count("withdrawal", "done", 2, app=OTHER)}
    assert await relay.counts() == done
    assert not relay.stage.logged("withdrawal_of_nobody")
    for content in (message("o-nobody", LEFT, app=OTHER), verdict):
        assert_taken(await relay.push(content, OTHER))
    assert await relay.counts() == done | {count("other", "ignored", 2, app=OTHER)}
    [line] = relay.stage.logged("withdrawal_of_nobody")
    assert line["app_id"] == OTHER["app_id"]
    assert [line["message"] for line in relay.stage.logged("push_ignored")] == ["wxa_media_check"]
    problem_of(await relay.push(PAID, {**PLAIN, "app_id": "wx0000000000000000"}), "unknown_app", 400)
    assert count("other", "refused", app={"app_id": "unknown"}) in await relay.counts()


# The setting `push_forward`.


def test_a_url_beside_the_issuers_path_is_not_below_it(make_settings: Callable[..., Settings]) -> None:
    issuer = "https://api.test/auth"
    for path in ("/authors", "/shop", "", "/auth/../shop"):
        make_settings(issuer=issuer, apps=[{**PLAIN, "push_forward": f"https://api.test{path}"}])
    for path in ("/auth", "/auth/", "/auth/v1", "/shop/../auth/v1", "/%61uth/v1"):
        with pytest.raises(InvalidSettings):
            make_settings(issuer=issuer, apps=[{**PLAIN, "push_forward": f"https://api.test{path}"}])


def test_a_forward_needs_an_allowed_url_and_a_token(make_settings: Callable[..., Settings]) -> None:
    app = {name: value for name, value in PLAIN.items() if name != "push_token"}
    with pytest.raises(InvalidSettings, match="push_token"):
        make_settings(apps=[{**app, "push_forward": "https://shop.test/"}])
    for url in ("http://8.8.8.8/", "https://169.254.169.254/", "https://u:p@shop.example.com/"):
        with pytest.raises(InvalidSettings, match="push_forward"):
            make_settings(apps=[{**PLAIN, "push_forward": url}])
