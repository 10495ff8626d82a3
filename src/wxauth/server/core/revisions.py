"""The schema's revision, compared with those that this version knows: without Alembic, to start faster."""

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from wxauth.errors import Title
from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement

_IN_WHEEL: Final = Path(__file__).parents[2] / "_migrations"
_IN_CHECKOUT: Final = Path(__file__).parents[4] / "alembic"
SCRIPTS: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
_BEFORE_ALL: Final = "0000"
"""The revision of a schema that other SQL has made than ours of that number, as a preview did."""
OF_PREVIEW: Final = Title(
    "the schema is of a version before 0.1.0, and cannot be migrated: run 'wxauth users export users.jsonl' with that "
    "version, then 'wxauth migrate' and 'wxauth users import users.jsonl' with this one on an empty database",
    "数据库结构属于 0.1.0 之前的版本，无法迁移：请用那个版本运行 'wxauth users export users.jsonl'，"
    "再用本版本在空数据库上运行 'wxauth migrate' 和 'wxauth users import users.jsonl'",
)
_IS_MIGRATED: Final = Statement[bool]("SELECT to_regclass('alembic_version') IS NOT NULL")
# The column is missing in a preview's table.
_CURRENT: Final = Statement[tuple[str, str | None]](
    "SELECT version_num, to_jsonb(v) ->> 'digest' AS digest FROM alembic_version v"
)


def revisions_in(scripts: Path) -> tuple[str, ...]:
    """The revisions in an Alembic folder, the newest first: the numbers with which the file names begin."""
    return tuple(sorted((path.name.partition("_")[0] for path in scripts.glob("versions/[0-9]*.py")), reverse=True))


# Read at import, because an upgrade in place adds newer revisions, which the running version does not know.
KNOWN_REVISIONS: Final = revisions_in(SCRIPTS)
"""All revisions that this version knows, the newest first."""


@cache
def digests_in(scripts: Path) -> Mapping[str, str]:
    """For each revision in an Alembic folder, the digest of its SQL and of all SQL before, whatever their layout."""
    digests, digest = {}, ""
    for revision in reversed(revisions_in(scripts)):
        (path,) = scripts.glob(f"versions/{revision}_*.py")
        module = ast.parse(path.read_text(encoding="utf-8"))
        upgrade = next(it for it in module.body if isinstance(it, ast.FunctionDef) and it.name == "upgrade")
        docstring = ast.get_docstring(upgrade, clean=False)
        texts = [it.value for it in ast.walk(upgrade) if isinstance(it, ast.Constant) and isinstance(it.value, str)]
        words = " ".join(text for text in texts if text != docstring).split()
        digest = digests[revision] = sha256(" ".join([digest, *words]).encode()).hexdigest()
    return digests


async def current_revision(database: Database, scripts: Path = SCRIPTS) -> str | None:
    """The schema's revision, of a preview if its SQL was not that of `scripts`; None if there is no schema."""
    stored = await database.row(_CURRENT) if await database.value(_IS_MIGRATED) else None
    if stored is None:
        return None
    digests, (revision, digest) = digests_in(scripts), stored
    # Not that of the same revision: outside of a transaction, the two are stored one after the other.
    return _BEFORE_ALL if revision in digests and digest not in digests.values() else revision


def is_usable(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Whether this revision is the newest one that this version knows, or a newer one."""
    return revision is not None and revision >= known[0]


def is_newer(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Whether this revision is newer than all that this version knows."""
    return revision is not None and revision > known[0]


def is_of_preview(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Whether this revision is older than all that this version knows: from a version before the first release."""
    return revision is not None and revision < known[-1]
