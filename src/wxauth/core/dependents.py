"""What operators add to our tables, if it would stop a migration: found before anything is changed."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from typing import Final

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script

from wxauth.core.database import Database
from wxauth.core.dependent_queries import DEPENDENTS
from wxauth.core.terminal import listed
from wxauth.i18n import Text, lazy_gettext as _

_MOST_NAMED: Final = 20
_IN_THE_WAY: Final = _(
    "objects that wxauth did not create use columns that this migration changes: {objects}. Drop them, run this again, "
    "and then create them again. Nothing has been migrated."
)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME: Final = r'(?:"?\w+"?\.)?"?(?P<{}>\w+)"?'
_ALTER_TABLE: Final = re.compile(
    rf"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_NAME.format('table')}\s(?P<changes>[^;]*)", re.IGNORECASE
)
_CHANGE: Final = re.compile(
    r"\bALTER\s+(?:COLUMN\s+)?\"?(?P<altered>\w+)\"?\s+(?:SET\s+DATA\s+)?TYPE\b"
    r"|\bDROP\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?(?!(?:CONSTRAINT|DEFAULT|NOT|IDENTITY|EXPRESSION)\b)"
    r"\"?(?P<dropped>\w+)\"?",
    re.IGNORECASE,
)
_DROP_TABLE: Final = re.compile(r"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?P<tables>[^;]*)", re.IGNORECASE)
_LISTED: Final = re.compile(rf"(?:^|,)\s*{_NAME.format('table')}")


@dataclass(frozen=True, slots=True)
class Change:
    """A column whose type changes, or which is dropped; without a column, a table that is dropped."""

    table: str
    column: str | None
    is_dropped: bool


def sql_of(script: Script, *, is_upgrade: bool) -> str:
    """The SQL of a revision, or of its downgrade, without comments, as far as it does not depend on the database."""
    options = {"as_sql": True, "output_buffer": (sql := StringIO())}
    with (
        Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=options)),
        suppress(AttributeError),  # there is no connection that it could ask
    ):
        (script.module.upgrade if is_upgrade else script.module.downgrade)()
    return _COMMENT.sub(" ", sql.getvalue())


def changes_in(sql: str) -> Iterator[Change]:
    """The changes in some SQL by which an object that depends on a column stops a migration."""
    for altered in _ALTER_TABLE.finditer(sql):
        for change in _CHANGE.finditer(altered["changes"]):
            yield Change(altered["table"], change["altered"] or change["dropped"], change["dropped"] is not None)
    for dropped in _DROP_TABLE.finditer(sql):
        for name in _LISTED.finditer(dropped["tables"]):
            yield Change(name["table"], None, is_dropped=True)


async def what_is_in_the_way(database: Database, sql: str, scripts: Iterable[Script]) -> Text | None:
    """Which objects of others depend on columns that this SQL changes, and what to do; None if there are none.

    Triggers, foreign keys and the like are ours if their names are in the SQL of `scripts`, which are all revisions: a
    revision knows of them.
    """
    if not (changes := [*changes_in(sql)]):
        return None
    dependents = await database.rows(
        DEPENDENTS,
        tables=[change.table for change in changes],
        columns=[change.column for change in changes],
        are_dropped=[change.is_dropped for change in changes],
    )
    if not dependents:
        return None
    ours = {*re.findall(r"\w+", " ".join(sql_of(script, is_upgrade=True) for script in scripts))}
    found = [f"{it.object} ({it.uses})" for it in dependents if it.name not in ours]
    return Text(_IN_THE_WAY, objects=listed(found[:_MOST_NAMED], max(0, len(found) - _MOST_NAMED))) if found else None
