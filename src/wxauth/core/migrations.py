"""Bringing the schema to where this version needs it; works from a checkout and from the wheel alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from alembic import command
from wxauth.core.database import ISOLATION, Database, raise_if_unavailable

HEAD: Final = "head"
BASE: Final = "base"
"""Below the first revision: nothing."""

_IN_WHEEL = Path(__file__).parents[1] / "_migrations"
_IN_CHECKOUT = Path(__file__).parents[3] / "alembic"
# Replicas that migrate at once take turns; those that come later find nothing to do.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('wxauth.migrations'))")
_WITHOUT_DEADLINE = text("""
    SELECT set_config(name, '0', true)
      FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout']) name
""")
_IS_MIGRATED: Final = "SELECT to_regclass('alembic_version') IS NOT NULL"
_CURRENT: Final = "SELECT version_num FROM alembic_version"


class UnknownRevision(Exception):
    """This version of wxauth does not know the revision that was asked for, or the one the schema is at."""


async def migrate(database: Database, *, revision: str = HEAD) -> str | None:
    """Upgrade, or with an older `revision` downgrade, in one transaction; the revision reached.

    Raises: StorageUnavailable, UnknownRevision.
    """
    async with begin_migration(database) as connection:
        await connection.execute(_LOCK)
        return await connection.run_sync(_migrate, revision)


async def is_schema_usable(database: Database) -> bool:
    """Whether the schema is where this version needs it, or beyond: a newer replica may have migrated.

    Raises: StorageUnavailable.
    """
    return is_usable(await current_revision(database))


async def current_revision(database: Database) -> str | None:
    """Where the schema is; None where there is none. Raises: StorageUnavailable."""
    if not (await database.fetchrow(_IS_MIGRATED))[0]:
        return None
    row = await database.fetchrow(_CURRENT)
    return None if row is None else str(row[0])


def is_usable(revision: str | None) -> bool:
    """Whether this is what this version needs, or newer than what it knows."""
    return revision is not None and revision not in _revisions()[1:]


def newest_revision() -> str:
    """What this version needs."""
    return _revisions()[0]


@asynccontextmanager
async def begin_migration(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction without a deadline, on a connection of its own, as Alembic wants it.

    Raises: StorageUnavailable, where there is no connection.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda **_: database.connect(command_timeout=None),
        connect_args={"prepared_statement_cache_size": 0},
        poolclass=NullPool,
        isolation_level=ISOLATION,
        hide_parameters=True,
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(_WITHOUT_DEADLINE)
            yield connection
    except Exception as exc:
        raise_if_unavailable(exc.driver_exception if isinstance(exc, DBAPIError) else exc)
        raise
    finally:
        await engine.dispose()


def _migrate(connection: Connection, revision: str) -> str | None:
    config = _config()
    config.attributes["connection"] = connection
    order = [*_revisions(), BASE]
    here = MigrationContext.configure(connection).get_current_revision() or BASE
    target = order[0] if revision == HEAD else revision
    if here not in order:
        raise UnknownRevision(f"the schema is at {here!r}, of another version of wxauth; migrate with that one")
    if target not in order:
        raise UnknownRevision(f"there is no revision {revision!r}; there are {', '.join(order)}")
    if order.index(target) < order.index(here):
        command.upgrade(config, target)
    elif target != here:
        command.downgrade(config, target)
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _revisions() -> tuple[str, ...]:
    """All that this version knows, the newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    folder = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))  # it interpolates
    return config
