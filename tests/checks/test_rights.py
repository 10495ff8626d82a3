"""`other-roles.sql` lists every role that can use wxauth's tables, and the statements that revoke its rights.

`wxauth check` names what the service's own role lacks.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.checks.conftest import check_chinese
from tests.docs import ROOT, block
from tests.programs import output_of, postgres_program
from tests.world import Rows, Stage
from wxauth.checks.result import CheckResult
from wxauth.checks.runner import check_with
from wxauth.core.database import Database
from wxauth.core.migrations import migrate
from wxauth.core.rights_queries import our_tables
from wxauth.service.lifespan import check_stored_state
from wxauth.settings.settings import Settings

pytestmark = [pytest.mark.own_database, pytest.mark.oldest_postgres]
OTHER_ROLES = ROOT / "deploy/postgres/other-roles.sql"
numbers = count(1)


@dataclass(frozen=True)
class House:
    """A database whose tables belong to a role without other rights, and a superuser's connection to this database."""

    root: Rows
    url: str
    make_settings: Callable[..., Settings]
    name: str
    """The prefix of the name of each role in this test."""

    @property
    def owner(self) -> str:
        return f"{self.name}_owner"

    def role(self, name: str) -> str:
        """Return the full name of a role, quoted for SQL."""
        return '"' + f"{self.name}_{name}".replace('"', '""') + '"'

    async def make(self, *roles: str, options: str = "NOLOGIN") -> None:
        for role in roles:
            await self.root.execute(f"CREATE ROLE {self.role(role)} {options}")

    async def run(self, text: str) -> None:
        """Run statements in which `@name` stands for a role of the test."""
        await self.root.execute(re.sub(r"@(\w+)", lambda found: self.role(found[1]), text))

    def url_of(self, role: str) -> str:
        return self.url.replace("postgres@", f"{self.name}_{role}@")

    async def said(self, role: str = "owner") -> dict[str, str]:
        """Run the file as this role, and return its lines about roles that may `change` or `read or lock` tables."""
        connection = await asyncpg.connect(self.url_of(role))
        found: dict[str, str] = {}
        for name, members, can, statement in await connection.fetch(OTHER_ROLES.read_text()):
            found[can] = f"{found.get(can, '')}{name} ({members}): {statement}\n"
        await connection.close()
        return found

    async def schema(self, role: str) -> CheckResult | None:
        """Run the check as this role, and return its result about the schema if it isn't ok."""
        results = await check_with(self.make_settings(database_url=self.url_of(role)))
        [result] = [it for it in results if it.name == "schema"]
        if result.level == "ok":
            return None
        check_chinese(result)
        return result

    async def is_mended(self, role: str = "owner", *, as_role: str | None = None) -> None:
        """Run all statements that the file prints, in a session that knows nothing else."""
        connection = await asyncpg.connect(self.url_of(role))
        listed = await connection.fetch(OTHER_ROLES.read_text())
        await connection.close()
        connection = await asyncpg.connect(self.url_of(as_role) if as_role else self.url)
        await connection.execute("SET search_path = pg_catalog")
        for line in listed:
            await connection.execute(line["statement"])
        await connection.close()
        assert await self.said(role) == {}


@pytest.fixture
async def house(
    database_url: str, rows: Rows, make_settings: Callable[..., Settings], admin: asyncpg.Connection
) -> AsyncIterator[House]:
    house = House(rows, database_url, make_settings, f"r{next(numbers)}")
    await house.make("owner", options="LOGIN")
    await house.run(
        """
        DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
                EXECUTE format('ALTER TABLE %I OWNER TO %I', name, '%owner%');
            END LOOP;
            FOR name IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace LOOP
                EXECUTE format('ALTER FUNCTION %s OWNER TO %I', name, '%owner%');
            END LOOP;
        END $$;
        GRANT CREATE ON SCHEMA public TO @owner
    """.replace("%owner%", house.owner)
    )
    yield house
    found = await admin.fetch(
        "SELECT quote_ident(rolname) FROM pg_roles WHERE starts_with(rolname, $1)", f"{house.name}_"
    )
    await rows.execute("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS apart CASCADE; CREATE SCHEMA public")
    for (role,) in found:
        await rows.execute(f"DROP OWNED BY {role} CASCADE")
    for (role,) in found:
        await rows.execute(f"DROP ROLE {role}")


async def test_the_file_names_each_table_of_this_version() -> None:
    [names] = re.findall(r"split_to_table\('([^']*)'", OTHER_ROLES.read_text())
    assert re.findall(r"\w+", names) == sorted(our_tables())


WRITING = {
    "INSERT ON users",
    "UPDATE ON users",
    "UPDATE (roles) ON users",
    "INSERT (id) ON users",
    "DELETE ON sessions",
    "TRUNCATE ON events",
    "TRIGGER ON webhooks",
    "UPDATE ON alembic_version",
    "USAGE ON SEQUENCE feed_position_seq",
    "UPDATE ON SEQUENCE feed_position_seq",
    "ALL ON identities",
}
READING = {
    "SELECT ON identities",
    "SELECT (openid) ON identities",
    "SELECT ON SEQUENCE feed_position_seq",
    "REFERENCES ON users",
}


@pytest.mark.slow
async def test_whoever_may_write_or_read_something_is_named_and_shut_out_by_the_statement(house: House) -> None:
    assert await house.said() == {}
    newer = {"MAINTAIN ON users"} if await house.root.fetchval("SHOW server_version_num") >= "170000" else set()
    for right in sorted(WRITING | READING | newer):
        await house.make("anon")
        for grantee in ("@anon", "PUBLIC"):
            await house.run(f"GRANT {right} TO {grantee}")
            said = await house.said()
            name = "change" if right in WRITING else "read or lock"
            assert [*said] == [name], right
            assert (house.role("anon").strip('"') if grantee == "@anon" else "PUBLIC") in said[name]
            await house.is_mended(as_role="owner")
        await house.run("DROP ROLE @anon")


async def test_rights_through_a_membership_are_named_and_end_where_they_come_from(house: House) -> None:
    await house.make("group", "team", "anna")
    await house.make("ben", options="LOGIN NOINHERIT")
    await house.run("GRANT SELECT ON users TO @group; GRANT @group TO @team; GRANT @team TO @anna, @ben")
    said = await house.said()
    assert all(house.role(name).strip('"') in said["read or lock"] for name in ("group", "team", "anna", "ben"))
    await house.is_mended(as_role="owner")

    for everything, name in {"pg_write_all_data": "change", "pg_read_all_data": "read or lock"}.items():
        await house.run(f"GRANT {everything} TO @group WITH ADMIN OPTION")
        said = await house.said()
        assert [*said] == [name]
        assert f"REVOKE {everything} FROM {house.name}_group" in said[name]
        assert f"{house.name}_anna" in said[name]
        await house.is_mended()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("query", ["", "&pgbouncer=true", "&pgbouncer=prepared&sslmode=prefer"])
async def test_the_command_on_the_page_reads_wxauths_own_url(house: House, query: str) -> None:
    command = block("docs/run/database.md", "other-roles.sql")
    env = {**os.environ, "PATH": f"{Path(postgres_program('psql')).parent}:{os.environ['PATH']}"}
    env["WXAUTH_DATABASE_URL"] = house.url_of("owner") + query
    done = await asyncio.to_thread(output_of, "sh", "-euc", command, cwd=ROOT, env=env)
    assert "(0 rows)" in done


async def test_the_owner_its_members_and_superusers_are_never_named(house: House) -> None:
    await house.make("boss", options="SUPERUSER LOGIN")
    await house.make("deputy", "clerk", options="LOGIN")
    await house.run("GRANT @owner TO @deputy; GRANT @deputy TO @clerk; GRANT ALL ON users TO @boss, @deputy, @clerk")
    for role in ("owner", "boss", "deputy", "clerk"):
        assert await house.said(role) == {}, role


@pytest.mark.slow
async def test_that_the_owner_is_a_member_of_a_role_excuses_nobody(house: House) -> None:
    await house.make("anon")
    await house.make("deputy", options="LOGIN")
    await house.run("GRANT @anon TO @owner, @deputy; GRANT @owner TO @deputy; GRANT ALL ON users TO @anon")
    for role in ("owner", "deputy"):
        assert f"{house.name}_anon" in (await house.said(role))["change"]


@pytest.mark.slow
async def test_a_service_with_a_role_of_its_own_names_neither_itself_nor_the_roles_that_it_is_in(house: House) -> None:
    await house.make("service", options="LOGIN")
    await house.make("rights", "anna", "anon")
    await house.run("""
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO @rights;
        GRANT SELECT ON users TO @service;
        GRANT @rights TO @service
    """)
    assert await house.said("service") == {}
    assert f"{house.name}_service" in (await house.said("owner"))["change"]

    await house.run("GRANT @rights TO @anna; GRANT DELETE ON users TO @anon")
    said = (await house.said("service"))["change"]
    assert f"REVOKE {house.name}_rights FROM {house.name}_anna" in said
    assert f"FROM {house.name}_anon" in said
    await house.is_mended("service")


async def test_a_membership_of_somebody_in_a_superuser_is_named(house: House) -> None:
    await house.make("boss", options="SUPERUSER")
    await house.make("anna")
    await house.run("GRANT @boss TO @anna")
    said = (await house.said())["change"]
    assert f"REVOKE {house.name}_boss FROM {house.name}_anna" in said
    await house.is_mended()


@pytest.mark.slow
async def test_rights_that_were_passed_on_end_with_the_statement(house: House) -> None:
    await house.make("service", options="LOGIN")
    await house.make("helper", "anon", "other")
    await house.run("""
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO @service WITH GRANT OPTION;
        GRANT SELECT ON users TO @helper WITH GRANT OPTION;
        SET ROLE @helper; GRANT SELECT ON users TO @anon; RESET ROLE;
        SET ROLE @service; GRANT UPDATE ON users TO @other; RESET ROLE;
    """)
    said = await house.said("service")
    assert {*said} == {"change", "read or lock"}
    await house.is_mended("service")


async def test_a_membership_that_somebody_else_has_granted_ends_with_the_statement(house: House) -> None:
    await house.make("chief", "anna")
    await house.run("""
        GRANT pg_write_all_data TO @chief WITH ADMIN OPTION;
        SET ROLE @chief; GRANT pg_write_all_data TO @anna; RESET ROLE;
        GRANT pg_write_all_data TO @anna
    """)
    await house.is_mended()


@pytest.mark.slow
async def test_rights_that_come_after_the_migration_are_named(house: House) -> None:
    await house.make("anon")
    await house.run("""
        ALTER DEFAULT PRIVILEGES FOR ROLE @owner IN SCHEMA public GRANT ALL ON TABLES TO @anon, PUBLIC;
        ALTER DEFAULT PRIVILEGES FOR ROLE @owner IN SCHEMA public GRANT ALL ON SEQUENCES TO @anon, PUBLIC;
        GRANT USAGE ON SCHEMA public TO @anon
    """)
    async with aclosing(Database(house.url_of("owner"))) as database:
        await migrate(database, revision="base")
        await house.run("DROP TABLE IF EXISTS alembic_version")
        await migrate(database)
    said = (await house.said())["change"]
    assert f"FROM {house.name}_anon" in said
    assert "PUBLIC" not in said
    await house.is_mended(as_role="owner")


@pytest.mark.slow
async def test_a_migration_revokes_what_everybody_has_also_where_nothing_is_to_be_migrated(house: House) -> None:
    await house.run("""
        GRANT SELECT (openid) ON identities TO PUBLIC;
        GRANT ALL ON users, alembic_version TO PUBLIC;
        GRANT USAGE ON SEQUENCE feed_position_seq TO PUBLIC;
        CREATE TABLE of_others ();
        GRANT SELECT ON of_others TO PUBLIC
    """)
    assert "PUBLIC" in (await house.said())["change"]
    async with aclosing(Database(house.url_of("owner"))) as database:
        await migrate(database)
    assert await house.said() == {}
    assert await house.root.fetchval("SELECT has_table_privilege('pg_monitor', 'of_others', 'SELECT')")


@pytest.mark.slow
async def test_a_partition_is_a_table_of_ours(house: House) -> None:
    await house.make("anon")
    await house.run("""
        CREATE TABLE "Old events" () INHERITS (events);
        ALTER TABLE "Old events" OWNER TO @owner;
        GRANT SELECT ON "Old events" TO @anon
    """)
    said = (await house.said())["read or lock"]
    assert 'public."Old events"' in said
    await house.is_mended(as_role="owner")


@pytest.mark.slow
async def test_who_may_not_use_the_schema_is_not_named(house: House) -> None:
    await house.make("anon", "anna", "group")
    await house.run("""
        REVOKE USAGE ON SCHEMA public FROM PUBLIC;
        GRANT USAGE ON SCHEMA public TO @owner, @anna;
        GRANT UPDATE ON users TO @anon, @group
    """)
    assert await house.said() == {}
    await house.run("GRANT @group TO @anna")
    said = (await house.said())["change"]
    assert f"FROM {house.name}_group " in said
    assert f"{house.name}_anon" not in said


@pytest.mark.slow
async def test_names_of_any_characters_are_quoted(house: House) -> None:
    odd = [
        "Web API",
        'a"b',
        "user",
        "drop;",
        "back\\slash",
        "new\nline",
        "\u202eright",
        "角色",
        "a'b",
        "{brace}",
        "100%",
    ]
    await house.make(*odd)
    for name in odd:
        await house.root.execute(f"GRANT UPDATE ON users TO {house.role(name)}")
    await house.is_mended()


@pytest.mark.slow
async def test_a_service_role_is_told_what_it_lacks_and_never_that_the_schema_is_not_there(house: House) -> None:
    await house.make("service", options="LOGIN")
    lacks = {
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM @service": "permission denied for table",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC, @service": "is in public",
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC, @service": "permission denied for function",
        "ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY": "row-level security",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY": "row-level security",
        "ALTER ROLE @service SET search_path = nowhere": "is in public",
    }
    grants = block("docs/run/database.md", "GRANT USAGE ON SCHEMA public TO wxauth_service")
    for lack, words in lacks.items():
        await house.run(grants.replace("wxauth_service", "@service"))
        assert await house.schema("service") is None, lack
        await house.run(lack)
        said = await house.schema("service")
        assert said is not None, lack
        assert words in said.text
        assert "created" not in said.text
        assert "security" in words or "docs/run/database.md" in said.text
        await house.run(
            "ALTER ROLE @service RESET search_path; ALTER TABLE users DISABLE ROW LEVEL SECURITY;"
            "ALTER TABLE alembic_version DISABLE ROW LEVEL SECURITY"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ("ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY", "row-level security"),
        ("ALTER ROLE @service SET search_path = nowhere", "is in public"),
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC, @service", "is in public"),
    ],
)
async def test_a_service_that_does_not_find_its_schema_logs_why_and_not_that_it_is_missing(
    house: House, stage: Stage, monkeypatch: pytest.MonkeyPatch, lack: str, words: str
) -> None:
    await house.make("service", options="LOGIN")
    await house.run(block("docs/run/database.md", "GRANT USAGE ON SCHEMA").replace("wxauth_service", "@service"))
    served = await stage.replica(database_url=house.url_of("service"))
    await house.run(lack)
    await served.services.database.aclose()  # new connections have the role's new settings
    monkeypatch.setattr("wxauth.core.outages.outage_log._due_at", {})
    assert not await check_stored_state(served.services)
    assert words in (await served.client.get("/readyz")).json()["checks"]["schema"]
    [line] = [line for line in stage.log_lines() if line["event"].startswith("schema_")]
    assert (line["event"], words in line["what_to_do"]) == ("schema_not_found", True)


@pytest.mark.slow
async def test_row_level_security_that_hides_nothing_is_no_fault(house: House) -> None:
    await house.make("service", options="LOGIN")
    await house.run("""
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO @service;
        ALTER TABLE users ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everything ON users TO @service USING (true) WITH CHECK (true)
    """)
    assert await house.schema("service") is None
    await house.run("CREATE POLICY less ON users AS RESTRICTIVE TO @service USING (status = 'active')")
    assert (said := await house.schema("service")) is not None
    assert "users" in said.text
    await house.run("ALTER TABLE users FORCE ROW LEVEL SECURITY")
    assert (said := await house.schema("owner")) is not None
    assert "BYPASSRLS" in said.text
    await house.run("ALTER ROLE @owner BYPASSRLS")
    assert await house.schema("owner") is None


@pytest.mark.slow
async def test_a_schema_of_its_own_keeps_out_whom_a_platform_lets_in(
    house: House, empty_database_url: str, stage: Stage
) -> None:
    """Supabase grants rights this way. Its administrator isn't a superuser, but a member of its API's role."""
    await house.make("anon")
    await house.make("platform", options="LOGIN CREATEROLE")
    root = await asyncpg.connect(empty_database_url)
    name, (anon, platform) = urlsplit(empty_database_url).path[1:], map(house.role, ("anon", "platform"))
    await root.execute(f"""
        GRANT CREATE ON DATABASE {name} TO {platform}; GRANT {anon} TO {platform};
        GRANT ALL ON SCHEMA public TO {anon}, {platform};
        ALTER DEFAULT PRIVILEGES FOR ROLE {platform} GRANT ALL ON TABLES TO {anon};
        ALTER DEFAULT PRIVILEGES FOR ROLE {platform} IN SCHEMA public GRANT ALL ON TABLES TO {anon}
    """)
    administrator = await asyncpg.connect(empty_database_url.replace("postgres@", f"{house.name}_platform@"))
    await administrator.execute(block("docs/run/database.md", "CREATE SCHEMA wxauth"))
    await administrator.close()
    try:
        url = empty_database_url.replace("postgres@", "wxauth:password@")
        async with aclosing(Database(url)) as database:
            await migrate(database)
        service = await asyncpg.connect(url)
        assert await service.fetch(OTHER_ROLES.read_text()) == []
        await service.close()
        client = await stage.make(database_url=url)
        assert (await stage.login("alice", at=client))["is_new_user"]
        assert await root.fetchval("SELECT count(*) FROM wxauth.users") == 1
    finally:
        await root.execute("DROP SCHEMA wxauth CASCADE; DROP OWNED BY wxauth CASCADE")
        for role in ("anon", "platform"):
            await root.execute(f"DROP OWNED BY {house.role(role)} CASCADE")
        await root.execute("DROP ROLE wxauth")
        await root.close()


async def test_a_schema_that_is_not_there_is_said_to_be_not_there(house: House) -> None:
    await house.make("fresh", options="LOGIN")
    await house.run(
        "CREATE SCHEMA apart AUTHORIZATION @fresh; ALTER ROLE @fresh SET search_path = apart;"
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC"
    )
    assert (said := await house.schema("fresh")) is not None
    assert "hasn't been created yet" in said.text
