"""A new `wx.login` code proves the approval of a scan.

Otherwise, a thief with a stolen access token could open a session.
"""

from asyncio import Event, create_task, gather
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.fakes import APP, OTHER_APP, WeChatByRespx
from tests.problems import problem_of
from tests.sites.browsers import Ask, House, refused
from tests.sweeps import swept
from tests.world import Phone, until
from wxauth.clients.clients import remove_client
from wxauth.core.database import MAX_CONNECTIONS
from wxauth.core.sealing import Sealer, session_key_context


@pytest.mark.slow
@swept("body", [None, {}, {"login_code": ""}, {"login_code": "c" * 257}, {"login_code": None}, []])
@pytest.mark.requirement("asvs-6.8.4", "wxauth-bearer")
async def test_a_bearer_alone_approves_nothing(house: House, body: Any) -> None:
    started, scan_id = await house.claimed()
    before = len(house.stage.wechat.calls)
    problem_of(await house.phone.ask("POST", f"/scans/{scan_id}/approve", json=body), "invalid_request", 422)
    assert len(house.stage.wechat.calls) == before
    refused(await house.shop.poll(started), "authorization_pending")
    assert (await house.phone.decide(scan_id)).status_code == 204
    assert (await house.shop.poll(started)).status_code == 200


async def test_the_code_of_another_person_approves_nothing_and_the_scan_stays_open(house: House) -> None:
    (started, scan_id), session = await house.claimed(), UUID(house.phone.tokens["session_id"])
    key = "SELECT session_key FROM sessions WHERE id = $1"
    before = await house.stage.rows.fetchval(key, session)
    problem_of(await house.phone.decide(scan_id, code=house.stage.wechat.code_for("mallory")), "wrong_person", 403)
    assert await house.stage.rows.fetchval(key, session) == before
    refused(await house.shop.poll(started), "authorization_pending")
    assert (await house.phone.decide(scan_id)).status_code == 204


@pytest.mark.slow
@swept(
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
    ids=str,
)
async def test_wechats_failures_are_those_of_a_login_and_the_scan_stays_open(
    house: House, wechats: Any, code: str, status: int
) -> None:
    started, scan_id = await house.claimed()
    house.stage.wechat.answers(*[wechats] * 3)
    problem_of(await house.phone.decide(scan_id), code, status)
    refused(await house.shop.poll(started), "authorization_pending")
    house.stage.wechat.route.mock(side_effect=house.stage.wechat.answer_to)
    assert (await house.phone.decide(scan_id)).status_code == 204


async def test_a_yes_counts_as_a_login_does_and_is_limited_before_wechat_is_asked(house: House) -> None:
    _, scan_id = await house.claimed()
    limited = replace(house.phone, client=await house.stage.make(login_rate_limit="2/minute"))
    before = len(house.stage.wechat.calls)
    answers = [await limited.decide(scan_id, code="nobodys-code-1234") for _ in range(3)]
    assert [answer.json()["code"] for answer in answers] == ["invalid_code", "invalid_code", "rate_limited"]
    assert answers[2].headers["retry-after"]
    assert len(house.stage.wechat.calls) == before + 2


async def test_a_scan_that_is_over_is_refused_before_wechat_is_asked(house: House) -> None:
    other = await house.get_phone("alice")
    (taken_over, taken), (_, denied), (_, expired) = [await house.claimed() for _ in range(3)]
    await other.scan(taken_over)
    await house.phone.decide(denied, "deny")
    before = len(house.stage.wechat.calls)
    for scan_id in (taken, denied, "01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"):
        problem_of(await house.phone.decide(scan_id), "scan_over", 404)
    house.stage.clock.advance(seconds=180)
    problem_of(await house.phone.decide(expired), "scan_over", 404)
    assert len(house.stage.wechat.calls) == before


async def test_the_same_yes_again_is_good_whatever_its_code_and_wechat_is_not_asked(house: House) -> None:
    (_, scan_id), mallory = await house.claimed(), await house.get_phone("mallory")
    assert (await house.phone.decide(scan_id)).status_code == 204
    before = len(house.stage.wechat.calls)
    for code in ("nobodys-code-1234", mallory.wx_login()):
        assert (await house.phone.decide(scan_id, code=code)).status_code == 204
    problem_of(await mallory.decide(scan_id), "scan_over", 404)
    house.stage.clock.advance(seconds=180)
    problem_of(await house.phone.decide(scan_id), "scan_over", 404)
    assert len(house.stage.wechat.calls) == before


async def test_the_new_session_key_replaces_the_sessions_and_that_of_the_newest_login(house: House) -> None:
    await house.get_phone("alice")  # this later login has a session key that WeChat no longer accepts
    (_, scan_id), code = await house.claimed(), house.phone.wx_login()
    session_key = house.stage.wechat.sessions[code]["session_key"].encode()
    assert (await house.phone.decide(scan_id, code=code)).status_code == 204
    context = session_key_context(APP["app_id"], house.phone.tokens["user"]["openid"])
    keys = [row[0] for row in await house.stage.rows.fetch("SELECT session_key FROM sessions WHERE client_id IS NULL")]
    assert [house.stage.services[Sealer].open(sealed, context=context) for sealed in keys] == [session_key] * 2


async def test_the_code_is_of_the_app_in_which_the_session_was_opened(house: House) -> None:
    in_other_app = await house.stage.login("alice", app=OTHER_APP)
    app_id, first_apps = OTHER_APP["app_id"], house.phone.wx_login()
    house.phone = Phone(house.stage.client, in_other_app, lambda: house.stage.wechat.code_for("alice", app_id=app_id))
    started, scan_id = await house.claimed()
    problem_of(await house.phone.decide(scan_id, code=first_apps), "wrong_person", 403)
    assert (await house.phone.decide(scan_id)).status_code == 204
    assert house.stage.wechat.calls[-1]["appid"] == app_id
    assert (await house.shop.poll(started)).status_code == 200


# Tests of approvals while wxauth waits for WeChat.


@asynccontextmanager
async def wechat_thinking(wechat: WeChatByRespx) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Delay WeChat's response until the block ends, and yield a function that waits for this many requests.

    WeChat still responds at once to an openid as a code, which a leaving user sends.
    """
    may_answer, asked = Event(), []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if not request.url.params["js_code"].startswith("openid-"):
            await may_answer.wait()
        return wechat.answer_to(request)

    async def is_asked(times: int = 1) -> None:
        await until(lambda: len(asked) >= times)

    wechat.route.mock(side_effect=answer)
    try:
        yield is_asked
    finally:
        may_answer.set()
        wechat.route.mock(side_effect=wechat.answer_to)


Act = Callable[[House], Awaitable[object]]
Prepare = Callable[[House], Awaitable[Ask]]


async def a_yes(house: House) -> Ask:
    _, scan_id = await house.claimed()
    return lambda: house.phone.decide(scan_id)


async def an_answer(house: House) -> Ask:
    return house.answer


async def an_id_token(house: House) -> Ask:
    await house.change(phone_id_token=True)
    return house.id_token


async def after_acts_while_wechat_is_asked(house: House, ask: Ask, *acts: Act) -> httpx.Response:
    async with wechat_thinking(house.stage.wechat) as is_asked:
        asking = create_task(ask())
        await is_asked()
        for act in acts:
            await act(house)
    return await asking


async def test_a_login_while_wechat_is_asked_keeps_its_own_session_key(house: House) -> None:
    newest, kept = "SELECT session_key FROM sessions ORDER BY id DESC LIMIT 1", []

    async def log_in(house: House) -> None:
        house.stage.clock.advance(seconds=1)
        await replace(house.stage.login, wechat=None)(house.phone.tokens["user"]["openid"])
        kept.append(await house.stage.rows.fetchval(newest))

    assert (await after_acts_while_wechat_is_asked(house, await a_yes(house), log_in)).status_code == 204
    assert kept == [await house.stage.rows.fetchval(newest)]


@pytest.mark.parametrize("prepare", [a_yes, an_answer, an_id_token])
@pytest.mark.parametrize("act", [House.ban, House.erase, House.sign_out_phone])
async def test_who_is_shut_out_while_wechat_is_asked_gets_nothing(house: House, act: Act, prepare: Prepare) -> None:
    answer = await after_acts_while_wechat_is_asked(house, await prepare(house), act)
    problem_of(answer, *(("scan_over", 404) if prepare is a_yes else ("invalid_token", 401)))
    assert await house.stage.number("site_logins WHERE stage NOT IN ('asked', 'claimed')") == 0
    assert await house.stage.number("events WHERE type IN ('scan.approved', 'site.authorized')") == 0
    assert await house.stage.number("sessions WHERE revoked_at IS NOT NULL AND session_key IS NOT NULL") == 0


async def test_a_scan_that_is_denied_taken_over_or_over_while_wechat_is_asked_is_not_approved(house: House) -> None:
    other = await house.get_phone("alice")
    for error, act in (
        ("access_denied", lambda scan_id, _: house.phone.decide(scan_id, "deny")),
        ("authorization_pending", lambda _, started: other.scan(started)),
        ("expired_token", lambda *_: house.stage.clock.advance(seconds=180)),
    ):
        started, scan_id = await house.claimed()
        async with wechat_thinking(house.stage.wechat) as is_asked:
            approving = create_task(house.phone.decide(scan_id))
            await is_asked()
            if (done := act(scan_id, started)) is not None:
                assert (await done).is_success
        problem_of(await approving, "scan_over", 404)
        refused(await house.shop.poll(started), error)
    assert await house.stage.number("events WHERE type = 'scan.approved'") == 0


async def test_a_client_that_is_withdrawn_while_wechat_is_asked_gives_no_id_token(house: House) -> None:
    withdrawals: list[Act] = [
        lambda house: house.change(phone_id_token=False),
        lambda house: remove_client(house.stage.services.database, "shop", now=house.stage.clock()),
    ]
    for withdraw in withdrawals:
        answer = await after_acts_while_wechat_is_asked(house, await an_id_token(house), withdraw)
        problem_of(answer, "invalid_request", 422)


async def test_a_yes_that_is_sent_twice_with_its_one_code_is_a_yes(house: House) -> None:
    (started, scan_id), code = await house.claimed(), house.phone.wx_login()
    async with wechat_thinking(house.stage.wechat) as is_asked:
        again = create_task(house.phone.decide(scan_id, code=code))
        await is_asked()
        house.stage.wechat.route.mock(side_effect=house.stage.wechat.answer_to)
        assert (await house.phone.decide(scan_id, code=code)).status_code == 204
    assert (await again).status_code == 204  # WeChat refused the code, because the first request had already used it
    assert (await house.shop.poll(started)).status_code == 200


@pytest.mark.slow
async def test_no_connection_to_the_database_is_held_while_wechat_is_asked(house: House) -> None:
    scans = []
    for number in range(MAX_CONNECTIONS + 1):
        phone = await house.get_phone(f"person-{number}")
        scans.append((phone, (await phone.scan(await house.shop.start())).json()["id"]))
    async with wechat_thinking(house.stage.wechat) as is_asked:
        approving = [create_task(phone.decide(scan_id)) for phone, scan_id in scans]
        await is_asked(len(scans))
        assert (await house.phone.ask("GET")).status_code == 200
    assert [answer.status_code for answer in await gather(*approving)] == [204] * len(scans)
