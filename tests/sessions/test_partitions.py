"""Sessions partitioned by week: everything still works, nobody waits, and old weeks go as a whole."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.fakes import Clock
from tests.processes import make_command
from tests.world import LogIn, LogLines, MakeClient, MakeServices, bearer, leave
from wxauth.server.checks import examine
from wxauth.server.core.services import Services
from wxauth.server.core.settings import Settings
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.housekeeping.housekeeping import keep_session_partitions
from wxauth.server.service.prometheus import STATISTICS_MAX_AGE
from wxauth.server.sessions.partition_rows import mark_cut
from wxauth.server.sessions.partitions import begin_partitions, end_partitions, read_partitioning

pytestmark = [pytest.mark.own_database, pytest.mark.oldest_postgres]

WEEK = timedelta(weeks=1)
USES_OF_KEPT_PLANS = Statement[int]("""
SELECT sum(generic_plans)::int AS uses FROM pg_prepared_statements WHERE statement ~ '(FROM|UPDATE) sessions'
""")

Do = Callable[[], Awaitable[None]]


@pytest.fixture
def on(services: Services) -> Do:
    async def on() -> None:
        await begin_partitions(services.database, now=services.clock())

    return on


@pytest.fixture
def off(services: Services) -> Do:
    async def off() -> None:
        await end_partitions(services.database)

    return off


@pytest.fixture
def keep(services: Services) -> Do:
    """Housekeeping looks after the partitions."""

    async def keep() -> None:
        await keep_session_partitions(services, page_size=2, pause=0)

    return keep


async def names(rows: asyncpg.Connection) -> list[str]:
    found = await rows.fetch("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'sessions'::regclass")
    return sorted(record[0] for record in found)


async def parts(rows: asyncpg.Connection) -> dict[str, int]:
    """How many sessions are in each partition that has any."""
    found = await rows.fetch("SELECT tableoid::regclass::text AS part, count(*) FROM sessions GROUP BY 1")
    return {record["part"]: record["count"] for record in found}


async def definition(rows: asyncpg.Connection) -> list[str]:
    """All that there is of `sessions`, as SQL."""
    found = await rows.fetch("""
        SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'sessions'::regclass
         UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'sessions'::regclass
         UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
                    WHERE tgrelid = 'sessions'::regclass AND NOT tgisinternal
         UNION ALL SELECT attname || format_type(atttypid, atttypmod) || attnotnull::text FROM pg_attribute
                    WHERE attrelid = 'sessions'::regclass AND attnum > 0
         UNION ALL SELECT relkind::text || reloptions::text FROM pg_class WHERE oid = 'sessions'::regclass
         UNION ALL SELECT relname FROM pg_class WHERE relname LIKE 'sessions%' ORDER BY 1""")
    return [record[0] for record in found]


async def test_sessions_of_before_and_after_the_cut_go_on(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection, clock: Clock, on: Do
) -> None:
    before = await login("alice")
    await on()
    clock.advance(weeks=2)
    again = await login("alice")
    refreshed = await client.post("/v1/refresh", json={"refresh_token": before["refresh_token"]})
    assert refreshed.json()["session_id"] == before["session_id"]
    listed = (await client.get("/v1/me/sessions", headers=bearer(again))).json()["items"]
    assert {session["id"] for session in listed} == {before["session_id"], again["session_id"]}
    assert list((await parts(rows)).values()) == [1, 1]
    assert "sessions_default" not in await parts(rows)
    assert (await client.delete("/v1/me/sessions", headers=bearer(again))).status_code == 204
    refused = await client.post("/v1/refresh", json={"refresh_token": refreshed.json()["refresh_token"]})
    assert refused.status_code == 400


async def test_erasing_a_user_reaches_every_partition(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection, clock: Clock, on: Do
) -> None:
    await login("alice")
    await on()
    clock.advance(weeks=2)
    tokens = await login("alice")
    assert (await leave(client, tokens)).status_code == 204
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 0


@pytest.mark.parametrize("asked", ["refresh", "me"])
async def test_a_plan_for_the_sessions_of_all_partitions_is_kept(
    client: httpx.AsyncClient, login: LogIn, services: Services, on: Do, asked: str
) -> None:
    await on()
    tokens = await login("alice")
    kept = []
    for _ in range(8):
        if asked == "refresh":
            tokens = (await client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
        else:
            await client.get("/v1/me", headers=bearer(tokens))
        kept.append(await services.database.value(USES_OF_KEPT_PLANS))
    assert kept == [0, 0, 0, 0, 0, 1, 2, 3], "PostgreSQL keeps no plan before the sixth use"


async def test_a_refresh_reads_no_other_user(
    client: httpx.AsyncClient, login: LogIn, services: Services, rows: asyncpg.Connection, on: Do
) -> None:
    async def read() -> int:
        await services.database.run(Statement[Nothing]("SELECT pg_stat_force_next_flush()"))
        return int(await rows.fetchval("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'users'"))

    await on()
    tokens = await login("alice")
    await rows.execute("""
        INSERT INTO users (id, created_at, last_login_at)
        SELECT gen_random_uuid(), now(), now() FROM generate_series(1, 1000)""")
    await rows.execute("VACUUM ANALYZE users")
    before = await read()
    for _ in range(8):
        tokens = (await client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
    assert await read() == before


async def test_without_prepared_statements_a_plan_is_of_the_partition_of_the_session_alone(
    database_url: str,
    make_services: MakeServices,
    make_client: MakeClient,
    login: LogIn,
    rows: asyncpg.Connection,
    on: Do,
) -> None:
    await on()
    tokens = await login("alice")
    client = make_client(await make_services(database_url=f"{database_url}&pgbouncer=true"))
    async with rows.transaction():
        await rows.execute("LOCK TABLE sessions_default")
        assert (await client.get("/v1/me", headers=bearer(tokens))).status_code == 200
        refreshed = await client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert refreshed.status_code == 200


async def test_off_brings_back_the_very_table(login: LogIn, rows: asyncpg.Connection, on: Do, off: Do) -> None:
    await login("alice")
    before = await definition(rows)
    await on()
    assert len(await names(rows)) >= 4
    assert await definition(rows) != before
    await off()
    assert await definition(rows) == before
    await login("alice")
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 2


async def test_off_waits_until_all_sessions_are_in_one_partition(
    login: LogIn, rows: asyncpg.Connection, clock: Clock, on: Do, off: Do, keep: Do, services: Services
) -> None:
    before = await definition(rows)
    await login("alice")
    await on()
    clock.advance(weeks=2)
    await login("alice")
    await off()
    assert len(await parts(rows)) == 2
    clock.advance(days=400)
    await login("bob")
    await keep()
    assert await definition(rows) == before
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 1
    await on()
    assert (await read_partitioning(services.database)).is_on


async def test_housekeeping_keeps_four_weeks_ahead_and_drops_weeks_that_are_over(
    login: LogIn, rows: asyncpg.Connection, clock: Clock, on: Do, keep: Do
) -> None:
    await login("alice")
    await on()
    for _ in range(70):
        clock.advance(weeks=1)
        await login("alice")
        await keep()
        weeks = [name for name in await names(rows) if name[9:].isdigit()]
        assert f"sessions_{clock() + 3 * WEEK:%Y%m%d}" <= max(weeks)
    assert 61 <= len(weeks) <= 62, "a year, the 30 days that ended sessions are kept, and what is ahead"
    assert await rows.fetchval("SELECT count(*) FROM sessions_default") == 0
    assert await rows.fetchval("SELECT min(created_at) FROM sessions") > clock() - timedelta(days=365 + 30 + 7)


async def test_a_week_that_nobody_has_prepared_stops_no_login_and_is_mended_later(
    login: LogIn, rows: asyncpg.Connection, clock: Clock, on: Do, keep: Do, log_lines: LogLines
) -> None:
    await on()
    clock.advance(weeks=10)
    await login("alice")
    assert await parts(rows) == {"sessions_default": 1}
    await keep()
    assert "partitions_not_prepared" in [line["event"] for line in log_lines()]
    await on()
    assert await rows.fetchval("SELECT count(*) FROM sessions_default") == 0
    assert len(await parts(rows)) == 1
    await keep()
    clock.advance(weeks=3)
    await login("alice")
    assert await rows.fetchval("SELECT count(*) FROM sessions_default") == 0


async def test_a_conversion_that_was_stopped_is_continued_or_forgotten_before_its_cut(
    login: LogIn, rows: asyncpg.Connection, clock: Clock, services: Services, on: Do, keep: Do
) -> None:
    cut = clock() + timedelta(days=9)
    for days in (0, 8):
        await mark_cut(services.database, "sessions", cut, since=None)
        clock.advance(days=days)
        await keep()
        await login("alice")
        await on()
        await login("alice")
        ends = [one.end for one in (await read_partitioning(services.database)).partitions]
        assert (ends[0] == cut) == (days == 0), "continued while there is time"
        await end_partitions(services.database)


async def test_logins_go_on_while_sessions_are_partitioned_and_joined_again(
    login: LogIn, rows: asyncpg.Connection, on: Do, off: Do
) -> None:
    await login("alice")
    done = asyncio.Event()

    async def log_in(name: str) -> int:
        times = 0
        while not done.is_set():
            await login(name)
            times += 1
        return times

    people = [asyncio.create_task(log_in(f"person {number}")) for number in range(4)]
    for _ in range(3):
        await on()
        await off()
    done.set()
    times = [await person for person in people]
    assert min(times) > 0
    assert await rows.fetchval("SELECT count(*) FROM sessions") == sum(times) + 1


async def test_too_few_weeks_ahead_are_reported(
    client: httpx.AsyncClient, clock: Clock, on: Do, make_settings: Callable[..., Settings]
) -> None:
    async def reported() -> tuple[bool, float | None]:
        results = {result.name: result for result in await examine(make_settings(), clock=lambda: clock())}
        clock.advance(seconds=STATISTICS_MAX_AGE.total_seconds() + 1)
        found = re.findall(r"^wxauth_partitions_ahead_seconds (\S+)", (await client.get("/metrics")).text, re.MULTILINE)
        return "partitions" in results, float(found[0]) if found else None

    assert await reported() == (False, None)
    await on()
    is_bad, ahead = await reported()
    assert (is_bad, ahead and ahead > 4 * 7 * 86400) == (False, True)
    clock.advance(weeks=3)
    is_bad, ahead = await reported()
    assert (is_bad, ahead and 0 < ahead < 2 * 7 * 86400 + 7 * 86400) == (True, True)


@pytest.mark.process
async def test_the_command_partitions_and_prints_what_there_is(database_url: str, tmp_path: Path) -> None:
    partitions = make_command("partitions", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    assert (await partitions("status")).stdout == "the sessions are in a plain table\n"
    assert "sessions_before" in (await partitions("on")).stdout
    state = json.loads((await partitions("status", "--json")).stdout)
    names = [one["name"] for one in state["partitions"]]
    assert (state["is_on"], names[0], names[-1]) == (True, "sessions_before", "sessions_default")
    assert (await partitions("off")).stdout == "the sessions are in a plain table\n"
