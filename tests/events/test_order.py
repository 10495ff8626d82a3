"""The feed, the webhooks and the audit trail list a user's events in the order in which they were committed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.fakes import OTHER_APP
from tests.world import AddSibling, Admin, Body, Rows, Stage, bearer, locked, until_locked
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope
from wxauth.events.placing import place_events
from wxauth.housekeeping.queries import replace_old_sessions

pytestmark = pytest.mark.own_database

Ask = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class History:
    """The feed, the audit trail, and an administrator who causes some of the events."""

    stage: Stage
    root: Admin
    reader: Credentials

    async def of(self, user_id: str) -> list[Body]:
        """Return a user's events from the feed.

        Check that the audit trail and the events' times have the same order.
        """
        await place_events(self.stage.services)
        answer = await self.stage.client.get("/v1/events", params={"limit": 1000}, auth=self.reader)
        feed = [event for event in answer.json()["items"] if event["user_id"] == user_id]
        trail = (await self.root.read("/events", user_id=user_id, limit=100))["items"]
        ids = [event["id"] for event in feed]
        assert [event["id"] for event in reversed(trail) if event["id"] in ids] == ids == sorted(ids)
        times = [datetime.fromisoformat(event["at"]) for event in feed]
        assert times == sorted(times)
        return feed

    async def types(self, user_id: str) -> list[str]:
        return [event["type"] for event in await self.of(user_id)]

    async def one_after_the_other(self, user_id: str, first: Ask, second: Ask) -> None:
        """Let both requests wait for the user's lock. The clock is ahead when the first request runs."""
        async with locked(self.stage.rows, user_id):
            self.stage.clock.advance(seconds=2)
            both = [asyncio.ensure_future(first())]
            await until_locked(self.stage.rows)
            self.stage.clock.advance(seconds=-1)
            both.append(asyncio.ensure_future(second()))
            await until_locked(self.stage.rows, 2)
        await asyncio.gather(*both)


@pytest.fixture
async def history(stage: Stage, root: Admin, add_sibling: AddSibling) -> History:
    return History(stage, root, await add_sibling("ledger", Scope.EVENTS))


async def test_of_a_ban_and_its_end_at_once_the_last_word_is_the_databases(history: History) -> None:
    user_id = (await history.stage.login("alice"))["user"]["id"]
    await history.one_after_the_other(
        user_id,
        lambda: history.root.change(user_id, status="disabled"),
        lambda: history.root.change(user_id, status="active"),
    )
    assert await history.stage.rows.fetchval("SELECT status FROM users WHERE id = $1", user_id) == "active"
    assert await history.types(user_id) == ["user.created", "user.banned", "session.ended", "user.unbanned"]


@pytest.mark.parametrize("is_ended_first", [True, False])
@pytest.mark.slow
async def test_the_end_of_a_session_waits_for_the_user(history: History, is_ended_first: bool) -> None:
    alice = await history.stage.login("alice")
    user_id = alice["user"]["id"]

    async def log_out() -> None:
        assert (await history.stage.client.post("/v1/logout", headers=bearer(alice))).status_code == 204

    async def add_role() -> None:
        await history.root.change(user_id, roles=["editor"])

    asks = [log_out, add_role] if is_ended_first else [add_role, log_out]
    await history.one_after_the_other(user_id, *asks)
    expected = ["session.ended", "user.roles_changed"]
    assert await history.types(user_id) == ["user.created", *(expected if is_ended_first else reversed(expected))]


async def test_the_end_of_a_session_waits_for_no_other_user(history: History) -> None:
    alice, bob = await history.stage.login("alice"), await history.stage.login("bob")
    async with locked(history.stage.rows, bob["user"]["id"]):
        assert (await history.stage.client.post("/v1/logout", headers=bearer(alice))).status_code == 204


async def test_a_reused_refresh_token_ends_the_session_after_the_change_that_was_first(history: History) -> None:
    alice = await history.stage.login("alice")
    user_id = alice["user"]["id"]
    refreshed = await history.stage.refresh(alice)
    await history.stage.refresh(refreshed.json())

    async def reuse() -> None:
        assert (await history.stage.refresh(alice)).json()["code"] == "refresh_token_reused"

    await history.one_after_the_other(user_id, lambda: history.root.change(user_id, roles=["editor"]), reuse)
    assert await history.types(user_id) == ["user.created", "user.roles_changed", "session.ended"]
    ended = (await history.of(user_id))[-1]
    reused = {"session_ids": [alice["session_id"]], "reason": "reused"}
    assert (ended["actor"], ended["data"]) == ("system", reused)


async def test_a_logout_during_a_merge_ends_the_session_of_the_user_that_remains(history: History) -> None:
    alice, other = await history.stage.login("alice"), await history.stage.login("alice", app=OTHER_APP)
    user_id, former_id = alice["user"]["id"], other["user"]["id"]
    async with locked(history.stage.rows, former_id):
        merging = asyncio.create_task(history.root.merge(former_id, into=user_id))
        await until_locked(history.stage.rows)
        leaving = asyncio.create_task(history.stage.client.post("/v1/logout", headers=bearer(other)))
        await until_locked(history.stage.rows, 2)
    assert ((await merging).status_code, (await leaving).status_code) == (200, 204)
    reason = "SELECT revoked_reason FROM sessions WHERE id = $1"
    assert await history.stage.rows.fetchval(reason, other["session_id"]) == "signed_out"
    assert await history.types(former_id) == ["user.created"]
    assert await history.types(user_id) == ["user.created", "user.merged", "identity.added", "session.ended"]


# A copy of a session, by whose id the check of replaced sessions draws it.
DRAWN_LOGIN = """
    INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)
    SELECT overlay(id::text PLACING '000000000001' FROM 25)::uuid, user_id, app_id, openid, created_at, last_used_at,
           expires_at
      FROM sessions WHERE id::text = $1
"""


async def test_a_session_that_is_replaced_waits_for_the_user(history: History) -> None:
    kept: dict[str, Any] = {"max_open": 2, "max_stored": 100, "logins": 10, "size": 10, "pause": timedelta(minutes=10)}
    [alice, *_] = [await history.stage.login("alice") for _ in range(3)]
    user_id = alice["user"]["id"]
    await history.stage.rows.execute(DRAWN_LOGIN, alice["session_id"])
    a_minute_later = history.stage.clock() + timedelta(minutes=2)  # when the logins have ended
    await history.one_after_the_other(
        user_id,
        lambda: history.root.change(user_id, roles=["editor"]),
        lambda: replace_old_sessions(history.stage.services.database, **kept, now=a_minute_later),
    )
    assert await history.types(user_id) == ["user.created", "user.roles_changed", "session.ended"]


async def test_an_event_put_after_a_later_one_has_the_same_millisecond_in_id_and_time(rows: Rows, root: Admin) -> None:
    """The audit trail is searched by time, and this search uses the time in the ids."""
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
