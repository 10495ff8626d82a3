"""The check that this version of wxauth supports the database's engine and the schema's revision.

This module does not import Alembic, because the import would slow down the start of the service.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncpg

from wxauth.core.database import Database
from wxauth.core.outages import reason_of
from wxauth.core.statements import Statement
from wxauth.i18n import Text, lazy_gettext as _

_IN_WHEEL: Final = Path(__file__).parents[1] / "_migrations"
_IN_CLONE: Final = Path(__file__).parents[3] / "alembic"
SCRIPTS: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CLONE
_REVISION: Final = re.compile("[0-9]{4}")
REPLACED: Final = ("0109", "0110", "0111", "0112")  # by the first revision, which has everything that they had
_OLDEST_MIGRATED: Final = "0102"  # by the last commit that had these revisions
_LAST_COMMIT_WITH_REPLACED: Final = "8cbd14924"
_BEFORE_REPLACED: Final = _(
    "the schema is at {revision}, which is from before 0.1.0. Run 'wxauth migrate' of commit {commit} first"
)
_FOREIGN_REVISION: Final = ""  # sorts before all of wxauth's revisions, so wxauth refuses it
_FOREIGN_SCHEMA: Final = _(
    "alembic_version in this schema belongs to another program or to a version of wxauth before "
    "0.1.0. Set WXAUTH_DATABASE_URL to a separate database"
)
# These engines imitate PostgreSQL, but lack features that wxauth needs.
_OTHER_ENGINE: Final = re.compile(
    r"openGauss|GaussDB|OpenTenBase|TBase|Greenplum|Redshift|CockroachDB|Yugabyte|Materialize|QuestDB|CrateDB|RisingWave"
    r"|(?<=-)YB(?=-)"  # YugabyteDB, for example in "PostgreSQL 11.2-YB-2.25.0.0-b0"
    r"|^(?!PostgreSQL)\S+",  # any other first word of version(), which is "PostgreSQL" for PostgreSQL
    re.IGNORECASE,
)
_ENGINE: Final = Statement[tuple[str, bool, str]]("""
SELECT version() AS engine, EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql') AS has_plpgsql,
       current_setting('server_encoding') AS encoding
""")
_HAS_VERSION_TABLE: Final = Statement[bool]("SELECT to_regclass('alembic_version') IS NOT NULL")
_CURRENT: Final = Statement[tuple[str | None, bool]](
    "SELECT version_num, to_regclass('identities') IS NOT NULL AS has_identities FROM alembic_version"
)


def revisions_in(scripts: Path) -> tuple[str, ...]:
    """Return the revisions in an Alembic folder, the newest first."""
    return tuple(sorted((path.name.partition("_")[0] for path in scripts.glob("versions/[0-9]*.py")), reverse=True))


# The list is read when the module is imported. An upgrade in place may later add newer revisions, which the running
# version does not know.
KNOWN_REVISIONS: Final = revisions_in(SCRIPTS)  # the newest first


async def current_revision(database: Database) -> str | None:
    """Return the schema's revision; None if there is none. For another program's, `refusal_of` refuses the result."""
    if not await database.value(_HAS_VERSION_TABLE):
        return None
    stored = await database.row(_CURRENT)
    if stored is None:
        return None
    revision, has_identities = stored
    # Another program's revision might also be a number with four digits, so wxauth's table `identities` must exist.
    is_ours = has_identities and revision is not None and _REVISION.fullmatch(revision) is not None
    return revision if is_ours else _FOREIGN_REVISION


def is_usable(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Return whether a revision is the newest revision that this version of wxauth knows, or is newer."""
    return revision is not None and revision >= known[0]


def is_newer(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> bool:
    """Return whether a revision is newer than all revisions that this version of wxauth knows."""
    return revision is not None and revision > known[0]


def refusal_of(revision: str | None, known: Sequence[str] = KNOWN_REVISIONS) -> Text | None:
    """Return why wxauth refuses a schema that another program, or a version before the first release, created.

    wxauth refuses neither an empty schema nor a newer one, although it cannot migrate a newer one. Of the revisions
    before the first release, `migrate` replaces the last ones.
    """
    if revision is None or revision >= known[-1] or revision in REPLACED:
        return None
    if _OLDEST_MIGRATED <= revision < REPLACED[0]:
        return Text(_BEFORE_REPLACED, revision=revision, commit=_LAST_COMMIT_WITH_REPLACED)
    return _FOREIGN_SCHEMA


async def why_database_unfit(database: Database) -> Text | None:
    """Return why wxauth cannot use this database, as a predicate such as "isn't PostgreSQL"."""
    try:
        engine, has_plpgsql, encoding = await database.one(_ENGINE)
    except asyncpg.PostgresError as exc:
        return _(
            "isn't PostgreSQL ({reason}). docs/run/database.md lists the databases that you can use",
            reason=reason_of(exc),
        )
    return why_unfit(engine, has_plpgsql=has_plpgsql, encoding=encoding)


def why_unfit(engine: str, *, has_plpgsql: bool, encoding: str) -> Text | None:
    """Return why the database's engine or its encoding is unsuitable, as a predicate.

    `engine` is the result of version(). Engines such as Aurora, which replace only PostgreSQL's storage, are suitable.
    """
    match = _OTHER_ENGINE.search(engine)
    if match is not None or not has_plpgsql:
        name = _("an engine without PL/pgSQL") if match is None else match[0].replace("YB", "YugabyteDB")
        return _(
            "is {engine}, which can't run wxauth's schema. docs/run/database.md lists the databases that you can use",
            engine=name,
        )
    if encoding != "UTF8":
        return _(
            "has the encoding {encoding} instead of UTF8. Dump the database, and restore the dump into a "
            "new database: createdb --encoding=UTF8 --template=template0",
            encoding=encoding,
        )
    return None
