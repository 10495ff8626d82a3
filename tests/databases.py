"""The tests' databases: a migrated template to copy, and a shared database that is cleaned instead of copied."""

import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.database_proxy import PATIENT
from tests.fakes import SECRET_KEY, START
from wxauth.core.database import Database
from wxauth.core.migrations import migrate
from wxauth.core.models import all_tables
from wxauth.core.revisions import KNOWN_REVISIONS, SCRIPTS
from wxauth.core.sealing import Sealer
from wxauth.core.trail import EventType
from wxauth.keys.keyring import KeyRing
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres

TEMPLATE = "template_wxauth"
SHARED = "shared"

# All tests share this schema. A test that changed it would break the tests after it.
REFUSE_CHANGES = """
    CREATE FUNCTION refuse_change() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'all tests share this schema: mark the test that changes it with own_database';
    END $$;
    CREATE EVENT TRIGGER schema_stays_as_it_is ON ddl_command_start EXECUTE FUNCTION refuse_change();
"""
# The cleaner deletes without foreign keys, and without the triggers that protect append-only tables.
CLEANER = {"session_replication_role": "replica", "lock_timeout": "10s", "application_name": "cleaner"}
LASTING = "lasting"
MAKE_CLEANING = """
    SELECT string_agg(format('DELETE FROM %I', tablename), ';')
      FROM pg_tables
     WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'signing_keys')
"""
CLEANING = """
CREATE SCHEMA cleaning;
CREATE FUNCTION cleaning.clean(rows int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_terminate_backend(pid)
      FROM pg_stat_activity
     WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), rows)
       AND (application_name <> '{lasting}' OR state <> 'idle');
    {everything};
    DELETE FROM signing_keys WHERE to_jsonb(signing_keys) <> '{key}';
    INSERT INTO signing_keys SELECT * FROM jsonb_populate_record(NULL::signing_keys, '{key}') ON CONFLICT DO NOTHING;
    UPDATE alembic_version SET version_num = '{version}' WHERE version_num <> '{version}';
    IF EXISTS (SELECT FROM pg_db_role_setting) THEN
        RAISE EXCEPTION 'a test left a setting on a database or a role: mark it with own_database';
    END IF;
END $$;
"""
"""A function, because PostgreSQL keeps the plans of its statements."""


async def claim(rows: Any, engine: str) -> None:
    """Make the database report to new connections that it is this engine."""
    await rows.execute(f"""
        CREATE SCHEMA IF NOT EXISTS other;
        CREATE OR REPLACE FUNCTION other.version() RETURNS text LANGUAGE sql AS $$ SELECT '{engine}' $$
    """)
    database = await rows.fetchval("SELECT current_database()")
    await rows.execute(f"ALTER DATABASE {database} SET search_path = public, other, pg_catalog")


async def make_template(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> None:
    """Make the template database, which is migrated and contains a signing key."""
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    settings = settings_from(Settings, database_url=postgres.url(TEMPLATE), secret_key=SECRET_KEY)
    database = Database(postgres.url(TEMPLATE))
    await migrate(database)
    await check_columns(postgres.url(TEMPLATE))
    # The tests' clock dates the key. Otherwise the service would date a newer key again or add another key.
    sealer = Sealer(settings.secret_keys)
    await KeyRing(settings=settings, database=database, sealer=sealer, clock=lambda: START).refresh()
    await database.aclose()


async def check_columns(url: str) -> None:
    """Fail if the migrated tables lack a column of the models.

    Otherwise each statement that uses the column would fail with its own message.
    """
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT table_name, column_name FROM information_schema.columns")
    await connection.close()
    declared = {(name, column.name) for name, table in all_tables().tables.items() for column in table.columns}
    if lacking := sorted(declared - {tuple(row) for row in found}):
        names = ", ".join(f"{table}.{column}" for table, column in lacking)
        pytest.fail(
            f"the migrated tables lack {names}: add a revision to alembic/versions "
            "(docs/contribute/development.md, section 'A migration')",
            pytrace=False,
        )


async def delete_signing_key(url: str) -> None:
    """Delete the signing keys, so that the database is as it is before a service starts for the first time."""
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM signing_keys")
    await connection.close()


class LastingDatabase(Database):
    """A database whose connections stay open from one test to the next."""

    async def aclose(self) -> None:
        pass


class SharedDatabase:
    """A database that each test finds unchanged, as if it had just been copied.

    Copying takes ten times as long as cleaning. Each test also finds `rows`, a connection to the database, as if it
    were new. The services under test share `database`. Otherwise half of the tests' time would go into opening
    connections and preparing statements.
    """

    def __init__(self, postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> None:
        self.url = postgres.url(SHARED)
        # PostgreSQL's limits are in real time, and a busy machine can need longer while a test holds a lock.
        self.database = LastingDatabase(f"{self.url}&application_name={LASTING}", deadlines=PATIENT)
        self._admin = admin

    async def make(self) -> None:
        await self._admin.execute(f"DROP DATABASE IF EXISTS {SHARED} WITH (FORCE)")
        await self._admin.execute(f"CREATE DATABASE {SHARED} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
        connection = await asyncpg.connect(self.url, server_settings=CLEANER)
        cleaning = CLEANING.format(
            lasting=LASTING,
            everything=await connection.fetchval(MAKE_CLEANING),
            key=await connection.fetchval("SELECT to_jsonb(signing_keys)::text FROM signing_keys"),
            version=await connection.fetchval("SELECT version_num FROM alembic_version"),
        )
        await connection.execute(cleaning)
        await connection.execute(REFUSE_CHANGES)
        await connection.close()
        self.rows = await asyncpg.connect(self.url)
        self._cleaner = await asyncpg.connect(self.url, server_settings=CLEANER)
        self._cleaning = f"SELECT cleaning.clean({self.rows.get_server_pid()})"

    async def undeclared_data(self) -> set[str]:
        """Return the names in the data of events that their types don't declare."""
        found = await self._cleaner.fetch("SELECT DISTINCT type, jsonb_object_keys(data) AS name FROM events")
        declared = {kind.value: kind.data for kind in EventType}
        return {f"{kind}: {name}" for kind, name in found if name not in declared[kind]}

    async def clean(self) -> None:
        """Restore the database. If that fails, make a new one, so that only the test that caused the failure fails."""
        try:
            await self.rows.reset()
            await self._cleaner.execute(self._cleaning)
        except Exception:
            await self.aclose()
            await self.make()
            raise

    async def aclose(self) -> None:
        await Database.aclose(self.database)
        self.rows.terminate()
        self._cleaner.terminate()


NEXT_REVISIONS = {
    "9001": """
from alembic import op

revision, down_revision = "9001", "{newest}"


def upgrade() -> None:
    op.execute("ALTER TABLE users ADD COLUMN shoe_size int")


def downgrade() -> None:
    op.execute("ALTER TABLE users DROP COLUMN shoe_size")
""",
    "9002": """
from alembic import op

revision, down_revision, transactional = "9002", "9001", False


def upgrade() -> None:
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS users_shoe_size_idx")
    op.execute("CREATE INDEX CONCURRENTLY users_shoe_size_idx ON users (shoe_size)")


def downgrade() -> None:
    op.execute("DROP INDEX users_shoe_size_idx")
""",
}
"""Two made-up revisions that follow the existing ones."""


def scripts_of_next_version(folder: Path) -> Path:
    """Return a copy of Alembic's folder that also contains `NEXT_REVISIONS`, as a next version would."""
    scripts = folder / "alembic"
    shutil.copytree(SCRIPTS, scripts)
    for revision, text in NEXT_REVISIONS.items():
        (scripts / "versions" / f"{revision}_next.py").write_text(text.format(newest=KNOWN_REVISIONS[0]))
    return scripts
