"""Replicas use the database's time if the clocks of their machines differ."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import NamedTuple

import pytest

from tests.database_proxy import Proxy
from tests.metrics import scrape
from tests.world import Client, Stage, until
from wxauth.core.clock import CORRECTION_PAUSE_SECONDS, DatabaseClock, correct_clock, keep_time, utc_now
from wxauth.core.database import Database
from wxauth.core.services import Services
from wxauth.housekeeping.housekeeping import sweep
from wxauth.keys.keyring import KeyRing
from wxauth.service.build import build_services


class Replica(NamedTuple):
    """A replica with a clock of its own."""

    clock: DatabaseClock
    services: Services
    client: Client


MakeReplica = Callable[[timedelta], Awaitable[Replica]]


@pytest.fixture
async def make_replica(stage: Stage) -> AsyncIterator[MakeReplica]:
    """A function that returns a replica on a machine whose clock is ahead by this time."""
    made: list[Replica] = []

    async def make(ahead: timedelta) -> Replica:
        clock = DatabaseClock(lambda: utc_now() + ahead)
        services = build_services(stage.services.settings, clock=clock, wechat_transport=stage.wechat.transport)
        made.append(Replica(clock, services, stage.make_client(services)))
        await correct_clock(clock, services.database)
        await services[KeyRing].refresh()
        return made[-1]

    yield make
    for replica in made:
        await replica.services.aclose()


@pytest.mark.parametrize("ahead", [timedelta(minutes=3), timedelta(minutes=-3), timedelta(days=61)])
@pytest.mark.slow
async def test_a_refresh_sent_again_to_a_replica_whose_clock_is_wrong_gets_the_same_successor(
    stage: Stage, make_replica: MakeReplica, ahead: timedelta
) -> None:
    right, wrong = (await make_replica(timedelta())).client, (await make_replica(ahead)).client
    token = {"refresh_token": (await stage.login(at=right))["refresh_token"]}
    answers = [await client.post("/v1/refresh", json=token) for client in (right, wrong, right)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


@pytest.mark.parametrize("is_set_later", [False, True])
@pytest.mark.requirement("asvs-16.2.1")
async def test_a_replica_with_a_wrong_clock_writes_the_databases_time(
    stage: Stage, make_replica: MakeReplica, is_set_later: bool
) -> None:
    replica = await make_replica(timedelta() if is_set_later else timedelta(days=61))
    if is_set_later:
        replica.clock.own = lambda: utc_now() + timedelta(minutes=5)
    await stage.login(at=replica.client)
    assert await stage.rows.fetchval("SELECT abs(extract(epoch FROM now() - created_at)) FROM sessions") < 60


async def test_a_replica_that_starts_before_its_database_has_its_time_at_once(proxy: Proxy) -> None:
    await proxy.refuse()
    clock = DatabaseClock(lambda: utc_now() + timedelta(minutes=5))
    async with aclosing(Database(proxy.url)) as database:
        keeping = asyncio.create_task(keep_time(clock, database))
        await asyncio.sleep(0)
        await proxy.accept()
        async with asyncio.timeout(CORRECTION_PAUSE_SECONDS / 2):
            await until(lambda: abs(clock.ahead - timedelta(minutes=5)) < timedelta(seconds=5))
        keeping.cancel()


async def test_nothing_is_swept_by_a_replica_whose_clock_is_wrong(stage: Stage, make_replica: MakeReplica) -> None:
    wrong = await make_replica(timedelta(days=61))
    await stage.login(at=wrong.client)
    await stage.rows.execute("UPDATE sessions SET expires_at = created_at")
    wrong.clock.ahead = timedelta(seconds=31)  # the last correction was much too small
    await sweep(wrong.services)
    assert await stage.number("sessions") == 1
    assert [line["reason"] for line in stage.logged("sweep_put_off")] == ["the clocks differ"]


async def test_a_clock_is_corrected_in_the_background_and_logged(stage: Stage, make_replica: MakeReplica) -> None:
    clock, services, _ = await make_replica(timedelta(hours=1))
    clock.ahead = timedelta()
    keeping = asyncio.create_task(keep_time(clock, services.database, pause=0.01))
    await until(lambda: abs(clock.ahead - timedelta(hours=1)) < timedelta(seconds=5))
    await asyncio.sleep(0.05)
    keeping.cancel()
    [logged] = stage.logged("clocks_differ")
    assert round(float(logged["ahead_of_database"])) == 3600


@pytest.mark.own_database
async def test_a_clock_is_corrected_after_an_error_that_is_no_outage(stage: Stage, database_url: str) -> None:
    await stage.rows.execute("""
        CREATE SCHEMA broken;
        CREATE FUNCTION broken.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'broken'; END$$
    """)
    clock = DatabaseClock()
    async with aclosing(Database(f"{database_url}&search_path=broken,pg_catalog")) as database:
        keeping = asyncio.create_task(keep_time(clock, database, pause=0.01))
        await until(lambda: bool(stage.logged("clock_not_corrected")))
        await stage.rows.execute("DROP SCHEMA broken CASCADE")
        await until(lambda: clock.is_set)
        keeping.cancel()


@pytest.mark.slow
async def test_the_metrics_say_how_far_a_machines_clock_is_ahead(make_replica: MakeReplica) -> None:
    for ahead in (timedelta(), timedelta(minutes=3), timedelta(minutes=-3)):
        reported = (await scrape((await make_replica(ahead)).client))("wxauth_clock_ahead_seconds")
        assert reported == pytest.approx(ahead.total_seconds(), abs=1)
