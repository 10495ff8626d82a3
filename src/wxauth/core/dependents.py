"""The search for foreign objects that make a migration fail, because they use columns that the migration changes.

An object is foreign if wxauth has not created it, for example a view that an operator has added to a table.

The search runs before a migration changes anything.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Final

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script

from wxauth.core.database import Database
from wxauth.core.dependent_queries import DEPENDENTS
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.terminal import listed

_MAX_NAMED: Final = 20
"""The largest number of objects that the error names. The error only counts any further objects."""
_REFUSAL: Final = _(
    "objects that wxauth didn't create use columns that this migration changes: {objects}. Drop "
    "these objects, run the command again, and then recreate the objects. Nothing has been migrated."
)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
"""The pattern of an SQL comment, from `--` to the end of the line, or between `/*` and `*/`."""
_TABLE: Final = r'(?:"?\w+"?\.)?"?(?P<table>\w+)"?'
"""The pattern of a table's name, with or without its schema and quotes. The group `table` contains only the name."""
_ALTER_TABLE: Final = re.compile(
    rf"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_TABLE}\s(?P<changes>[^;]*)", re.IGNORECASE
)
"""The pattern of a statement that alters a table, with all its changes to this table."""
_CHANGE: Final = re.compile(
    r"\bALTER\s+(?:COLUMN\s+)?\"?(?P<altered>\w+)\"?\s+(?:SET\s+DATA\s+)?TYPE\b"
    r"|\bDROP\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?(?!(?:CONSTRAINT|DEFAULT|NOT|IDENTITY|EXPRESSION)\b)"
    r"\"?(?P<dropped>\w+)\"?",
    re.IGNORECASE,
)
"""The pattern of a clause that changes a column's type (`altered`) or drops a column (`dropped`).

It does not match a clause that drops something else, such as a constraint or a default.
"""
_DROP_TABLE: Final = re.compile(r"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?P<tables>[^;]*)", re.IGNORECASE)
"""The pattern of a statement that drops tables. The group `tables` contains the list of the tables' names."""
_TABLE_IN_LIST: Final = re.compile(rf"(?:^|,)\s*{_TABLE}")
"""The pattern of one table's name in a comma-separated list."""


@dataclass(frozen=True, slots=True)
class Change:
    """A column that is dropped or whose type changes, or a table that is dropped.

    If a table is dropped, `column` is None.
    """

    table: str
    column: str | None
    is_dropped: bool


def sql_of(script: Script, *, is_upgrade: bool) -> str:
    """Return the SQL of a revision's upgrade, or of its downgrade if `is_upgrade` is false. Leave out comments.

    The SQL ends before the first statement that depends on the contents of the database.
    """
    run = script.module.upgrade if is_upgrade else script.module.downgrade
    sql = StringIO()
    options = {"as_sql": True, "output_buffer": sql}
    with Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=options)):
        try:
            run()
        except AttributeError as exc:
            # A revision that queries the database finds None here in place of a connection.
            if exc.obj is not None:
                raise
    return _COMMENT.sub(" ", sql.getvalue())


def changes_in(sql: str) -> Iterator[Change]:
    """Yield the changes in `sql` that PostgreSQL refuses if an object depends on the column or table."""
    for statement in _ALTER_TABLE.finditer(sql):
        for change in _CHANGE.finditer(statement["changes"]):
            column = change["altered"] or change["dropped"]
            yield Change(statement["table"], column, is_dropped=change["dropped"] is not None)
    for statement in _DROP_TABLE.finditer(sql):
        for name in _TABLE_IN_LIST.finditer(statement["tables"]):
            yield Change(name["table"], None, is_dropped=True)


async def refusal_for_dependents(database: Database, sql: str, scripts: Iterable[Script]) -> Text | None:
    """Return a message that names the foreign objects that make this SQL fail, and says what to do.

    Return None if there are no such objects. `scripts` are all revisions. An object is not foreign if it has a
    `Dependent.name`, and this name occurs in the SQL of a revision's upgrade.
    """
    changes = list(changes_in(sql))
    if not changes:
        return None
    dependents = await database.rows(
        DEPENDENTS,
        tables=[change.table for change in changes],
        columns=[change.column for change in changes],
        are_dropped=[change.is_dropped for change in changes],
    )
    if not dependents:
        return None
    sql_of_all_upgrades = " ".join(sql_of(script, is_upgrade=True) for script in scripts)
    our_words = set(re.findall(r"\w+", sql_of_all_upgrades))
    foreign = [f"{each.description} ({each.uses})" for each in dependents if each.name not in our_words]
    if not foreign:
        return None
    return Text(_REFUSAL, objects=listed(foreign[:_MAX_NAMED], other_count=max(0, len(foreign) - _MAX_NAMED)))
