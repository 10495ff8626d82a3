"""What operators add to our tables stays as it was, or the refusal of a revision names it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import scripts_of_next_version
from tests.processes import run
from tests.world import Rows
from wxauth.core.database import Database
from wxauth.core.migrations import MigrationRefused, migrate
from wxauth.core.revisions import KNOWN_REVISIONS

pytestmark = pytest.mark.own_database

AFTER_NEXT = """
from alembic import op

revision, down_revision = "9003", "9002"


def upgrade() -> None:
    op.execute('''{up}''')


def downgrade() -> None:
    op.execute('''{down}''')
"""
OTHER_TYPE = 'ALTER TABLE webhooks ALTER COLUMN url TYPE varchar(2000) COLLATE "C", ALTER types SET DATA TYPE varchar[]'


@dataclass(frozen=True)
class Migrated:
    """A database with the schema, and a next version that changes it."""

    database: Database
    rows: Rows
    scripts: Path

    def next_one(self, up: str, down: str = "SELECT") -> None:
        path = self.scripts / "versions" / "9003_after_next.py"
        path.write_text(AFTER_NEXT.format(up=up, down=down))

    async def migrate(self, revision: str = "head") -> str | None:
        return await migrate(self.database, scripts=self.scripts, revision=revision)


@pytest.fixture
async def migrated(database_url: str, rows: Rows, tmp_path: Path) -> AsyncIterator[Migrated]:
    async with aclosing(Database(database_url)) as database:
        yield Migrated(database, rows, scripts_of_next_version(tmp_path))


@pytest.mark.slow
async def test_what_uses_no_changed_column_stays_as_it_was(migrated: Migrated) -> None:
    migrated.next_one(OTHER_TYPE + ', ALTER name TYPE varchar COLLATE "C"')
    await migrated.rows.execute("""
        CREATE VIEW states AS SELECT is_enabled FROM webhooks;
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
        CREATE TRIGGER off BEFORE UPDATE ON webhooks FOR EACH ROW EXECUTE FUNCTION note();
        CREATE TRIGGER always BEFORE UPDATE ON webhooks FOR EACH ROW EXECUTE FUNCTION note();
        ALTER TABLE webhooks DISABLE TRIGGER off, ENABLE ALWAYS TRIGGER always;
        CREATE TABLE mine (hook text);
        ALTER TABLE mine ADD CONSTRAINT known FOREIGN KEY (hook) REFERENCES webhooks (name) NOT VALID
    """)
    assert await migrated.migrate() == "9003"
    states = await migrated.rows.fetch("SELECT tgname, tgenabled FROM pg_trigger WHERE tgname IN ('off', 'always')")
    assert dict(states) == {"off": b"D", "always": b"A"}
    assert not await migrated.rows.fetchval("SELECT convalidated FROM pg_constraint WHERE conname = 'known'")
    assert await migrated.rows.fetchval("SELECT to_regclass('states') IS NOT NULL")


REFUSED = {
    "a view": (
        "CREATE VIEW hooks AS SELECT url FROM webhooks",
        "ALTER TABLE webhooks DROP COLUMN url",
        "view hooks",
    ),
    "a view of a column with another type": (
        "CREATE VIEW hooks AS SELECT url FROM webhooks",
        OTHER_TYPE,
        "view hooks",
    ),
    "a foreign key": (
        "CREATE TABLE mine (hook text REFERENCES webhooks (name))",
        "ALTER TABLE webhooks DROP COLUMN name",
        "mine_hook_fkey",
    ),
    "a row": (
        "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1), (1)",
        "CREATE UNIQUE INDEX mine_id_idx ON mine (id)",
        "mine_id_idx",
    ),
    "a trigger of events": (
        """
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not today'; END$$;
        CREATE EVENT TRIGGER calm ON ddl_command_start WHEN TAG IN ('ALTER INDEX') EXECUTE FUNCTION refuse()
        """,
        "ALTER INDEX webhooks_pkey RENAME TO webhooks_key",
        "not today",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("made", "change", "words"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_revision_names_the_object_on_one_line(
    migrated: Migrated, made: str, change: str, words: str
) -> None:
    await migrated.rows.execute(made)
    migrated.next_one(change)
    with pytest.raises(MigrationRefused) as refusal:
        await migrated.migrate()
    assert words in refusal.value.text
    assert "revision 9003 is refused by the database" in refusal.value.text
    assert "\n" not in refusal.value.text
    assert await migrated.rows.fetchval("SELECT version_num FROM alembic_version") == "9002"
    await migrated.rows.execute("DROP EVENT TRIGGER IF EXISTS calm")


@pytest.mark.process
async def test_the_command_names_the_object_on_one_line(database_url: str, rows: Rows, tmp_path: Path) -> None:
    await rows.execute("CREATE VIEW people AS SELECT id, nickname FROM users")
    done = run("migrate", "--to", "base", "--yes", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    output = done.stdout + done.stderr
    assert (done.returncode, len(output.splitlines())) == (1, 1)
    assert "view people" in output
    assert await rows.fetchval("SELECT version_num FROM alembic_version") == KNOWN_REVISIONS[-1]
