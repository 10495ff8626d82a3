"""Message push: which messages are WeChat's, and what they erase."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from time import process_time
from typing import Any

import asyncpg
import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import APP, Clock, Secrets
from tests.problems import problem_of
from tests.push.messages import LEFT, NOW, PLAIN, REVOKED, SEALED, Way, assert_taken, every_way, message, post, signed
from tests.sweeps import swept
from tests.world import (
    BESIDE_LOGINS,
    Body,
    Client,
    LogIn,
    LogLines,
    MakeClient,
    MakeServices,
    Rows,
    bearer,
    set_roles,
    until,
    until_locked,
)
from wxauth.server.core.background import Background, Promises
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat.push import (
    SignedPush,
    encrypt,
    push_signature,
)
from wxauth.server.push.receiving import PushedMessages
from wxauth.server.service.build import Waits

WITHOUT_PUSH = {"app_id": "wxtest0000000000c3", "app_secret": "7c6a180b36896a0a8c02787eeafb0e4c"}
# WeChat's own example: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html
EXAMPLE = {"app_id": "wxba5fad812f8e6fb9", "app_secret": "-", "push_token": "AAAAA", "push_aes_key": "A" * 43}
EXAMPLE_VERIFICATION = {
    "signature": "f464b24fc39322e44b38aa78f5edd27bd1441696",
    "timestamp": "1714036504",
    "nonce": "1514711492",
    "echostr": "4375120948345356249",
}
EXAMPLE_ENCRYPTED = (
    "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT"
    "740XgXZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8Y"
    "L/P50F7mStwntrA2cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04="
)
EXAMPLE_PUSH = {
    "signature": "6c5c811b55cc85e0e1b54100749188c20beb3f5d",
    "timestamp": "1714112445",
    "nonce": "415670741",
    "openid": "o9AgO5Kd5ggOC-bXrbNODIiE3bGY",
    "encrypt_type": "aes",
    "msg_signature": "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3",
}

PROFILE = {"nickname": "Alice", "avatar_url": "https://a.example/1.png", "phone": "+8613800138000"}
AN_HOUR = 3600
HURRIED = Waits(pushed_messages=0.25, promises=0.1)
HARDLY_MORE = 1.8
"""Seconds for an answer, where the database has a quarter of a second."""


@pytest.fixture
async def services(make_services: MakeServices, secrets: Secrets) -> Services:
    for secret in (PLAIN["push_token"], SEALED["push_token"], SEALED["push_aes_key"]):
        secrets.add(secret)
    return await make_services(apps=[PLAIN, SEALED, WITHOUT_PUSH, EXAMPLE])


LogInWithAll = Callable[..., Awaitable[Body]]


@pytest.fixture
def log_in(login: LogIn, rows: Rows) -> LogInWithAll:
    """Log in a person with nickname, picture and phone number."""

    async def log_in(app: Mapping[str, str] = PLAIN, person: str = "alice", *, unionid: str | None = None) -> Body:
        given = {name: PROFILE[name] for name in ("nickname", "avatar_url")}
        body = await login(person, app=app, unionid=unionid, **given)
        verified = "UPDATE users SET phone = $2, phone_verified_at = now() WHERE id::text = $1"
        await rows.execute(verified, body["user"]["id"], PROFILE["phone"])
        return body

    return log_in


def signed_body(body: bytes, app: Mapping[str, str] = PLAIN) -> SignedPush:
    """Any body, behind a query that WeChat has signed."""
    query = signed({}, app).query
    return SignedPush(query, body, "application/octet-stream")


async def send(client: Client, content: Mapping[str, Any], app: Mapping[str, str] = PLAIN, **how: Any) -> None:
    """Push a message that must be accepted."""
    how = how or ({"mode": "aes"} if "push_aes_key" in app else {})
    assert_taken(await post(client, signed(content, app, **how), app))


async def verify(client: Client, query: Mapping[str, str], app: Mapping[str, str] = EXAMPLE) -> httpx.Response:
    return await client.get(f"/v1/wechat/push/{app['app_id']}", params=query)


async def kept(rows: Rows) -> dict[str, Any]:
    """The remaining profile of the only user."""
    return dict(await rows.fetchrow("SELECT nickname, avatar_url, phone FROM users"))


async def events(rows: Rows) -> list[tuple[Any, ...]]:
    found = await rows.fetch(
        f"SELECT type, actor, user_id::text, app_id, data FROM events WHERE {BESIDE_LOGINS} ORDER BY id"
    )
    return [(*tuple(event)[:4], json.loads(event["data"])) for event in found]


def lines_of(log_lines: LogLines, event: str) -> list[dict[str, Any]]:
    return [line for line in log_lines() if line["event"] == event]


# The check of the URL.


@pytest.fixture
def at_wechats_example(clock: Clock) -> None:
    """The time at which WeChat signed its example."""
    clock.now = datetime.fromtimestamp(int(EXAMPLE_VERIFICATION["timestamp"]), UTC)


@pytest.mark.slow
@pytest.mark.usefixtures("at_wechats_example")
async def test_the_url_is_verified_as_in_wechats_example(client: Client) -> None:
    answer = await verify(client, EXAMPLE_VERIFICATION)
    assert (answer.status_code, answer.text) == (200, EXAMPLE_VERIFICATION["echostr"])
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("at_wechats_example")
@pytest.mark.parametrize("echostr", [" 1 + 1 = 2 & more/%41?<b>", "x" * 256])
async def test_the_echo_is_exact(client: Client, echostr: str) -> None:
    assert (await verify(client, EXAMPLE_VERIFICATION | {"echostr": echostr})).text == echostr


@pytest.mark.usefixtures("at_wechats_example")
@pytest.mark.parametrize("echostr", ["", "a\r\nb", "\x00", "微信", "x" * 257])
async def test_an_echostr_that_is_not_printable_is_not_echoed(client: Client, echostr: str) -> None:
    answer = await verify(client, EXAMPLE_VERIFICATION | {"echostr": echostr})
    assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == "echostr"


@pytest.mark.usefixtures("at_wechats_example")
@swept(
    "changed",
    [
        {"signature": "0464b24fc39322e44b38aa78f5edd27bd1441696"},
        {"signature": ""},
        {"signature": "签名"},
        {"timestamp": "1714036505"},
        {"nonce": "1514711493"},
        {"timestamp": "", "nonce": "15147114921714036504"},  # the same when joined
    ],
)
async def test_a_url_whose_signature_is_wrong_is_not_verified(client: Client, changed: dict[str, str]) -> None:
    problem_of(await verify(client, EXAMPLE_VERIFICATION | changed), "invalid_signature", 403)


@pytest.mark.usefixtures("at_wechats_example")
async def test_a_url_signed_with_the_token_of_another_app_is_not_verified(client: Client) -> None:
    problem_of(await verify(client, EXAMPLE_VERIFICATION, PLAIN), "invalid_signature", 403)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_an_app_with_a_token_has_a_push_url(client: Client, method: str) -> None:
    url = "/v1/wechat/push/"
    problem_of(await client.request(method, url + WITHOUT_PUSH["app_id"]), "not_found", 404)
    problem_of(await client.request(method, url + "wx_unknown"), "unknown_app", 400)


# The forms of a message.


async def test_messages_are_taken_as_in_wechats_examples(
    client: Client, make_services: MakeServices, make_client: MakeClient, clock: Clock
) -> None:
    clock.now = datetime.fromtimestamp(int(EXAMPLE_PUSH["timestamp"]), UTC)
    encrypted = json.dumps({"ToUserName": "gh_97417a04a28d", "Encrypt": EXAMPLE_ENCRYPTED}).encode()
    assert_taken(await post(client, SignedPush(EXAMPLE_PUSH, encrypted, "application/json"), EXAMPLE))

    app = {name: value for name, value in EXAMPLE.items() if name != "push_aes_key"}
    query = {"signature": "899cf89e464efb63f54ddac96b0a0a235f53aa78", "timestamp": "1714037059", "nonce": "486452656"}
    clock.now = datetime.fromtimestamp(int(query["timestamp"]), UTC)
    body = b'{"ToUserName": "gh_97417a04a28d", "MsgType": "event", "Event": "debug_demo", "debug_str": "hello world"}'
    assert_taken(await post(make_client(await make_services(apps=[app])), SignedPush(query, body, "text/plain"), app))


@every_way
async def test_withdrawn_data_is_erased_in_every_mode_and_format(
    client: Client, log_in: LogInWithAll, rows: Rows, way: Way
) -> None:
    openid = (await log_in(way.app))["user"]["openid"]
    push = signed(message(openid, app=way.app), *way)
    for content_type in ("text/plain", "application/json", "text/xml"):  # looked at by nobody
        assert_taken(await post(client, SignedPush(push.query, push.body, content_type), way.app))
    assert await kept(rows) == {"nickname": None, "avatar_url": None, "phone": PROFILE["phone"]}


@swept(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"xml"',
        b"\xff\xfe<\x00x\x00m\x00l\x00",
        b'{"Event": "\xe5\xbe"}',
        b"<xml><Event>user_authorization_revoke</Event>",
        b"<!DOCTYPE xml><xml><Event>x</Event></xml>",
        b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml/>',
        b'<!DOCTYPE xml [<!ENTITY a SYSTEM "file:///etc/passwd">]><xml><OpenID>&a;</OpenID></xml>',
        b'<!DOCTYPE xml [<!ENTITY a "ha"><!ENTITY b "' + b"&a;" * 9000 + b'">]><xml><OpenID>&b;</OpenID></xml>',
        b'<!DOCTYPE xml [<!ENTITY % a "x">%a;]><xml/>',
        b"<xml>&a;</xml>",
        b"<a>" * 9000 + b"</a>" * 9000,
        b"<xml>" + b"<a/>" * 9000 + b"</xml>",
        b"<xml " + b" ".join(b'a%d = ""' % n for n in range(5000)) + b"/>",
        b'{"a":' * 9000 + b"1" + b"}" * 9000,
        b"[" * 60_000,
        b'{"Event": ' + b"9" * 60_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_an_unreadable_message_is_refused_at_once(client: Client, body: bytes) -> None:
    started = process_time()
    answer = await post(client, signed_body(body))
    assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == "body"
    assert process_time() - started < 1


async def test_a_sealed_message_of_many_elements_is_refused_before_they_are_read(client: Client) -> None:
    push = signed(message("o1"), SEALED, "aes", "xml")
    body = push.body.replace(b"</xml>", b"<a/>" * 1000 + b"</xml>")
    problem_of(await post(client, replace(push, body=body), SEALED), "invalid_signature", 403)


async def test_a_text_may_hold_some_of_what_elements_are_made_of(client: Client) -> None:
    body = b"<xml><MsgType>text</MsgType><Content><![CDATA[" + b"<=" * 500 + b"]]></Content></xml>"
    assert_taken(await post(client, signed_body(body)))


@swept("event", [REVOKED, LEFT])
@swept("openid", [None, "", " ", 1.5, ["o1"], "o\x00", "o" * 129, "微信"])
async def test_a_withdrawal_that_names_nobody_is_refused(client: Client, event: str, openid: Any) -> None:
    content = {**message("", event), "OpenID": openid, "FromUserName": openid}
    assert problem_of(await post(client, signed(content)), "invalid_request", 422)["errors"][0]["field"] == "OpenID"


async def test_without_an_openid_the_sender_withdraws(client: Client, log_in: LogInWithAll, rows: Rows) -> None:
    openid = (await log_in())["user"]["openid"]
    await send(client, {"FromUserName": openid, "CreateTime": NOW, "Event": REVOKED, "RevokeInfo": "8"})
    assert (await kept(rows))["phone"] is None


# Withdrawals.


@pytest.mark.parametrize(
    ("revoke_info", "erased"),
    [
        ("6", {"nickname", "avatar_url"}),
        ("8", {"phone"}),
        ("19", {"nickname"}),
        ("20", {"avatar_url"}),
        (8, {"phone"}),
        (["8", 19], {"phone", "nickname"}),
        ("6,8", {"nickname", "avatar_url", "phone"}),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else repr(value),
)
@pytest.mark.slow
async def test_each_revocation_erases_what_it_names_and_leaves_an_event(
    client: Client, log_in: LogInWithAll, rows: Rows, revoke_info: Any, erased: set[str]
) -> None:
    user = (await log_in())["user"]
    await send(client, message(user["openid"], revoke_info=revoke_info))
    assert await kept(rows) == {name: None if name in erased else value for name, value in PROFILE.items()}
    assert await rows.fetchval("SELECT phone_verified_at IS NULL FROM users") == ("phone" in erased)
    fields = [name for name in PROFILE if name in erased]
    expected = [("user.authorization_revoked", {"fields": fields})]
    if "phone" in erased:
        expected.append(("user.phone_removed", {}))
    assert await events(rows) == [(kind, "wechat", user["id"], APP["app_id"], data) for kind, data in expected]


async def test_several_revocations_in_one_xml_message_are_accepted(
    client: Client, log_in: LogInWithAll, rows: Rows
) -> None:
    openid = (await log_in())["user"]["openid"]
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?>\n<xml><OpenID> {openid} </OpenID><Event><![CDATA[{REVOKED}]]></Event>"
        "<RevokeInfo><item>19</item><item>8</item></RevokeInfo><RevokeInfo>20</RevokeInfo></xml>\n"
    )
    assert_taken(await post(client, signed_body(body.encode())))
    assert await kept(rows) == dict.fromkeys(PROFILE)


NOTHING_REVOKED: list[object] = ["1", "60", "201", "", None, {}, [], 7]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        {"MsgType": "event", "Event": "user_info_modified"},
        {"MsgType": "event", "Event": "debug_demo"},
        {"MsgType": "text", "Content": f"<Event>{LEFT}</Event>"},
        {"MsgType": "event", "Event": REVOKED},
        *({"MsgType": "event", "Event": REVOKED, "RevokeInfo": info} for info in NOTHING_REVOKED),
    ],
    ids=repr,
)
async def test_a_message_that_withdraws_nothing_is_accepted_and_changes_nothing(
    client: Client, log_in: LogInWithAll, rows: Rows, content: dict[str, Any]
) -> None:
    openid = (await log_in())["user"]["openid"]
    await send(client, {"FromUserName": openid, "OpenID": openid, "CreateTime": NOW, **content})
    assert await kept(rows) == PROFILE
    assert await events(rows) == []


async def test_revoking_the_phone_number_erases_a_number_still_to_be_bound(
    client: Client, log_in: LogInWithAll, rows: Rows
) -> None:
    openid = (await log_in())["user"]["openid"]
    await rows.execute(
        "INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at)"
        " VALUES (sha256(''), $1, $2, 'sealed', now())",
        APP["app_id"],
        openid,
    )
    await send(client, message(openid, revoke_info="6"))
    assert await rows.fetchval("SELECT count(*) FROM phone_answers") == 1
    await send(client, message(openid, revoke_info="8"))
    assert await rows.fetchval("SELECT count(*) FROM phone_answers") == 0


async def test_only_the_person_of_that_app_withdraws(client: Client, log_in: LogInWithAll, rows: Rows) -> None:
    openid = (await log_in(PLAIN))["user"]["openid"]
    await send(client, message(openid, app=SEALED), SEALED)
    await send(client, message(openid, LEFT, app=SEALED), SEALED)
    assert await kept(rows) == PROFILE


@every_way
async def test_a_person_who_has_closed_their_wechat_account_is_erased_completely(
    client: Client, log_in: LogInWithAll, rows: Rows, way: Way
) -> None:
    other_app = SEALED if way.app is PLAIN else PLAIN
    first = await log_in(other_app, unionid="union-alice")
    answer = await log_in(way.app, unionid="union-alice")
    await log_in(way.app, "bob")
    await send(client, message(answer["user"]["openid"], LEFT, app=way.app), way.app, mode=way.mode, format=way.format)
    assert [user["unionid"] for user in await rows.fetch("SELECT unionid FROM users")] == [None]
    for table in ("identities", "sessions"):
        assert await rows.fetchval(f"SELECT count(*) FROM {table}") == 1
    assert [(*event[:3], event[4]) for event in await events(rows)] == [
        (
            "session.ended",
            "wechat",
            answer["user"]["id"],
            {"reason": "erased", "session_ids": sorted([first["session_id"], answer["session_id"]])},
        ),
        ("user.erased", "wechat", answer["user"]["id"], {"former_ids": []}),
    ]
    me = await client.get("/v1/me", headers=bearer(answer))
    problem_of(me, "invalid_token", 401)


async def test_the_last_administrator_is_erased_when_they_close_their_wechat_account(
    client: Client, log_in: LogInWithAll, rows: Rows
) -> None:
    openid = (await log_in())["user"]["openid"]
    await set_roles(rows, "admin")
    await send(client, message(openid, LEFT))
    assert await rows.fetchval("SELECT count(*) FROM users") == 0


# The same message again.


@every_way
async def test_a_message_sent_again_changes_nothing(
    client: Client, log_in: LogInWithAll, rows: Rows, clock: Clock, way: Way
) -> None:
    openid = (await log_in(way.app))["user"]["openid"]
    push = signed(message(openid, app=way.app), *way)
    assert_taken(await post(client, push, way.app))
    await log_in(way.app)
    for _ in range(2):
        assert_taken(await post(client, push, way.app))
        clock.advance(minutes=5)
    assert await kept(rows) == PROFILE
    assert len(await events(rows)) == 1


async def test_a_second_withdrawal_is_another_message(client: Client, log_in: LogInWithAll, rows: Rows) -> None:
    openid = (await log_in())["user"]["openid"]
    await send(client, message(openid, revoke_info="19"))
    await send(client, message(openid, revoke_info="20"))  # in the same second
    assert await kept(rows) == {**dict.fromkeys(PROFILE), "phone": PROFILE["phone"]}
    await log_in()
    await send(client, message(openid, revoke_info="19", now=NOW + 1))
    assert await kept(rows) == {**PROFILE, "nickname": None}


async def test_a_message_without_its_time_is_known_by_its_signature(
    client: Client, log_in: LogInWithAll, rows: Rows
) -> None:
    content = {"OpenID": (await log_in())["user"]["openid"], "Event": REVOKED, "RevokeInfo": "6"}
    first, second = signed(content), signed(content)
    assert_taken(await post(client, first))
    await log_in()
    assert_taken(await post(client, first))
    assert await kept(rows) == PROFILE
    assert_taken(await post(client, second))
    assert (await kept(rows))["nickname"] is None


@pytest.mark.parametrize("event", [REVOKED, LEFT])
async def test_a_person_who_comes_back_loses_nothing_to_the_old_message(
    client: Client, log_in: LogInWithAll, rows: Rows, event: str
) -> None:
    openid = (await log_in())["user"]["openid"]
    await rows.execute("DELETE FROM users")
    push = signed(message(openid, event))
    assert_taken(await post(client, push))  # nobody is here by that openid
    await log_in()
    assert_taken(await post(client, push))
    assert await kept(rows) == PROFILE


@pytest.mark.slow
@every_way
async def test_simultaneous_deliveries_are_all_accepted_and_processed_once(
    client: Client, log_in: LogInWithAll, rows: Rows, way: Way
) -> None:
    content = message((await log_in(way.app))["user"]["openid"], app=way.app)
    again = signed(content, *way)
    pushes = [again if n % 2 else signed(content, *way) for n in range(20)]
    for answer in await asyncio.gather(*(post(client, push, way.app) for push in pushes)):
        assert_taken(answer)
    assert len(await events(rows)) == 1


# Forged messages.


@every_way
@swept("wrong", ["signature", "timestamp", "nonce", "token"])
async def test_a_wrong_signature_changes_nothing(
    client: Client, log_in: LogInWithAll, rows: Rows, way: Way, wrong: str
) -> None:
    content = message((await log_in(way.app))["user"]["openid"], LEFT, app=way.app)
    token = "AnotherPushToken" if wrong == "token" else way.app["push_token"]
    push = signed(content, {**way.app, "push_token": token}, way.mode, way.format)
    names = ("signature", "msg_signature") if wrong == "signature" else (wrong,)
    query = {name: _changed(value) if name in names else value for name, value in push.query.items()}
    problem_of(await post(client, SignedPush(query, push.body, push.content_type), way.app), "invalid_signature", 403)
    assert await kept(rows) == PROFILE
    assert await rows.fetchval("SELECT count(*) FROM push_messages") == 0


def _changed(value: str) -> str:
    return value[:-1] + ("1" if value.endswith("0") else "0")


def _enveloped(encrypted: str) -> SignedPush:
    query = signed({}, SEALED).query
    parts = SEALED["push_token"], query["timestamp"], query["nonce"], encrypted
    body = json.dumps({"Encrypt": encrypted}).encode()
    return SignedPush(
        {**query, "encrypt_type": "aes", "msg_signature": push_signature(*parts)}, body, "application/json"
    )


def _changing(push: SignedPush, **query: str) -> SignedPush:
    return replace(push, query={**push.query, **query})


def _for_app(openid: str, **changed: str) -> SignedPush:
    return signed(message(openid, LEFT), {**SEALED, **changed}, "aes")


FORGED: Mapping[str, Callable[[str], SignedPush]] = {
    "plain": lambda openid: signed(message(openid, LEFT), SEALED, "plain"),
    "plain xml": lambda openid: signed(message(openid, LEFT), SEALED, "plain", "xml"),
    "plain beside another signature": lambda openid: _changing(
        (push := signed(message(openid, LEFT), SEALED)), encrypt_type="aes", msg_signature=push.query["signature"]
    ),
    "with another key": lambda openid: _for_app(openid, push_aes_key="L" * 43),
    "for another app": lambda openid: _for_app(openid, app_id=PLAIN["app_id"]),
    "for a longer app id": lambda openid: _for_app(openid, app_id=SEALED["app_id"] + "0"),
    "without app id": lambda openid: _for_app(openid, app_id=""),
    "signed as plain": lambda openid: _changing((push := _for_app(openid)), msg_signature=push.query["signature"]),
    "not base64": lambda _: _enveloped("not base64!"),
    "half a block": lambda _: _enveloped("AAAAAAAAAAAAAAAAAAAAAA=="),
    "wrong padding": lambda _: _enveloped("A" * 43 + "="),
    "another ciphertext": lambda openid: replace(_for_app(openid), query=_for_app("bob").query),
}


@pytest.mark.slow
@pytest.mark.parametrize("forged", FORGED)
async def test_an_app_with_a_key_accepts_only_messages_encrypted_for_that_app(
    client: Client, log_in: LogInWithAll, rows: Rows, forged: str
) -> None:
    openid = (await log_in(SEALED))["user"]["openid"]
    problem_of(await post(client, FORGED[forged](openid), SEALED), "invalid_signature", 403)
    assert await kept(rows) == PROFILE


async def test_an_app_without_a_key_refuses_encrypted_messages(client: Client) -> None:
    push = signed(message("o1"), {**PLAIN, "push_aes_key": SEALED["push_aes_key"]}, "aes")
    problem = problem_of(await post(client, push), "invalid_signature", 403)
    assert "push_aes_key" in problem["detail"]


async def test_a_sealed_message_must_contain_a_message(client: Client) -> None:
    app = SEALED
    bomb = b'<!DOCTYPE xml [<!ENTITY a "ha">]><xml><OpenID>&a;</OpenID></xml>'
    sealed = encrypt(bomb, key=app["push_aes_key"], app_id=app["app_id"], random=bytes(16))
    problem_of(await post(client, _enveloped(sealed), app), "invalid_request", 422)


# The service itself.


async def test_a_push_refused_because_the_database_is_slow_succeeds_when_repeated(
    hurried_client: Client, log_in: LogInWithAll, rows: Rows
) -> None:
    client = hurried_client
    push = signed(message((await log_in())["user"]["openid"]))
    async with rows.transaction():
        await rows.execute("SELECT FROM users FOR UPDATE")
        async with asyncio.timeout(HARDLY_MORE):
            problem_of(await post(client, push), "storage_unavailable", 503)
    assert_taken(await post(client, push))
    assert (await kept(rows))["nickname"] is None
    assert len(await events(rows)) == 1


@pytest.fixture
async def hurried_client(make_services: MakeServices, make_client: MakeClient) -> httpx.AsyncClient:
    """A service that waits for its database no longer than it must."""
    return make_client(await make_services(apps=[PLAIN], waits=HURRIED))


@pytest.fixture
async def cut_off(make_services: MakeServices, proxy: Proxy) -> Services:
    """A replica whose database is away."""
    services = await make_services(apps=[PLAIN], database_url=proxy.url, waits=HURRIED)
    await proxy.refuse()
    return services


async def test_data_withdrawn_during_an_outage_is_erased_after_it_without_a_repeat_from_wechat(
    cut_off: Services, make_client: MakeClient, log_in: LogInWithAll, rows: Rows, proxy: Proxy, log_lines: LogLines
) -> None:
    openids = [(await log_in(person=person))["user"]["openid"] for person in ("alice", "bob")]
    pushes = [signed(message(openids[0], LEFT)), signed(message(openids[1], revoke_info="8"))]
    for push in pushes * 3:
        problem_of(await post(make_client(cut_off), push), "storage_unavailable", 503)
    lines = [(line["openid"], line["withdrawn"]) for line in lines_of(log_lines, "promise_put_off")]
    assert lines == [(openids[0], "all"), (openids[1], ["phone"])]
    await proxy.accept()
    await until(lambda: rows.fetchval(f"SELECT count(*) >= 4 FROM events WHERE {BESIDE_LOGINS}"))
    assert await kept(rows) == {**PROFILE, "phone": None}
    await cut_off[Promises].aclose()
    assert lines_of(log_lines, "promise_lost") == []


async def test_a_withdrawal_that_fails_too_late_is_logged_and_retried(
    hurried_client: Client, log_in: LogInWithAll, rows: Rows, log_lines: LogLines
) -> None:
    client = hurried_client
    push = signed(message((await log_in())["user"]["openid"], LEFT))
    async with rows.transaction():
        await rows.execute("SELECT FROM users FOR UPDATE")
        problem_of(await post(client, push), "storage_unavailable", 503)
        await rows.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        await until(lambda: lines_of(log_lines, "promise_put_off"))
    await until(lambda: rows.fetchval("SELECT count(*) = 0 FROM users"))


async def test_a_withdrawal_that_a_stop_cuts_short_is_put_off(
    make_services: MakeServices, make_client: MakeClient, log_in: LogInWithAll, rows: Rows, log_lines: LogLines
) -> None:
    services = await make_services(apps=[PLAIN], waits=HURRIED)
    push = signed(message((await log_in())["user"]["openid"], LEFT))
    async with rows.transaction():
        await rows.execute("SELECT FROM users FOR UPDATE")
        problem_of(await post(make_client(services), push), "storage_unavailable", 503)
        await services[Background].aclose()
        assert [line["withdrawn"] for line in lines_of(log_lines, "promise_put_off")] == ["all"]
    await until(lambda: rows.fetchval("SELECT count(*) = 0 FROM users"))


async def test_a_withdrawal_does_not_wait_for_the_database_for_ever(
    cut_off: Services, make_client: MakeClient, log_in: LogInWithAll, log_lines: LogLines
) -> None:
    cut_off[PushedMessages].kept_in_memory = 0.0
    push = signed(message((await log_in())["user"]["openid"], LEFT))
    answer = await post(make_client(cut_off), push)
    problem_of(answer, "storage_unavailable", 503)
    await until(lambda: lines_of(log_lines, "promise_lost"))


async def test_a_withdrawal_while_the_identity_moves_erases_the_data_of_its_new_user(
    client: Client, log_in: LogInWithAll, rows: Rows, database_url: str
) -> None:
    alice, bob = (await log_in())["user"], (await log_in(person="bob"))["user"]
    await rows.execute("UPDATE users SET nickname = 'set'")
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM users WHERE id = $1::text::uuid FOR UPDATE", alice["id"])
        withdrawing = asyncio.create_task(post(client, signed(message(alice["openid"]))))
        await until_locked(rows)
        await other.execute(
            "UPDATE identities SET user_id = $1::text::uuid WHERE openid = $2", bob["id"], alice["openid"]
        )
    await other.close()
    assert_taken(await withdrawing)
    names = {str(row["id"]): row["nickname"] for row in await rows.fetch("SELECT id, nickname FROM users")}
    assert names == {alice["id"]: "set", bob["id"]: None}
