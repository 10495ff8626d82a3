"""The migrations create the tables of the models and the constraints on their rows."""

import asyncio
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.clock import PATIENCE
from tests.core.schemas import SCHEMA, schema_of
from tests.databases import claim, scripts_of_next_version
from tests.world import Rows, until, until_locked
from wxauth.clients.models import CLIENT_NAME_PATTERN, Scope
from wxauth.core import models
from wxauth.core.connecting import LIMITS
from wxauth.core.database import Database
from wxauth.core.migrations import BASE, MigrationBlocked, MigrationImpossible, migrate, migration_connection
from wxauth.core.models import all_tables
from wxauth.core.revisions import KNOWN_REVISIONS, REPLACED, SCRIPTS, current_revision, is_usable, refusal_of
from wxauth.core.statements import Statement
from wxauth.events.models import DeliveryState
from wxauth.sites.door import WECHAT_PAGE_DOORS, Door
from wxauth.sites.models import Stage

pytestmark = [pytest.mark.own_database, pytest.mark.oldest_postgres]

REVISIONS = sorted(path.name[:4] for path in (Path(__file__).parents[2] / "alembic" / "versions").glob("*.py"))


def test_the_names_of_the_files_give_their_order() -> None:
    assert tuple(script.revision for script in ScriptDirectory(SCRIPTS).walk_revisions()) == KNOWN_REVISIONS


@dataclass(frozen=True)
class Empty:
    """A database without tables, a connection to it, and the scripts of a next version."""

    database: Database
    rows: Rows
    next_scripts: Path

    async def schema(self) -> dict[str, list[str]]:
        return await schema_of(self.rows)


@pytest.fixture
async def empty(empty_database_url: str, tmp_path: Path) -> AsyncIterator[Empty]:
    rows = await asyncpg.connect(empty_database_url)
    async with aclosing(Database(empty_database_url)) as database:
        yield Empty(database, rows, scripts_of_next_version(tmp_path))
    await rows.close()


async def limit_all(rows: Rows, time: str) -> list[str]:
    """Set each limit of this PostgreSQL for new connections to the database, and return the names of the limits."""
    name = await rows.fetchval("SELECT current_database()")
    limits = [each for (each,) in await rows.fetch("SELECT name FROM pg_settings WHERE name = ANY ($1)", LIMITS)]
    for limit in limits:
        await rows.execute(f"ALTER DATABASE {name} SET {limit} = '{time}'")
    return limits


async def columns_of(rows: Rows) -> set[tuple[object, ...]]:
    """Return the table, name and type of each column, and whether the column requires a value."""
    return {row[:4] for row in await rows.fetch(SCHEMA["columns"]) if row["relname"] != "alembic_version"}


@pytest.mark.slow
async def test_the_models_have_the_columns_of_the_migrated_schema(empty: Empty, rows: Rows) -> None:
    async with migration_connection(empty.database) as connection:
        await connection.run_sync(all_tables().create_all)
    assert await columns_of(empty.rows) == await columns_of(rows)


async def test_the_rules_of_the_schema_have_every_value_of_the_code(rows: Rows) -> None:
    rules = await rows.fetch("""
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
         UNION ALL SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """)
    text = dict(rules)
    known: dict[str, Iterable[str]] = {
        "clients_name_check": [CLIENT_NAME_PATTERN],
        "clients_scopes_check": Scope,
        "deliveries_state_check": DeliveryState,
        "site_logins_claimed_session_id_check": [*WECHAT_PAGE_DOORS, Door.SSO],
        "site_logins_door_check": {*Door} - {Door.PHONE},
        "site_logins_stage_check": Stage,
        "webhooks_name_check": [CLIENT_NAME_PATTERN],
    }
    assert [(rule, value) for rule, values in known.items() for value in values if str(value) not in text[rule]] == []


@pytest.mark.slow
async def test_a_process_that_imports_nothing_else_knows_every_table(rows: Rows) -> None:
    program = "from wxauth.core.models import all_tables; print(*all_tables().tables)"
    known = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", program], text=True)
    found = await rows.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {*known.split(), "alembic_version"} == {name for (name,) in found}


@pytest.mark.no_database
def test_the_tables_of_inner_packages_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("core/models.py", "sites/doors/visit_queries.py", "sites/doors/visits.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    imported = set[str]()
    monkeypatch.setattr(models, "__file__", str(tmp_path / "core/models.py"))
    monkeypatch.setattr(models, "import_module", imported.add)
    all_tables()
    assert imported == {"wxauth.core.models", "wxauth.sites.doors.visit_queries"}


@pytest.mark.slow
async def test_each_revision_can_be_downgraded_and_upgraded_again(empty: Empty) -> None:
    before = [await empty.schema()]
    for revision in REVISIONS:
        assert await migrate(empty.database, revision=revision) == revision
        before.append(await empty.schema())
    for revision, schema in zip([BASE, *REVISIONS][-2::-1], before[-2::-1], strict=True):
        assert await migrate(empty.database, revision=revision) == (None if revision == BASE else revision)
        assert await empty.schema() == schema
    assert await migrate(empty.database) == REVISIONS[-1]
    assert await empty.schema() == before[-1]


@pytest.mark.slow
async def test_ten_replicas_may_migrate_an_empty_database_at_once(empty_database_url: str) -> None:
    databases = [Database(empty_database_url) for _ in range(10)]
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*map(migrate, databases)) == [REVISIONS[-1]] * 10
    for database in databases:
        await database.aclose()


async def test_the_schema_of_a_newer_version_is_usable_and_unchanged(database_url: str, rows: Rows) -> None:
    await rows.execute("UPDATE alembic_version SET version_num = '9999'")
    async with aclosing(Database(database_url)) as database:
        assert is_usable(await current_revision(database))
        assert await migrate(database) == "9999"
        with pytest.raises(MigrationImpossible, match="the schema is at '9999'"):
            await migrate(database, revision=REVISIONS[0])
    assert await rows.fetchval("SELECT version_num FROM alembic_version") == "9999"


async def test_a_revision_that_is_unknown_stops_the_migration(database_url: str) -> None:
    async with aclosing(Database(database_url)) as database:
        for revision in ("0", "9999", "-1", "+1", "heads", ""):
            with pytest.raises(MigrationImpossible, match="doesn't exist"):
                await migrate(database, revision=revision)


@pytest.mark.slow
async def test_a_migration_that_fails_leaves_nothing_behind(empty: Empty) -> None:
    await empty.rows.execute("CREATE TABLE signing_keys ()")  # this table makes the migration fail
    before = await empty.schema()
    with pytest.raises(Exception, match="already exists"):
        await migrate(empty.database)
    assert await empty.schema() == before


async def test_a_migration_may_take_longer_than_a_statement_of_the_service(empty: Empty) -> None:
    limits = await limit_all(empty.rows, "1h")
    for is_transactional in (True, False):
        async with migration_connection(empty.database, is_transactional=is_transactional) as connection:
            for limit in limits:
                assert (await connection.exec_driver_sql(f"SHOW {limit}")).scalar() == "0"
    async with empty.database.snapshot() as snapshot:
        for limit in limits:
            assert await snapshot.value(Statement[str](f"SELECT current_setting('{limit}') AS value")) == "0"


async def test_the_lock_of_a_migration_outlives_the_limits_of_the_operator(
    empty: Empty, empty_database_url: str
) -> None:
    await migrate(empty.database, revision=REVISIONS[-1], scripts=empty.next_scripts)
    limits = await limit_all(empty.rows, "500ms")
    older = await asyncpg.connect(empty_database_url, server_settings=dict.fromkeys(limits, "0"))
    holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    await older.execute("BEGIN; LOCK TABLE users")
    async with aclosing(Database(empty_database_url)) as database:
        migrating = asyncio.create_task(migrate(database, scripts=empty.next_scripts, pause=0.05))
        await until_locked(older)
        pid = await older.fetchval(holder)
        await older.execute("SELECT pg_sleep(0.7)")  # the lock's holder is idle during this time
        assert await older.fetchval(holder) == pid
        await older.execute("COMMIT")
        assert await migrating == "9002"
    await older.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("revision", "column", "value", "how"),
    [
        pytest.param(REVISIONS[-1], "nickname", "'Alice'", {"lock_patience": 0.2, "pause": 0.1}, id="of a table"),
        pytest.param("9001", "shoe_size", "42", {}, id="an index"),
    ],
)
async def test_a_change_behind_a_transaction_holds_up_no_writer(
    empty: Empty, empty_database_url: str, revision: str, column: str, value: str, how: dict[str, Any]
) -> None:
    """The migration gives way to later writers.

    It waits for its table's current writers, and later writers would otherwise wait for the migration.
    """
    await migrate(empty.database, revision=revision, scripts=empty.next_scripts)
    insert = f"INSERT INTO users (id, created_at, {column}) VALUES (gen_random_uuid(), now(), {value})"
    logging_in = await asyncpg.connect(empty_database_url)
    await logging_in.execute("SET lock_timeout = '2s'")
    async with empty.rows.transaction():
        await empty.rows.execute(insert)
        migrating = asyncio.create_task(migrate(empty.database, scripts=empty.next_scripts, **how))
        for _ in range(20):
            await logging_in.execute(insert)
            await asyncio.sleep(0.05)
        assert not migrating.done()
    async with asyncio.timeout(PATIENCE):
        assert await migrating == "9002"
    await logging_in.close()


@pytest.mark.slow
async def test_a_table_that_stays_locked_is_reported(empty: Empty) -> None:
    await migrate(empty.database)
    async with empty.rows.transaction():
        await empty.rows.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        with pytest.raises(MigrationBlocked, match="pg_stat_activity"):
            await migrate(empty.database, scripts=empty.next_scripts, lock_patience=0.05, pause=0.05, patience=0.2)
    assert await migrate(empty.database, scripts=empty.next_scripts) == "9002"


@pytest.mark.slow
async def test_a_migration_that_ends_a_deadlock_is_tried_again(empty: Empty) -> None:
    await migrate(empty.database)
    revision = empty.next_scripts / "versions" / "9001_next.py"
    upgrade = 'op.execute("ALTER TABLE users ADD COLUMN shoe_size int")'
    revision.write_text(revision.read_text().replace(upgrade, f"{upgrade}; {upgrade.replace('users', 'sessions')}"))
    # With this setting, PostgreSQL ends the deadlock by ending the migration.
    await empty.rows.execute("SET deadlock_timeout = '1min'")
    async with asyncio.timeout(PATIENCE):
        async with empty.rows.transaction():
            await empty.rows.execute("LOCK TABLE sessions IN ROW EXCLUSIVE MODE")
            migrating = asyncio.create_task(migrate(empty.database, scripts=empty.next_scripts, lock_patience=10))
            await until(lambda: is_locked(empty.rows, "users"))
            await empty.rows.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        assert await migrating == "9002"


async def is_locked(rows: Rows, table: str) -> bool:
    """Return whether another transaction has locked the table exclusively."""
    locks = "SELECT FROM pg_locks WHERE relation = $1::regclass AND mode = 'AccessExclusiveLock' AND granted"
    return bool(await rows.fetch(locks, table))


@pytest.fixture(scope="session")
def scripts_with_replaced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Alembic's folder of the commit that the refusal of an earlier schema names."""
    said = refusal_of("0102")
    assert said is not None
    [commit] = re.findall("commit ([0-9a-f]+)", str(said))
    folder = tmp_path_factory.mktemp("replaced")
    archive = folder / "alembic.tar"
    command = ["git", "archive", f"--output={archive}", commit, "alembic"]
    if shutil.which("git") is None or subprocess.run(command, cwd=SCRIPTS.parent, capture_output=True).returncode:
        pytest.skip(f"this folder is no clone with commit {commit}: clone the repository without --depth")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "alembic"


@pytest.mark.slow
@pytest.mark.parametrize("revision", REPLACED)
async def test_a_schema_from_before_the_first_release_becomes_that_of_the_first_release(
    empty: Empty, rows: Rows, scripts_with_replaced: Path, revision: str
) -> None:
    await migrate(empty.database, revision=revision, scripts=scripts_with_replaced)
    await empty.rows.execute("INSERT INTO users (id, created_at, nickname) VALUES (gen_random_uuid(), now(), 'Alice')")
    assert not is_usable(await current_revision(empty.database))
    with pytest.raises(MigrationImpossible, match="doesn't exist"):
        await migrate(empty.database, revision=revision)
    for _ in range(2):
        assert await migrate(empty.database) == REVISIONS[0]
        assert await empty.schema() == await schema_of(rows)
    assert await empty.rows.fetchval("SELECT nickname FROM users") == "Alice"
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'alembic_version'"
    assert await empty.rows.fetch(columns) == await rows.fetch(columns)


@pytest.mark.slow
async def test_an_earlier_schema_is_left_unchanged_and_comes_through_with_the_commit_that_is_named(
    empty: Empty, rows: Rows, scripts_with_replaced: Path
) -> None:
    for revision in ("0102", "0108"):
        await migrate(empty.database, revision=revision, scripts=scripts_with_replaced)
        before = await empty.schema()
        with pytest.raises(MigrationImpossible, match=f"the schema is at {revision}, .* of commit [0-9a-f]+ first"):
            await migrate(empty.database)
        assert await empty.schema() == before
    await migrate(empty.database, scripts=scripts_with_replaced)
    assert await migrate(empty.database) == REVISIONS[0]
    assert await empty.schema() == await schema_of(rows)


@pytest.mark.slow
async def test_a_replacement_behind_a_transaction_is_tried_again(empty: Empty, scripts_with_replaced: Path) -> None:
    await migrate(empty.database, revision=REPLACED[0], scripts=scripts_with_replaced)
    async with empty.rows.transaction():
        await empty.rows.execute("LOCK TABLE clients IN ROW EXCLUSIVE MODE")
        before = await empty.schema()
        with pytest.raises(MigrationBlocked, match="pg_stat_activity"):
            await migrate(empty.database, lock_patience=0.05, pause=0.05, patience=0.2)
        assert await empty.schema() == before
    assert await migrate(empty.database) == REVISIONS[0]


SQUAWK = [str(Path(sys.executable).with_name("squawk")), "--pg-version=15", "--reporter=gcc"]
EXCLUDED = "--exclude=require-lock-timeout,require-statement-timeout,prefer-robust-stmts,prefer-bigint-over-int"


def hold_ups(scripts: Path) -> set[str]:
    """Return what Squawk finds in all revisions except the first, during which no requests use the tables."""
    found: set[str] = set()
    for revision in [*ScriptDirectory(str(scripts)).walk_revisions()][:-1]:
        options = {"as_sql": True, "output_buffer": (sql := StringIO())}
        with Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=options)):
            revision.module.upgrade()
        transaction = ["--assume-in-transaction"] if getattr(revision.module, "transactional", True) else []
        said = subprocess.run([*SQUAWK, EXCLUDED, *transaction], input=sql.getvalue(), capture_output=True, text=True)
        assert said.returncode in (0, 1), said.stderr
        found |= set(re.findall("(?:warning|error): ([a-z-]+) ", said.stdout))
    return found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("", set()),
        ("CREATE INDEX users_shoe_size_idx ON users (shoe_size)", {"require-concurrent-index-creation"}),
        ("ALTER TABLE users ADD CHECK (shoe_size > 0)", {"constraint-missing-not-valid"}),
    ],
)
def test_no_revision_holds_up_those_who_use_its_tables(tmp_path: Path, change: str, found: set[str]) -> None:
    scripts = scripts_of_next_version(tmp_path)
    path = scripts / "versions" / "9001_next.py"
    path.write_text(path.read_text().replace("shoe_size int", f"shoe_size int; {change}"))
    assert hold_ups(scripts) == found


OF_ANOTHER = {
    "a hash": "CREATE TABLE alembic_version AS SELECT 'a1b2c3d4e5f6' AS version_num",
    "a hash that sorts first": "CREATE TABLE alembic_version AS SELECT '00aa11bb22cc' AS version_num",
    "a number": "CREATE TABLE alembic_version AS SELECT '0200' AS version_num; CREATE TABLE users (id int)",
    "nothing": "CREATE TABLE alembic_version AS SELECT NULL::text AS version_num",
    "no row, beside a table": "CREATE TABLE alembic_version (version_num text); CREATE TABLE users (id int)",
    "no table of Alembic's": "CREATE TABLE users (id int)",
    "a word": "CREATE TABLE alembic_version AS SELECT 'head' AS version_num; CREATE TABLE identities (id int)",
    "before the first": "CREATE TABLE alembic_version AS SELECT '0031' AS version_num; CREATE TABLE identities ()",
}


@pytest.mark.parametrize("made", OF_ANOTHER.values(), ids=OF_ANOTHER)
async def test_the_schema_of_another_program_is_left_unchanged(empty: Empty, made: str) -> None:
    await empty.rows.execute(made)
    before = await empty.schema()
    assert not is_usable(await current_revision(empty.database))
    with pytest.raises(MigrationImpossible, match=r"in this schema belongs to another program"):
        await migrate(empty.database)
    assert await empty.schema() == before


ENGINES = {
    "PostgreSQL 15.2-YB-2025.1.0.1-b3 on x86_64-pc-linux-gnu, compiled by clang": "is YugabyteDB",
    "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)": "is CockroachDB",
    "PostgreSQL 13.14.0-RisingWave-2.1.0 (unknown)": "is RisingWave",
    "KingbaseES V008R006C008B0014 on x86_64-pc-linux-gnu": "is KingbaseES",
    "PostgreSQL 16.4 on aarch64-unknown-linux-gnu, compiled by gcc": None,
    "PostgreSQL 14.9 (PolarDB 14.9.14.0 build 1) on x86_64-linux-gnu": None,
}


@pytest.mark.parametrize(("engine", "named"), ENGINES.items())
async def test_only_postgresql_is_migrated(empty: Empty, engine: str, named: str | None) -> None:
    await claim(empty.rows, engine)
    if named is None:
        assert await migrate(empty.database) == REVISIONS[-1]
        return
    with pytest.raises(MigrationImpossible, match=f"the database {named}, which can't run wxauth's schema"):
        await migrate(empty.database)
    assert await empty.rows.fetchval("SELECT to_regclass('alembic_version') IS NULL")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "EUC_CN"])
async def test_a_database_in_another_encoding_is_not_migrated(
    empty_database_url: str, admin: asyncpg.Connection, encoding: str
) -> None:
    name = urlsplit(empty_database_url).path[1:]
    await admin.execute(f"CREATE DATABASE {name}_other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        async with aclosing(Database(empty_database_url.replace(f"/{name}", f"/{name}_other"))) as database:
            with pytest.raises(MigrationImpossible, match=f"the database has the encoding {encoding} instead of UTF8"):
                await migrate(database)
    finally:
        await admin.execute(f"DROP DATABASE {name}_other WITH (FORCE)")


async def test_backslashes_in_strings_may_be_escapes(empty: Empty) -> None:
    await empty.rows.execute("SET standard_conforming_strings = off")
    database = await empty.rows.fetchval("SELECT current_database()")
    await empty.rows.execute(f"ALTER DATABASE {database} SET standard_conforming_strings = off")
    assert await migrate(empty.database) == REVISIONS[-1]
    insert = "INSERT INTO users (id, created_at, phone) VALUES (gen_random_uuid(), now(), $1)"
    await empty.rows.execute(insert, "+8613800138000")
    for wrong in ("8613800138000", "+0613800138000"):
        with pytest.raises(asyncpg.CheckViolationError):
            await empty.rows.execute(insert, wrong)


async def test_a_migration_needs_three_connections(empty: Empty, empty_database_url: str) -> None:
    await empty.rows.execute("DROP ROLE IF EXISTS migrator; CREATE ROLE migrator LOGIN CONNECTION LIMIT 3")
    await empty.rows.execute("GRANT ALL ON SCHEMA public TO migrator")
    async with aclosing(Database(empty_database_url.replace("postgres@", "migrator@"))) as database:
        assert await migrate(database) == REVISIONS[-1]
    await empty.rows.execute("DROP OWNED BY migrator; DROP ROLE migrator")
