"""Where the schema is, and where this version needs it. Nothing here loads Alembic, which serving does without."""

from functools import cache
from pathlib import Path
from typing import Final

from wxauth.core.database import Database

_IN_WHEEL: Final = Path(__file__).parents[1] / "_migrations"
_IN_CHECKOUT: Final = Path(__file__).parents[3] / "alembic"
SCRIPTS: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
"""The revisions, as Alembic has them."""

_IS_MIGRATED: Final = "SELECT to_regclass('alembic_version') IS NOT NULL"
_CURRENT: Final = "SELECT version_num FROM alembic_version"


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
    return revision is not None and revision not in known_revisions()[1:]


def is_newer(revision: str | None) -> bool:
    """Whether this is beyond what this version knows."""
    return revision is not None and revision not in known_revisions()


def newest_revision() -> str:
    """What this version needs."""
    return known_revisions()[0]


@cache
def known_revisions() -> tuple[str, ...]:
    """All that this version knows, the newest first: the numbers with which the names of the files begin."""
    return tuple(sorted((path.name.partition("_")[0] for path in SCRIPTS.glob("versions/[0-9]*.py")), reverse=True))
