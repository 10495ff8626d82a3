"""`push_forward`: the team's own handler gets each message as WeChat sent it, and answers WeChat."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from aiohttp import web

from tests.clock import Clock
from tests.database_proxy import Proxy
from tests.listening import stop_listening
from tests.loops import let_pass
from tests.problems import problem_of
from tests.processes import free_port
from tests.push.messages import LEFT, NOW, PLAIN, REVOKED, SEALED, Way, assert_taken, every_way, message, post, signed
from tests.sweeps import swept
from tests.world import BESIDE_LOGINS, Body, Client, LogIn, LogLines, MakeClient, MakeServices, Rows, until
from wxauth.errors import PushNotForwarded
from wxauth.server.core.addresses import NameResolver
from wxauth.server.core.background import Promises
from wxauth.server.core.connection import NAME_SECONDS
from wxauth.server.core.receivers import ReceiverTransport
from wxauth.server.core.services import Services
from wxauth.server.core.settings import App, InvalidSettings, Settings
from wxauth.server.dev.wechat.push import Mode, SignedPush, make_verdict
from wxauth.server.push.forwarding import AT_ONCE, PushForwarding, PushRequest
from wxauth.server.push.receiving import ANSWER_SECONDS
from wxauth.server.service.build import Waits

OTHER = {
    "app_id": "wxtest0000000000d4",
    "app_secret": "7c6a180b36896a0a8c02787eeafb0e4c",
    "push_token": "OneMoreToken4Push",
}
PAID = {"MsgType": "event", "Event": "xpay_goods_deliver_notify", "OutTradeNo": "A-1", "CreateTime": NOW}
TEXT = {"MsgType": "text", "Content": "退款！ <b>&", "FromUserName": "o-alice", "CreateTime": NOW}
DELIVERED = b'{"ErrCode":0,"ErrMsg":"success"}'


class Handler:
    """A team's own handler, as any SDK has one."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/wechat"
        self.got: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[], Awaitable[web.StreamResponse]] = answering(DELIVERED)
        self.released = asyncio.Event()
        self.under_way = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.got.append(request)
        self.under_way += 1
        try:
            return await self.answer()
        finally:
            self.under_way -= 1

    async def hang(self) -> web.StreamResponse:
        await self.released.wait()
        return web.Response(body=DELIVERED)


def answering(body: bytes, status: int = 200, **headers: str) -> Callable[[], Awaitable[web.StreamResponse]]:
    async def answer() -> web.StreamResponse:
        return web.Response(
            body=body, status=status, headers={name.replace("_", "-"): it for name, it in headers.items()}
        )

    return answer


@pytest.fixture
async def handler() -> AsyncIterator[Handler]:
    handler = Handler()
    runner = web.ServerRunner(web.Server(handler.handle, access_log=None))
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", handler.port)
    yield handler
    handler.released.set()
    await stop_listening(server)
    await runner.cleanup()


@pytest.fixture
def forwarded(handler: Handler, push_secrets: None) -> Mapping[str, Any]:
    """The settings of a service whose apps hand on to the handler; those of the last one are ignored."""
    apps = [{**app, "push_forward": f"{handler.url}?own=1"} for app in (PLAIN, SEALED)]
    return {"apps": [*apps, OTHER]}


@pytest.fixture
async def services(make_services: MakeServices, forwarded: Mapping[str, Any]) -> Services:
    return await make_services(**forwarded)


async def push(client: Client, content: Mapping[str, Any], app: Mapping[str, str] = PLAIN) -> httpx.Response:
    mode: Mode = "aes" if "push_aes_key" in app else "plain"
    return await post(client, signed(content, app, mode), app)


async def counts(client: Client) -> set[str]:
    lines = (await client.get("/metrics")).text.splitlines()
    found = [line.removeprefix("wxauth_push_messages_total") for line in lines]
    return {line for line in found if line.startswith("{")}


def count(kind: str, outcome: str, number: int = 1, *, app: Mapping[str, str] = PLAIN) -> str:
    return f'{{app_id="{app["app_id"]}",kind="{kind}",outcome="{outcome}"}} {number}.0'


# What is handed on, and what comes back.


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("content", [PAID, TEXT], ids=["payment", "text"])
async def test_a_message_is_handed_on_as_it_came_and_the_answer_goes_back(
    client: Client, handler: Handler, way: Way, content: Body
) -> None:
    sent = signed(content, *way)
    handler.answer = answering(
        b"<xml>\xff\x00</xml>", Content_Type="text/xml; charset=GBK", X_Own="1", Set_Cookie="a=b"
    )
    raw_query = f"{urlencode(sent.query)}&x=%7e+%2B%zz&&a"
    answer = await client.post(
        f"/v1/wechat/push/{way.app['app_id']}?{raw_query}",
        content=sent.body,
        headers={"Content-Type": sent.content_type, "Cookie": "c=d", "Authorization": "Basic YTpi", "X-Other": "1"},
    )
    assert (answer.status_code, answer.content) == (200, b"<xml>\xff\x00</xml>")
    assert answer.headers["content-type"] == "text/xml; charset=GBK"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.keys().isdisjoint(("x-own", "set-cookie", "server", "date"))
    [got] = handler.got
    assert (got.method, got.raw_path) == ("POST", f"/wechat?own=1&{raw_query}")
    assert handler.bodies == [sent.body]
    headers = {name.lower(): value for name, value in got.headers.items()}
    assert headers.keys() == {
        *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "wxauth-forwarded")
    }
    assert headers["content-type"] == sent.content_type
    assert (headers["wxauth-forwarded"], headers["accept-encoding"]) == ("1", "identity")


@swept("own", ["", "?", "?a=1", "/?a=1&", "/%7e?x=%2F"])
async def test_the_query_comes_after_the_urls_own(
    make_services: MakeServices, make_client: MakeClient, handler: Handler, own: str
) -> None:
    client = make_client(await make_services(apps=[{**PLAIN, "push_forward": handler.url + own}]))
    sent = signed(PAID)
    assert (await post(client, sent)).status_code == 200
    separator = "?" if "?" not in own else "" if own.endswith("?") else "&"
    assert handler.got[-1].raw_path == f"/wechat{own}{separator}{urlencode(sent.query)}"


async def test_the_content_type_is_wechats_and_nothing_else(client: Client, handler: Handler) -> None:
    async def ask(type: bytes | None) -> httpx.Response:
        sent, headers = signed(PAID), [] if type is None else [(b"content-type", type)]
        path = f"/v1/wechat/push/{PLAIN['app_id']}"
        return await client.post(path, params=dict(sent.query), content=sent.body, headers=headers)

    for type in (None, b"text/plain", b'a/b; x="\t\xe9"', b"application/json, text/xml"):
        assert (await ask(type)).status_code == 200
        assert dict(handler.got[-1].raw_headers).get(b"Content-Type") == type
    for smuggled in (b"text/xml\r\nX-Evil: 1", b"a\nb", b"a\x00b"):
        problem_of(await ask(smuggled), "push_not_forwarded", 503)
    assert len(handler.got) == 4


async def test_a_message_may_have_1_mib_and_its_answer_64_kib(client: Client, handler: Handler) -> None:
    handler.answer = answering(b"x" * 64 * 1024)
    room = 1024 * 1024 - len(json.dumps({**TEXT, "Content": ""}, separators=(",", ":"), ensure_ascii=False).encode())
    sent = signed({**TEXT, "Content": "x" * room})
    assert len(sent.body) == 1024 * 1024
    assert (await post(client, sent)).content == b"x" * 64 * 1024
    assert handler.bodies == [sent.body]
    longer = signed({**TEXT, "Content": "x" * (room + 1)})
    problem_of(await post(client, longer), "payload_too_large", 413)
    assert len(handler.got) == 1


async def test_what_can_be_read_neither_as_json_nor_as_xml_is_handed_on(client: Client, handler: Handler) -> None:
    for body in (b"\xff\xfe", b"", b"[1]", b"<xml>" + b"<a/>" * 1001 + b"</xml>"):
        assert (await post(client, SignedPush(signed({}).query, body, "text/plain"))).content == DELIVERED
        assert handler.bodies[-1] == body
    assert await counts(client) == {count("other", "forwarded", 4)}


# wxauth's own.


@pytest.mark.slow
@every_way
async def test_a_withdrawal_is_carried_out_first_and_handed_on_too(
    client: Client, login: LogIn, rows: Rows, handler: Handler, way: Way
) -> None:
    openid = (await login(app=way.app))["user"]["openid"]
    users: list[int] = []

    async def look() -> web.StreamResponse:
        users.append(await rows.fetchval("SELECT count(*) FROM users"))
        return web.Response(body=DELIVERED)

    handler.answer = look
    sent = signed(message(openid, LEFT, app=way.app), *way)
    assert (await post(client, sent, way.app)).content == DELIVERED
    assert (users, handler.bodies) == ([0], [sent.body])
    assert await counts(client) == {count("withdrawal", "forwarded", app=way.app)}
    assert "wxauth_push_forward_seconds_count 1.0" in (await client.get("/metrics")).text


async def test_what_wxauth_did_is_not_done_twice_if_the_handler_wants_it_again(
    client: Client, login: LogIn, rows: Rows, handler: Handler
) -> None:
    openid = (await login(nickname="Alice"))["user"]["openid"]
    handler.answer = answering(b"", status=500)
    content = message(openid)
    problem_of(await push(client, content), "push_not_forwarded", 503)
    handler.answer = answering(DELIVERED)
    assert (await push(client, content)).content == DELIVERED
    assert await rows.fetchval(f"SELECT count(*) FROM events WHERE {BESIDE_LOGINS}") == 1
    assert await counts(client) == {count("withdrawal", "not_forwarded"), count("withdrawal", "forwarded")}


async def test_what_cannot_be_carried_out_is_not_handed_on(
    make_services: MakeServices,
    make_client: MakeClient,
    forwarded: Mapping[str, Any],
    login: LogIn,
    proxy: Proxy,
    handler: Handler,
) -> None:
    openid = (await login(app=SEALED))["user"]["openid"]
    services = await make_services(**forwarded, database_url=proxy.url, waits=Waits(pushed_messages=0.25, promises=0.1))
    client = make_client(services)
    await proxy.refuse()
    problem_of(await push(client, message(openid, LEFT, app=SEALED), SEALED), "storage_unavailable", 503)
    assert not handler.got
    assert await counts(client) == {count("withdrawal", "refused", app=SEALED)}
    await proxy.accept()
    await services[Promises].drain()


async def test_during_an_outage_sealed_messages_are_handed_on_and_plain_ones_wait(
    make_services: MakeServices, make_client: MakeClient, forwarded: Mapping[str, Any], proxy: Proxy, handler: Handler
) -> None:
    services = await make_services(**forwarded, database_url=proxy.url, waits=Waits(pushed_messages=0.25))
    client = make_client(services)
    alone = make_client(await make_services(apps=[SEALED], database_url=proxy.url))
    await proxy.refuse()
    other_code = message("o-1", REVOKED, "15", app=SEALED)  # addresses, which are not stored
    for content in (PAID, TEXT, other_code):
        assert (await push(client, content, SEALED)).content == DELIVERED
    for app in (PLAIN, OTHER):
        problem_of(await push(client, PAID, app), "storage_unavailable", 503)
    assert len(handler.got) == 3
    assert_taken(await push(alone, PAID, SEALED))
    await proxy.accept()


# The bounds.


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
async def test_any_other_answer_makes_wechat_send_again(client: Client, handler: Handler, answer: Any) -> None:
    handler.answer = answer
    before = len(handler.got)
    problem = problem_of(await push(client, PAID, SEALED), "push_not_forwarded", 503)
    assert len(handler.got) == before + 1, "no redirect is followed, and nothing is tried again"
    assert str(handler.port) not in problem["detail"]
    counted = count("payment", "not_forwarded", app=SEALED).rpartition(" ")[0]
    assert [line.rpartition(" ")[0] for line in await counts(client)] == [counted]


async def test_a_handler_has_four_seconds_from_the_requests_arrival(
    client: Client, services: Services, handler: Handler
) -> None:
    handler.answer = handler.hang
    loop = asyncio.get_running_loop()
    sent = signed(PAID)
    asked = asyncio.create_task(post(client, sent))
    await until(lambda: handler.under_way)
    let_pass(ANSWER_SECONDS - 0.5)
    assert not asked.done()
    began = loop.time()
    problem_of(await asked, "push_not_forwarded", 503)
    assert loop.time() - began < 1
    assert ANSWER_SECONDS == 4


async def test_what_the_request_and_wxauth_take_counts_towards_the_four_seconds(
    client: Client, handler: Handler
) -> None:
    sent = signed(PAID)

    async def slowly() -> AsyncIterator[bytes]:
        let_pass(ANSWER_SECONDS)
        yield sent.body

    answer = await client.post(
        f"/v1/wechat/push/{PLAIN['app_id']}", params=dict(sent.query), content=slowly(), headers={"Content-Type": "a/b"}
    )
    problem_of(answer, "push_not_forwarded", 503)
    assert not handler.got


@pytest.mark.slow
async def test_sixty_four_are_handed_on_at_once_and_beyond_only_wxauths_own_is_done(
    client: Client, login: LogIn, rows: Rows, handler: Handler
) -> None:
    openid = (await login(app=SEALED))["user"]["openid"]
    handler.answer = handler.hang
    waiting = [asyncio.create_task(push(client, PAID, SEALED)) for _ in range(AT_ONCE)]
    await until(lambda: handler.under_way == AT_ONCE)
    assert AT_ONCE == 64
    for content in (PAID, message(openid, LEFT, app=SEALED)):
        problem_of(await push(client, content, SEALED), "push_not_forwarded", 503)
    assert await rows.fetchval("SELECT count(*) FROM users") == 0
    assert handler.under_way == AT_ONCE
    handler.released.set()
    assert {answer.content for answer in await asyncio.gather(*waiting)} == {DELIVERED}
    assert (await push(client, PAID, SEALED)).content == DELIVERED


@pytest.mark.slow
async def test_a_handler_that_hangs_delays_no_other_app_no_login_and_no_withdrawal(
    make_services: MakeServices, make_client: MakeClient, login: LogIn, rows: Rows, handler: Handler
) -> None:
    apps = [{**PLAIN, "push_forward": handler.url}, SEALED, {**OTHER, "push_forward": f"{handler.url}/other"}]
    client = make_client(await make_services(apps=apps))
    log_in = LogIn(client, login.wechat)
    people = [(await log_in(f"person{n}", app=SEALED))["user"]["openid"] for n in range(20)]
    handler.answer = handler.hang
    hanging = [asyncio.create_task(push(client, PAID)) for _ in range(AT_ONCE + 20)]
    await until(lambda: handler.under_way == AT_ONCE)
    handler.answer = answering(DELIVERED)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.gather(
        *(log_in.ask(f"newcomer{n}") for n in range(200)),
        *(push(client, message(openid, LEFT, app=SEALED), SEALED) for openid in people),
        *(push(client, PAID, OTHER) for _ in range(20)),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert loop.time() - began < 2
    assert not any(task.done() and task.result().status_code == 200 for task in hanging)
    assert await rows.fetchval("SELECT count(*) FROM users") == 200
    handler.released.set()
    await asyncio.gather(*hanging)


async def test_two_that_hand_on_to_each_other_make_no_circle(
    client: Client, login: LogIn, rows: Rows, handler: Handler
) -> None:
    openid = (await login(app=SEALED))["user"]["openid"]
    client.headers["Wxauth-Forwarded"] = "1"
    for content in (PAID, message(openid, LEFT, app=SEALED)):
        problem_of(await push(client, content, SEALED), "push_not_forwarded", 503)
    assert not handler.got
    assert await rows.fetchval("SELECT count(*) FROM users") == 0
    assert_taken(await push(client, PAID, OTHER))  # the last one in a row hands nothing on


async def test_who_has_seen_a_query_cannot_fill_the_memory_with_long_bodies(
    client: Client, login: LogIn, rows: Rows
) -> None:
    openid = (await login())["user"]["openid"]
    caught, path, released = signed(PAID), f"/v1/wechat/push/{PLAIN['app_id']}", asyncio.Event()
    reading = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal reading
        reading += 1
        await released.wait()
        yield caught.body

    sent = [asyncio.create_task(client.post(path, params=dict(caught.query), content=slowly())) for _ in range(65)]
    done, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
    assert ([problem_of(await it, "push_not_forwarded", 503)["status"] for it in done], reading) == ([503], 64)
    assert (await push(client, message(openid, LEFT))).content == DELIVERED, "short ones are received"
    assert await rows.fetchval("SELECT count(*) FROM users") == 0
    released.set()
    await asyncio.gather(*sent)


# Forged and replayed.


async def read_nothing() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


@pytest.mark.slow
@pytest.mark.parametrize("app", [PLAIN, SEALED], ids=["plain", "sealed"])
@pytest.mark.parametrize("wrong", [{"signature": "0" * 40}, {"timestamp": str(NOW - 301)}, {"signature": None}])
async def test_the_query_is_checked_before_the_body_is_read(
    client: Client, handler: Handler, app: Mapping[str, str], wrong: Body
) -> None:
    query = {**signed(PAID, app, "aes" if app is SEALED else "plain").query, **wrong}
    query = {name: value for name, value in query.items() if value is not None}
    answer = await client.post(f"/v1/wechat/push/{app['app_id']}", params=query, content=read_nothing())
    problem_of(answer, "invalid_signature", 403)
    assert not handler.got
    assert await counts(client) == {count("other", "refused", app=app)}


async def test_a_sealed_messages_query_is_worth_nothing_beside_another_body(
    client: Client, login: LogIn, rows: Rows
) -> None:
    openid = (await login(app=SEALED))["user"]["openid"]
    caught = signed(PAID, SEALED, "aes")
    assert (await post(client, caught, SEALED)).content == DELIVERED
    for body in (signed(message(openid, LEFT, app=SEALED), SEALED, mode).body for mode in ("plain", "aes")):
        problem_of(await post(client, SignedPush(caught.query, body, ""), SEALED), "invalid_signature", 403)
    assert await rows.fetchval("SELECT count(*) FROM users") == 1


async def test_a_name_that_now_leads_elsewhere_is_not_connected_to(handler: Handler) -> None:
    addresses = ["127.0.0.1"]
    resolver = NameResolver(lambda _: addresses)
    forwarding = PushForwarding(transport=ReceiverTransport(resolve=resolver.resolve))
    app = App(**{**PLAIN, "push_forward": f"http://handler.test:{handler.port}/"})
    request = PushRequest(b"a=1", None, is_forwarded=False, body=b"")

    async def hand_on() -> bytes:
        let_pass(NAME_SECONDS)  # so that neither the name nor a connection is kept
        return (await forwarding.hand_on(app, request, deadline=asyncio.get_running_loop().time() + 4)).content

    assert await hand_on() == DELIVERED
    for address in ("169.254.169.254", "100.100.100.200", "8.8.8.8", "::ffff:169.254.169.254"):
        addresses[:] = [address]
        with pytest.raises(PushNotForwarded, match="address refused"):
            await hand_on()
    await forwarding.aclose()


# Without it.


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        (PAID, "payment", "xpay_goods_deliver_notify"),
        (TEXT, "customer_service", "text"),
        ({"MsgType": "event", "Event": "user_enter_tempsession"}, "customer_service", "user_enter_tempsession"),
        ({"MsgType": "event", "Event": "subscribe_msg_popup_event"}, "other", "subscribe_msg_popup_event"),
        (message("o-1", REVOKED, "15"), "other", REVOKED),
        (make_verdict("trace-1", "risky", 20001, app_id=OTHER["app_id"], now=NOW), "other", "wxa_media_check"),
        ({"MsgType": "event", "Event": "\r\n\x1b[31m" + "x" * 100}, "other", "[31m" + "x" * 60),
        ({}, "other", ""),
    ],
)
async def test_what_nobody_gets_is_answered_counted_and_warned_of(
    make_services: MakeServices, make_client: MakeClient, log_lines: LogLines, case: tuple[Body, str, str]
) -> None:
    content, kind, name = case
    client = make_client(await make_services(apps=[OTHER]))
    before = len(log_lines())
    for _ in range(3):
        assert_taken(await push(client, content, OTHER))
    [line] = [line for line in log_lines()[before:] if line["event"] == "push_ignored"]
    assert (line["level"], line["app_id"], line["message"]) == ("warning", OTHER["app_id"], name)
    assert "push_forward" in line["what_to_change"]
    assert await counts(client) == {count(kind, "ignored", 3, app=OTHER)}


async def test_a_warning_comes_once_a_utc_day_for_each_app_and_name(
    client: Client, clock: Clock, log_lines: LogLines
) -> None:
    def warned() -> int:
        return len([line for line in log_lines() if line["event"] == "push_ignored"])

    for content in (PAID, TEXT, PAID):
        await push(client, content, OTHER)
    assert warned() == 2
    clock.advance(days=1)
    sent = signed(PAID, OTHER, timestamp=str(int(clock().timestamp())))
    assert_taken(await post(client, sent, OTHER))
    assert warned() == 3


async def test_wxauths_own_is_done_and_not_warned_of_and_what_names_nobody_is_not_its_own(
    make_services: MakeServices, make_client: MakeClient, login: LogIn, log_lines: LogLines
) -> None:
    client = make_client(await make_services(apps=[OTHER], avatar_check="flag"))
    openid = (await LogIn(client, login.wechat)(app=OTHER))["user"]["openid"]
    verdict = make_verdict("trace-1", "risky", 20001, app_id=OTHER["app_id"], now=NOW)
    for content in (message(openid, app=OTHER), message(openid, LEFT, app=OTHER), verdict):
        assert_taken(await push(client, content, OTHER))
    done = {count("withdrawal", "done", 2, app=OTHER), count("verdict", "done", app=OTHER)}
    assert await counts(client) == done
    assert not [line for line in log_lines() if line["event"] == "push_ignored"]
    assert_taken(await push(client, message("o-nobody", LEFT, app=OTHER), OTHER))
    assert await counts(client) == done | {count("other", "ignored", app=OTHER)}
    [warning] = [line for line in log_lines() if line["event"] == "push_ignored"]
    assert warning["message"] == LEFT
    problem_of(await push(client, PAID, {**PLAIN, "app_id": "wx0000000000000000"}), "unknown_app", 400)
    assert count("other", "refused", app={"app_id": "unknown"}) in await counts(client)


# The field.


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
