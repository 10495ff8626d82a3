"""Bringing the schema to where this version needs it; works from a checkout and from the wheel alike."""

from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from alembic import command
from wxauth.store.database import Database

HEAD: Final = "head"

_IN_WHEEL = Path(__file__).parents[1] / "_migrations"
_IN_CHECKOUT = Path(__file__).parents[3] / "alembic"
# Replicas that migrate at once take turns; those that come later find nothing to do.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('wxauth.migrations'))")


class UnknownRevision(Exception):
    """This version of wxauth does not know the revision that was asked for, or the one the schema is at."""


async def migrate(database: Database, *, revision: str = HEAD) -> str | None:
    """Upgrade, or with an older `revision` downgrade, in one transaction; the revision reached.

    Raises: StorageUnavailable, UnknownRevision.
    """
    async with database.begin_migration() as connection:
        await connection.execute(_LOCK)
        return await connection.run_sync(_migrate, revision)


async def is_schema_usable(database: Database) -> bool:
    """Whether the schema is where this version needs it, or beyond: a newer replica may have migrated.

    Raises: StorageUnavailable.
    """
    async with database.begin() as connection:
        here = await connection.run_sync(_current_revision)
    scripts = ScriptDirectory.from_config(_config())
    behind = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    return here is not None and here not in behind


def _migrate(connection: Connection, revision: str) -> str | None:
    config = _config()
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    try:
        # From the newest to the oldest; "base" stands below them all.
        order = [script.revision for script in scripts.walk_revisions()] + ["base"]
        here = order.index(_current_revision(connection) or "base")
        target = order.index(scripts.as_revision_number(revision) or "base")  # type: ignore[arg-type]  # one head
    except (CommandError, ValueError):
        raise UnknownRevision(f"this version of wxauth does not know the schema's revision or {revision!r}") from None
    if target < here:
        command.upgrade(config, revision)
    elif target > here:
        command.downgrade(config, revision)
    return _current_revision(connection)


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT))
    return config
