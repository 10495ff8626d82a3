"""If a role doesn't own the database, `wxauth migrate` and `wxauth check` name the missing GRANTs."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from tests.databases import scripts_of_next_version
from tests.processes import run
from tests.world import Rows
from wxauth.checks.database import judge_schema
from wxauth.checks.rights_queries import read_rights
from wxauth.checks.runner import check_with
from wxauth.core.database import Database
from wxauth.core.migrations import MigrationForbidden, migrate
from wxauth.core.revisions import KNOWN_REVISIONS, revisions_in
from wxauth.settings.settings import Settings

numbers = count(1)


@dataclass(frozen=True)
class Guest:
    """A role that owns nothing and whose name must be quoted in SQL, with the connection of the database's owner."""

    name: str
    owner: Rows
    settings: Settings
    folder: Path

    @property
    def url(self) -> str:
        return self.settings.database_url.get_secret_value()

    async def schema(self) -> tuple[str, str]:
        """Return what `wxauth check` reports about the schema."""
        results = await check_with(self.settings)
        [found] = [(result.level, result.text) for result in results if result.name == "schema"]
        return found

    async def migrate(self) -> tuple[int, str]:
        done = await asyncio.to_thread(run, "migrate", cwd=self.folder, env={"WXAUTH_DATABASE_URL": self.url})
        return done.returncode, done.stdout + done.stderr

    async def gets_the_suggested_grant(self, message: str) -> str:
        """Run the statement that a message suggests, as the database's owner."""
        found = re.search("GRANT [^;]+;", message)
        assert found, message
        await self.owner.execute(found[0])
        return found[0]


@pytest.fixture
def guests_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database without tables. If the test has its own database, this database has wxauth's tables."""
    has_tables = request.node.get_closest_marker("own_database")
    return request.getfixturevalue("database_url" if has_tables else "empty_database_url")


@pytest.fixture
async def guest(guests_url: str, make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Guest]:
    name = f"Web-{next(numbers)}"
    owner = await asyncpg.connect(guests_url)
    await owner.execute(f'CREATE ROLE "{name}" LOGIN')
    settings = make_settings(database_url=guests_url.replace("postgres@", f"{name}@"))
    yield Guest(name, owner, settings, tmp_path)
    await owner.execute(f'REASSIGN OWNED BY "{name}" TO postgres; DROP OWNED BY "{name}"; DROP ROLE "{name}"')
    await owner.close()


@pytest.mark.process
async def test_a_role_that_may_not_create_tables_gets_the_grant_from_both_commands(guest: Guest) -> None:
    grant = f'GRANT CREATE ON SCHEMA public TO "{guest.name}";'
    level, message = await guest.schema()
    assert (level, grant in message, "wxauth migrate" in message) == ("bad", True, True)
    status, output = await guest.migrate()
    assert (status, grant in output, len(output.splitlines())) == (1, True, 1)
    assert "permission denied for schema public" in output
    assert await guest.gets_the_suggested_grant(output) == grant
    assert (await guest.migrate())[0] == 0
    assert (await guest.schema())[0] == "ok"


@pytest.mark.process
async def test_a_role_without_a_schema_gets_the_grant(guest: Guest) -> None:
    await guest.owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    level, message = await guest.schema()
    assert (level, "GRANT USAGE, CREATE" in message) == ("bad", True)
    await guest.gets_the_suggested_grant((await guest.migrate())[1])
    assert (await guest.migrate())[0] == 0
    assert (await guest.schema())[0] == "ok"


@pytest.mark.process
@pytest.mark.own_database
async def test_a_role_that_may_not_use_another_roles_tables_gets_the_grant(guest: Guest) -> None:
    level, message = await guest.schema()
    assert level == "bad"
    granted = await guest.gets_the_suggested_grant(message)
    assert granted == f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{guest.name}";'
    assert (await guest.schema())[0] == "ok"


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_role_that_may_use_but_not_alter_the_tables_gets_their_owner(guest: Guest) -> None:
    owner = f"{guest.name}-owner"
    tables = await guest.owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await guest.owner.execute(f'CREATE ROLE "{owner}"')
    await guest.owner.execute("".join(f'ALTER TABLE {table} OWNER TO "{owner}";' for (table,) in tables))
    await guest.owner.execute(
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{guest.name}";'
        f'GRANT CREATE ON SCHEMA public TO "{guest.name}", "{owner}"'
    )
    assert (await guest.schema())[0] == "ok"
    scripts = scripts_of_next_version(guest.folder)
    async with aclosing(Database(guest.url)) as database:
        message = judge_schema(KNOWN_REVISIONS[0], await read_rights(database), revisions_in(scripts)).text
        assert f'GRANT "{owner}" TO "{guest.name}";' in message
        with pytest.raises(MigrationForbidden, match="must be owner of table users"):
            await migrate(database, scripts=scripts)
        await guest.gets_the_suggested_grant(message)
        assert await migrate(database, scripts=scripts) == "9002"
    await guest.owner.execute(f'REASSIGN OWNED BY "{owner}" TO postgres; DROP OWNED BY "{owner}"; DROP ROLE "{owner}"')
