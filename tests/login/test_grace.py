"""With `ERASURE_GRACE_DAYS`, users who ask to be erased can't log in for some days, but can change their mind."""

import asyncio
import json
from asyncio import gather
from typing import Any

import httpx
import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.receiver import receiving
from tests.sign_up.hooks import SECRET, saying
from tests.world import NUMBER, Admin, Body, Client, LogIn, Rows, Stage, add_client, leave, recorded, set_roles
from wxauth.events.placing import place_events
from wxauth.housekeeping.housekeeping import sweep_now

DAYS = 7
LATER = "2026-11-27T08:00:00Z"
"""The time at which a user is erased who has left at the start of a test."""


pytestmark = [pytest.mark.settings(erasure_grace_days=DAYS), pytest.mark.usefixtures("bystander")]


@pytest.fixture
async def alice(login: LogIn, client: Client) -> Body:
    """Return the login of Alice, who has left."""
    alice = await login("alice", unionid="union-alice")
    left = await leave(client, alice)
    assert (left.status_code, left.json(), left.headers["cache-control"]) == (202, {"erase_at": LATER}, "no-store")
    return alice


async def types(rows: Rows, user: Body) -> list[str]:
    return [kind for (kind,) in await recorded(rows, "type", "user_id = $1", user["user"]["id"])]


async def stored(rows: Rows, login: Body) -> Any:
    return await rows.fetchrow("SELECT * FROM users WHERE id::text = $1", login["user"]["id"])


def is_leaving(answer: httpx.Response) -> None:
    assert problem_of(answer, "account_leaving", 403)["erase_at"] == LATER


async def test_who_leaves_is_signed_out_everywhere_at_once(stage: Stage) -> None:
    alice, other = await stage.login("alice"), await stage.login("alice")
    assert (await leave(stage.client, alice)).status_code == 202
    for session in (alice, other):
        problem_of(await stage.me(session), "invalid_token", 401)
        problem_of(await stage.refresh(session), "session_revoked", 400)
    events = await recorded(stage.rows, "actor, type, data", "type IN ('session.ended', 'user.leaving')")
    assert [actor for actor, *_ in events] == [alice["user"]["id"]] * 2
    told = {kind: data for _, kind, data in events}
    assert (told["user.leaving"], told["session.ended"]["reason"]) == ({"erase_at": LATER}, "leaving")


@pytest.mark.parametrize("profile", [{}, {"nickname": "Alice"}], ids=["plain", "with a name"])
async def test_a_login_meanwhile_is_refused_and_changes_nothing(stage: Stage, alice: Body, profile: Body) -> None:
    before = await stage.rows.fetchrow("SELECT * FROM users")
    stage.clock.advance(days=1)
    is_leaving(await stage.login.ask("alice", **profile))
    is_leaving(await stage.login.ask("alice", unionid="union-alice", stay=False, **profile))
    for _ in range(2):
        is_leaving(await stage.login.ask("alice", app=OTHER_APP, unionid="union-alice", **profile))
    assert await stage.rows.fetchrow("SELECT * FROM users") == before
    assert await stage.number("identities") == 1
    assert await stage.number("sessions WHERE revoked_at IS NULL") == 0
    back = await stage.login("alice", app=OTHER_APP, unionid="union-alice", stay=True)
    assert back["user"]["id"] == alice["user"]["id"]


async def test_a_login_with_stay_cancels_it_and_changes_nothing_else(stage: Stage, alice: Body) -> None:
    again = await stage.login("alice", unionid="union-alice", stay=True)
    assert (again["user"]["id"], again["is_new_user"]) == (alice["user"]["id"], False)
    assert (await stage.me(again)).status_code == 200
    assert (await stored(stage.rows, alice))["erase_at"] is None
    assert (await types(stage.rows, alice))[-1] == "user.stayed"
    assert (await stage.login("alice"))["user"]["id"] == alice["user"]["id"]
    bob = [await stage.login("bob", stay=True) for _ in range(2)]
    assert await types(stage.rows, bob[0]) == ["user.created"], "who is not leaving"
    assert bob[0]["user"]["id"] == bob[1]["user"]["id"]


async def test_at_the_time_housekeeping_erases_the_person(stage: Stage, alice: Body) -> None:
    stage.clock.advance(days=DAYS, seconds=-1)
    await sweep_now(stage.services)
    assert await stage.number("users") == 1
    stage.clock.advance(seconds=1)
    await sweep_now(stage.services)
    assert await stage.number("users") == 0
    erased = await recorded(stage.rows, "actor, user_id", "type = 'user.erased'")
    assert erased == [(alice["user"]["id"], alice["user"]["id"])]
    again = await stage.login("alice", unionid="union-alice", stay=True)
    assert (again["is_new_user"], again["user"]["id"] != alice["user"]["id"]) == (True, True)


async def test_a_login_with_stay_and_housekeeping_at_once_end_in_one_of_both(stage: Stage, alice: Body) -> None:
    stage.clock.advance(days=DAYS)
    coming = asyncio.create_task(stage.login("alice", stay=True))
    await asyncio.gather(*(sweep_now(stage.services) for _ in range(2)))
    again = await coming
    erased = await stage.number("events WHERE type = 'user.erased'")
    stayed = await stage.number("events WHERE type = 'user.stayed'")
    assert erased + stayed == 1
    assert again["is_new_user"] is (erased == 1)
    assert await stage.number("users WHERE erase_at IS NULL") == 1


async def test_a_ban_counts_first_and_a_stay_lifts_none(stage: Stage, alice: Body, root: Admin) -> None:
    await root.change(alice["user"]["id"], status="disabled")
    problem_of(await stage.login.ask("alice", stay=True), "account_disabled", 403)
    user = await root.change(alice["user"]["id"], status="active")
    assert user["erase_at"] == LATER, "a ban that is lifted leaves it"
    is_leaving(await stage.login.ask("alice"))


@pytest.mark.oldest_postgres
async def test_a_later_ban_outlasts_the_erasure(stage: Stage, alice: Body, root: Admin) -> None:
    user_id = alice["user"]["id"]
    banned = await root.change(user_id, status="disabled", until="2026-12-20T08:00:00Z")
    assert (banned["status"], banned["erase_at"]) == ("disabled", LATER)
    stage.clock.advance(days=DAYS + 1)
    await sweep_now(stage.services)
    problem_of(await stage.login.ask("alice", unionid="union-alice", stay=True), "account_disabled", 403)
    assert await stage.number("users") == 2
    stage.clock.advance(days=30)
    for _ in range(2):  # first the ban ends, and then the erasure that waited for it
        await sweep_now(stage.services)
    assert await stage.number("users") == 1
    assert (await types(stage.rows, alice))[-3:] == ["user.banned", "user.unbanned", "user.erased"]


@pytest.mark.parametrize("who", ["the identity's user", "the unionid's user"])
async def test_a_late_unionid_merges_nobody_who_is_leaving(stage: Stage, who: str) -> None:
    named = await stage.login("alice", app=OTHER_APP, unionid="union-alice")
    nameless = await stage.login("alice")
    leaving = nameless if who == "the identity's user" else named
    assert (await leave(stage.client, leaving)).status_code == 202
    is_leaving(await stage.login.ask("alice", unionid="union-alice"))
    # A ban takes precedence, even if it is a ban of the other user.
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE erase_at IS NULL")
    problem_of(await stage.login.ask("alice", unionid="union-alice"), "account_disabled", 403)
    await stage.rows.execute("UPDATE users SET status = 'active'")
    assert await stage.number("users") == 2
    together = await stage.login("alice", unionid="union-alice", stay=True)
    assert together["user"]["id"] == named["user"]["id"]
    assert await stage.number("users") == 1
    assert await stage.number("users WHERE erase_at IS NOT NULL") == 0
    assert await stage.number("events WHERE type = 'user.stayed'") == 1


async def test_administrators_see_it_and_cancel_it(stage: Stage, alice: Body, root: Admin) -> None:
    path = f"/users/{alice['user']['id']}"
    assert (await root.read(path))["erase_at"] == LATER
    listed = {user["id"]: user["erase_at"] for user in (await root.read("/users"))["items"]}
    assert (listed.pop(alice["user"]["id"]), set(listed.values())) == (LATER, {None})
    for value in (LATER, "", False, 0):
        problem_of(await root.ask("PATCH", path, json={"erase_at": value}), "invalid_request", 422)
    assert (await root.change(alice["user"]["id"], erase_at=None))["erase_at"] is None
    assert (await root.change(alice["user"]["id"], erase_at=None))["erase_at"] is None, "and again changes nothing"
    assert await recorded(stage.rows, "actor", "type = 'user.stayed'") == [(root.id,)]
    assert (await stage.login("alice"))["user"]["id"] == alice["user"]["id"]


async def test_nobody_who_is_leaving_is_merged_or_split(stage: Stage, root: Admin) -> None:
    alice, bob = await stage.login("alice", unionid="union-alice"), await stage.login("bob")
    await stage.login("alice", app=OTHER_APP, unionid="union-alice")
    assert (await leave(stage.client, alice)).status_code == 202
    for former, into in ((alice, bob), (bob, alice)):
        refused = await root.merge(former["user"]["id"], into=into["user"]["id"])
        problem_of(refused, "merge_refused", 409)
    identity = {"app_id": APP["app_id"], "openid": alice["user"]["openid"]}
    refused = await root.ask("POST", f"/users/{alice['user']['id']}/split", json=identity)
    assert "requested erasure" in problem_of(refused, "split_refused", 409)["detail"]
    assert await stage.number("users") == 3
    assert (await root.ask("DELETE", f"/users/{alice['user']['id']}")).status_code == 204, "and at once"
    assert await stage.number("users") == 2


async def test_who_is_leaving_counts_for_no_last_administrator(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await set_roles(stage.rows, "admin")
    left = await asyncio.gather(leave(stage.client, alice), leave(stage.client, bob))
    assert sorted(answer.status_code for answer in left) == [202, 409]
    stays = alice if left[0].status_code == 409 else bob
    problem_of(await leave(stage.client, stays), "last_admin", 409)


async def test_siblings_see_it(stage: Stage, alice: Body) -> None:
    bob = await stage.login("bob")
    auth = await add_client(stage.services.database, "ledger", scopes=["users", "events"], now=stage.clock())
    basic = httpx.BasicAuth(*auth)
    for user, expected in ((alice, LATER), (bob, None)):
        assert (await stage.client.get(f"/v1/users/{user['user']['id']}", auth=basic)).json()["erase_at"] == expected
    ids = {"ids": [alice["user"]["id"]]}
    assert (await stage.client.post("/v1/users/lookup", json=ids, auth=basic)).json()["items"][0]["erase_at"] == LATER
    await place_events(stage.services)
    events = (await stage.client.get("/v1/events", params={"type": "user.leaving"}, auth=basic)).json()["items"]
    assert [(event["user_id"], event["data"]) for event in events] == [(alice["user"]["id"], {"erase_at": LATER})]


async def test_leaving_and_a_login_at_once_leave_no_open_session(stage: Stage) -> None:
    alice = await stage.login("alice")
    answers = await asyncio.gather(leave(stage.client, alice), *(stage.login.ask("alice") for _ in range(10)))
    assert answers[0].status_code == 202
    assert await stage.number("sessions WHERE revoked_at IS NULL") == 0


# Changes from elsewhere while a user is leaving.


async def gone(stage: Stage, person: str = "alice", **fields: Any) -> Body:
    """Log in a user, let the user leave, and return the login."""
    login = await stage.login(person, **fields)
    if "phone_code" in fields:
        assert login["user"]["phone"] == NUMBER, login
    assert (await leave(stage.client, login)).status_code == 202
    return login


@pytest.mark.usefixtures("simulated")
async def test_whoever_proves_their_number_has_it_and_they_go_on_leaving(stage: Stage) -> None:
    alice = await gone(stage, phone_code=stage.phone_code())
    bob = await stage.login("bob", phone_code=stage.phone_code("bob"))
    assert bob["user"]["phone"] == NUMBER
    left = await stored(stage.rows, alice)
    assert (left["phone"], left["erase_at"] is None) == (None, False)
    assert (await stage.login("alice", stay=True))["user"]["phone"] is None


@pytest.mark.parametrize("policy", ["link", "refuse"])
@pytest.mark.usefixtures("simulated")
async def test_nobody_becomes_them_by_their_number(stage: Stage, policy: str) -> None:
    stage = await stage.replica(phone_policy=policy)
    alice = await gone(stage, phone_code=stage.phone_code())
    bob = await stage.login("bob")
    problem_of(await stage.bind(bob, stage.phone_code("bob")), "phone_taken", 409)
    assert await stage.number("users") == 2
    assert (await stored(stage.rows, alice))["phone"] == NUMBER


@pytest.mark.usefixtures("simulated")
async def test_a_hook_gives_nobody_their_external_id(stage: Stage) -> None:
    async with receiving() as hook:
        hook.usual = saying(allow=True, external_id="10023")
        stage = await stage.replica(sign_up_hook_url=hook.url, sign_up_hook_secret=SECRET)
        alice = await gone(stage)
        assert (await stored(stage.rows, alice))["external_id"] == "10023"
        assert (await stage.login("bob"))["user"]["external_id"] is None


@pytest.mark.usefixtures("simulated")
async def test_of_two_who_leave_and_prove_one_number_at_once_none_comes_back(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    codes = [stage.phone_code(), stage.phone_code("bob")]
    answers = await gather(
        leave(stage.client, alice), leave(stage.client, bob), stage.bind(alice, codes[0]), stage.bind(bob, codes[1])
    )
    assert [answer.status_code for answer in answers[:2]] == [202, 202]
    assert {answer.status_code for answer in answers[2:]} <= {200, 401}
    assert await stage.number("users WHERE erase_at IS NOT NULL") == 2
    assert await stage.number("sessions WHERE revoked_at IS NULL") == 0
    assert await stage.number(f"users WHERE phone = '{NUMBER}'") <= 1
    assert json.loads(answers[0].text).keys() == {"erase_at"}
