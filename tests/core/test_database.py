"""Tests of the databases that `WXAUTH_DATABASE_URL` can name."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from tests.database_proxy import Proxy
from tests.loops import let_pass
from tests.sweeps import swept
from tests.world import Rows, until
from wxauth.core.connecting import DEADLINES, MAX_IDLE_SECONDS, Deadlines
from wxauth.core.database import Database, Transaction
from wxauth.core.migrations import migrate, migration_connection
from wxauth.core.outages import DatabaseUrlRefused, NothingCommitted, outage_text, reason_of
from wxauth.core.statements import Nothing, Statement
from wxauth.errors import StorageUnavailable
from wxauth_desk.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.own_database, pytest.mark.oldest_postgres]

PASSWORD = "p@ss:w/ö?rd#%+&=, '\"\\x"
LIBPQS_OWN = [
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "sslcompression",
    "sslsni",
]
ONE = Statement[int]("SELECT 1 AS one")
SLEEP = Statement[Nothing]("SELECT pg_sleep(1)")


SETTINGS = Statement[str]("""
    SELECT string_agg(current_setting(name), ' ' ORDER BY place) AS settings
      FROM unnest(ARRAY['application_name', 'jit', 'statement_timeout', 'lock_timeout',
                        'idle_in_transaction_session_timeout']) WITH ORDINALITY AS given (name, place)
""")


def opened(url: str, deadlines: Deadlines = DEADLINES) -> aclosing[Database]:
    return aclosing(Database(url, deadlines=deadlines))


async def can_be_asked(url: str) -> bool:
    """Return whether statements work both with a transaction and without one."""
    async with opened(url) as database:
        one = await database.value(ONE)
        async with database.begin() as transaction:
            return one == await transaction.value(ONE) == 1


@pytest.fixture
async def dead(database_url: str) -> Proxy:
    """An address at which nothing listens."""
    async with Proxy(database_url) as proxy:
        return proxy


@pytest.fixture
async def silent(database_url: str) -> AsyncIterator[Proxy]:
    """An address at which a server listens and never answers."""
    async with Proxy(database_url) as proxy:
        proxy.fall_silent()
        yield proxy


async def test_a_unix_socket_by_either_spelling(database_url: str) -> None:
    parts = urlsplit(database_url)
    [folder], [port] = map(parse_qs(parts.query).__getitem__, ("host", "port"))
    assert await can_be_asked(database_url)
    assert await can_be_asked(f"postgresql://postgres@{quote(folder, safe='')}:{port}{parts.path}")
    assert await can_be_asked(f"postgresql://{parts.path}?host={folder}&port={port}&user=postgres")


async def test_of_several_hosts_one_that_lives_is_enough(proxy: Proxy, dead: Proxy) -> None:
    path = urlsplit(proxy.url).path
    assert await can_be_asked(f"postgresql://postgres@{dead.address},{proxy.address}{path}")
    assert await can_be_asked(f"postgresql://postgres@{proxy.address},{dead.address}{path}")
    assert await can_be_asked(f"postgresql://postgres@{dead.address},[::1]:1,{proxy.address}{path}")
    ports = ",".join(address.rpartition(":")[2] for address in (dead.address, proxy.address))
    assert await can_be_asked(f"postgresql://postgres@{path}?host=127.0.0.1,127.0.0.1&port={ports}")


async def test_a_port_in_the_query_is_that_of_each_host_without_a_port(proxy: Proxy, dead: Proxy) -> None:
    path = urlsplit(proxy.url).path
    host, _, port = proxy.address.rpartition(":")
    assert await can_be_asked(f"postgresql://postgres@{host}{path}?port={port}")
    assert await can_be_asked(f"postgresql://postgres@{dead.address},{host}{path}?port={port}")


async def test_the_ports_of_hosts_in_the_query_are_not_those_of_the_host_before_it(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = proxy.address.rpartition(":")
    monkeypatch.setenv("PGPORT", port)
    url = f"postgresql://postgres@{host}{urlsplit(proxy.url).path}"
    assert await can_be_asked(f"{url}?host=other-1.test,other-2.test&port=1,2")
    assert await can_be_asked(f"{url}?host=other.test&port=1")


@pytest.mark.slow
async def test_of_several_hosts_a_silent_one_costs_its_own_time_once(proxy: Proxy, silent: Proxy) -> None:
    path = urlsplit(proxy.url).path
    deadlines = replace(DEADLINES, connect=1.5)
    async with opened(f"postgresql://postgres@{silent.address},{proxy.address}{path}", deadlines) as database:
        async with asyncio.timeout(2 * deadlines.connect):
            assert await database.value(ONE)
        proxy.drop()
        async with asyncio.timeout(deadlines.connect):
            assert await database.value(ONE)  # the database asks the host of the last connection first


async def test_of_several_hosts_one_must_be_the_primary(proxy: Proxy, admin: asyncpg.Connection) -> None:
    path = urlsplit(proxy.url).path
    url = f"postgresql://postgres@{proxy.address},{proxy.address}{path}"
    assert await can_be_asked(url)
    await admin.execute(f"ALTER DATABASE {path[1:]} SET default_transaction_read_only = on")
    with pytest.raises(StorageUnavailable):
        await can_be_asked(url)
    assert await can_be_asked(f"{url}?target_session_attrs=any")


@pytest.mark.slow
async def test_a_password_of_any_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    with EmbeddedPostgres(data, lasting=False) as server:
        connection = await asyncpg.connect(server.url())
        quoted = await connection.fetchval("SELECT quote_literal($1::text)", PASSWORD)
        await connection.execute(f'CREATE ROLE "al:ice" LOGIN PASSWORD {quoted}')
        (data / "pg_hba.conf").write_text('local all "al:ice" scram-sha-256\nlocal all all trust\n')
        await connection.execute("SELECT pg_reload_conf()")
        rest = server.url().partition("@")[2]
        assert await can_be_asked(f"postgresql://al%3Aice:{quote(PASSWORD, safe='')}@{rest}")
        assert await can_be_asked(
            f"{server.url().replace('postgres@', 'al%3Aice@')}&password={quote(PASSWORD, safe='')}"
        )
        with pytest.raises(StorageUnavailable):
            await can_be_asked(f"postgresql://al%3Aice:wrong@{rest}")
        await connection.close()
        file, escaped = tmp_path / "pgpass", re.sub(r"([:\\])", r"\\\1", PASSWORD)
        others = ["#*:*:*:*", r"\*:*:*:*", "*:1:*:*", "*:*:other:*", "*:*:*:al", "*:*"]
        lines = [f"{each}:wrong" for each in others] + [rf"localhost:*:postgres:al\:ice:{escaped}:more"]
        file.write_bytes("\r\n".join(lines).encode())
        file.chmod(0o600)
        several = rest.replace("host=", "host=/nowhere,").replace("port=", "port=1,")
        query = parse_qs(urlsplit(server.url()).query)
        encoded = f"{quote(query['host'][0], safe='')}:{query['port'][0]}/postgres"
        for password, path in ((PASSWORD, ""), ("", str(file))):
            monkeypatch.setenv("PGPASSWORD", password)
            monkeypatch.setenv("PGPASSFILE", path)
            for url in (f"al%3Aice@{rest}", f"al%3Aice:@{rest}", f"al%3Aice@{several}", f"al%3Aice@{encoded}"):
                assert await can_be_asked(f"postgresql://{url}"), (url, path)
        monkeypatch.delenv("PGPASSWORD")
        file.chmod(0o640)
        with pytest.warns(match="group or world access"), pytest.raises(StorageUnavailable):
            await can_be_asked(f"postgresql://al%3Aice@{rest}")


@swept(
    ("parameter", "works"),
    [
        *((f"{name}=1", False) for name in LIBPQS_OWN),
        *((f"{name}={value}", True) for name in ("channel_binding", "gssencmode") for value in ("prefer", "disable")),
        ("channel_binding=require", True),
        *((f"client_encoding={name}", True) for name in ("UTF8", "utf-8")),
        ("client_encoding=GBK", False),
        ("options=-c%20work_mem%3D8MB", True),
        ("application_name=shop", True),
        ("tcp_user_timeout=9000", True),  # PostgreSQL has a setting with this name for its own end
        # Neon prints these for Prisma, with sslmode=require.
        ("channel_binding=require&connect_timeout=15&sslmode=prefer", True),
        ("pgbouncer=true&sslmode=prefer", True),  # Supabase's pooler
        ("gssencmode=require", False),
        ("require_auth=scram-sha-256", False),
        ("schema=public", False),
    ],
)
async def test_a_parameter_is_heeded_or_refused_by_its_name(proxy: Proxy, parameter: str, works: bool) -> None:
    if works:
        assert await can_be_asked(f"{proxy.url}?{parameter}")
        return
    with pytest.raises(DatabaseUrlRefused) as refused:
        await can_be_asked(f"{proxy.url}?{parameter}")
    assert parameter.partition("=")[0] in reason_of(refused.value)


@pytest.mark.parametrize(("more", "in_statement"), [("", "read committed"), ("&pgbouncer=true", "serializable")])
async def test_a_transaction_sees_what_others_commit_whatever_the_databases_default(
    database_url: str, rows: Rows, more: str, in_statement: str
) -> None:
    name = await rows.fetchval("SELECT current_database()")
    await rows.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    isolation = Statement[str]("SELECT current_setting('transaction_isolation') AS isolation")
    async with opened(database_url + more) as database:
        async with database.begin() as transaction:
            assert await transaction.value(isolation) == "read committed"
        async with migration_connection(database) as migration:
            assert (await migration.execute(text(isolation.text))).scalar() == "read committed"
        assert await database.value(isolation) == in_statement


@swept(
    ("more", "settings", "in_transaction", "prepared"),
    [
        ("", "wxauth off 4s 2s 8s", "wxauth off 4s 2s 8s", 1),
        ("&application_name=login&statement_timeout=1s", "login off 1s 2s 8s", "login off 1s 2s 8s", 1),
        ("&pgbouncer=true", "wxauth on 0 0 0", "wxauth on 4s 2s 8s", 0),  # each transaction sets its own limits
        ("&pgbouncer=prepared", "wxauth on 0 0 0", "wxauth on 4s 2s 8s", 1),
    ],
)
async def test_the_url_says_what_is_set_and_prepared(
    database_url: str, more: str, settings: str, in_transaction: str, prepared: int
) -> None:
    counted = Statement[int](
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%unmistakable%' AND :is_so"
    )
    async with opened(database_url + more) as database:
        for _ in range(3):
            assert await database.value(SETTINGS) == settings
            by_itself = await database.value(counted, is_so=True)
            async with database.begin() as transaction:
                assert await transaction.value(SETTINGS) == in_transaction
                in_it = await transaction.value(counted, is_so=True)
    assert (by_itself, in_it) == (prepared, prepared)


async def test_a_limit_of_the_operator_that_ends_a_transaction_is_reported_as_an_outage(
    database_url: str, rows: Rows
) -> None:
    if not await rows.fetchval("SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'transaction_timeout')"):
        pytest.skip("this PostgreSQL has no such limit")
    name = await rows.fetchval("SELECT current_database()")
    await rows.execute(f"ALTER DATABASE {name} SET transaction_timeout = '100ms'")
    async with opened(database_url) as database:
        with pytest.raises(StorageUnavailable) as refused:
            async with database.begin() as transaction:
                await transaction.run(SLEEP)
        ended = "the database ended the connection: terminating connection due to transaction timeout"
        assert outage_text(refused.value) == ended
        with pytest.raises(StorageUnavailable):
            await database.run(SLEEP)
        assert await database.value(ONE) == 1


async def test_a_wrong_statement_of_ours_is_not_reported_as_an_outage(database_url: str) -> None:
    async with opened(database_url) as database:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await database.value(Statement[int]("SELEKT 1"))
        with pytest.raises(asyncpg.DataError):
            await database.value(Statement[int]("SELECT :number::integer"), number="one")
        assert await database.value(ONE) == 1


# Tests of blocks whose connection is lost.


class Numbered(TypedDict):
    number: int


MANY = Statement[Numbered]("SELECT generate_series(1, 10) AS number")
Lose = Callable[[], Awaitable[None]]


async def in_a_transaction(database: Database, lose: Lose) -> None:
    async with database.begin() as transaction:
        await lose()
        await transaction.value(ONE)


async def at_a_commit(database: Database, lose: Lose) -> None:
    async with database.begin() as transaction:
        await transaction.value(ONE)
        await lose()


async def in_a_snapshot(database: Database, lose: Lose) -> None:
    async with database.snapshot() as state:
        await lose()
        await state.value(ONE)


async def between_pages(database: Database, lose: Lose) -> None:
    async with database.snapshot() as state:
        async for _ in state.pages(MANY, 2):
            await lose()


async def in_a_migration(database: Database, lose: Lose) -> None:
    async with migration_connection(database) as migration:
        await lose()
        await migration.execute(text(ONE.text))


async def at_a_migrations_commit(database: Database, lose: Lose) -> None:
    async with migration_connection(database):
        await lose()


BLOCKS = (in_a_transaction, at_a_commit, in_a_snapshot, between_pages, in_a_migration, at_a_migrations_commit)


@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.slow
async def test_whatever_the_driver_raises_on_a_lost_connection_is_an_outage(
    proxy: Proxy, block: Callable[[Database, Lose], Awaitable[None]], is_noticed: bool
) -> None:
    async def lose() -> None:
        if not is_noticed:
            proxy.lose_next_answer()
            return
        proxy.drop()
        for _ in range(20):
            await asyncio.sleep(0.001)

    async with opened(proxy.url) as database:
        with pytest.raises(StorageUnavailable) as outage:
            await block(database, lose)
        assert isinstance(outage.value, NothingCommitted) == (block is in_a_transaction)
        assert await database.value(ONE) == 1


async def test_a_block_that_decides_against_its_change_says_so_though_its_connection_is_lost(proxy: Proxy) -> None:
    async with opened(proxy.url) as database:
        for begin in (database.begin, database.snapshot):

            async def decide(begin: Callable[[], AbstractAsyncContextManager[object]] = begin) -> None:
                async with begin():
                    proxy.drop()
                    await asyncio.sleep(0.01)
                    raise LookupError

            with pytest.raises(LookupError):
                await decide()


@pytest.mark.parametrize("error", [OSError, TimeoutError, FileNotFoundError, ConnectionResetError])
async def test_a_failure_of_a_blocks_own_code_is_no_outage(database_url: str, error: type[OSError]) -> None:
    backend = Statement[int]("SELECT pg_backend_pid()")
    async with opened(database_url) as database:
        before = await database.value(backend)
        for begin in (database.begin, database.snapshot):

            async def fail(begin: Callable[[], AbstractAsyncContextManager[Transaction]] = begin) -> None:
                async with begin() as transaction:
                    await transaction.value(ONE)
                    raise error("of a file")

            with pytest.raises(error, match="of a file"):
                await fail()
        assert await database.value(backend) == before, "the connection of the pool is kept"


async def test_a_snapshot_that_has_been_read_is_whole_though_its_connection_is_lost(proxy: Proxy) -> None:
    async with opened(proxy.url) as database, database.snapshot() as state:
        assert await state.value(ONE) == 1
        proxy.drop()
        await asyncio.sleep(0.01)


async def test_a_migration_that_waits_for_another_one_learns_that_the_database_is_away(
    proxy: Proxy, rows: Rows, admin: asyncpg.Connection
) -> None:
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND query = 'ROLLBACK')"
    async with opened(proxy.url) as database, rows.transaction():
        await rows.execute("SELECT pg_advisory_xact_lock(hashtext('wxauth.migrations'))")
        waiting = asyncio.create_task(migrate(database))
        await until(lambda: admin.fetchval(waits, urlsplit(proxy.url).path[1:]))
        proxy.drop()
        with pytest.raises(StorageUnavailable):
            await waiting


async def test_connections_of_a_peak_are_closed_once_idle(database_url: str, rows: Rows) -> None:
    connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    others = await rows.fetchval(connections)
    async with opened(database_url) as database:
        await asyncio.gather(*(database.value(ONE) for _ in range(3)))
        for seconds, kept in ((1.0, 3), (MAX_IDLE_SECONDS - 1, 2), (0.5, 1), (MAX_IDLE_SECONDS, 1)):
            let_pass(seconds)
            await database.value(ONE)
            left = f"{connections} HAVING count(*) = {others + kept}"
            await until(partial(rows.fetchval, left))


async def in_a_statement(database: Database, begun: asyncio.Event) -> None:
    begun.set()
    await database.run(SLEEP)


async def at_a_transactions_begin(database: Database, begun: asyncio.Event) -> None:
    begun.set()
    async with database.begin() as transaction:
        await transaction.run(SLEEP)


@pytest.mark.parametrize("ask", [in_a_statement, at_a_transactions_begin])
async def test_a_cancellation_holds_even_if_the_connection_is_lost_in_the_same_moment(
    database_url: str, ask: Callable[[Database, asyncio.Event], Coroutine[None, None, None]]
) -> None:
    async with opened(database_url) as database:
        await database.value(ONE)
        begun = asyncio.Event()
        asking = asyncio.create_task(ask(database, begun))
        await begun.wait()
        [connection] = database._connections._lent
        connection.terminate()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
