"""`/readyz`: whether a replica can serve; any number of callers may ask."""

import asyncio

import asyncpg
import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import Clock
from tests.world import LogIn, MakeClient, MakeServices, leave, until_locked

MANY = 400


@pytest.mark.slow
@pytest.mark.own_database
async def test_however_many_ask_the_database_is_asked_once(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection
) -> None:
    tokens = await login()
    async with rows.transaction():
        await rows.execute("LOCK TABLE alembic_version")
        asking = [asyncio.create_task(client.get("/readyz")) for _ in range(MANY)]
        await until_locked(rows)
        async with asyncio.timeout(1.8):  # they keep nobody from a transaction
            erased = await leave(client, tokens)
        assert erased.status_code == 204
        assert await rows.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}


async def test_the_readiness_is_at_most_a_second_old(
    proxy: Proxy, make_services: MakeServices, make_client: MakeClient, clock: Clock
) -> None:
    client = make_client(await make_services(database_url=proxy.url))

    async def status() -> int:
        return (await client.get("/readyz")).status_code

    assert await status() == 200
    await proxy.refuse()
    assert await status() == 200
    clock.advance(seconds=1)
    assert await status() == 503
    await proxy.accept()
    assert await status() == 503
    clock.advance(seconds=1)
    assert await status() == 200
