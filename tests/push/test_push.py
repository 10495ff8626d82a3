"""wxauth recognizes the messages that WeChat pushes, and erases what they withdraw."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from time import process_time
from typing import Any

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import APP
from tests.problems import problem_of
from tests.push.messages import (
    HURRIED,
    LEFT,
    NOW,
    PLAIN,
    PROFILE,
    REVOKED,
    SEALED,
    Inbox,
    Way,
    assert_taken,
    every_way,
    message,
    signed,
    unread,
)
from tests.sweeps import Sweep, swept
from tests.world import BESIDE_LOGINS, HOLD_USERS, bearer, behind, locked, make_conflicts, recorded, set_roles, until
from wxauth.core.background import Background, Retries
from wxauth.push.receiving import PushedMessages
from wxauth_desk.wechat.push import SignedPush, encrypt, push_signature

WITHOUT_PUSH = {"app_id": "wxtest0000000000c3", "app_secret": "7c6a180b36896a0a8c02787eeafb0e4c"}
# The example in WeChat's documentation:
# https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html
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

HARDLY_MORE = 1.8
"""The maximum number of seconds for a response if the service waits a quarter of a second for its database."""


pytestmark = [
    pytest.mark.settings(apps=[PLAIN, SEALED, WITHOUT_PUSH, EXAMPLE]),
    pytest.mark.usefixtures("bystander"),
]


# The verification of the push URL.


async def test_the_url_is_verified_as_in_wechats_example(inbox: Inbox) -> None:
    inbox.stage.clock.now = datetime.fromtimestamp(int(EXAMPLE_VERIFICATION["timestamp"]), UTC)

    async def verify(app: Mapping[str, str] = EXAMPLE, /, **changed: str) -> httpx.Response:
        return await inbox.stage.client.get(f"/v1/wechat/push/{app['app_id']}", params=EXAMPLE_VERIFICATION | changed)

    answer = await verify()
    assert (answer.status_code, answer.text) == (200, EXAMPLE_VERIFICATION["echostr"])
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    for echostr in (" 1 + 1 = 2 & more/%41?<b>", "x" * 256):
        assert (await verify(echostr=echostr)).text == echostr
    for echostr in ("", "a\r\nb", "\x00", "微信", "x" * 257):
        assert problem_of(await verify(echostr=echostr), "invalid_request", 422)["errors"][0]["field"] == "echostr"
    with Sweep() as sweep:
        for changed in (
            {"signature": "0464b24fc39322e44b38aa78f5edd27bd1441696"},
            {"signature": ""},
            {"signature": "签名"},
            {"timestamp": "1714036505"},
            {"nonce": "1514711493"},
            {"timestamp": "", "nonce": "15147114921714036504"},  # the joined text is the same
        ):
            with sweep.case(changed):
                problem_of(await verify(**changed), "invalid_signature", 403)
    problem_of(await verify(PLAIN), "invalid_signature", 403)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_an_app_with_a_token_has_a_push_url(inbox: Inbox, method: str) -> None:
    url = "/v1/wechat/push/"
    problem_of(await inbox.stage.client.request(method, url + WITHOUT_PUSH["app_id"]), "not_found", 404)
    problem_of(await inbox.stage.client.request(method, url + "wx_unknown"), "unknown_app", 400)


# The formats of a message.


async def test_messages_are_taken_as_in_wechats_examples(inbox: Inbox) -> None:
    inbox.stage.clock.now = datetime.fromtimestamp(int(EXAMPLE_PUSH["timestamp"]), UTC)
    encrypted = json.dumps({"ToUserName": "gh_97417a04a28d", "Encrypt": EXAMPLE_ENCRYPTED}).encode()
    assert_taken(await inbox.post(SignedPush(EXAMPLE_PUSH, encrypted, "application/json"), EXAMPLE))

    app = {name: value for name, value in EXAMPLE.items() if name != "push_aes_key"}
    query = {"signature": "899cf89e464efb63f54ddac96b0a0a235f53aa78", "timestamp": "1714037059", "nonce": "486452656"}
    inbox.stage.clock.now = datetime.fromtimestamp(int(query["timestamp"]), UTC)
    body = b'{"ToUserName": "gh_97417a04a28d", "MsgType": "event", "Event": "debug_demo", "debug_str": "hello world"}'
    await inbox.receive_with(apps=[app])
    assert_taken(await inbox.post(SignedPush(query, body, "text/plain"), app))


@swept(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"xml"',
        b"\xff\xfe<\x00x\x00m\x00l\x00",
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
async def test_an_unreadable_message_is_refused_at_once(inbox: Inbox, body: bytes) -> None:
    started = process_time()
    assert problem_of(await inbox.post(unread(body)), "invalid_request", 422)["errors"][0]["field"] == "body"
    assert process_time() - started < 1


async def test_a_sealed_message_of_many_elements_is_refused_before_they_are_read(inbox: Inbox) -> None:
    push = signed(message("o1"), SEALED, "aes", "xml")
    body = push.body.replace(b"</xml>", b"<a/>" * 1000 + b"</xml>")
    problem_of(await inbox.post(replace(push, body=body), SEALED), "invalid_signature", 403)


async def test_a_text_may_hold_some_of_what_elements_are_made_of(inbox: Inbox) -> None:
    body = b"<xml><MsgType>text</MsgType><Content><![CDATA[" + b"<=" * 500 + b"]]></Content></xml>"
    assert_taken(await inbox.post(unread(body)))


@swept("event", [REVOKED, LEFT])
@swept("openid", [None, "", " ", 1.5, ["o1"], "o\x00", "o" * 129, "微信"])
async def test_a_withdrawal_that_names_nobody_is_refused(inbox: Inbox, event: str, openid: Any) -> None:
    content = {**message("", event), "OpenID": openid, "FromUserName": openid}
    assert problem_of(await inbox.post(signed(content)), "invalid_request", 422)["errors"][0]["field"] == "OpenID"


async def test_without_an_openid_the_sender_withdraws(inbox: Inbox) -> None:
    openid = await inbox.openid()
    await inbox.send({"FromUserName": openid, "CreateTime": NOW, "Event": REVOKED, "RevokeInfo": "8"})
    assert (await inbox.kept())["phone"] is None


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
async def test_each_revocation_erases_what_it_names(inbox: Inbox, revoke_info: Any, erased: set[str]) -> None:
    user = (await inbox.log_in())["user"]
    unbound = "(code_hash, app_id, openid, sealed, asked_at) VALUES (sha256(''), $1, $2, 'sealed', now())"
    await inbox.stage.rows.execute(f"INSERT INTO phone_answers {unbound}", APP["app_id"], user["openid"])
    await inbox.send(message(user["openid"], revoke_info=revoke_info))
    assert await inbox.kept() == {name: None if name in erased else value for name, value in PROFILE.items()}
    assert await inbox.stage.rows.fetchval("SELECT phone_verified_at IS NULL FROM users") == ("phone" in erased)
    assert await inbox.stage.number("phone_answers") == ("phone" not in erased)
    fields = [name for name in PROFILE if name in erased]
    expected = [("user.authorization_revoked", {"fields": fields})]
    if "phone" in erased:
        expected.append(("user.phone_removed", {}))
    assert await inbox.events() == [(kind, "wechat", user["id"], APP["app_id"], data) for kind, data in expected]


async def test_several_revocations_in_one_xml_message_are_accepted(inbox: Inbox) -> None:
    openid = await inbox.openid()
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?>\n<xml><OpenID> {openid} </OpenID><Event><![CDATA[{REVOKED}]]></Event>"
        "<RevokeInfo><item>19</item><item>8</item></RevokeInfo><RevokeInfo>20</RevokeInfo></xml>\n"
    )
    assert_taken(await inbox.post(unread(body.encode())))
    assert await inbox.kept() == dict.fromkeys(PROFILE)


async def test_names_with_blanks_around_them_are_read_and_those_without_count(inbox: Inbox) -> None:
    openid = await inbox.openid()
    content = {" OpenID": openid, " Event ": REVOKED, "\tRevokeInfo": "8", "CreateTime": NOW}
    await inbox.send(content)
    assert (await inbox.kept())["phone"] is None
    await inbox.send({**content, "RevokeInfo": "19", "CreateTime": NOW + 1})
    assert await inbox.kept() == {**PROFILE, "nickname": None, "phone": None}


async def test_a_name_or_picture_that_wechat_has_found_risky_is_cleared(inbox: Inbox) -> None:
    await inbox.receive_with(apps=[PLAIN])
    user = (await inbox.log_in())["user"]
    for time in (NOW, NOW + 1):
        await inbox.send({**message(user["openid"], "user_info_modified"), "CreateTime": time})
        assert await inbox.kept() == {**dict.fromkeys(PROFILE), "phone": PROFILE["phone"]}
    changed = await recorded(inbox.stage.rows, "type, user_id, app_id, data", "actor = 'wechat'")
    data = {"fields": ["nickname", "avatar_url"]}
    assert changed == [("user.profile_changed", user["id"], APP["app_id"], data)]


NOTHING_REVOKED: list[object] = ["1", "60", "201", "205", "301", "", None, {}, [], 7]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        {"MsgType": "event", "Event": "debug_demo"},
        {"MsgType": "text", "Content": f"<Event>{LEFT}</Event>"},
        {"MsgType": "event", "Event": REVOKED},
        *({"MsgType": "event", "Event": REVOKED, "RevokeInfo": info} for info in NOTHING_REVOKED),
    ],
    ids=repr,
)
async def test_a_message_that_withdraws_nothing_changes_nothing(inbox: Inbox, content: dict[str, Any]) -> None:
    openid = await inbox.openid()
    await inbox.send({"FromUserName": openid, "OpenID": openid, "CreateTime": NOW, **content})
    assert await inbox.kept() == PROFILE
    assert await inbox.events() == []
    unknown = content.get("Event") == REVOKED and content.get("RevokeInfo") not in ("1", 7)
    names = [line["event"] for line in inbox.stage.log_lines() if line["level"] == "warning"]
    assert names == ["revocation_not_understood" if unknown else "push_ignored"]


async def test_only_the_person_of_that_app_withdraws(inbox: Inbox) -> None:
    openid = await inbox.openid(PLAIN)
    await inbox.send(message(openid, app=SEALED), SEALED)
    await inbox.send(message(openid, LEFT, app=SEALED), SEALED)
    assert await inbox.kept() == PROFILE


@every_way
async def test_a_person_who_has_closed_their_wechat_account_is_erased_completely(inbox: Inbox, way: Way) -> None:
    other_app = SEALED if way.app is PLAIN else PLAIN
    first = await inbox.log_in(other_app, unionid="union-alice")
    answer = await inbox.log_in(way.app, unionid="union-alice")
    await inbox.log_in(way.app, "bob")
    await set_roles(inbox.stage.rows, "admin", user_id=answer["user"]["id"])  # Alice is the last administrator
    await inbox.send(message(answer["user"]["openid"], LEFT, app=way.app), way.app, mode=way.mode, format=way.format)
    assert [user["unionid"] for user in await inbox.stage.rows.fetch("SELECT unionid FROM users")] == [None]
    for table in ("identities", "sessions"):
        assert await inbox.stage.number(table) == 1
    assert [(*event[:3], event[4]) for event in await inbox.events()] == [
        (
            "session.ended",
            "wechat",
            answer["user"]["id"],
            {"reason": "erased", "session_ids": sorted([first["session_id"], answer["session_id"]])},
        ),
        ("user.erased", "wechat", answer["user"]["id"], {"former_ids": []}),
    ]
    problem_of(await inbox.stage.client.get("/v1/me", headers=bearer(answer)), "invalid_token", 401)


# The same message again.


@every_way
async def test_a_message_sent_again_changes_nothing(inbox: Inbox, way: Way) -> None:
    openid = await inbox.openid(way.app)
    push = signed(message(openid, app=way.app), *way)
    assert_taken(await inbox.post(push, way.app))
    await inbox.log_in(way.app)
    for _ in range(2):
        assert_taken(await inbox.post(push, way.app))
        inbox.stage.clock.advance(minutes=5)
    assert await inbox.kept() == PROFILE
    assert len(await inbox.events()) == 1


async def test_a_second_withdrawal_is_another_message(inbox: Inbox) -> None:
    openid = await inbox.openid()
    await inbox.send(message(openid, revoke_info="19"))
    await inbox.send(message(openid, revoke_info="20"))  # happens in the same second
    assert await inbox.kept() == {**dict.fromkeys(PROFILE), "phone": PROFILE["phone"]}
    await inbox.log_in()
    await inbox.send(message(openid, revoke_info="19", now=NOW + 1))
    assert await inbox.kept() == {**PROFILE, "nickname": None}


async def test_a_message_without_its_time_is_known_by_its_signature(inbox: Inbox) -> None:
    content = {"OpenID": await inbox.openid(), "Event": REVOKED, "RevokeInfo": "6"}
    first, second = signed(content), signed(content)
    assert_taken(await inbox.post(first))
    await inbox.log_in()
    assert_taken(await inbox.post(first))
    assert await inbox.kept() == PROFILE
    assert_taken(await inbox.post(second))
    assert (await inbox.kept())["nickname"] is None


@pytest.mark.parametrize("event", [REVOKED, LEFT])
async def test_a_person_who_comes_back_loses_nothing_to_the_old_message(inbox: Inbox, event: str) -> None:
    openid = await inbox.openid()
    await inbox.stage.rows.execute("DELETE FROM users")
    push = signed(message(openid, event))
    assert_taken(await inbox.post(push))  # no user has this openid
    await inbox.log_in()
    assert_taken(await inbox.post(push))
    assert await inbox.kept() == PROFILE


@pytest.mark.slow
@every_way
async def test_simultaneous_deliveries_are_all_accepted_and_processed_once(inbox: Inbox, way: Way) -> None:
    content = message(await inbox.openid(way.app), app=way.app)
    again = signed(content, *way)
    pushes = [again if n % 2 else signed(content, *way) for n in range(20)]
    for answer in await asyncio.gather(*(inbox.post(push, way.app) for push in pushes)):
        assert_taken(answer)
    assert len(await inbox.events()) == 1


# Forged messages.


@every_way
@swept("wrong", ["signature", "timestamp", "nonce", "token"])
async def test_a_wrong_signature_changes_nothing(inbox: Inbox, way: Way, wrong: str) -> None:
    content = message(await inbox.openid(way.app), LEFT, app=way.app)
    token = "AnotherPushToken" if wrong == "token" else way.app["push_token"]
    push = signed(content, {**way.app, "push_token": token}, way.mode, way.format)
    names = ("signature", "msg_signature") if wrong == "signature" else (wrong,)
    query = {name: _changed(value) if name in names else value for name, value in push.query.items()}
    await inbox.refuse(SignedPush(query, push.body, push.content_type), way.app)
    assert await inbox.kept() == PROFILE
    assert await inbox.stage.number("push_messages") == 0


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
async def test_an_app_with_a_key_accepts_only_messages_encrypted_for_that_app(inbox: Inbox, forged: str) -> None:
    openid = await inbox.openid(SEALED)
    await inbox.refuse(FORGED[forged](openid), SEALED)
    assert await inbox.kept() == PROFILE


async def test_an_app_without_a_key_refuses_encrypted_messages(inbox: Inbox) -> None:
    push = signed(message("o1"), {**PLAIN, "push_aes_key": SEALED["push_aes_key"]}, "aes")
    problem = problem_of(await inbox.post(push), "invalid_signature", 403)
    assert "push_aes_key" in problem["detail"]


async def test_a_sealed_message_must_contain_a_message(inbox: Inbox) -> None:
    app = SEALED
    bomb = b'<!DOCTYPE xml [<!ENTITY a "ha">]><xml><OpenID>&a;</OpenID></xml>'
    sealed = encrypt(bomb, key=app["push_aes_key"], app_id=app["app_id"], random=bytes(16))
    problem_of(await inbox.post(_enveloped(sealed), app), "invalid_request", 422)


# The service is slow.


async def test_a_push_refused_because_the_database_is_slow_succeeds_when_repeated(inbox: Inbox) -> None:
    await inbox.receive_with(apps=[PLAIN], timeouts=HURRIED)
    push = signed(message(await inbox.openid()))
    async with locked(inbox.stage.rows):
        async with asyncio.timeout(HARDLY_MORE):
            await inbox.postpone(push)
    assert_taken(await inbox.post(push))
    assert (await inbox.kept())["nickname"] is None
    assert len(await inbox.events()) == 1


async def test_data_withdrawn_during_an_outage_is_erased_after_it_without_a_repeat(inbox: Inbox, proxy: Proxy) -> None:
    await inbox.cut_off(proxy, apps=[PLAIN])
    openids = [await inbox.openid(person=person) for person in ("alice", "bob")]
    for push in [signed(message(openids[0], LEFT)), signed(message(openids[1], revoke_info="8"))] * 3:
        await inbox.postpone(push)
    lines = [(line["openid"], line["withdrawn"]) for line in inbox.stage.logged("retry_queued")]
    assert lines == [(openids[0], "all"), (openids[1], ["phone"])]
    await proxy.accept()
    await until(lambda: inbox.stage.rows.fetchval(f"SELECT count(*) >= 4 FROM events WHERE {BESIDE_LOGINS}"))
    assert await inbox.kept() == {**PROFILE, "phone": None}
    await inbox.stage.services[Retries].aclose()
    assert inbox.stage.logged("retry_lost") == []


@pytest.mark.own_database
async def test_a_withdrawal_that_meets_conflicts_delays_no_other(inbox: Inbox, proxy: Proxy) -> None:
    await inbox.cut_off(proxy, apps=[PLAIN])
    alice, bob = [await inbox.openid(person=person) for person in ("alice", "bob")]
    await inbox.postpone(signed(message(alice, revoke_info="8")))
    await inbox.postpone(signed(message(bob, LEFT)))
    await make_conflicts(inbox.stage.rows, "UPDATE ON public.users")
    await proxy.accept()
    await until(lambda: inbox.stage.rows.fetchval("SELECT count(*) = 1 FROM users"))
    assert await inbox.kept() == PROFILE
    await inbox.stage.rows.execute("DROP TRIGGER clash ON public.users")
    await inbox.stage.services[Retries].drain()
    assert await inbox.kept() == {**PROFILE, "phone": None}


@pytest.mark.parametrize("cut_short_by", ["a stop", "the database"])
async def test_a_withdrawal_that_is_cut_short_is_logged_and_retried(inbox: Inbox, cut_short_by: str) -> None:
    await inbox.receive_with(apps=[PLAIN], timeouts=HURRIED)
    push = signed(message(await inbox.openid(), LEFT))
    async with locked(inbox.stage.rows):
        await inbox.postpone(push)
        if cut_short_by == "a stop":
            await inbox.stage.services[Background].aclose()
        else:
            await inbox.stage.rows.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        await until(lambda: inbox.stage.logged("retry_queued"))
        assert [line["withdrawn"] for line in inbox.stage.logged("retry_queued")] == ["all"]
    await until(lambda: inbox.stage.rows.fetchval("SELECT count(*) = 0 FROM users"))


async def test_a_withdrawal_does_not_wait_for_the_database_for_ever(inbox: Inbox, proxy: Proxy) -> None:
    await inbox.cut_off(proxy, apps=[PLAIN])
    inbox.stage.services[PushedMessages].kept_in_memory = 0.0
    await inbox.postpone(signed(message(await inbox.openid(), LEFT)))
    await until(lambda: inbox.stage.logged("retry_lost"))


async def test_a_withdrawal_while_the_identity_moves_erases_its_new_users_data(inbox: Inbox) -> None:
    alice, bob = (await inbox.log_in())["user"], (await inbox.log_in(person="bob"))["user"]
    await inbox.stage.rows.execute("UPDATE users SET nickname = 'set'")
    withdrawing = inbox.post(signed(message(alice["openid"])))
    move = f"UPDATE identities SET user_id = '{bob['id']}' WHERE openid = '{alice['openid']}'"
    assert_taken(await behind(inbox.stage.rows, withdrawing, HOLD_USERS, then=move))
    names = {str(row["id"]): row["nickname"] for row in await inbox.stage.rows.fetch("SELECT id, nickname FROM users")}
    assert names == {alice["id"]: "set", bob["id"]: None}
