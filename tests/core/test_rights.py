"""A role that does not own the database: `wxauth migrate` and `wxauth check` name the missing GRANTs."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from tests.databases import scripts_of_next_version
from tests.processes import run
from wxauth.server.checks.database import judge_schema
from wxauth.server.checks.doctor import examine
from wxauth.server.checks.rows import read_rights
from wxauth.server.core.database import Database
from wxauth.server.core.migrations import MigrationForbidden
from wxauth.server.core.migrations import migrate as migrate_to
from wxauth.server.core.models import KNOWN_REVISIONS, revisions_in
from wxauth.server.core.settings import Settings

numbers = count(1)


@pytest.fixture
async def role(admin: asyncpg.Connection) -> AsyncIterator[str]:
    """A role that owns nothing, and whose name must be quoted in SQL."""
    name = f"Web-{next(numbers)}"
    await admin.execute(f'CREATE ROLE "{name}" LOGIN')
    yield name
    await admin.execute(f'DROP ROLE "{name}"')


def as_role(url: str, role: str) -> str:
    return url.replace("postgres@", f"{role}@")


async def schema_result(make_settings: Callable[..., Settings], url: str) -> tuple[str, str]:
    results = await examine(make_settings(database_url=url))
    [(level, message)] = [(result.level, result.message) for result in results if result.name == "schema"]
    return level, message


async def migrate(url: str, folder: Path) -> tuple[int, str]:
    done = await asyncio.to_thread(run, "migrate", cwd=folder, env={"WXAUTH_DATABASE_URL": url})
    return done.returncode, done.stdout + done.stderr


async def run_the_suggested_grant(url: str, message: str) -> str:
    """Run, as the database's owner, the statement that a line names."""
    found = re.search("GRANT [^;]+;", message)
    assert found, message
    connection = await asyncpg.connect(url)
    await connection.execute(found[0])
    await connection.close()
    return found[0]


async def drop_owned(url: str, role: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'REASSIGN OWNED BY "{role}" TO postgres; DROP OWNED BY "{role}"')
    await connection.close()


@pytest.mark.process
async def test_a_role_that_may_not_create_tables_gets_the_grant_from_both_commands(
    make_settings: Callable[..., Settings], empty_database_url: str, role: str, tmp_path: Path
) -> None:
    url = as_role(empty_database_url, role)
    grant = f'GRANT CREATE ON SCHEMA public TO "{role}";'
    level, message = await schema_result(make_settings, url)
    assert (level, grant in message, "wxauth migrate" in message) == ("bad", True, True)
    status, output = await migrate(url, tmp_path)
    assert (status, grant in output, len(output.splitlines())) == (1, True, 1)
    assert await run_the_suggested_grant(empty_database_url, output) == grant
    assert (await migrate(url, tmp_path))[0] == 0
    assert (await schema_result(make_settings, url))[0] == "ok"
    await drop_owned(empty_database_url, role)


@pytest.mark.process
async def test_a_role_without_a_schema_gets_the_grant(
    make_settings: Callable[..., Settings], empty_database_url: str, role: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    await connection.close()
    url = as_role(empty_database_url, role)
    level, message = await schema_result(make_settings, url)
    assert (level, "GRANT USAGE, CREATE" in message) == ("bad", True)
    await run_the_suggested_grant(empty_database_url, (await migrate(url, tmp_path))[1])
    assert (await migrate(url, tmp_path))[0] == 0
    assert (await schema_result(make_settings, url))[0] == "ok"
    await drop_owned(empty_database_url, role)


@pytest.mark.process
@pytest.mark.own_database
async def test_a_role_that_may_not_use_another_roles_tables_gets_the_grant(
    make_settings: Callable[..., Settings], database_url: str, role: str
) -> None:
    url = as_role(database_url, role)
    level, message = await schema_result(make_settings, url)
    assert level == "bad"
    granted = await run_the_suggested_grant(database_url, message)
    assert granted == f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{role}";'
    assert (await schema_result(make_settings, url))[0] == "ok"
    await drop_owned(database_url, role)


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_role_that_may_use_but_not_alter_the_tables_gets_their_owner(
    make_settings: Callable[..., Settings], database_url: str, role: str, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    owner = f"{role}-owner"
    await admin.execute(f'CREATE ROLE "{owner}"')
    connection = await asyncpg.connect(database_url)
    tables = [
        row["tablename"]
        for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    await connection.execute("".join(f'ALTER TABLE {table} OWNER TO "{owner}";' for table in tables))
    await connection.execute(
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{role}";'
        f'GRANT CREATE ON SCHEMA public TO "{role}", "{owner}"'
    )
    url = as_role(database_url, role)
    assert (await schema_result(make_settings, url))[0] == "ok"
    scripts = scripts_of_next_version(tmp_path)
    grant = f'GRANT "{owner}" TO "{role}";'
    async with aclosing(Database(url)) as database:
        message = judge_schema(KNOWN_REVISIONS[0], await read_rights(database), revisions_in(scripts)).message
        assert grant in message
        with pytest.raises(MigrationForbidden, match="must be owner of table users"):
            await migrate_to(database, scripts=scripts)
        await run_the_suggested_grant(database_url, message)
        assert await migrate_to(database, scripts=scripts) == "9002"
    await connection.close()
    for name in (role, owner):
        await drop_owned(database_url, name)
    await admin.execute(f'DROP ROLE "{owner}"')
