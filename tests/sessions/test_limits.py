"""An identity keeps its hundred newest sessions, and lists of sessions have pages."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes import OTHER_APP
from tests.world import Body, Stage, bearer, body_of
from wxauth.housekeeping.housekeeping import MAX_STORED_SESSIONS, REPLACEMENTS_PAUSE, replace_sessions
from wxauth.housekeeping.queries import replace_old_sessions
from wxauth.settings.apps import MAX_OPEN_SESSIONS

OPEN = "sessions WHERE revoked_at IS NULL"
COPIES = """
    INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)
    SELECT overlay(id::text PLACING lpad(to_hex(n), 12, '0') FROM 25)::uuid, user_id, app_id, openid, created_at,
           created_at - n * interval '1 second', expires_at
      FROM sessions, generate_series($2::int, $3::int) n WHERE id::text = $1
"""


async def open_more(stage: Stage, login: Body, number: int, *, first: int = 1) -> None:
    """Add sessions of the same identity and millisecond with lower ids. Only 1 to 7 and 256 to 263 are drawn."""
    await stage.rows.execute(COPIES, login["session_id"], first, first + number - 1)


async def check(stage: Stage) -> None:
    """Check the sessions whose logins have had a minute to end."""
    stage.clock.advance(seconds=75)
    await replace_sessions(stage.services)


async def test_an_identity_keeps_its_newest_hundred_sessions(stage: Stage) -> None:
    first = await stage.login("alice")
    stage.clock.advance(seconds=1)
    newest = await stage.login("alice")
    await stage.login("alice", app_id=OTHER_APP["app_id"])
    await open_more(stage, newest, 120)
    await check(stage)

    assert await stage.number(f"{OPEN} AND app_id = '{OTHER_APP['app_id']}'") == 1
    assert await stage.number(OPEN) == MAX_OPEN_SESSIONS + 1
    kept = await stage.rows.fetchval("SELECT min(id::text) FROM sessions WHERE revoked_at IS NULL")
    assert kept.endswith("-000000000016")  # sessions 22 to 120 and the newest one are left
    assert (await stage.me(newest)).status_code == 200
    assert (await stage.me(first)).status_code == 401
    told = "SELECT actor, user_id::text, data ->> 'reason' FROM events WHERE type = 'session.ended'"
    assert await stage.rows.fetch(told) == [("system", newest["user"]["id"], "replaced")]


async def test_a_person_who_goes_on_logging_in_soon_has_a_hundred_sessions(stage: Stage) -> None:
    await open_more(stage, await stage.login("alice"), 200, first=8)  # none is drawn
    await check(stage)
    assert await stage.number(OPEN) == 201
    while await stage.number(OPEN) > MAX_OPEN_SESSIONS:
        newest = await stage.login("alice")
        await check(stage)
    assert (await stage.me(newest)).status_code == 200


async def test_only_one_replica_looks_for_surplus_sessions_and_only_when_it_is_due(stage: Stage) -> None:
    replicas = [await stage.make_services() for _ in range(3)]
    await open_more(stage, await stage.login("alice"), 120)
    stage.clock.advance(seconds=59)
    await asyncio.gather(*map(replace_sessions, replicas))
    stage.clock.advance(seconds=REPLACEMENTS_PAUSE.total_seconds() - 1)
    await asyncio.gather(*map(replace_sessions, replicas))
    assert await stage.number(OPEN) == 121
    stage.clock.advance(seconds=1)
    async with stage.rows.transaction():  # another replica is looking
        await stage.rows.execute("SELECT pg_advisory_xact_lock(hashtext('wxauth.replaced_sessions'))")
        await asyncio.gather(*map(replace_sessions, replicas))
        assert await stage.number(OPEN) == 121
    await asyncio.gather(*map(replace_sessions, replicas))
    assert await stage.number(OPEN) == MAX_OPEN_SESSIONS


async def test_each_login_is_checked_once_when_the_logins_that_began_before_it_are_stored(stage: Stage) -> None:
    begun = stage.clock()
    alice, _ = await stage.login("alice"), await stage.login("bob")

    async def check_pages(*, seconds: float) -> None:
        is_last = False
        while not is_last:
            page = await replace_old_sessions(
                stage.services.database,
                max_open=2,
                max_stored=10,
                logins=1,
                size=10,
                now=begun + timedelta(seconds=seconds),
                pause=REPLACEMENTS_PAUSE,
            )
            is_last = page is None or page.is_last

    await check_pages(seconds=30)
    await open_more(stage, alice, 5)  # their logins took half a minute
    await check_pages(seconds=70)
    assert await stage.number(OPEN) == 3
    await open_more(stage, alice, 5, first=256)
    await check_pages(seconds=100)
    assert await stage.number(OPEN) == 8


async def test_sessions_count_as_new_by_the_databases_time_on_a_machine_whose_own_is_far_behind(stage: Stage) -> None:
    stage.clock.advance(days=3650)
    newest = await stage.login("alice")
    await open_more(stage, newest, 120)
    await check(stage)
    assert await stage.number(OPEN) == MAX_OPEN_SESSIONS
    assert await stage.number(f"{OPEN} AND id = '{newest['session_id']}'") == 1


@pytest.mark.oldest_postgres
async def test_a_person_who_logs_in_and_out_all_day_leaves_at_most_some_hundred_ended_sessions(stage: Stage) -> None:
    alice = await stage.login("alice")
    await open_more(stage, alice, 2000)
    await stage.rows.execute(
        "UPDATE sessions SET revoked_at = now(), revoked_reason = 'signed_out' WHERE id::text <> $1",
        alice["session_id"],
    )
    await check(stage)
    assert await stage.number("sessions") == MAX_STORED_SESSIONS
    assert await stage.number(OPEN) == 1


async def listed(stage: Stage, tokens: Body, **query: Any) -> Body:
    return body_of(await stage.client.get("/v1/me/sessions", params=query, headers=bearer(tokens)))


@pytest.mark.parametrize(("limit", "sizes"), [(None, [100, 51]), (75, [75, 75, 1]), (200, [151])])
async def test_sessions_come_by_pages_the_last_used_first(stage: Stage, limit: int | None, sizes: list[int]) -> None:
    alice = await stage.login("alice")
    await open_more(stage, alice, 150)
    query = {} if limit is None else {"limit": limit}
    for used_at in ("last_used_at", "created_at"):  # the second time, all are equal
        await stage.rows.execute(f"UPDATE sessions SET last_used_at = {used_at}")
        pages = [await listed(stage, alice, **query)]
        while cursor := pages[-1]["next_cursor"]:
            pages.append(await listed(stage, alice, **query, cursor=cursor))
        assert [len(page["items"]) for page in pages] == sizes
        items = [item for page in pages for item in page["items"]]
        assert len({item["id"] for item in items}) == 151
        assert used_at == "created_at" or items[0]["current"] is True
        used = [item["last_used_at"] for item in items]
        assert used == sorted(used, reverse=True)
