"""The migration of the schema to another revision, from a clone or from the wheel.

Replicas continue to serve during a migration. An ALTER TABLE waits for the transactions that use the table, and all
clients that come later wait for the ALTER TABLE. Therefore a revision in a transaction waits at most a second for a
lock. If it does not get the lock, it runs again after a pause. Slow steps, for example building an index or changing a
batch of rows, must not hold such a lock. Therefore they run outside of a transaction, in a revision with
`transactional = False`. Revisions are written by hand: see docs/contribute/decisions/0008-migrations-by-hand.md.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from alembic import command
from wxauth.core import revisions
from wxauth.core.connecting import ISOLATION, LastWords, sql_to_lift_limits
from wxauth.core.database import Database
from wxauth.core.function_queries import SEARCH_PATHS
from wxauth.core.logs import get_logger, message_of
from wxauth.core.outages import raise_if_unavailable
from wxauth.core.pooler_queries import statements_for_role
from wxauth.core.rights_queries import REVOKES_FROM_PUBLIC, our_tables
from wxauth.i18n import Text, TextError, lazy_gettext as _

_CREATED_FUNCTION: Final = re.compile(r"CREATE (?:OR REPLACE )?FUNCTION (\w+)")
HEAD: Final = "head"
BASE: Final = "base"  # before the first revision: the schema is empty
LOCK_TIMEOUT_SECONDS: Final = 1.0  # during this time, all other clients that need the table wait, too
RETRY_PAUSE_SECONDS: Final = 2.0  # on average; meanwhile, other clients can use the table
GIVE_UP_SECONDS: Final = 900.0

# If several replicas migrate at the same time, the first one that gets this lock migrates, and the others find nothing
# to do afterwards. A replica polls for the lock instead of waiting in the database, because CREATE INDEX CONCURRENTLY
# would wait for the transaction of a waiting replica.
_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('wxauth.migrations'))"
# The transaction that holds this lock is idle while the revisions run on other connections, so it has no limit.
_BEGIN_WITHOUT_LIMIT: Final = f"BEGIN; {sql_to_lift_limits()}"
_LOCK_POLL_SECONDS: Final = 0.1
_MAX_DETAIL_LINES: Final = 10  # PostgreSQL lists the objects that depend on a column, which can be many
_OTHER_VERSION: Final = _(
    "the schema is at {revision!r}, which belongs to another version of wxauth. Use that version to migrate"
)
_FOREIGN_TABLE: Final = _(
    "a table in this schema belongs to another program ({reason}). Set WXAUTH_DATABASE_URL to a separate database"
)
_REVISION_REJECTED: Final = _(
    "the database rejected revision {revision}: {reason}. If an object that wxauth didn't create is "
    "the cause, drop the object, run the command again, and then recreate the object"
)
_NO_REVISION: Final = _("revision {revision!r} doesn't exist. Choose one of {revisions}")
_TABLE_LOCKED: Final = _(
    "revision {revision} couldn't lock a table within {seconds:g} s, because another transaction "
    "holds a lock on it. Find old transactions in pg_stat_activity, terminate them, and run the "
    "command again"
)
# In a step, these errors mean that other transactions use its tables. Elsewhere, they mean an outage or a conflict.
_IN_USE: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
# PostgreSQL raises InvalidSchemaNameError if there is no schema that the role may use.
_NOT_ALLOWED: Final = (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)

log = get_logger()


class MigrationImpossible(TextError):
    """The revision does not exist, or this version of wxauth cannot migrate this engine or schema."""


class MigrationBlocked(TextError):
    """Another transaction has locked a table for too long."""


class MigrationRefused(TextError):
    """PostgreSQL has refused a revision because of the contents of the database."""


class MigrationForbidden(Exception):
    """The role in the database's URL lacks a privilege. The message is PostgreSQL's own."""


async def migrate(
    database: Database,
    *,
    revision: str = HEAD,
    scripts: Path = revisions.SCRIPTS,
    lock_patience: float = LOCK_TIMEOUT_SECONDS,
    pause: float = RETRY_PAUSE_SECONDS,
    patience: float = GIVE_UP_SECONDS,
) -> str | None:
    """Upgrade or downgrade the schema to `revision`, one revision after the other, and return its revision.

    If the schema belongs to a newer version and `revision` is `head`, the schema stays unchanged, because this version
    works with it. In each case, the migration ends by revoking the rights of PUBLIC on wxauth's tables and sequences,
    and by giving functions their own search_path.

    A revision in a transaction waits at most `lock_patience` seconds for a lock. If it does not get the lock, it runs
    again after `pause` seconds on average, until `patience` seconds have passed since its first attempt.

    Raises: MigrationForbidden, MigrationRefused, MigrationBlocked, MigrationImpossible.
    """
    known_revisions = revisions.revisions_in(scripts)
    order = [BASE, *reversed(known_revisions)]
    directory = ScriptDirectory.from_config(_config(scripts))
    unfit = await revisions.why_database_unfit(database)
    if unfit is not None:
        raise MigrationImpossible(_("the database {unfit}", unfit=unfit))
    async with _one_process_at_a_time(database):
        stored = await revisions.current_revision(database)
        refusal = revisions.refusal_of(stored, known_revisions)
        if refusal is not None:
            raise MigrationImpossible(refusal)
        if revision == HEAD and revisions.is_newer(stored, known_revisions):
            target = stored
        else:
            target = order[-1] if revision == HEAD else revision
            first = _Step(directory.get_revision(order[1]), is_upgrade=True, revision=order[1])
            is_replaced = stored in revisions.REPLACED
            steps = _steps(directory, order, first.revision if is_replaced else stored or BASE, target)
            if is_replaced:
                run = partial(_run_all, database, first.script.module.AFTER_REPLACED, lock_patience=lock_patience)
                await _with_retries(run, first, pause=pause, patience=patience)
            for step in steps:
                run = partial(_run_step, database, scripts, step, lock_patience=lock_patience)
                await _with_retries(run, step, pause=pause, patience=patience)
        # The database may grant these rights on every new table by default.
        await _run_all(database, await database.values(REVOKES_FROM_PUBLIC, tables=our_tables()))
        functions = _functions_in(scripts)
        await _run_all(database, await database.values(SEARCH_PATHS, functions=functions, tables=our_tables()))
    return None if target == BASE else target


async def set_up_role(database: Database) -> Sequence[str]:
    """Set for the role what a pooler doesn't keep for a connection, and return the statements that have run."""
    statements = await statements_for_role(database)
    if not statements:
        return ()
    try:
        async with migration_connection(database) as connection:
            await connection.exec_driver_sql("SET LOCAL ROLE NONE")  # only a role itself may change its settings
            for statement in statements:
                await connection.exec_driver_sql(statement)
    except MigrationForbidden:  # `wxauth check` reports what the role lacks
        return ()
    return statements


@asynccontextmanager
async def migration_connection(
    database: Database, *, is_transactional: bool = True, lock_patience: float = 0.0
) -> AsyncIterator[AsyncConnection]:
    """Open a SQLAlchemy connection for a step of a migration, without a time limit for a statement.

    A statement may wait `lock_patience` seconds for a lock, where 0 means no limit. If the connection is not
    transactional, it commits each statement.

    Raises: MigrationForbidden; sqlalchemy.exc.DBAPIError for any other error of PostgreSQL, for example if the wait for
        a lock takes too long.
    """
    last_words: LastWords | None = None

    async def connect(**_options: object) -> asyncpg.Connection:
        nonlocal last_words
        opened = await database.connector.connect(command_timeout=None)
        last_words = LastWords(opened)
        return opened

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        # A cached statement would become invalid when a revision changes its table, and would be lost behind a pooler.
        connect_args={"prepared_statement_cache_size": 0},
        poolclass=NullPool,
        isolation_level=ISOLATION if is_transactional else "AUTOCOMMIT",
        hide_parameters=True,
    )
    try:
        async with engine.begin() as connection:
            limits = sql_to_lift_limits(is_local=is_transactional, lock_timeout=round(lock_patience * 1000))
            await connection.exec_driver_sql(limits)
            yield connection
    except Exception as exc:
        cause: BaseException = exc
        is_lost = False
        if isinstance(exc, DBAPIError):
            cause = exc.driver_exception
            is_lost = exc.connection_invalidated
        if last_words is not None and last_words.error is not None:
            cause = last_words.error
        if isinstance(cause, _NOT_ALLOWED):
            raise MigrationForbidden(message_of(cause)) from exc
        if not isinstance(cause, _IN_USE):
            raise_if_unavailable(cause, is_closed=is_lost)
        raise
    finally:
        await engine.dispose()


@dataclass(frozen=True, slots=True)
class _Step:
    """The upgrade to the next revision, or the downgrade to the previous revision."""

    script: Script  # applied or undone
    is_upgrade: bool
    revision: str  # of the schema after the step

    @property
    def is_transactional(self) -> bool:
        return getattr(self.script.module, "transactional", True)


def _steps(directory: ScriptDirectory, order: Sequence[str], current: str, target: str) -> list[_Step]:
    if current not in order:
        raise MigrationImpossible(Text(_OTHER_VERSION, revision=current))
    if target not in order:
        raise MigrationImpossible(Text(_NO_REVISION, revision=target, revisions=", ".join(reversed(order))))
    start, end = order.index(current), order.index(target)
    is_upgrade = start < end
    path = order[start : end + 1] if is_upgrade else order[end : start + 1][::-1]
    return [
        _Step(directory.get_revision(after if is_upgrade else before), is_upgrade=is_upgrade, revision=after)
        for before, after in pairwise(path)
    ]


def _functions_in(scripts: Path) -> list[str]:
    """Return the names of the functions that any revision creates. The schema can also contain functions of others."""
    texts = (script.read_text(encoding="utf-8") for script in scripts.glob("versions/*.py"))
    return sorted({name for text in texts for name in _CREATED_FUNCTION.findall(text)})


async def _run_all(database: Database, statements: Sequence[str], *, lock_patience: float = 0.0) -> None:
    if statements:
        async with migration_connection(database, lock_patience=lock_patience) as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)


async def _run_step(database: Database, scripts: Path, step: _Step, *, lock_patience: float) -> None:
    def run(connection: Connection) -> None:
        config = _config(scripts)
        config.attributes["connection"] = connection
        move: Callable[[Config, str], Any] = command.upgrade if step.is_upgrade else command.downgrade
        move(config, step.revision)

    # A revision outside of a transaction uses statements that do not make other clients wait, so it may wait for a lock
    # without a limit.
    patience = lock_patience if step.is_transactional else 0.0
    async with migration_connection(
        database, is_transactional=step.is_transactional, lock_patience=patience
    ) as connection:
        await connection.run_sync(run)


async def _with_retries(run: Callable[[], Awaitable[None]], step: _Step, *, pause: float, patience: float) -> None:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience
    while True:
        try:
            await run()
            return
        except DBAPIError as exc:
            if isinstance(exc.driver_exception, asyncpg.DuplicateTableError):
                raise MigrationImpossible(Text(_FOREIGN_TABLE, reason=exc.driver_exception)) from exc
            if not isinstance(exc.driver_exception, _IN_USE):
                reason = _message_and_detail(exc.driver_exception)
                raise MigrationRefused(Text(_REVISION_REJECTED, revision=step.revision, reason=reason)) from exc
            if loop.time() >= give_up_at:
                raise MigrationBlocked(Text(_TABLE_LOCKED, revision=step.revision, seconds=patience)) from exc
            log.warning("migration_waits", revision=step.revision, reason="another transaction uses a table")
        # The pause is random, so that not every attempt coincides with a transaction that another program repeats at
        # regular intervals. Other replicas do not try at the same time, because only one process at a time migrates.
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311


def _message_and_detail(exc: asyncpg.PostgresError) -> str:
    detail = "; ".join((exc.detail or "").splitlines()[:_MAX_DETAIL_LINES])
    message = " ".join(str(exc).partition("\nDETAIL:")[0].split())
    return f"{message} ({detail})" if detail else message


@asynccontextmanager
async def _one_process_at_a_time(database: Database) -> AsyncIterator[None]:
    """The advisory lock belongs to a transaction, because a pooler does not keep a session's locks."""
    try:
        connection = await database.connector.connect()
    except Exception as exc:
        raise_if_unavailable(exc)
        raise
    try:
        await connection.execute(_BEGIN_WITHOUT_LIMIT)
        while not await connection.fetchval(_TRY_LOCK):
            await connection.execute("ROLLBACK")  # CREATE INDEX CONCURRENTLY would wait for an open transaction
            await asyncio.sleep(_LOCK_POLL_SECONDS)
            await connection.execute(_BEGIN_WITHOUT_LIMIT)
        # This statement releases the snapshot of the previous query. CREATE INDEX CONCURRENTLY would wait for that
        # snapshot.
        await connection.execute("SELECT")
        yield
    except Exception as exc:
        raise_if_unavailable(exc, is_closed=connection.is_closed())
        raise
    finally:
        connection.terminate()  # this releases the lock and, unlike `close`, waits for nothing


def _config(scripts: Path) -> Config:
    config = Config()
    # Alembic reads a single % as the beginning of an interpolation.
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config
