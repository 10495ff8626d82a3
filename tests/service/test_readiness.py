"""`/readyz` tells whether a replica can serve, and any number of callers can use it."""

import asyncio

import pytest

from tests.database_proxy import Proxy
from tests.world import Stage, leave, until_locked
from wxauth.service.probes import has_our_schema

MANY = 400


@pytest.mark.slow
async def test_however_many_ask_the_database_is_asked_once(stage: Stage) -> None:
    tokens = await stage.login()
    async with stage.rows.transaction():
        await stage.rows.execute("LOCK TABLE alembic_version")
        asking = [asyncio.create_task(stage.client.get("/readyz")) for _ in range(MANY)]
        await until_locked(stage.rows)
        assert (await leave(stage.client, tokens)).status_code == 204, "they keep nobody from a transaction"
        assert await stage.number("pg_locks WHERE NOT granted") == 1
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}


async def test_the_readiness_is_at_most_a_second_old(stage: Stage, proxy: Proxy) -> None:
    client = await stage.make(database_url=proxy.url)

    async def status() -> int:
        return (await client.get("/readyz")).status_code

    assert await status() == 200
    await proxy.refuse()
    assert await status() == 200
    stage.clock.advance(seconds=1)
    assert await status() == 503
    await proxy.accept()
    assert await status() == 503
    stage.clock.advance(seconds=1)
    assert await status() == 200


@pytest.mark.own_database
async def test_the_database_of_a_preview_is_reported_with_what_to_do(stage: Stage) -> None:
    await stage.rows.execute("UPDATE alembic_version SET version_num = '0031'")
    assert not await has_our_schema(stage.services.database)
    assert "before 0.1.0" in (await stage.client.get("/readyz")).json()["checks"]["schema"]
    (logged,) = stage.logged("schema_refused")
    assert "before 0.1.0" in logged["what_to_do"]
