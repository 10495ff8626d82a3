"""The sweep deletes some rows and keeps others."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from unittest.mock import AsyncMock

import pytest

from tests.metrics import scrape
from tests.world import Body, Stage, until
from wxauth.core.services import Services
from wxauth.errors import StorageUnavailable
from wxauth.housekeeping import housekeeping, queries
from wxauth.housekeeping.housekeeping import (
    SWEEP_EVERY,
    USUAL_PACE,
    Pace,
    sweep,
    sweep_events_and_addresses,
    sweep_sessions,
)
from wxauth.housekeeping.queries import ENDED_SESSIONS, SweptPage, sweep_page
from wxauth.keys.keyring import KeyRing
from wxauth.keys.models import RETIRES_AFTER
from wxauth.service.app import create_api
from wxauth.service.metrics import STATISTICS_MAX_AGE

pytestmark = pytest.mark.oldest_postgres

A_SECOND = timedelta(seconds=1)
KEPT_AFTER_THE_END = timedelta(days=30)


async def sweep_now(stage: Stage, page_size: int = 2) -> None:
    """Sweep without pauses between pages."""
    await sweep(stage.services, page_size=page_size, pause=0)


async def sessions(stage: Stage) -> list[str]:
    """Return the ids of the remaining sessions, in the order of their logins."""
    return [str(row["id"]) for row in await stage.rows.fetch("SELECT id FROM sessions ORDER BY id")]


async def refused(stage: Stage, login: Body) -> str:
    return str((await stage.refresh(login)).json()["code"])


@pytest.mark.parametrize(
    ("code", "settings"),
    [("refresh_token_expired", {}), ("session_revoked", {}), ("session_revoked", {"ended_sessions_kept_days": 180})],
)
async def test_a_session_that_is_over_is_swept_when_it_has_been_kept_for_its_time(
    stage: Stage, code: str, settings: dict[str, int]
) -> None:
    stage = await stage.replica(**settings)
    answer = await stage.login("alice")
    if code == "session_revoked":
        await stage.client.post("/v1/logout", json={"refresh_token": answer["refresh_token"]})
    else:
        stage.clock.advance(seconds=answer["refresh_expires_in"])
    stage.clock.advance(days=settings.get("ended_sessions_kept_days", KEPT_AFTER_THE_END.days))
    await sweep_now(stage)
    assert await refused(stage, answer) == code
    assert await stage.number("sessions WHERE ip IS NOT NULL") == 1
    stage.clock.now += SWEEP_EVERY
    await sweep_now(stage)
    assert await sessions(stage) == []
    assert await refused(stage, answer) == "invalid_refresh_token"


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5, 1000])
@pytest.mark.slow
async def test_sessions_in_use_outlive_the_sweep_wherever_the_pages_end(stage: Stage, page_size: int) -> None:
    people = [await stage.login(person) for person in ("alice", "bob", "carol", "dave")]
    for _ in range(3):
        stage.clock.advance(days=25)
        for used in (1, 3):
            token = people[used]["refresh_token"]
            people[used] = (await stage.client.post("/v1/refresh", json={"refresh_token": token})).json()
    await sweep_now(stage, page_size)
    assert await sessions(stage) == [people[1]["session_id"], people[3]["session_id"]]
    assert [line["sessions"] for line in stage.logged("sessions_swept")] == [2]


@pytest.mark.parametrize("chore", [sweep_sessions, sweep_events_and_addresses])
async def test_what_a_failing_sweep_has_done_is_logged(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, chore: Callable[[Services, Pace], Awaitable[object]]
) -> None:
    monkeypatch.setattr(queries, "sweep_page", AsyncMock(side_effect=[SweptPage(2, False), StorageUnavailable("gone")]))
    stage = await stage.replica(events_kept_days=180)
    with pytest.raises(StorageUnavailable):
        await chore(stage.services, Pace(2, 0))
    logged = [*stage.logged("sessions_swept"), *stage.logged("aged_swept")]
    assert [line.get("sessions", line.get("events")) for line in logged] == [2]


async def test_a_sweep_ends_where_the_logins_are_too_young_to_have_ended_long_ago(stage: Stage) -> None:
    for person in ("alice", "bob"):
        await stage.login(person)
    stage.clock.advance(days=365)
    for person in ("carol", "dave", "erin", "frank"):
        await stage.login(person)
    now, ended_before = stage.clock.now, stage.clock.now - KEPT_AFTER_THE_END
    pages = [
        await sweep_page(
            stage.services.database, ENDED_SESSIONS, size=2, older_than=ended_before, now=now, next_sweep_at=now
        )
        for _ in range(3)
    ]
    assert pages == [SweptPage(2, False), SweptPage(0, True), SweptPage(0, True)]


async def test_the_next_sweep_is_a_day_later_in_all_replicas(stage: Stage) -> None:
    await sweep_now(stage)
    await stage.login("alice")
    await stage.rows.execute(
        "UPDATE sessions SET created_at = $1, expires_at = $1", stage.clock.now - KEPT_AFTER_THE_END - 2 * SWEEP_EVERY
    )
    stage.clock.now += SWEEP_EVERY - A_SECOND
    await sweep(await stage.make_services())
    assert len(await sessions(stage)) == 1
    stage.clock.now += A_SECOND
    await sweep(await stage.make_services())
    assert await sessions(stage) == []


async def test_the_command_deletes_ended_sessions_although_the_sweep_is_not_due(stage: Stage) -> None:
    answer = await stage.login("alice")
    await stage.client.post("/v1/logout", json={"refresh_token": answer["refresh_token"]})
    stage.clock.advance(days=20)
    await sweep_now(stage)
    shorter = await stage.replica(ended_sessions_kept_days=10)
    await sweep_now(shorter)
    assert len(await sessions(shorter)) == 1
    await housekeeping.sweep_now(shorter.services)
    assert await sessions(shorter) == []


async def test_the_metrics_say_for_how_long_a_sweep_that_is_configured_has_been_due(stage: Stage) -> None:
    async def overdue() -> float | None:
        stage.clock.now += STATISTICS_MAX_AGE
        return (await scrape(stage.client))("wxauth_sweep_overdue_seconds")

    await sweep_now(stage)
    assert await overdue() == 0
    stage.clock.now += SWEEP_EVERY
    assert await overdue() == (2 * STATISTICS_MAX_AGE).total_seconds()
    await sweep_now(stage)
    assert await overdue() == 0
    # EVENTS_KEPT_DAYS had a value earlier, but has none now.
    await stage.rows.execute(
        "INSERT INTO sweeps VALUES ('events', gen_random_uuid(), $1)", stage.clock.now - SWEEP_EVERY
    )
    assert await overdue() == 0


async def test_while_another_worker_sweeps_nothing_is_done(stage: Stage) -> None:
    await stage.login("alice")
    stage.clock.advance(days=365)
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT pg_advisory_xact_lock(hashtext('wxauth.housekeeping'))")
        await sweep_now(stage)
        assert len(await sessions(stage)) == 1
    await sweep_now(stage)
    assert await sessions(stage) == []


async def test_a_stopped_sweep_is_continued_by_another_worker(stage: Stage) -> None:
    people = [(await stage.login(person))["session_id"] for person in ("alice", "bob", "carol")]
    stage.clock.advance(days=365)
    stopped = asyncio.create_task(sweep(stage.services, page_size=1, pause=3600))
    await until(lambda: stage.rows.fetchval("SELECT count(*) < 3 FROM sessions"))  # the sweep is in its pause now
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    assert str(await stage.rows.fetchval("SELECT after FROM sweeps")) == people[0]
    await sweep_now(stage)
    assert await sessions(stage) == []


async def test_a_session_that_somebody_has_locked_is_left_for_the_next_time(stage: Stage) -> None:
    locked, _ = [(await stage.login(person))["session_id"] for person in ("alice", "bob")]
    stage.clock.advance(days=365)
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", locked)
        await sweep_now(stage)
    assert await sessions(stage) == [locked]


@pytest.mark.no_signing_key
async def test_a_retired_key_is_erased(stage: Stage) -> None:
    former = await stage.rows.fetchval("SELECT kid FROM signing_keys")
    retires_at = (await stage.services[KeyRing].rotate()).activates_at + RETIRES_AFTER
    stage.clock.now = retires_at - A_SECOND
    await sweep_now(stage)
    assert await stage.number("signing_keys WHERE private_key = ''") == 0
    stage.clock.now = retires_at
    await sweep_now(stage)
    assert await stage.rows.fetch("SELECT kid FROM signing_keys WHERE private_key = ''") == [(former,)]
    stage.clock.now = retires_at - A_SECOND  # the clock was set back
    await stage.services[KeyRing].refresh()
    assert (await stage.services[KeyRing].find(former), stage.services[KeyRing].unopened) == (None, [])
    assert [line["kid"] for line in stage.logged("signing_key_retired")] == [former]


async def test_the_running_service_sweeps_regularly(stage: Stage) -> None:
    await stage.login("alice")
    stage.clock.advance(days=365)
    app = create_api(stage.services)
    async with app.router.lifespan_context(app):
        await until(lambda: stage.rows.fetchval("SELECT count(*) = 0 FROM sessions"))


def test_a_lap_rests_longer_after_slow_pages_and_writes_a_bounded_number_of_rows_a_second() -> None:
    assert USUAL_PACE.rest_after(0.004, 0) == pytest.approx(0.02)
    assert USUAL_PACE.rest_after(0.5, 0) == pytest.approx(2.5)
    assert 3000 * (0.03 + USUAL_PACE.rest_after(0.03, 1000)) == pytest.approx(1000)
