"""Replicas whose machines' clocks differ: the database's time counts."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta

import pytest

from tests.database_proxy import Proxy
from tests.fakes import WeChatByRespx
from tests.world import LogIn, LogLines, MakeClient, Rows, until
from wxauth.server.core.clock import CORRECTION_PAUSE_SECONDS, DatabaseClock, correct_clock, keep_time, utc_now
from wxauth.server.core.database import Database
from wxauth.server.core.services import Services
from wxauth.server.core.settings import Settings
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.build import build_services

MakeReplica = Callable[[timedelta], Awaitable[Services]]


@pytest.fixture
async def make_replica(make_settings: Callable[..., Settings], wechat: WeChatByRespx) -> AsyncIterator[MakeReplica]:
    """A replica on a machine whose clock is so far ahead."""
    made: list[Services] = []

    async def make(ahead: timedelta) -> Services:
        clock = DatabaseClock(lambda: utc_now() + ahead)
        services = build_services(make_settings(), clock=clock, wechat_transport=wechat.transport)
        made.append(services)
        await correct_clock(clock, services.database)
        await services[KeyRing].refresh()
        return services

    yield make
    for services in made:
        await services.aclose()


@pytest.mark.parametrize("ahead", [timedelta(minutes=3), timedelta(minutes=-3), timedelta(days=61)])
@pytest.mark.slow
async def test_a_refresh_sent_again_to_a_replica_whose_clock_is_wrong_gets_the_same_successor(
    login: LogIn, make_replica: MakeReplica, make_client: MakeClient, ahead: timedelta
) -> None:
    right, wrong = make_client(await make_replica(timedelta())), make_client(await make_replica(ahead))
    token = {"refresh_token": (await login(at=right))["refresh_token"]}
    answers = [await replica.post("/v1/refresh", json=token) for replica in (right, wrong, right)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


@pytest.mark.parametrize("is_set_later", [False, True])
async def test_a_replica_with_a_wrong_clock_writes_the_databases_time(
    login: LogIn, make_replica: MakeReplica, make_client: MakeClient, rows: Rows, is_set_later: bool
) -> None:
    replica = await make_replica(timedelta() if is_set_later else timedelta(days=61))
    if is_set_later:
        assert isinstance(replica.clock, DatabaseClock)
        replica.clock.own = lambda: utc_now() + timedelta(minutes=5)
    await login(at=make_client(replica))
    apart = await rows.fetchval("SELECT abs(extract(epoch FROM now() - created_at)) FROM sessions")
    assert apart < 60


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


async def test_nothing_is_swept_by_a_replica_whose_clock_is_wrong(
    login: LogIn, make_replica: MakeReplica, make_client: MakeClient, rows: Rows, log_lines: LogLines
) -> None:
    wrong = await make_replica(timedelta(days=61))
    await login(at=make_client(wrong))
    await rows.execute("UPDATE sessions SET expires_at = created_at")
    assert isinstance(wrong.clock, DatabaseClock)
    wrong.clock.ahead = timedelta(seconds=31)  # it has not been corrected for good yet
    await sweep(wrong)
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 1
    assert [line["reason"] for line in log_lines() if line["event"] == "sweep_put_off"] == ["the clocks differ"]


async def test_a_clock_is_corrected_in_the_background_and_the_difference_is_logged(
    make_replica: MakeReplica, log_lines: LogLines
) -> None:
    services = await make_replica(timedelta(hours=1))
    clock = services.clock
    assert isinstance(clock, DatabaseClock)
    clock.ahead = timedelta()
    keeping = asyncio.create_task(keep_time(clock, services.database, pause=0.01))
    await until(lambda: abs(clock.ahead - timedelta(hours=1)) < timedelta(seconds=5))
    await asyncio.sleep(0.05)
    keeping.cancel()
    [logged] = [line for line in log_lines() if line["event"] == "clocks_differ"]
    assert round(float(str(logged["ahead_of_database"]))) == 3600


@pytest.mark.slow
async def test_the_metrics_say_how_far_a_machines_clock_is_ahead(
    make_replica: MakeReplica, make_client: MakeClient
) -> None:
    for ahead in (timedelta(), timedelta(minutes=3), timedelta(minutes=-3)):
        text = (await make_client(await make_replica(ahead)).get("/metrics")).text
        [reported] = re.findall(r"^wxauth_clock_ahead_seconds (\S+)$", text, re.MULTILINE)
        assert abs(float(reported) - ahead.total_seconds()) < 1
