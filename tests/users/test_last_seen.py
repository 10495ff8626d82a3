"""Staff and services see on which day a user was last here, and select those who have been away."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from tests.fakes import OTHER_APP
from tests.problems import problem_of
from tests.processes import Command
from tests.world import AddSibling, Admin, Body, Stage, locked
from wxauth.clients.models import Scope
from wxauth.housekeeping.housekeeping import sweep
from wxauth.users import last_seen_queries
from wxauth.users.last_seen_queries import LastSeen

LOGGED_IN = "2026-11-20T08:00:00Z"


Seen = Callable[[Body], Awaitable[str | None]]


@pytest.fixture
async def seen(stage: Stage, add_sibling: AddSibling) -> Seen:
    """Return the function that reads when a user was last seen, as another service reads it."""
    service = await add_sibling("orders", Scope.USERS)

    async def read(login: Body) -> str | None:
        answer = await stage.client.get(f"/v1/users/{login['user']['id']}", auth=service)
        return answer.json()["last_seen_at"]

    return read


async def as_root(stage: Stage, root: Admin) -> Admin:
    """Return the administrator with a token that has not expired."""
    return Admin(root.client, await stage.login("root"))


async def refresh(stage: Stage, login: Body, at: str) -> Body:
    """Refresh at this time, and store what the service has collected."""
    stage.clock.now = datetime.fromisoformat(at)
    answer = await stage.refresh(login)
    assert answer.status_code == 200
    await stage.services[LastSeen].store()
    return answer.json()


async def row_versions(stage: Stage) -> list[Any]:
    return await stage.rows.fetch("SELECT id, xmin FROM users ORDER BY id")


async def test_a_refresh_on_a_later_day_counts_as_seen_everywhere(stage: Stage, root: Admin, seen: Seen) -> None:
    alice = await stage.login("alice")
    assert await seen(alice) == LOGGED_IN
    alice = await refresh(stage, alice, "2026-11-20T23:59:59Z")
    assert await seen(alice) == LOGGED_IN
    alice = await refresh(stage, alice, "2026-11-21T00:00:00Z")
    user_id = alice["user"]["id"]
    root = await as_root(stage, root)
    listed = {user["id"]: user for user in (await root.read("/users"))["items"]}
    own = (await stage.client.get("/v1/me/export", headers={"Authorization": f"Bearer {alice['access_token']}"})).json()
    assert await seen(alice) == "2026-11-21T00:00:00Z"
    for user in (listed[user_id], own["user"], await root.read(f"/users/{user_id}")):
        assert (user["last_seen_at"], user["last_login_at"]) == ("2026-11-21T00:00:00Z", LOGGED_IN)
    assert "last_refresh_at" not in own["user"]
    stage.clock.advance(hours=1)
    await stage.login("alice")
    assert await seen(alice) == "2026-11-21T01:00:00Z"


async def test_a_day_of_refreshes_writes_the_row_of_a_user_once(stage: Stage) -> None:
    alice = await stage.login("alice")
    alice = await refresh(stage, alice, "2026-11-21T00:00:00Z")
    before = await row_versions(stage)
    for hour in (1, 12, 23):
        alice = await refresh(stage, alice, f"2026-11-21T{hour:02}:59:59Z")
    assert await row_versions(stage) == before
    await refresh(stage, alice, "2026-11-22T00:00:00Z")
    assert await row_versions(stage) != before


async def test_two_replicas_write_the_day_of_a_user_once(stage: Stage) -> None:
    alice = await stage.login("alice")
    replica = await stage.replica()
    stage.clock.advance(days=1)
    for each in (stage, replica):
        alice = (await each.refresh(alice)).json()
        stage.clock.advance(hours=1)
    await stage.services[LastSeen].store()
    before = await row_versions(stage)
    await replica.services[LastSeen].store()
    assert await row_versions(stage) == before


async def test_a_day_outlives_the_sessions(stage: Stage, root: Admin) -> None:
    alice = await refresh(stage, await stage.login("alice"), "2026-11-21T12:00:00Z")
    stage.clock.advance(days=400)
    await sweep(stage.services, page_size=10, pause=0)
    assert await stage.number("sessions WHERE user_id::text = $1", alice["user"]["id"]) == 0
    assert await stage.rows.fetchval("SELECT last_refresh_at FROM users WHERE id::text = $1", alice["user"]["id"])


async def test_a_write_waits_for_nobody_and_is_made_up_by_the_next_refresh(stage: Stage, seen: Seen) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    stage.clock.advance(days=1)
    alice, bob = [(await stage.refresh(each)).json() for each in (alice, bob)]
    async with locked(stage.rows, alice["user"]["id"]):
        await stage.services[LastSeen].store()
    assert await seen(alice) == LOGGED_IN
    assert await seen(bob) == "2026-11-21T08:00:00Z"
    await refresh(stage, alice, "2026-11-21T09:00:00Z")
    assert await seen(alice) == "2026-11-21T09:00:00Z"


async def test_only_so_many_users_wait_to_be_stored(stage: Stage, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_seen_queries, "MAX_WAITING", 3)
    monkeypatch.setattr(last_seen_queries, "_MAX_USERS_STORED_AT_ONCE", 2)
    logins = [await stage.login(f"person-{number}") for number in range(4)]
    stage.clock.advance(days=1)
    for each in logins:
        assert (await stage.refresh(each)).status_code == 200
    await stage.services[LastSeen].store()
    assert [await seen(each) == LOGGED_IN for each in logins] == [False, False, False, True]


async def test_a_refused_refresh_is_no_visit(stage: Stage) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute("UPDATE users SET status = 'disabled'")
    stage.clock.advance(days=1)
    problem_of(await stage.refresh(alice), "account_disabled", 403)
    await stage.services[LastSeen].store()
    assert await stage.number("users WHERE last_refresh_at IS NOT NULL") == 0


async def test_a_merge_keeps_the_later_visit_and_a_split_copies_it(stage: Stage, root: Admin, seen: Seen) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob", app=OTHER_APP)
    bob = await refresh(stage, bob, "2026-11-22T08:00:00Z")
    alice = await refresh(stage, alice, "2026-11-21T08:00:00Z")
    root = await as_root(stage, root)
    assert (await root.merge(bob["user"]["id"], into=alice["user"]["id"])).status_code == 200
    assert await seen(alice) == "2026-11-22T08:00:00Z"
    identity = {"app_id": OTHER_APP["app_id"], "openid": bob["user"]["openid"]}
    split = await root.ask("POST", f"/users/{alice['user']['id']}/split", json=identity)
    assert split.status_code == 200, split.text
    assert {each["last_seen_at"] for each in split.json().values()} == {"2026-11-22T08:00:00Z"}


# The selection of those who have been away.

SEEN_BEFORE = {
    "2026-11-20": ["imported"],
    "2026-11-20T08:00:00Z": ["imported"],
    "2026-11-20T16:00:00+08:00": ["imported"],
    "2026-11-20T08:00:01Z": ["imported", "gone"],
    "2026-11-21": ["imported", "gone"],
    "2026-11-22": ["imported", "gone", "daily"],
    "2025-01-01": [],
    "": ["imported", "gone", "daily", "Root"],
}


async def fill(stage: Stage) -> None:
    """Add a user who was imported and never seen, one who has gone, and one who refreshes daily."""
    await stage.rows.execute(
        "INSERT INTO users (id, nickname, created_at) VALUES (gen_random_uuid(), 'imported', '2025-05-05Z')"
    )
    await stage.login("gone", nickname="gone")
    await refresh(stage, await stage.login("daily", nickname="daily"), "2026-11-21T23:00:00Z")


@pytest.mark.parametrize(("before", "names"), SEEN_BEFORE.items())
async def test_who_was_last_seen_before_a_day_or_a_time_is_selected(
    stage: Stage, root: Admin, before: str, names: list[str]
) -> None:
    await fill(stage)
    stage.clock.now = datetime.fromisoformat("2026-11-22T10:00:00Z")
    root = await as_root(stage, root)
    assert sorted(map(str, await root.names(seen_before=before))) == sorted(names)


async def test_the_selection_goes_with_the_other_filters_and_from_page_to_page(stage: Stage, root: Admin) -> None:
    await fill(stage)
    root = await as_root(stage, root)
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE nickname = 'gone'")
    query = {"seen_before": "2026-11-22"}
    assert await root.names(**query, status="disabled") == ["gone"]
    assert await root.names(**query, q="imp") == ["imported"]
    found, cursor = [], ""
    while cursor is not None:
        page = await root.read("/users", **query, limit=1, cursor=cursor)
        found += [user["nickname"] for user in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(map(str, found)) == ["Root", "daily", "gone", "imported"]


@pytest.mark.parametrize(
    "wrong",
    ["2026", "2026-13-01", "2026-02-30", "20261120", "1764000000", "2026-11-20T08:00:00", "２０２６-11-20"],
)
async def test_what_is_no_date_is_refused(root: Admin, wrong: str) -> None:
    problem_of(await root.ask("GET", "/users", params={"seen_before": wrong}), "invalid_request", 422)


@pytest.mark.process
async def test_the_command_selects_and_shows_the_same(stage: Stage, root: Admin, users: Command) -> None:
    await fill(stage)
    root = await as_root(stage, root)
    for before, number in (("2026-11-20", 1), ("2026-11-21T00:00:00+08:00", 2)):
        listed = await users("list", "--seen-before", before, "--json")
        answer = await root.read("/users", seen_before=before)
        assert json.loads(listed.stdout) == answer
        assert len(answer["items"]) == number
    shown = await users("list", "--seen-before", "2026-11-22")
    assert "2026-11-21T23:00+00:00" in shown.stdout
    assert "LAST_SEEN_AT" in shown.stdout.splitlines()[0]
    wrong = await users("list", "--seen-before", "2026-11")
    assert (wrong.returncode, "must be a date such as 2026-11-27" in wrong.stderr) == (2, True)
