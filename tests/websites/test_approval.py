"""A yes to a scan is proved by a new `wx.login`, because a stolen access token must open no session of the thief's."""

from asyncio import create_task, gather
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.fakes import APP, OTHER_APP, Clock, WeChatByRespx
from tests.problems import problem_of
from tests.websites.browsers import refused, wechat_thinking
from tests.world import Client, GetPhone, MakeClient, MakeServices, Phone, Rows, Site, bearer, leave
from wxauth.server.core.database import CONNECTIONS
from wxauth.server.core.sealing import session_key_context
from wxauth.server.core.services import Services


async def claimed(site: Site, phone: Phone) -> tuple[dict[str, Any], str]:
    """A scan that this phone has claimed, as the site knows it, and its id."""
    started = await site.start()
    return started, (await phone.scan(started)).json()["id"]


def asked_wechat(wechat: WeChatByRespx) -> int:
    return len(wechat.calls)


@pytest.mark.slow
@pytest.mark.parametrize("body", [None, {}, {"login_code": ""}, {"login_code": "c" * 257}, {"login_code": None}, []])
async def test_a_bearer_alone_approves_nothing(site: Site, phone: Phone, wechat: WeChatByRespx, body: Any) -> None:
    started, scan_id = await claimed(site, phone)
    before = asked_wechat(wechat)
    answer = await phone.client.post(f"/v1/me/scans/{scan_id}/approve", json=body, headers=bearer(phone.tokens))
    problem_of(answer, "invalid_request", 422)
    assert asked_wechat(wechat) == before
    refused(await site.poll(started), "authorization_pending")
    assert (await phone.decide(scan_id)).status_code == 204
    assert (await site.poll(started)).status_code == 200


async def test_the_code_of_another_person_approves_nothing_and_the_scan_stays_open(
    site: Site, phone: Phone, wechat: WeChatByRespx, rows: Rows
) -> None:
    started, scan_id = await claimed(site, phone)
    key = await rows.fetchval("SELECT session_key FROM sessions WHERE id = $1", UUID(phone.tokens["session_id"]))
    problem_of(await phone.decide(scan_id, code=wechat.code_for("mallory")), "wrong_person", 403)
    assert key == await rows.fetchval(
        "SELECT session_key FROM sessions WHERE id = $1", UUID(phone.tokens["session_id"])
    )
    refused(await site.poll(started), "authorization_pending")
    assert (await phone.decide(scan_id)).status_code == 204


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wechats", "code", "status"),
    [
        (httpx.Response(200, json={"errcode": 40029}), "invalid_code", 400),
        (httpx.Response(200, json={"errcode": 40163}), "code_used", 400),
        (httpx.Response(200, json={"errcode": 40226}), "wechat_user_blocked", 403),
        (httpx.Response(200, json={"errcode": 45011}), "wechat_rate_limited", 429),
        (httpx.Response(200, json={"errcode": 40125}), "wechat_misconfigured", 502),
        (httpx.Response(500), "wechat_unavailable", 503),
        (httpx.ReadTimeout("slow"), "wechat_timeout", 504),
        (httpx.Response(200, text="<html>"), "wechat_bad_response", 502),
    ],
)
async def test_wechats_failures_are_those_of_a_login_and_the_scan_stays_open(
    site: Site, phone: Phone, wechat: WeChatByRespx, wechats: Any, code: str, status: int
) -> None:
    started, scan_id = await claimed(site, phone)
    wechat.answers(wechats)
    problem_of(await phone.decide(scan_id), code, status)
    refused(await site.poll(started), "authorization_pending")
    wechat.route.mock(side_effect=wechat._answer)
    assert (await phone.decide(scan_id)).status_code == 204


async def test_a_yes_counts_as_a_login_does_and_is_limited_before_wechat_is_asked(
    site: Site, phone: Phone, wechat: WeChatByRespx, make_services: MakeServices, make_client: MakeClient
) -> None:
    _, scan_id = await claimed(site, phone)
    limited = replace(phone, client=make_client(await make_services(login_rate_limit="2/minute")))
    before = asked_wechat(wechat)
    answers = [await limited.decide(scan_id, code="nobodys-code-1234") for _ in range(3)]
    assert [answer.json()["code"] for answer in answers] == ["invalid_code", "invalid_code", "rate_limited"]
    assert answers[2].headers["retry-after"]
    assert asked_wechat(wechat) == before + 2


async def test_a_scan_that_is_over_is_refused_before_wechat_is_asked(
    site: Site, phone: Phone, get_phone: GetPhone, wechat: WeChatByRespx, clock: Clock
) -> None:
    other = await get_phone("alice")
    taken_over, denied, expired = [await site.start() for _ in range(3)]
    ids = [(await phone.scan(started)).json()["id"] for started in (taken_over, denied, expired)]
    await other.scan(taken_over)
    await phone.decide(ids[1], "deny")
    before = asked_wechat(wechat)
    for scan_id in (*ids[:2], "01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"):
        problem_of(await phone.decide(scan_id), "scan_over", 404)
    clock.advance(seconds=180)
    problem_of(await phone.decide(ids[2]), "scan_over", 404)
    assert asked_wechat(wechat) == before


async def test_the_same_yes_again_is_good_whatever_its_code_and_wechat_is_not_asked(
    site: Site, phone: Phone, get_phone: GetPhone, wechat: WeChatByRespx, clock: Clock
) -> None:
    _, scan_id = await claimed(site, phone)
    assert (await phone.decide(scan_id)).status_code == 204
    before = asked_wechat(wechat)
    for code in ("nobodys-code-1234", wechat.code_for("mallory")):
        assert (await phone.decide(scan_id, code=code)).status_code == 204
    problem_of(await (await get_phone("mallory")).decide(scan_id), "scan_over", 404)
    clock.advance(seconds=180)
    problem_of(await phone.decide(scan_id), "scan_over", 404)
    assert asked_wechat(wechat) == before + 1  # mallory's login


async def test_the_new_session_key_replaces_the_sessions_and_that_of_the_newest_login(
    site: Site, phone: Phone, get_phone: GetPhone, wechat: WeChatByRespx, services: Services, rows: Rows
) -> None:
    await get_phone("alice")  # a later login, whose key WeChat does not accept any more
    _, scan_id = await claimed(site, phone)
    code = phone.wx_login()
    session_key = wechat.sessions[code]["session_key"].encode()
    assert (await phone.decide(scan_id, code=code)).status_code == 204
    context = session_key_context(APP["app_id"], phone.tokens["user"]["openid"])
    keys = [row[0] for row in await rows.fetch("SELECT session_key FROM sessions WHERE client_id IS NULL")]
    assert [services.sealer.open(sealed, context=context) for sealed in keys] == [session_key] * 2


async def test_the_code_is_of_the_app_in_which_the_session_was_opened(
    site: Site, client: Client, wechat: WeChatByRespx
) -> None:
    app_id = OTHER_APP["app_id"]

    def wx_login() -> str:
        return wechat.code_for("alice", app_id=app_id)

    answer = await client.post("/v1/login", json={"code": wx_login(), "app_id": app_id})
    phone = Phone(client, answer.json(), wx_login)
    started, scan_id = await claimed(site, phone)
    problem_of(await phone.decide(scan_id, code=wechat.code_for("alice")), "wrong_person", 403)
    assert (await phone.decide(scan_id)).status_code == 204
    assert wechat.calls[-1]["appid"] == app_id
    assert (await site.poll(started)).status_code == 200


Meanwhile = Callable[[Phone, Phone, str, dict[str, Any]], Awaitable[object]]


async def deny(phone: Phone, _other: Phone, scan_id: str, _started: dict[str, Any]) -> None:
    assert (await phone.decide(scan_id, "deny")).status_code == 204


async def take_over(_phone: Phone, other: Phone, _scan_id: str, started: dict[str, Any]) -> None:
    assert (await other.scan(started)).status_code == 200


async def sign_out(phone: Phone, _other: Phone, _scan_id: str, _started: dict[str, Any]) -> None:
    await phone.client.post("/v1/logout", json={"refresh_token": phone.tokens["refresh_token"]})


async def erase(phone: Phone, _other: Phone, _scan_id: str, _started: dict[str, Any]) -> None:
    assert (await leave(phone.client, phone.tokens)).status_code == 204


@pytest.mark.parametrize("meanwhile", [deny, take_over, sign_out, erase])
async def test_changes_while_wechat_is_asked_count(
    site: Site, phone: Phone, get_phone: GetPhone, wechat: WeChatByRespx, rows: Rows, meanwhile: Meanwhile
) -> None:
    other = await get_phone("alice")
    started, scan_id = await claimed(site, phone)
    async with wechat_thinking(wechat) as is_asked:
        approving = create_task(phone.decide(scan_id))
        await is_asked()
        await meanwhile(phone, other, scan_id, started)
    problem_of(await approving, "scan_over", 404)
    assert (await site.poll(started)).json()["error"] in ("authorization_pending", "access_denied")
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'scan.approved'") == 0
    ended = "SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL AND session_key IS NOT NULL"
    assert await rows.fetchval(ended) == 0


async def test_a_scan_that_expires_while_wechat_is_asked_is_over(
    site: Site, phone: Phone, wechat: WeChatByRespx, clock: Clock
) -> None:
    started, scan_id = await claimed(site, phone)
    async with wechat_thinking(wechat) as is_asked:
        approving = create_task(phone.decide(scan_id))
        await is_asked()
        clock.advance(seconds=180)
    problem_of(await approving, "scan_over", 404)
    refused(await site.poll(started), "expired_token")


async def test_a_ban_while_wechat_is_asked_counts(site: Site, phone: Phone, wechat: WeChatByRespx, rows: Rows) -> None:
    started, scan_id = await claimed(site, phone)
    async with wechat_thinking(wechat) as is_asked:
        approving = create_task(phone.decide(scan_id))
        await is_asked()
        await rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1", UUID(phone.user_id))
    problem_of(await approving, "scan_over", 404)
    refused(await site.poll(started), "authorization_pending")


async def test_a_yes_that_is_sent_twice_with_its_one_code_is_a_yes(
    site: Site, phone: Phone, wechat: WeChatByRespx
) -> None:
    started, scan_id = await claimed(site, phone)
    code = phone.wx_login()
    async with wechat_thinking(wechat) as is_asked:
        again = create_task(phone.decide(scan_id, code=code))
        await is_asked()
        wechat.route.mock(side_effect=wechat._answer)
        assert (await phone.decide(scan_id, code=code)).status_code == 204
    assert (await again).status_code == 204  # WeChat refused the code, which the first had spent
    assert (await site.poll(started)).status_code == 200


@pytest.mark.slow
async def test_no_connection_to_the_database_is_held_while_wechat_is_asked(
    site: Site, get_phone: GetPhone, wechat: WeChatByRespx
) -> None:
    busy = CONNECTIONS + 1
    phones = [await get_phone(f"person-{number}") for number in range(busy)]
    ids = [(await claimed(site, phone))[1] for phone in phones]
    async with wechat_thinking(wechat) as is_asked:
        approving = [create_task(phone.decide(scan_id)) for phone, scan_id in zip(phones, ids, strict=True)]
        await is_asked(busy)
        assert (await phones[0].client.get("/v1/me", headers=bearer(phones[0].tokens))).status_code == 200
    assert [answer.status_code for answer in await gather(*approving)] == [204] * busy
