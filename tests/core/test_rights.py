"""If a role lacks a right, commands print PostgreSQL's message and the page that contains the GRANT statements."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from tests.databases import scripts_of_next_version
from tests.docs import block
from tests.processes import run
from tests.world import Rows
from wxauth.checks.runner import check_with
from wxauth.core.database import Database
from wxauth.core.migrations import MigrationForbidden, migrate
from wxauth.settings.settings import Settings

PAGE = "docs/run/database.md"
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

    async def gets_the_grants_shown(self) -> None:
        shown = block(PAGE, "GRANT USAGE ON SCHEMA public TO wxauth_service")
        await self.owner.execute(shown.replace("wxauth_service", f'"{self.name}"'))


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
@pytest.mark.parametrize("revoked", ["SELECT", "REVOKE ALL ON SCHEMA public FROM PUBLIC"])
async def test_a_role_that_may_not_create_tables_is_sent_to_the_page(guest: Guest, revoked: str) -> None:
    await guest.owner.execute(revoked)
    level, message = await guest.schema()
    assert (level, "wxauth migrate" in message) == ("bad", True)
    status, output = await guest.migrate()
    assert (status, PAGE in output, len(output.splitlines())) == (1, True, 1)
    await guest.owner.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{guest.name}"')
    assert (await guest.migrate())[0] == 0
    assert (await guest.schema())[0] == "ok"


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_role_that_may_use_but_not_alter_the_tables_cannot_migrate(guest: Guest) -> None:
    await guest.gets_the_grants_shown()
    await guest.owner.execute(f'GRANT CREATE ON SCHEMA public TO "{guest.name}"')
    assert (await guest.schema())[0] == "ok"
    scripts = scripts_of_next_version(guest.folder)
    async with aclosing(Database(guest.url)) as database:
        with pytest.raises(MigrationForbidden, match="must be owner of table users"):
            await migrate(database, scripts=scripts)
        await guest.owner.execute(f'GRANT postgres TO "{guest.name}"')
        assert await migrate(database, scripts=scripts) == "9002"


@pytest.mark.slow
@pytest.mark.own_database
async def test_each_missing_right_is_named_with_its_table_and_mended_by_the_page(guest: Guest) -> None:
    await guest.gets_the_grants_shown()
    assert (await guest.schema())[0] == "ok"
    lacks = {
        "ALL ON ALL TABLES IN SCHEMA public": "permission denied for table",
        "SELECT ON alembic_version": "permission denied for table alembic_version",
        "SELECT ON users": "permission denied for table users",
        "INSERT ON sessions": "permission denied for table sessions",
        "UPDATE ON consents": "permission denied for table consents",
        "DELETE ON webhooks": "permission denied for table webhooks",
    }
    for lack, words in lacks.items():
        await guest.owner.execute(f'REVOKE {lack} FROM "{guest.name}"')
        level, text = await guest.schema()
        assert (level, words in text, PAGE in text) == ("bad", True, True), (lack, text)
        await guest.gets_the_grants_shown()
        assert (await guest.schema())[0] == "ok"
