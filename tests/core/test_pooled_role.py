"""Behind a pooler, the role has the settings that each connection has without one, and nobody has to remember them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.checks.conftest import BAD
from tests.processes import run
from tests.world import LogLines, MakeServices, Rows
from wxauth.checks.runner import check_with
from wxauth.service.lifespan import lifespan
from wxauth.settings.settings import Settings

pytestmark = [pytest.mark.own_database, pytest.mark.process]

SHOWN = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1) ORDER BY name"
NAMES = ["idle_in_transaction_session_timeout", "jit", "lock_timeout", "statement_timeout"]
WITHOUT_POOLER = ["8000", "off", "2000", "4000"]
BY_DEFAULT = ["0", "on", "0", "0"]


@dataclass(frozen=True)
class Role:
    name: str
    url: str
    root: Rows
    folder: Path

    async def migrate(self, more: str = "&pgbouncer=true") -> str:
        done = await asyncio.to_thread(run, "migrate", cwd=self.folder, env={"WXAUTH_DATABASE_URL": self.url + more})
        assert (done.returncode, done.stderr) == (0, "")
        first, *rest = done.stdout.splitlines()
        assert first.startswith("schema at ")
        return "\n".join(rest)

    async def settings(self) -> list[str]:
        """Return the settings of a new connection."""
        connection = await asyncpg.connect(self.url)
        found = [row["setting"] for row in await connection.fetch(SHOWN, NAMES)]
        await connection.close()
        return found

    async def run(self, text: str) -> None:
        database = await self.root.fetchval("SELECT current_database()")
        await self.root.execute(text.format(role=f'"{self.name}"', database=database))


@pytest.fixture
async def role(database_url: str, rows: Rows, tmp_path: Path) -> AsyncIterator[Role]:
    name = "Pooled-" + await rows.fetchval("SELECT current_database()")
    it = Role(name, database_url.replace("postgres@", f"{name}@"), rows, tmp_path)
    await it.run("CREATE ROLE {role} LOGIN")
    await it.run(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    )
    yield it
    await it.run("DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_migration_sets_what_a_connection_has_without_a_pooler_and_says_so_once(role: Role) -> None:
    assert await role.migrate(more="") == ""
    assert await role.settings() == BY_DEFAULT
    said = await role.migrate()
    assert await role.settings() == WITHOUT_POOLER
    assert f"ALTER ROLE \"{role.name}\" SET lock_timeout = '2s'; ALTER ROLE" in said
    assert await role.migrate() == ""


@pytest.mark.parametrize(
    "by_operator", ["ALTER ROLE {role}", "ALTER DATABASE {database}", "ALTER ROLE {role} IN DATABASE {database}"]
)
async def test_a_migration_keeps_what_the_operator_has_set(role: Role, by_operator: str) -> None:
    await role.run(by_operator + " SET lock_timeout = '1s'")
    await role.run(by_operator + " SET statement_timeout = 0")
    assert "lock_timeout" not in await role.migrate()
    assert await role.settings() == ["8000", "off", "1000", "0"]
    await role.run("ALTER ROLE {role} SET lock_timeout = '500ms'")  # what is set later counts, too
    assert await role.migrate() == ""
    shadowed = "IN DATABASE" in by_operator  # by the operator's own value, which is more specific
    assert await role.settings() == ["8000", "off", "1000" if shadowed else "500", "0"]


async def test_a_role_that_acts_as_another_one_gets_the_settings_itself(role: Role) -> None:
    await role.run("CREATE ROLE owner_{database}; GRANT owner_{database} TO {role}")
    await role.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO owner_{database}")
    await role.run("ALTER ROLE {role} SET role = owner_{database}")
    try:
        assert "ALTER ROLE" in await role.migrate()
        assert await role.settings() == WITHOUT_POOLER
    finally:
        await role.run("DROP OWNED BY owner_{database}; DROP ROLE owner_{database}")


async def test_a_superuser_gets_the_settings_in_this_database_only(database_url: str, rows: Rows, role: Role) -> None:
    root = Role("postgres", database_url, rows, role.folder)
    assert "IN DATABASE" in await root.migrate()
    assert await root.settings() == WITHOUT_POOLER
    assert await rows.fetchval("SELECT rolconfig FROM pg_roles WHERE rolname = 'postgres'") is None


@pytest.mark.parametrize("pooler", ["true", "prepared"])
async def test_another_role_is_logged_and_reported_with_statements_that_help(
    role: Role, make_services: MakeServices, make_settings: Callable[..., Settings], log_lines: LogLines, pooler: str
) -> None:
    url = f"{role.url}&pgbouncer={pooler}"
    async with lifespan(await make_services(database_url=url), None):  # type: ignore[arg-type]
        pass
    [line] = [line for line in log_lines() if line["event"] == "role_settings_missing"]
    settings = make_settings(database_url=url)
    [result] = [result for result in await check_with(settings) if result.name == "role"]
    assert result.level == BAD
    for statement in line["what_to_do"].split("; "):
        assert statement in result.text
        await role.run(statement.replace(f'"{role.name}"', "{role}"))
    assert await role.settings() == WITHOUT_POOLER
    assert [result for result in await check_with(settings) if result.name == "role"] == []
