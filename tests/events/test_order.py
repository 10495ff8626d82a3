"""For each user, feed, webhooks and trail have the order in which the changes were committed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tests.clock import Clock
from tests.fakes import OTHER_APP
from tests.world import AddSibling, Admin, Body, Client, LogIn, Rows, bearer, make_admin, until_locked
from wxauth.server.clients.models import Scope
from wxauth.server.core.services import Services
from wxauth.server.events.webhook_deliveries import place_events
from wxauth.server.housekeeping.rows import replace_old_sessions

pytestmark = pytest.mark.own_database

Ask = Callable[[], Awaitable[object]]
History = Callable[[str], Awaitable[list[Body]]]


@pytest.fixture
async def root(login: LogIn, client: Client, rows: Rows) -> Admin:
    return await make_admin(client, rows, await login("root"))


@pytest.fixture
async def history(client: Client, services: Services, add_sibling: AddSibling, root: Admin) -> History:
    """The events about a user in the feed, in its order, which is also that of the trail and of their times."""
    reader = await add_sibling("ledger", Scope.EVENTS)

    async def history(user_id: str) -> list[Body]:
        await place_events(services)
        answer = await client.get("/v1/events", params={"limit": 1000}, auth=reader)
        feed = [event for event in answer.json()["items"] if event["user_id"] == user_id]
        trail = (await root.read("/events", user_id=user_id, limit=100))["items"]
        ids = [event["id"] for event in feed]
        assert [event["id"] for event in reversed(trail) if event["id"] in ids] == ids == sorted(ids)
        times = [datetime.fromisoformat(event["at"]) for event in feed]
        assert times == sorted(times)
        return feed

    return history


def types(events: Sequence[Body]) -> list[str]:
    return [event["type"] for event in events]


@asynccontextmanager
async def locked(rows: Rows, user_id: str) -> AsyncIterator[None]:
    """While another transaction holds the user."""
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user_id)
        yield


async def one_after_the_other(rows: Rows, clock: Clock, user_id: str, first: Ask, second: Ask) -> None:
    """Both wait for the user, and the clock of the replica that carries out the first one is ahead."""
    async with locked(rows, user_id):
        clock.advance(seconds=2)
        both = [asyncio.ensure_future(first())]
        await until_locked(rows)
        clock.advance(seconds=-1)
        both.append(asyncio.ensure_future(second()))
        await until_locked(rows, 2)
    await asyncio.gather(*both)


async def test_of_a_ban_and_its_end_at_once_the_last_word_is_the_databases(
    root: Admin, login: LogIn, history: History, rows: Rows, clock: Clock
) -> None:
    user_id = (await login("alice"))["user"]["id"]
    await one_after_the_other(
        rows,
        clock,
        user_id,
        lambda: root.change(user_id, status="disabled"),
        lambda: root.change(user_id, status="active"),
    )
    assert await rows.fetchval("SELECT status FROM users WHERE id = $1", user_id) == "active"
    assert types(await history(user_id)) == ["user.created", "user.banned", "session.ended", "user.unbanned"]


@pytest.mark.parametrize("is_ended_first", [True, False])
@pytest.mark.slow
async def test_the_end_of_a_session_waits_for_the_user(
    root: Admin, client: Client, login: LogIn, history: History, rows: Rows, clock: Clock, is_ended_first: bool
) -> None:
    alice = await login("alice")
    user_id = alice["user"]["id"]

    async def log_out() -> None:
        assert (await client.post("/v1/logout", headers=bearer(alice))).status_code == 204

    async def add_role() -> None:
        await root.change(user_id, roles=["editor"])

    asks = [log_out, add_role] if is_ended_first else [add_role, log_out]
    await one_after_the_other(rows, clock, user_id, *asks)
    expected = ["session.ended", "user.roles_changed"]
    assert types(await history(user_id)) == ["user.created", *(expected if is_ended_first else reversed(expected))]


async def test_a_reused_refresh_token_ends_the_session_after_the_change_that_was_first(
    root: Admin, client: Client, login: LogIn, history: History, rows: Rows, clock: Clock
) -> None:
    alice = await login("alice")
    user_id, token = alice["user"]["id"], {"refresh_token": alice["refresh_token"]}
    refreshed = [await client.post("/v1/refresh", json=token)]
    refreshed.append(await client.post("/v1/refresh", json={"refresh_token": refreshed[0].json()["refresh_token"]}))

    async def reuse() -> None:
        assert (await client.post("/v1/refresh", json=token)).json()["code"] == "refresh_token_reused"

    await one_after_the_other(rows, clock, user_id, lambda: root.change(user_id, roles=["editor"]), reuse)
    events = await history(user_id)
    assert types(events) == ["user.created", "user.roles_changed", "session.ended"]
    assert (events[-1]["actor"], events[-1]["data"]) == (
        "system",
        {"session_ids": [alice["session_id"]], "reason": "reused"},
    )


async def test_a_logout_during_a_merge_ends_the_session_of_the_user_that_remains(
    root: Admin, client: Client, login: LogIn, history: History, rows: Rows
) -> None:
    alice, other = await login("alice"), await login("alice", app=OTHER_APP)
    user_id, former_id = alice["user"]["id"], other["user"]["id"]
    async with locked(rows, former_id):
        merging = asyncio.create_task(root.merge(former_id, into=user_id))
        await until_locked(rows)
        leaving = asyncio.create_task(client.post("/v1/logout", headers=bearer(other)))
        await until_locked(rows, 2)
    assert ((await merging).status_code, (await leaving).status_code) == (200, 204)
    assert await rows.fetchval("SELECT revoked_reason FROM sessions WHERE id = $1", other["session_id"]) == "signed_out"
    assert types(await history(former_id)) == ["user.created"]
    assert types(await history(user_id)) == ["user.created", "user.merged", "identity.added", "session.ended"]


async def test_a_folded_change_of_a_locked_user_delays_nobody(
    client: Client, services: Services, login: LogIn, history: History, rows: Rows, clock: Clock
) -> None:
    alice, bob = await login("alice"), await login("bob")
    for person in (alice, bob):
        for nickname in ("A", "B"):
            await client.patch("/v1/me", json={"nickname": nickname}, headers=bearer(person))
    await place_events(services)
    clock.advance(minutes=1)
    both = [person["user"]["id"] for person in (alice, bob)]
    async with locked(rows, both[0]):
        once, twice = [types(await history(user_id)).count("user.profile_changed") for user_id in both]
    assert (once, twice) == (1, 2)
    assert types(await history(both[0])).count("user.profile_changed") == 2


async def test_a_session_that_is_replaced_waits_for_the_user(
    root: Admin, services: Services, login: LogIn, history: History, rows: Rows, clock: Clock
) -> None:
    [alice, *_] = [await login("alice") for _ in range(3)]
    user_id = alice["user"]["id"]
    await one_after_the_other(
        rows,
        clock,
        user_id,
        lambda: root.change(user_id, roles=["editor"]),
        lambda: replace_old_sessions(
            services.database, open_kept=2, ended_kept=100, size=10, now=clock(), pause=timedelta(minutes=10)
        ),
    )
    assert types(await history(user_id)) == ["user.created", "user.roles_changed", "session.ended"]


async def test_an_event_put_after_a_later_one_has_the_same_millisecond_in_id_and_time(rows: Rows, root: Admin) -> None:
    """The trail is searched by time through ids."""
    newest = "SELECT id, at FROM events WHERE user_id = $1 ORDER BY id DESC LIMIT 1"
    before = await rows.fetchrow(newest, root.id)
    await rows.execute(
        "INSERT INTO events (id, type, at, actor, user_id) VALUES ($1, 'user.exported', $2, 'system', $3)",
        "00000000-0000-7000-8000-000000000001",
        before["at"] - timedelta(days=1),
        root.id,
    )
    after = await rows.fetchrow(newest, root.id)
    assert after["at"] - before["at"] == timedelta(milliseconds=1)
    assert after["id"].int >> 80 == (before["id"].int >> 80) + 1


async def test_an_event_of_a_new_user_reads_no_others_even_if_the_statistics_know_one_user(rows: Rows) -> None:
    record = (
        "INSERT INTO events (id, type, at, actor, user_id)"
        " SELECT gen_random_uuid(), 'user.created', now(), 'system', user_id FROM unnest($1::uuid[]) AS user_id"
    )
    await rows.execute(record, [UUID(int=1)] * 200)
    await rows.execute("ANALYZE events")
    async with rows.transaction():
        await rows.execute(record, [uuid4() for _ in range(1000)])
        read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'events'"
        assert await rows.fetchval(read) < 1000
