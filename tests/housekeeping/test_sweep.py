"""The sweep: which rows are deleted, and which are kept."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from tests.fakes import Clock
from tests.world import Client, LogIn, LogLines, MakeServices, Rows, until
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import SWEEP_EVERY, rest_after, sweep
from wxauth.server.housekeeping.rows import ENDED_SESSIONS, LappedPage, lap_page
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.keys.models import RETIRES_AFTER
from wxauth.server.service.app import create_api
from wxauth.server.service.routes import STATISTICS_MAX_AGE

pytestmark = pytest.mark.oldest_postgres

A_SECOND = timedelta(seconds=1)
KEPT_AFTER_THE_END = timedelta(days=30)

Sweep = Callable[..., Awaitable[None]]


@pytest.fixture
def sweep_now(services: Services) -> Sweep:
    """Sweep without pauses, in pages of two."""

    async def sweep_now(page_size: int = 2) -> None:
        await sweep(services, page_size=page_size, pause=0)

    return sweep_now


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The work of another worker."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def sessions(rows: Rows) -> list[str]:
    """The ids of the remaining sessions, in the order of their logins."""
    return [str(row["id"]) for row in await rows.fetch("SELECT id FROM sessions ORDER BY id")]


async def refused(client: Client, answer: dict[str, object]) -> str:
    refused = await client.post("/v1/refresh", json={"refresh_token": answer["refresh_token"]})
    return str(refused.json()["code"])


@pytest.mark.parametrize("code", ["refresh_token_expired", "session_revoked"])
async def test_a_session_that_is_over_is_swept_when_it_has_been_kept_for_its_time(
    client: Client, login: LogIn, sweep_now: Sweep, clock: Clock, rows: Rows, code: str
) -> None:
    answer = await login("alice")
    if code == "session_revoked":
        await client.post("/v1/logout", json={"refresh_token": answer["refresh_token"]})
    else:
        clock.advance(seconds=answer["refresh_expires_in"])
    clock.now += KEPT_AFTER_THE_END
    await sweep_now()
    assert await refused(client, answer) == code
    clock.now += SWEEP_EVERY
    await sweep_now()
    assert await sessions(rows) == []
    assert await refused(client, answer) == "invalid_refresh_token"


async def test_how_long_an_ended_session_is_kept_is_the_operators_choice(
    client: Client, login: LogIn, make_services: MakeServices, clock: Clock, rows: Rows
) -> None:
    services = await make_services(ended_sessions_kept_days=180)
    answer = await login("alice")
    await client.post("/v1/logout", json={"refresh_token": answer["refresh_token"]})
    clock.advance(days=180)
    await sweep(services, pause=0)
    kept = await rows.fetchrow("SELECT ip, user_agent FROM sessions")
    assert kept is not None
    assert kept["ip"] is not None
    clock.advance(days=1)
    await sweep(services, pause=0)
    assert await sessions(rows) == []


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5, 1000])
@pytest.mark.slow
async def test_sessions_in_use_outlive_the_sweep_wherever_the_pages_end(
    client: Client, login: LogIn, sweep_now: Sweep, clock: Clock, rows: Rows, log_lines: LogLines, page_size: int
) -> None:
    people = [await login(person) for person in ("alice", "bob", "carol", "dave")]
    for _ in range(3):
        clock.advance(days=25)
        for used in (1, 3):
            token = people[used]["refresh_token"]
            people[used] = (await client.post("/v1/refresh", json={"refresh_token": token})).json()
    await sweep_now(page_size)
    assert await sessions(rows) == [people[1]["session_id"], people[3]["session_id"]]
    assert [line["sessions"] for line in log_lines() if line["event"] == "sessions_swept"] == [2]


async def test_a_sweep_ends_where_the_logins_are_too_young_to_have_ended_long_ago(
    login: LogIn, services: Services, clock: Clock
) -> None:
    for person in ("alice", "bob"):
        await login(person)
    clock.advance(days=365)
    for person in ("carol", "dave", "erin", "frank"):
        await login(person)
    now, ended_before = clock.now, clock.now - KEPT_AFTER_THE_END
    pages = [
        await lap_page(services.database, ENDED_SESSIONS, size=2, older_than=ended_before, now=now, next_lap_at=now)
        for _ in range(3)
    ]
    assert pages == [LappedPage(2, False), LappedPage(0, True), LappedPage(0, True)]


async def test_the_next_sweep_is_a_day_later_in_all_replicas(
    login: LogIn, sweep_now: Sweep, clock: Clock, rows: Rows, make_services: MakeServices
) -> None:
    await sweep_now()
    await login("alice")
    await rows.execute(
        "UPDATE sessions SET created_at = $1, expires_at = $1", clock.now - KEPT_AFTER_THE_END - 2 * SWEEP_EVERY
    )
    clock.now += SWEEP_EVERY - A_SECOND
    await sweep(await make_services())
    assert len(await sessions(rows)) == 1
    clock.now += A_SECOND
    await sweep(await make_services())
    assert await sessions(rows) == []


async def test_the_metrics_say_for_how_long_a_sweep_that_is_configured_has_been_due(
    client: Client, sweep_now: Sweep, clock: Clock, rows: Rows
) -> None:
    async def overdue() -> float:
        clock.now += STATISTICS_MAX_AGE
        text = (await client.get("/metrics")).text
        [reported] = re.findall(r"^wxauth_sweep_overdue_seconds (\S+)$", text, re.MULTILINE)
        return float(reported)

    await sweep_now()
    assert await overdue() == 0
    clock.now += SWEEP_EVERY
    assert await overdue() == (2 * STATISTICS_MAX_AGE).total_seconds()
    await sweep_now()
    assert await overdue() == 0
    # EVENTS_KEPT_DAYS was set once, and is no longer.
    await rows.execute("INSERT INTO sweeps VALUES ('events', gen_random_uuid(), $1)", clock.now - SWEEP_EVERY)
    assert await overdue() == 0


async def test_while_another_worker_sweeps_nothing_is_done(
    login: LogIn, sweep_now: Sweep, clock: Clock, rows: Rows, other: asyncpg.Connection
) -> None:
    await login("alice")
    clock.advance(days=365)
    async with other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(hashtext('wxauth.housekeeping'))")
        await sweep_now()
        assert len(await sessions(rows)) == 1
    await sweep_now()
    assert await sessions(rows) == []


async def test_a_stopped_sweep_is_continued_by_another_worker(
    login: LogIn, services: Services, sweep_now: Sweep, clock: Clock, rows: Rows
) -> None:
    people = [(await login(person))["session_id"] for person in ("alice", "bob", "carol")]
    clock.advance(days=365)
    stopped = asyncio.create_task(sweep(services, page_size=1, pause=3600))
    await until(lambda: rows.fetchval("SELECT count(*) < 3 FROM sessions"))  # it is in its pause then
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    assert str(await rows.fetchval("SELECT after FROM sweeps")) == people[0]
    await sweep_now()
    assert await sessions(rows) == []


async def test_a_session_that_somebody_has_locked_is_left_for_the_next_time(
    login: LogIn, sweep_now: Sweep, clock: Clock, rows: Rows, other: asyncpg.Connection
) -> None:
    locked, _ = [(await login(person))["session_id"] for person in ("alice", "bob")]
    clock.advance(days=365)
    async with other.transaction():
        await other.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", locked)
        await sweep_now()
    assert await sessions(rows) == [locked]


@pytest.mark.no_signing_key
async def test_a_retired_key_is_erased(
    services: Services, sweep_now: Sweep, clock: Clock, rows: Rows, log_lines: LogLines
) -> None:
    former = await rows.fetchval("SELECT kid FROM signing_keys")
    clock.now = (await services[KeyRing].rotate()).activates_at + RETIRES_AFTER - A_SECOND
    await sweep_now()
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 2
    clock.now += A_SECOND
    await sweep_now()
    assert await rows.fetchval("SELECT array_agg(kid) FROM signing_keys") != [former]
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 1
    assert [line["kid"] for line in log_lines() if line["event"] == "signing_key_retired"] == [former]


async def test_the_running_service_sweeps_regularly(login: LogIn, services: Services, clock: Clock, rows: Rows) -> None:
    await login("alice")
    clock.advance(days=365)
    app = create_api(services)
    async with app.router.lifespan_context(app):
        await until(lambda: rows.fetchval("SELECT count(*) = 0 FROM sessions"))


def test_a_lap_rests_longer_after_slow_pages_and_writes_a_bounded_number_of_rows_a_second() -> None:
    assert rest_after(0.004, 0) == pytest.approx(0.02)
    assert rest_after(0.5, 0) == pytest.approx(2.5)
    assert 3000 * (0.03 + rest_after(0.03, 1000)) == pytest.approx(1000)
