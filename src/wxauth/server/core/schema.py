"""The schema's revision, compared with those that this version knows. It does not import Alembic, to start faster."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement

_IN_WHEEL: Final = Path(__file__).parents[2] / "_migrations"
_IN_CHECKOUT: Final = Path(__file__).parents[4] / "alembic"
SCRIPTS: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT


def revisions_in(scripts: Path) -> tuple[str, ...]:
    """The revisions in an Alembic folder, the newest first: the numbers with which the file names begin."""
    return tuple(sorted((path.name.partition("_")[0] for path in scripts.glob("versions/[0-9]*.py")), reverse=True))


# Read at import, because an upgrade in place adds newer revisions, which the running version does not know.
KNOWN_REVISIONS: Final = revisions_in(SCRIPTS)
"""All revisions that this version knows, the newest first."""

_IS_MIGRATED: Final = Statement[bool]("SELECT to_regclass('alembic_version') IS NOT NULL")
_CURRENT: Final = Statement[str]("SELECT version_num FROM alembic_version")


async def is_schema_usable(database: Database) -> bool:
    """Whether the schema has the revision that this version needs, or a newer one from a newer replica."""
    return is_usable(await current_revision(database))


async def current_revision(database: Database) -> str | None:
    """The schema's revision; None if there is no schema."""
    return await database.value(_CURRENT) if await database.value(_IS_MIGRATED) else None


def is_usable(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Whether this revision is the newest one that this version knows, or a newer one."""
    return revision is not None and revision >= known[0]


def is_newer(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Whether this revision is newer than all that this version knows."""
    return revision is not None and revision > known[0]


def is_of_preview(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Whether this revision is older than all that this version knows: from a version before the first release."""
    return revision is not None and revision < known[-1]
