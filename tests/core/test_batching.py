"""Tests of statements that several callers run together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import asyncpg
import pytest
from pydantic import BaseModel

from tests.database_proxy import HURRIED, PATIENT, Proxy
from tests.loops import let_pass
from tests.world import Rows, until, until_locked
from wxauth.core.connecting import DEADLINES
from wxauth.core.database import Database
from wxauth.core.statements import MAX_BATCH_SIZE, Batched
from wxauth.errors import StorageUnavailable

pytestmark = [pytest.mark.own_database, pytest.mark.oldest_postgres]

SETTLED = replace(PATIENT, batch_wait=1.0)
"""Deadlines with which the next statement waits until PostgreSQL has answered the one before."""


class Quotient(BaseModel):
    quotient: int
    backend: int
    """The process of PostgreSQL, which runs only one statement at a time."""


class Visit(BaseModel):
    name: str
    visits: int


DIVIDE = Batched[Quotient](
    "divide", "SELECT 12 / :divisor::int AS quotient, pg_backend_pid() AS backend WHERE :divisor <> 5", divisor="int"
)
_VISIT = "UPDATE visitors SET visits = visits + 1"
VISIT = Batched[Visit](
    "visit",
    f"{_VISIT} WHERE visitors.name = :name RETURNING visitors.name, visits",
    f""", free AS (
    SELECT n, visitors.name FROM asked JOIN visitors USING (name) FOR NO KEY UPDATE OF visitors SKIP LOCKED
), visited AS ({_VISIT} FROM free WHERE visitors.name = free.name RETURNING n, visitors.name, visits)
SELECT * FROM visited UNION ALL SELECT n, NULL, NULL FROM asked WHERE name NOT IN (SELECT name FROM visitors)
""",
    name="text",
)


@pytest.fixture
async def database(proxy: Proxy) -> AsyncIterator[Database]:
    async with aclosing(Database(proxy.url, deadlines=SETTLED)) as database:
        yield database


@pytest.fixture
async def visitors(rows: Rows) -> None:
    await rows.execute("CREATE TABLE visitors (name text PRIMARY KEY, visits int NOT NULL DEFAULT 0)")
    await rows.execute("INSERT INTO visitors SELECT 'v' || n FROM generate_series(1, 40) n")


async def divide(database: Database, divisor: int) -> int | None:
    found = await database.row(DIVIDE, divisor=divisor)
    return None if found is None else found.quotient


async def visit(database: Database, name: str) -> int | None:
    found = await database.row(VISIT, name=name)
    assert found is None or found.name == name
    return None if found is None else found.visits


async def test_who_waits_goes_with_the_next_one_and_gets_their_own_row(database: Database, proxy: Proxy) -> None:
    # PostgreSQL now has both forms of the statement prepared.
    await asyncio.gather(*(divide(database, 1) for _ in range(3)))
    before = proxy.round_trips
    divisors = [1, 2, 3, 4, 5, 6] * 6
    found = await asyncio.gather(*(divide(database, divisor) for divisor in divisors))
    assert found == [None if divisor == 5 else 12 // divisor for divisor in divisors]
    one_alone, full_ones, rest = 1, 2, 1
    assert len(divisors) - 1 - 2 * MAX_BATCH_SIZE == 3
    assert proxy.round_trips - before == one_alone + full_ones + rest


async def test_whom_postgres_refuses_is_refused_alone(database: Database) -> None:
    divisors = [1, *range(1, 8), 0, *range(8, 15)]
    found = await asyncio.gather(*(divide(database, each) for each in divisors), return_exceptions=True)
    refused = [each for each, one in zip(divisors, found, strict=True) if isinstance(one, BaseException)]
    assert refused == [0]
    assert isinstance(found[divisors.index(0)], asyncpg.DivisionByZeroError)


@pytest.mark.parametrize("who", [[0], [1], [0, 1, 2], [3]], ids=["the first", "a follower", "three", "the last"])
async def test_who_gives_up_takes_nobody_along(database: Database, who: list[int]) -> None:
    calls = [asyncio.create_task(divide(database, 3)) for _ in range(4)]
    await asyncio.sleep(0)
    for place in who:
        calls[place].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [place for place, one in enumerate(found) if isinstance(one, asyncio.CancelledError)] == who
    assert [one for one in found if not isinstance(one, BaseException)] == [4] * (4 - len(who))


async def test_the_only_one_who_waits_may_give_up_and_the_first_still_gets_their_row(database: Database) -> None:
    first, second = [asyncio.create_task(divide(database, 3)) for _ in range(2)]
    await asyncio.sleep(0)
    second.cancel()
    assert await first == 4
    assert await divide(database, 2) == 6


async def test_who_gives_up_while_the_batch_is_under_way_takes_nobody_along(
    database: Database, visitors: None, rows: Rows
) -> None:
    async with rows.transaction():
        await rows.execute("LOCK TABLE visitors IN EXCLUSIVE MODE")
        calls = [asyncio.create_task(visit(database, f"v{n}")) for n in range(1, 5)]
        await until_locked(rows, 1)
        let_pass(SETTLED.batch_wait)
        await until_locked(rows, 2)
        calls[1].cancel()
    assert await asyncio.gather(calls[0], *calls[2:]) == [1, 1, 1]


async def test_a_lost_connection_costs_nobody_their_row(database: Database, proxy: Proxy, visitors: None) -> None:
    names = [f"v{n}" for n in range(1, 10)]
    first = asyncio.create_task(visit(database, names[0]))
    await asyncio.sleep(0)
    calls = [asyncio.create_task(visit(database, name)) for name in names[1:]]
    assert await first == 1
    proxy.drop()
    assert await asyncio.gather(*calls) == [1] * 8


async def test_a_lost_answer_costs_nobody_their_row(database: Database, proxy: Proxy, visitors: None) -> None:
    await asyncio.gather(*(visit(database, f"v{n}") for n in range(20, 24)))
    proxy.lose_next_answer(containing=b"v9")
    found = await asyncio.gather(*(visit(database, f"v{n}") for n in range(1, 10)))
    # As after any lost response, a statement that PostgreSQL has already executed is sent again.
    assert found == [1, *[2] * 8]


async def test_one_row_twice_in_a_batch_is_written_twice(database: Database, visitors: None) -> None:
    names = ["v1", "v2", "v2", "v3", "v2", "v1", "nobody"]
    found = await asyncio.gather(*(visit(database, name) for name in names))
    by_name = {
        name: sorted(one for each, one in zip(names, found, strict=True) if each == name and one) for name in names
    }
    assert by_name == {"v1": [1, 2], "v2": [1, 2, 3], "v3": [1], "nobody": []}


async def test_a_locked_row_holds_up_its_own_caller_alone(database: Database, visitors: None, rows: Rows) -> None:
    async with rows.transaction():
        await rows.execute("SELECT FROM visitors WHERE name = 'v3' FOR UPDATE")
        calls = {name: asyncio.create_task(visit(database, name)) for name in ("v1", "v2", "v3", "v4")}
        assert await asyncio.gather(*(calls[name] for name in ("v1", "v2", "v4"))) == [1, 1, 1]
        assert not calls["v3"].done()
    assert await calls["v3"] == 1


async def test_a_locked_row_of_the_first_holds_up_the_others_for_the_batch_wait(
    database: Database, visitors: None, rows: Rows
) -> None:
    async with rows.transaction():
        await rows.execute("SELECT FROM visitors WHERE name = 'v1' FOR UPDATE")
        calls = [asyncio.create_task(visit(database, f"v{n}")) for n in range(1, 5)]
        await until_locked(rows, 1)
        let_pass(SETTLED.batch_wait)
        assert await asyncio.gather(*calls[1:]) == [1, 1, 1]
        assert not calls[0].done()
        assert await visit(database, "v9") == 1
    assert await calls[0] == 1


async def test_a_silent_server_ends_each_at_its_own_time(proxy: Proxy) -> None:
    async with aclosing(Database(proxy.url, deadlines=replace(HURRIED, batch_wait=60.0))) as database:
        assert await divide(database, 1) == 12
        proxy.fall_silent()
        found = await asyncio.gather(*(divide(database, 1) for _ in range(4)), return_exceptions=True)
        assert [type(one) for one in found] == [StorageUnavailable] * 4
        assert len({id(one) for one in found}) == 4
        proxy.speak()
        assert await asyncio.gather(*(divide(database, 1) for _ in range(4))) == [12] * 4


async def test_what_is_under_way_is_given_up_when_the_database_is_closed(
    proxy: Proxy, visitors: None, rows: Rows
) -> None:
    # PostgreSQL waits for the lock until this limit, even after the connection is closed.
    database = Database(proxy.url, deadlines=replace(SETTLED, lock=DEADLINES.lock))
    async with rows.transaction():
        await rows.execute("LOCK TABLE visitors IN EXCLUSIVE MODE")
        calls = [asyncio.create_task(visit(database, f"v{n}")) for n in range(1, 5)]
        await until_locked(rows, 1)
        let_pass(SETTLED.batch_wait)
        await until_locked(rows, 2)
        for call in calls:
            call.cancel()
        await database.aclose()
        await until(lambda: rows.fetchval("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    assert {call.cancelled() for call in calls} == {True}


async def test_who_waits_while_the_database_is_closed_does_not_wait_for_ever(proxy: Proxy) -> None:
    for steps in range(6):
        async with aclosing(Database(proxy.url, deadlines=replace(DEADLINES, batch_wait=0.0))) as database:
            calls = [asyncio.create_task(divide(database, 3)) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            await database.aclose()
            async with asyncio.timeout(DEADLINES.total):
                assert await asyncio.gather(*calls) == [4] * 4, steps
