"""A session records where it was opened and where it was last used."""

from typing import Any

import pytest

from tests.world import FAR, HOME, OFFICE, Admin, Body, Stage, bearer, body_of
from wxauth.housekeeping.housekeeping import sweep

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44"
ANDROID = "Mozilla/5.0 (Linux; Android 12) MicroMessenger/8.0.38"


def at(ip: str, user_agent: str = IPHONE) -> dict[str, str]:
    return {"X-Forwarded-For": ip, "User-Agent": user_agent}


async def refresh(stage: Stage, answer: Body, headers: dict[str, str]) -> Body:
    return body_of(await stage.refresh(answer, headers=headers))


async def place(stage: Stage, answer: Body) -> tuple[Any, ...]:
    [session] = (await stage.client.get("/v1/me/sessions", headers=bearer(answer))).json()["items"]
    return session["ip"], session["device"], session["opened"]["ip"], session["opened"]["device"]


@pytest.mark.oldest_postgres
async def test_a_session_keeps_where_it_was_opened_beside_where_it_was_last_used(stage: Stage, root: Admin) -> None:
    iphone, android = "iOS 17.1, WeChat 8.0.44", "Android 12, WeChat 8.0.38"
    answer = await stage.login("alice", headers=at(OFFICE))
    assert await place(stage, answer) == (OFFICE, iphone, OFFICE, iphone)
    for ip, user_agent in ((OFFICE, IPHONE), (HOME, ANDROID), (FAR, ANDROID), (OFFICE, IPHONE)):
        answer = await refresh(stage, answer, at(ip, user_agent))
        device = iphone if user_agent == IPHONE else android
        assert await place(stage, answer) == (ip, device, OFFICE, iphone)
    [session] = (await root.read(f"/users/{answer['user']['id']}"))["sessions"]
    assert session["opened"] == {"ip": OFFICE, "device": iphone}
    export = (await stage.client.get("/v1/me/export", headers=bearer(answer))).json()
    assert (export["sessions"][0]["device"], export["sessions"][0]["opened"]) == (
        iphone,
        {"ip": OFFICE, "device": iphone, "user_agent": IPHONE},
    )


@pytest.mark.parametrize("user_agent", ["", "curl"])
async def test_a_session_opened_by_an_unknown_device_stays_so(stage: Stage, user_agent: str) -> None:
    answer = await stage.login("alice", headers=at(OFFICE, user_agent))
    answer = await refresh(stage, answer, at(HOME))
    assert await place(stage, answer) == (HOME, "iOS 17.1, WeChat 8.0.44", OFFICE, None)


async def test_a_refused_refresh_changes_neither_place(stage: Stage) -> None:
    answer = await stage.login("alice", headers=at(OFFICE))
    await refresh(stage, answer, at(HOME))
    stage.clock.advance(hours=1)
    assert (await stage.refresh(answer, headers=at(FAR))).status_code == 400
    assert [str(each) for each in await stage.rows.fetchrow("SELECT ip, opened_ip FROM sessions")] == [HOME, OFFICE]


async def test_staff_see_where_a_banned_user_was(stage: Stage, root: Admin) -> None:
    answer = await stage.login("alice", headers=at(OFFICE))
    await refresh(stage, answer, at(HOME))
    user_id = answer["user"]["id"]
    assert (await root.read(f"/users/{user_id}"))["ended_sessions"] == []
    shown = await root.change(user_id, status="disabled")
    assert shown["sessions"] == []
    [session] = shown["ended_sessions"]
    assert (session["id"], session["ip"], session["opened"]["ip"]) == (answer["session_id"], HOME, OFFICE)
    assert (session["ended_at"], session["ended_reason"]) == ("2026-11-20T08:00:00Z", "banned")


async def test_a_session_that_was_not_used_for_too_long_is_shown_as_expired(stage: Stage, root: Admin) -> None:
    answer = await stage.login("alice")
    stage.clock.advance(days=31)
    root = Admin(root.client, await stage.login("root"))
    [session] = (await root.read(f"/users/{answer['user']['id']}"))["ended_sessions"]
    assert (session["ended_at"], session["ended_reason"]) == ("2026-12-20T08:00:00Z", "expired")


async def test_the_address_of_the_login_is_truncated_at_its_own_age(stage: Stage) -> None:
    stage = await stage.replica(addresses_kept_days=10)
    answer = await stage.login("alice", headers=at(OFFICE))
    stage.clock.advance(days=9)
    answer = await refresh(stage, answer, at(HOME))
    stage.clock.advance(days=2)
    await sweep(stage.services)
    assert [str(each) for each in await stage.rows.fetchrow("SELECT ip, opened_ip FROM sessions")] == [
        HOME,
        "203.0.113.0/24",
    ]


@pytest.mark.parametrize("log_addresses", [False, True])
async def test_the_log_has_addresses_only_if_the_operator_says_so(stage: Stage, log_addresses: bool) -> None:
    stage = await stage.replica(log_addresses=log_addresses)
    answer = await stage.login("alice", headers=at(OFFICE))
    await refresh(stage, answer, at(HOME))
    lines = [*stage.logged("logged_in"), *stage.logged("refreshed")]
    assert [line.get("ip") for line in lines] == ([OFFICE, HOME] if log_addresses else [None, None])
