"""No index depends on the order of text that the operating system defines; a database gets there beside logins."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import count
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from tests.fakes import APP
from tests.world import Rows, Stage
from wxauth.server.core.database import Database
from wxauth.server.core.migrations import UnknownRevision, migrate

pytestmark = pytest.mark.oldest_postgres
own_database = pytest.mark.own_database

BEFORE = "0100"
ANOTHER_ORDER = """
    SELECT format('%s.%s', table_name, column_name) FROM information_schema.columns
     WHERE table_schema = 'public' AND data_type IN ('text', 'character varying', 'ARRAY')
       AND udt_name IN ('text', 'varchar', '_text') AND collation_name IS DISTINCT FROM 'C'
     UNION ALL
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid, unnest(indcollation) used
     WHERE relnamespace = 'public'::regnamespace AND used NOT IN (0, '"C"'::regcollation)
"""
CROWD = f"""
    SET session_replication_role = replica;
    INSERT INTO users (id, created_at, unionid, external_id, nickname, last_login_at)
    SELECT ('01933c5e-8f1a-7c3e-9b1d-' || lpad(n::text, 12, '0'))::uuid, now(), 'union-' || n, 'member-' || n,
           'Élodie ' || n, now() FROM generate_series(1, 300) n;
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT '{APP["app_id"]}', 'openid-{APP["app_id"][-2:]}-' || external_id, id, now(), unionid FROM users;
    RESET session_replication_role
"""


async def test_no_column_and_no_index_has_an_order_but_that_of_bytes(rows: Rows) -> None:
    assert [name for (name,) in await rows.fetch(ANOTHER_ORDER)] == []


@pytest.fixture
async def former(database_url: str, rows: Rows) -> AsyncIterator[Database]:
    """A database of the revision before, with people."""
    async with aclosing(Database(database_url)) as database:
        await migrate(database, revision=BEFORE)
        await rows.execute(CROWD)
        yield database


@own_database
@pytest.mark.slow
async def test_logins_go_on_while_the_order_is_changed(stage: Stage, former: Database, rows: Rows) -> None:
    stage = await stage.replica(login_rate_limit="1000000/minute")
    statuses, is_over = set[int](), asyncio.Event()

    async def log_in(phone: int) -> None:
        for n in count():
            if is_over.is_set():
                return
            person = f"member-{1 + (phone * 40 + n) % 300}" if n % 3 else f"newcomer-{phone}-{n}"
            statuses.add((await stage.login.ask(person, nickname=f"Name {n}")).status_code)
            await asyncio.sleep(0.02)

    logging_in = [asyncio.create_task(log_in(phone)) for phone in range(6)]
    await migrate(former)
    is_over.set()
    await asyncio.gather(*logging_in)
    assert statuses == {200}
    assert [name for (name,) in await rows.fetch(ANOTHER_ORDER)] == []


@own_database
@pytest.mark.slow
async def test_the_change_may_be_stopped_at_any_statement_and_run_again(
    former: Database, rows: Rows, stage: Stage
) -> None:
    await rows.execute("""
        CREATE SEQUENCE public.done;
        CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('public.done') = 1000 THEN RAISE EXCEPTION 'stopped'; END IF;
        END $$;
        CREATE EVENT TRIGGER stopping ON ddl_command_start EXECUTE FUNCTION stop();
    """)
    stops = 0
    while True:
        await rows.execute(f"SELECT setval('public.done', {999 - 19 * stops})")
        try:
            await migrate(former)
            break
        except DBAPIError as exc:
            if "stopped" not in str(exc):
                raise
            stops += 1
        # What has been built halfway is not used, and one person is one user meanwhile.
        await rows.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('users_phone_idx')")
        with pytest.raises(asyncpg.UniqueViolationError):
            await rows.execute("UPDATE users SET external_id = 'member-1' WHERE external_id = 'member-2'")
    assert stops > 4
    await rows.execute("DROP EVENT TRIGGER stopping; DROP SEQUENCE public.done")
    assert [name for (name,) in await rows.fetch(ANOTHER_ORDER)] == []
    assert await rows.fetchval("SELECT bool_and(indisvalid) FROM pg_index")
    assert await rows.fetchval("SELECT bool_and(convalidated) FROM pg_constraint")
    assert (await stage.login("member-7"))["is_new_user"] is False


@own_database
@pytest.mark.slow
async def test_somebody_who_is_there_twice_is_named(former: Database, rows: Rows) -> None:
    await rows.execute("ALTER TABLE users DROP CONSTRAINT users_unionid_key")
    await rows.execute("UPDATE users SET unionid = 'union-1' WHERE unionid = 'union-2'")
    with pytest.raises(UnknownRevision, match=r"there twice.*\(unionid\)=\(union-1\).*delete the newer one"):
        await migrate(former)


@own_database
@pytest.mark.slow
async def test_everybody_is_found_after_the_order_has_changed_under_the_database(
    empty_database_url: str, admin: asyncpg.Connection, stage: Stage
) -> None:
    """As where the image of PostgreSQL moves from Alpine to Debian, or gets another version of ICU."""
    if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')"):
        pytest.skip("this PostgreSQL has no order but that of bytes")
    name = urlsplit(empty_database_url).path[1:]
    await admin.execute(f"DROP DATABASE {name}")
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C.UTF-8'")
    async with aclosing(Database(empty_database_url)) as database:
        await migrate(database)
    people = [f"{'aBcDeFgHiJ'[n % 10]}{'zYxWvUtSrQ'[n // 10 % 10]}-_{n}" for n in range(150)]
    client = await stage.make(database_url=empty_database_url)
    known = {person: await stage.login(person, at=client, unionid=f"U{person}") for person in people}
    column = "datlocale" if await admin.fetchval("SHOW server_version_num") >= "170000" else "daticulocale"
    await admin.execute(f"""
        UPDATE pg_database SET datlocprovider = 'i', {column} = 'en-US', datcollversion = '1' WHERE datname = '{name}';
        ALTER DATABASE {name} SET enable_seqscan = off
    """)
    client = await stage.make(database_url=empty_database_url)
    for person in people:
        again = await stage.login(person, at=client, unionid=f"U{person}")
        assert (again["user"]["id"], again["is_new_user"]) == (known[person]["user"]["id"], False)
