"""From where a session was opened, and from where it was last used."""

from typing import Any

import pytest

from tests.clock import Clock
from tests.world import (
    FAR,
    HOME,
    OFFICE,
    Admin,
    Client,
    LogIn,
    Rows,
    Stage,
    bearer,
)
from wxauth.server.housekeeping.housekeeping import sweep

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44"
ANDROID = "Mozilla/5.0 (Linux; Android 12) MicroMessenger/8.0.38"


def at(ip: str, user_agent: str = IPHONE) -> dict[str, str]:
    return {"X-Forwarded-For": ip, "User-Agent": user_agent}


async def refresh(client: Client, answer: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    refreshed = await client.post("/v1/refresh", json={"refresh_token": answer["refresh_token"]}, headers=headers)
    assert refreshed.status_code == 200, refreshed.text
    return refreshed.json()


async def place(client: Client, answer: dict[str, Any]) -> tuple[Any, ...]:
    [session] = (await client.get("/v1/me/sessions", headers=bearer(answer))).json()["items"]
    return session["ip"], session["device"], session["opened"]["ip"], session["opened"]["device"]


@pytest.mark.oldest_postgres
async def test_a_session_keeps_where_it_was_opened_beside_where_it_was_last_used(stage: Stage, root: Admin) -> None:
    iphone, android = "iOS 17.1, WeChat 8.0.44", "Android 12, WeChat 8.0.38"
    answer = await stage.login("alice", headers=at(OFFICE))
    assert await place(stage.client, answer) == (OFFICE, iphone, OFFICE, iphone)
    answer = await refresh(stage.client, answer, at(OFFICE))
    assert await place(stage.client, answer) == (OFFICE, iphone, OFFICE, iphone)
    answer = await refresh(stage.client, answer, at(HOME, ANDROID))
    assert await place(stage.client, answer) == (HOME, android, OFFICE, iphone)
    answer = await refresh(stage.client, answer, at(FAR, ANDROID))
    assert await place(stage.client, answer) == (FAR, android, OFFICE, iphone)
    answer = await refresh(stage.client, answer, at(OFFICE))
    assert await place(stage.client, answer) == (OFFICE, iphone, OFFICE, iphone)
    [session] = (await root.read(f"/users/{answer['user']['id']}"))["sessions"]
    assert session["opened"] == {"ip": OFFICE, "device": iphone}
    export = (await stage.client.get("/v1/me/export", headers=bearer(answer))).json()
    assert (export["sessions"][0]["device"], export["sessions"][0]["opened"]) == (
        iphone,
        {"ip": OFFICE, "device": iphone, "user_agent": IPHONE},
    )


@pytest.mark.parametrize("user_agent", ["", "curl"])
async def test_a_session_opened_by_an_unknown_device_stays_so(client: Client, login: LogIn, user_agent: str) -> None:
    answer = await login("alice", headers=at(OFFICE, user_agent))
    answer = await refresh(client, answer, at(HOME))
    assert await place(client, answer) == (HOME, "iOS 17.1, WeChat 8.0.44", OFFICE, None)


async def test_a_refused_refresh_changes_neither_place(client: Client, login: LogIn, rows: Rows, clock: Clock) -> None:
    answer = await login("alice", headers=at(OFFICE))
    await refresh(client, answer, at(HOME))
    clock.advance(hours=1)
    again = await client.post("/v1/refresh", json={"refresh_token": answer["refresh_token"]}, headers=at(FAR))
    assert again.status_code == 400
    assert [str(each) for each in await rows.fetchrow("SELECT ip, opened_ip FROM sessions")] == [HOME, OFFICE]


async def test_staff_see_where_a_banned_user_was(client: Client, login: LogIn, root: Admin) -> None:
    answer = await login("alice", headers=at(OFFICE))
    await refresh(client, answer, at(HOME))
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
    services = await stage.make_services(addresses_kept_days=10)
    client = stage.make_client(services)
    answer = await stage.login("alice", headers=at(OFFICE))
    stage.clock.advance(days=9)
    answer = await refresh(client, answer, at(HOME))
    stage.clock.advance(days=2)
    await sweep(services)
    assert [str(each) for each in await stage.rows.fetchrow("SELECT ip, opened_ip FROM sessions")] == [
        HOME,
        "203.0.113.0/24",
    ]


@pytest.mark.parametrize("log_addresses", [False, True])
async def test_the_log_has_addresses_of_logins_and_refreshes_only_if_the_operator_says_so(
    stage: Stage, log_addresses: bool
) -> None:
    client = await stage.make(log_addresses=log_addresses)
    answer = await stage.login("alice", at=client, headers=at(OFFICE))
    await refresh(client, answer, at(HOME))
    lines = [line for line in stage.log_lines() if line["event"] in ("logged_in", "refreshed")]
    addresses = [line["ip"] for line in lines if "ip" in line]
    assert (len(lines), addresses) == (2, [OFFICE, HOME] if log_addresses else [])


async def test_of_two_sessions_the_log_may_have_one_whole(stage: Stage) -> None:
    client = await stage.make(log_sample=2)
    await stage.login("alice", at=client)
    for _ in range(20):
        await refresh(client, await stage.login("alice", at=client), at(HOME))
    await client.post("/v1/refresh", json={"refresh_token": "none of ours"})
    lines = stage.log_lines()
    first, *logins = (line for line in lines if line["event"] == "logged_in")
    refreshes = [line for line in lines if line["event"] == "refreshed"]
    assert (first["is_new"], "sample" in first) == (True, False), "a new user is always logged"
    assert 0 < len(logins) < 20
    assert [line["session_id"] for line in logins] == [line["session_id"] for line in refreshes]
    assert {line["sample"] for line in (*logins, *refreshes)} == {2}
