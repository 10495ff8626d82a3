"""No index depends on the operating system's order of text."""

from contextlib import aclosing
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.world import Rows, Stage
from wxauth.core.database import Database
from wxauth.core.migrations import migrate

pytestmark = pytest.mark.oldest_postgres

ANOTHER_ORDER = """
    SELECT format('%s.%s', table_name, column_name) FROM information_schema.columns
     WHERE table_schema = 'public' AND data_type IN ('text', 'character varying', 'ARRAY')
       AND udt_name IN ('text', 'varchar', '_text') AND collation_name IS DISTINCT FROM 'C'
     UNION ALL
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid, unnest(indcollation) used
     WHERE relnamespace = 'public'::regnamespace AND used NOT IN (0, '"C"'::regcollation)
"""


async def test_no_column_and_no_index_has_an_order_but_that_of_bytes(rows: Rows) -> None:
    wrong = [name for (name,) in await rows.fetch(ANOTHER_ORDER)]
    assert not wrong, f'add COLLATE "C" to the type of {", ".join(wrong)} in the revision'


@pytest.mark.own_database
@pytest.mark.slow
async def test_everybody_is_found_after_the_order_has_changed_under_the_database(
    empty_database_url: str, admin: asyncpg.Connection, stage: Stage
) -> None:
    """The order changes when PostgreSQL's image moves from Alpine to Debian, or gets another version of ICU."""
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
