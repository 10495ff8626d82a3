"""`/readyz`: whether a replica can serve; any number of callers may ask."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.database_proxy import Proxy
from tests.fakes import Clock
from tests.world import Client, LogIn, MakeClient, MakeServices, Rows, leave, until, until_locked

MANY = 400


@pytest.mark.slow
async def test_however_many_ask_the_database_is_asked_once(client: Client, login: LogIn, rows: Rows) -> None:
    tokens = await login()
    async with rows.transaction():
        await rows.execute("LOCK TABLE alembic_version")
        asking = [asyncio.create_task(client.get("/readyz")) for _ in range(MANY)]
        await until_locked(rows)
        assert (await leave(client, tokens)).status_code == 204, "they keep nobody from a transaction"
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


@pytest.mark.own_database
@pytest.mark.parametrize("lost", ["INSERT ON sessions", "UPDATE ON users", "INSERT ON events_unplaced"])
@pytest.mark.slow
async def test_a_lost_privilege_means_not_ready(
    make_services: MakeServices, make_client: MakeClient, clock: Clock, database_url: str, rows: Rows, lost: str
) -> None:
    await rows.execute("""
        CREATE ROLE readiness LOGIN;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO readiness;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO readiness;
    """)
    try:
        client = make_client(await make_services(database_url=database_url.replace("postgres@", "readiness@")))

        async def check() -> tuple[int, str]:
            answer = await client.get("/readyz")
            return answer.status_code, answer.json()["checks"]["login"]

        assert await check() == (200, "ok")
        await rows.execute(f"REVOKE {lost} FROM readiness")
        clock.advance(seconds=29)
        assert await check() == (200, "ok")
        clock.advance(seconds=1)
        await until(lambda: refused_in(clock, check))
        await rows.execute(f"GRANT {lost} TO readiness")
        clock.advance(seconds=1)
        assert await check() == (200, "ok")
    finally:
        await rows.execute("DROP OWNED BY readiness; DROP ROLE readiness")


async def refused_in(clock: Clock, check: Callable[[], Awaitable[tuple[int, str]]]) -> bool:
    """Whether a probe a second later finds that the database refuses logins."""
    clock.advance(seconds=1)
    return await check() == (503, "refused by the database: see 'wxauth check'")


async def test_a_rehearsed_login_leaves_nothing_behind_and_a_lock_does_not_count(
    make_services: MakeServices, make_client: MakeClient, clock: Clock, rows: Rows
) -> None:
    client = make_client(await make_services())
    async with rows.transaction():
        await rows.execute("LOCK TABLE unionids")
        asking = asyncio.create_task(client.get("/readyz"))
        await until_locked(rows)
        clock.advance(seconds=31)
    assert (await asking).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
    for table in ("users", "identities", "unionids", "sessions", "events", "events_unplaced"):
        assert await rows.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    async with rows.transaction():
        await rows.execute("LOCK TABLE unionids")
        clock.advance(seconds=31)
        assert (await client.get("/readyz")).status_code == 200
        await until_locked(rows)  # a later rehearsal keeps no probe waiting
