"""Objects that operators add to wxauth's tables stop a revision as a whole, or stay unchanged."""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.core.schemas import schema_of
from tests.databases import scripts_of_next_version
from tests.processes import run
from tests.world import Rows
from wxauth.core.database import Database
from wxauth.core.migrations import MigrationRefused, migrate
from wxauth.core.revisions import KNOWN_REVISIONS, SCRIPTS

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
DROPPED = "ALTER TABLE webhooks DROP COLUMN url"
OF_OTHERS = {
    ("DROP VIEW", "hooks"): "CREATE VIEW hooks AS SELECT name, url FROM webhooks",
    ("DROP VIEW", 'reports."Hooks"'): """
        CREATE SCHEMA reports; CREATE VIEW reports."Hooks" AS SELECT url FROM public.webhooks
    """,
    ("DROP MATERIALIZED VIEW", "hooks"): "CREATE MATERIALIZED VIEW hooks AS SELECT url FROM webhooks",
    ("DROP RULE", "noted on"): """
        CREATE RULE noted AS ON UPDATE TO webhooks WHERE OLD.url <> NEW.url DO ALSO SELECT OLD.url
    """,
    ("DROP POLICY", "own on"): "CREATE POLICY own ON webhooks USING (url LIKE 'https://own.example%')",
    ("DROP TRIGGER", "noted on"): """
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
        CREATE TRIGGER noted BEFORE UPDATE OF url ON webhooks FOR EACH ROW EXECUTE FUNCTION note()
    """,
    ("DROP FUNCTION", "hosts()"): """
        CREATE FUNCTION hosts() RETURNS SETOF text BEGIN ATOMIC SELECT url FROM webhooks; END
    """,
}


@dataclass(frozen=True)
class Migrated:
    """A database with the schema, and the scripts of a next version that changes the schema."""

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
@pytest.mark.parametrize("change", [OTHER_TYPE, DROPPED], ids=["another type", "dropped"])
async def test_an_object_that_uses_a_changed_column_is_named_and_no_part_of_the_revision_stays(
    migrated: Migrated, change: str
) -> None:
    await migrated.migrate()
    migrated.next_one(f"ALTER TABLE webhooks ADD colour text''')\n    op.execute('''{change}")
    clean = await schema_of(migrated.rows)
    for (kind, name), made in OF_OTHERS.items():
        await migrated.rows.execute(made)
        before = await schema_of(migrated.rows)
        with pytest.raises(MigrationRefused) as refusal:
            await migrated.migrate()
        assert name in refusal.value.text
        assert "drop the object, run the command again, and then recreate the object" in refusal.value.text
        assert "\n" not in refusal.value.text
        assert await schema_of(migrated.rows) == before
        assert await migrated.rows.fetchval("SELECT version_num FROM alembic_version") == "9002"
        table = " webhooks" if name.endswith(" on") else ""
        await migrated.rows.execute(f"{kind} {name}{table} CASCADE; DROP FUNCTION IF EXISTS note()")
        await migrated.rows.execute("DROP SCHEMA IF EXISTS reports")
        assert await schema_of(migrated.rows) == clean
    assert await migrated.migrate() == "9003"


@pytest.mark.slow
async def test_a_foreign_key_of_a_dropped_column_is_dropped_with_it(migrated: Migrated) -> None:
    migrated.next_one("ALTER TABLE webhooks DROP COLUMN url")
    await migrated.rows.execute("""
        CREATE TABLE mine (url text PRIMARY KEY);
        ALTER TABLE webhooks ADD CONSTRAINT known FOREIGN KEY (url) REFERENCES mine
    """)
    assert await migrated.migrate() == "9003"
    assert not await migrated.rows.fetch("SELECT FROM pg_constraint WHERE conname = 'known'")


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


@pytest.mark.slow
async def test_a_way_back_is_refused_too(migrated: Migrated) -> None:
    migrated.next_one("ALTER TABLE webhooks ADD colour text", down="ALTER TABLE webhooks DROP colour")
    await migrated.migrate()
    await migrated.rows.execute("CREATE VIEW colours AS SELECT colour FROM webhooks")
    with pytest.raises(MigrationRefused, match="view colours depends on"):
        await migrated.migrate(revision="9001")
    assert await migrated.rows.fetchval("SELECT version_num FROM alembic_version") == "9003"


UNFORESEEN = {
    "a view": (
        "CREATE VIEW hooks AS SELECT url FROM webhooks",
        "DO $$BEGIN EXECUTE format('ALTER TABLE %I DROP url', 'webhooks'); END$$",
        "view hooks",
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
@pytest.mark.parametrize(("made", "change", "words"), UNFORESEEN.values(), ids=UNFORESEEN)
async def test_a_refusal_that_nobody_foresaw_is_one_line(
    migrated: Migrated, made: str, change: str, words: str
) -> None:
    await migrated.rows.execute(made)
    migrated.next_one(change)
    with pytest.raises(MigrationRefused) as refusal:
        await migrated.migrate()
    assert words in refusal.value.text
    assert "the database rejected revision 9003" in refusal.value.text
    assert "\n" not in refusal.value.text
    assert await migrated.rows.fetchval("SELECT version_num FROM alembic_version") == "9002"
    await migrated.rows.execute("DROP EVENT TRIGGER IF EXISTS calm")


@pytest.mark.process
async def test_the_command_names_the_object_on_one_line(database_url: str, rows: Rows, tmp_path: Path) -> None:
    await rows.execute("CREATE VIEW people AS SELECT id, nickname FROM users")
    done = run("migrate", "--to", "base", "--yes", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    output = done.stdout + done.stderr
    assert (done.returncode, len(output.splitlines())) == (1, 1)
    assert "view people depends on" in output
    assert await rows.fetchval("SELECT version_num FROM alembic_version") == KNOWN_REVISIONS[-1]  # the first one


def test_a_revision_outside_of_a_transaction_drops_and_changes_no_column() -> None:
    for path in (SCRIPTS / "versions").glob("*.py"):
        text = path.read_text()
        if re.search(r"\btransactional\b.*\bFalse$", text, re.MULTILINE):
            assert not re.search(r"\bALTER TABLE\b(?!.*\bVALIDATE\b)|\bDROP TABLE\b", text), path.name
