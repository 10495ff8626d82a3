"""`ERASURE_GRACE_DAYS`: who has asked to be erased is shut out for some days, and may change their mind."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.clock import Clock
from tests.fakes import APP, OTHER_APP, WeChatByRespx
from tests.problems import problem_of
from tests.world import (
    Body,
    Client,
    LogIn,
    MakeClient,
    MakeServices,
    Rows,
    add_client,
    bearer,
    leave,
    make_admin,
    make_support,
    set_roles,
)
from wxauth.server.core.services import Services
from wxauth.server.events.webhook_deliveries import place_events
from wxauth.server.housekeeping.housekeeping import sweep_now

DAYS = 7
LATER = "2026-11-27T08:00:00Z"
"""When somebody is erased who has left at the beginning of a test."""


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(erasure_grace_days=DAYS)


@pytest.fixture
async def alice(login: LogIn, client: Client) -> Body:
    """Alice, who has left."""
    alice = await login("alice", unionid="union-alice")
    left = await leave(client, alice)
    assert (left.status_code, left.json(), left.headers["cache-control"]) == (202, {"erase_at": LATER}, "no-store")
    return alice


async def types(rows: Rows, user: Body) -> list[str]:
    found = await rows.fetch("SELECT type FROM events WHERE user_id = $1 ORDER BY id", user["user"]["id"])
    return [row["type"] for row in found]


async def number(rows: Rows, table: str) -> int:
    return await rows.fetchval(f"SELECT count(*) FROM {table}")


async def erase_at(rows: Rows, user: Body) -> Any:
    return await rows.fetchval("SELECT erase_at FROM users WHERE id = $1", user["user"]["id"])


def is_leaving(answer: httpx.Response) -> None:
    assert problem_of(answer, "account_leaving", 403)["erase_at"] == LATER


async def test_who_leaves_is_signed_out_everywhere_at_once(login: LogIn, client: Client, rows: Rows) -> None:
    alice, other = await login("alice"), await login("alice")
    assert (await leave(client, alice)).status_code == 202
    for session in (alice, other):
        problem_of(await client.get("/v1/me", headers=bearer(session)), "invalid_token", 401)
        refreshed = await client.post("/v1/refresh", json={"refresh_token": session["refresh_token"]})
        problem_of(refreshed, "session_revoked", 400)
    events = await rows.fetch(
        "SELECT type, actor, data FROM events WHERE type IN ('session.ended', 'user.leaving') ORDER BY id"
    )
    assert [event["actor"] for event in events] == [alice["user"]["id"]] * 2
    assert {event["type"]: event["data"] for event in events}["user.leaving"] == f'{{"erase_at": "{LATER}"}}'
    assert '"reason": "leaving"' in {event["type"]: event["data"] for event in events}["session.ended"]


@pytest.mark.parametrize("profile", [{}, {"nickname": "Alice"}], ids=["plain", "with a name"])
async def test_a_login_meanwhile_is_refused_and_changes_nothing(
    alice: Body, login: LogIn, rows: Rows, clock: Clock, profile: Body
) -> None:
    before = await rows.fetchrow("SELECT * FROM users")
    clock.advance(days=1)
    is_leaving(await login.ask("alice", **profile))
    is_leaving(await login.ask("alice", unionid="union-alice", stay=False, **profile))
    is_leaving(await login.ask("alice", app=OTHER_APP, unionid="union-alice", **profile))
    assert await rows.fetchrow("SELECT * FROM users") == before
    assert await number(rows, "identities") == 1
    assert await number(rows, "sessions WHERE revoked_at IS NULL") == 0


async def test_a_login_with_stay_cancels_it(alice: Body, login: LogIn, client: Client, rows: Rows) -> None:
    again = await login("alice", unionid="union-alice", stay=True)
    assert (again["user"]["id"], again["is_new_user"]) == (alice["user"]["id"], False)
    assert (await client.get("/v1/me", headers=bearer(again))).status_code == 200
    assert await erase_at(rows, alice) is None
    assert (await types(rows, alice))[-1] == "user.stayed"
    assert (await login("alice"))["user"]["id"] == alice["user"]["id"]


async def test_stay_changes_nothing_of_who_is_not_leaving(login: LogIn, rows: Rows) -> None:
    alice = await login("alice", stay=True)
    assert (await login("alice", stay=True))["user"]["id"] == alice["user"]["id"]
    assert await types(rows, alice) == ["user.created"]


async def test_at_the_time_housekeeping_erases_the_person(
    alice: Body, login: LogIn, services: Services, rows: Rows, clock: Clock
) -> None:
    clock.advance(days=DAYS, seconds=-1)
    await sweep_now(services)
    assert await number(rows, "users") == 1
    clock.advance(seconds=1)
    await sweep_now(services)
    assert await number(rows, "users") == 0
    [erased] = await rows.fetch("SELECT actor, user_id::text FROM events WHERE type = 'user.erased'")
    assert tuple(erased) == (alice["user"]["id"], alice["user"]["id"])
    again = await login("alice", unionid="union-alice", stay=True)
    assert (again["is_new_user"], again["user"]["id"] != alice["user"]["id"]) == (True, True)


async def test_a_login_with_stay_and_housekeeping_at_once_end_in_one_of_both(
    alice: Body, login: LogIn, services: Services, rows: Rows, clock: Clock
) -> None:
    clock.advance(days=DAYS)
    coming = asyncio.create_task(login("alice", stay=True))
    await asyncio.gather(*(sweep_now(services) for _ in range(2)))
    again = await coming
    erased = await number(rows, "events WHERE type = 'user.erased'")
    stayed = await number(rows, "events WHERE type = 'user.stayed'")
    assert erased + stayed == 1
    assert again["is_new_user"] is (erased == 1)
    assert await number(rows, "users WHERE erase_at IS NULL") == 1


async def test_a_ban_counts_first_and_a_stay_lifts_none(alice: Body, login: LogIn, client: Client, rows: Rows) -> None:
    root = await make_admin(client, rows, await login("root"))
    await root.change(alice["user"]["id"], status="disabled")
    problem_of(await login.ask("alice", stay=True), "account_disabled", 403)
    user = await root.change(alice["user"]["id"], status="active")
    assert user["erase_at"] == LATER, "a ban that is lifted leaves it"
    is_leaving(await login.ask("alice"))


@pytest.mark.oldest_postgres
async def test_a_later_ban_outlasts_the_erasure(
    alice: Body, login: LogIn, client: Client, services: Services, rows: Rows, clock: Clock
) -> None:
    root = await make_admin(client, rows, await login("root"))
    user_id = alice["user"]["id"]
    banned = await root.change(user_id, status="disabled", until="2026-12-20T08:00:00Z")
    assert (banned["status"], banned["erase_at"]) == ("disabled", LATER)
    clock.advance(days=DAYS + 1)
    await sweep_now(services)
    problem_of(await login.ask("alice", unionid="union-alice", stay=True), "account_disabled", 403)
    assert await number(rows, "users") == 2
    clock.advance(days=30)
    for _ in range(2):  # the end of the ban, and what waited for it
        await sweep_now(services)
    assert await number(rows, "users") == 1
    assert (await types(rows, alice))[-3:] == ["user.banned", "user.unbanned", "user.erased"]


@pytest.mark.parametrize("who", ["the identity's user", "the unionid's user"])
async def test_a_late_unionid_merges_nobody_who_is_leaving(login: LogIn, client: Client, rows: Rows, who: str) -> None:
    named = await login("alice", app=OTHER_APP, unionid="union-alice")
    nameless = await login("alice")
    leaving = nameless if who == "the identity's user" else named
    assert (await leave(client, leaving)).status_code == 202
    is_leaving(await login.ask("alice", unionid="union-alice"))
    assert await number(rows, "users") == 2
    together = await login("alice", unionid="union-alice", stay=True)
    assert together["user"]["id"] == named["user"]["id"]
    assert await number(rows, "users") == 1
    assert await number(rows, "users WHERE erase_at IS NOT NULL") == 0
    assert await number(rows, "events WHERE type = 'user.stayed'") == 1


async def test_administrators_see_it_and_cancel_it(alice: Body, login: LogIn, client: Client, rows: Rows) -> None:
    root = await make_admin(client, rows, await login("root"))
    path = f"/users/{alice['user']['id']}"
    assert (await root.read(path))["erase_at"] == LATER
    assert [user["erase_at"] for user in (await root.read("/users"))["items"]] == [None, LATER]
    for value in (LATER, "", False, 0):
        problem_of(await root.ask("PATCH", path, json={"erase_at": value}), "invalid_request", 422)
    assert (await root.change(alice["user"]["id"], erase_at=None))["erase_at"] is None
    assert (await root.change(alice["user"]["id"], erase_at=None))["erase_at"] is None, "and again changes nothing"
    stayed = await rows.fetch("SELECT actor FROM events WHERE type = 'user.stayed'")
    assert [event["actor"] for event in stayed] == [root.id]
    assert (await login("alice"))["user"]["id"] == alice["user"]["id"]


async def test_support_does_not_cancel_it(alice: Body, login: LogIn, client: Client, rows: Rows) -> None:
    support = await make_support(client, rows, await login("bob"))
    refused = await support.ask("PATCH", f"/users/{alice['user']['id']}", json={"erase_at": None})
    problem_of(refused, "insufficient_role", 403)
    assert await erase_at(rows, alice) is not None


async def test_administrators_erase_at_once(alice: Body, login: LogIn, client: Client, rows: Rows) -> None:
    root = await make_admin(client, rows, await login("root"))
    assert (await root.ask("DELETE", f"/users/{alice['user']['id']}")).status_code == 204
    assert await number(rows, "users") == 1


async def test_nobody_who_is_leaving_is_merged_or_split(login: LogIn, client: Client, rows: Rows) -> None:
    root = await make_admin(client, rows, await login("root"))
    alice, bob = await login("alice", unionid="union-alice"), await login("bob")
    await login("alice", app=OTHER_APP, unionid="union-alice")
    assert (await leave(client, alice)).status_code == 202
    for former, into in ((alice, bob), (bob, alice)):
        refused = await root.merge(former["user"]["id"], into=into["user"]["id"])
        problem_of(refused, "merge_refused", 409)
    identity = {"app_id": APP["app_id"], "openid": alice["user"]["openid"]}
    refused = await root.ask("POST", f"/users/{alice['user']['id']}/split", json=identity)
    problem_of(refused, "split_refused", 409)
    assert await number(rows, "users") == 3


async def test_who_is_leaving_counts_for_no_last_administrator(login: LogIn, client: Client, rows: Rows) -> None:
    alice, bob = await login("alice"), await login("bob")
    await set_roles(rows, "admin")
    left = await asyncio.gather(leave(client, alice), leave(client, bob))
    assert sorted(answer.status_code for answer in left) == [202, 409]
    stays = alice if left[0].status_code == 409 else bob
    problem_of(await leave(client, stays), "last_admin", 409)


async def test_siblings_see_it(alice: Body, login: LogIn, client: Client, services: Services, clock: Clock) -> None:
    bob = await login("bob")
    auth = await add_client(services.database, "ledger", scopes=["users", "events"], now=clock())
    basic = httpx.BasicAuth(*auth)
    for user, expected in ((alice, LATER), (bob, None)):
        assert (await client.get(f"/v1/users/{user['user']['id']}", auth=basic)).json()["erase_at"] == expected
    ids = {"ids": [alice["user"]["id"]]}
    assert (await client.post("/v1/users/lookup", json=ids, auth=basic)).json()["items"][0]["erase_at"] == LATER
    await place_events(services)
    events = (await client.get("/v1/events", params={"type": "user.leaving"}, auth=basic)).json()["items"]
    assert [(event["user_id"], event["data"]) for event in events] == [(alice["user"]["id"], {"erase_at": LATER})]


async def test_a_thief_with_a_bearer_keeps_nobody_from_leaving(alice: Body, client: Client, rows: Rows) -> None:
    problem_of(await leave(client, alice), "invalid_token", 401)
    problem_of(await client.patch("/v1/me", json={"nickname": "x"}, headers=bearer(alice)), "invalid_token", 401)
    assert await erase_at(rows, alice) is not None


async def test_leaving_and_a_login_at_once_leave_no_open_session(login: LogIn, client: Client, rows: Rows) -> None:
    alice = await login("alice")
    answers = await asyncio.gather(leave(client, alice), *(login.ask("alice") for _ in range(10)))
    assert answers[0].status_code == 202
    assert await number(rows, "sessions WHERE revoked_at IS NULL") == 0


async def test_without_days_of_grace_an_erasure_is_immediate(
    make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx, rows: Rows
) -> None:
    client = make_client(await make_services())
    alice = await LogIn(client, wechat)("alice")
    assert (await leave(client, alice)).status_code == 204
    assert await number(rows, "users") == 0
