"""The search for foreign objects that make a migration fail, because they use columns that the migration changes.

An object is foreign if wxauth has not created it, for example a view that an operator has added to a table. The search
runs before a migration changes anything.
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
from wxauth.core.statements import Statement
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.terminal import listed

_MAX_LISTED: Final = 20  # objects in the message
_REFUSAL: Final = _(
    "objects that wxauth didn't create use columns that this migration changes: {objects}. Drop "
    "these objects, run the command again, and then recreate the objects. Nothing has been migrated."
)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TABLE: Final = r'(?:"?\w+"?\.)?"?(?P<table>\w+)"?'  # with or without its schema and quotes
_ALTER_TABLE: Final = re.compile(
    rf"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_TABLE}\s(?P<changes>[^;]*)", re.IGNORECASE
)
# The pattern does not match a clause that drops something else, such as a constraint or a default.
_CHANGE: Final = re.compile(
    r"\bALTER\s+(?:COLUMN\s+)?\"?(?P<altered>\w+)\"?\s+(?:SET\s+DATA\s+)?TYPE\b"
    r"|\bDROP\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?(?!(?:CONSTRAINT|DEFAULT|NOT|IDENTITY|EXPRESSION)\b)"
    r"\"?(?P<dropped>\w+)\"?",
    re.IGNORECASE,
)
_DROP_TABLE: Final = re.compile(r"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?P<tables>[^;]*)", re.IGNORECASE)
_TABLE_IN_LIST: Final = re.compile(rf"(?:^|,)\s*{_TABLE}")


@dataclass(frozen=True, slots=True)
class Dependent:
    """An object that uses a column of wxauth's tables. Therefore, PostgreSQL refuses to change or drop the column."""

    description: str  # such as `view public.report`
    name: str | None  # to search for in wxauth's revisions; None for a kind that wxauth doesn't create
    uses: str  # the first column that it uses, such as `users.nickname`, or a table that is dropped


# The statement also finds objects that wxauth created.
_DEPENDENTS: Final = Statement[Dependent]("""
WITH changed_columns AS (
    SELECT attrelid AS table_oid, attnum AS column_number, attname AS column_name,
           given.column_name IS NULL AS is_whole_table, is_dropped  -- otherwise the column's type changes
      FROM unnest(:tables::text[], :columns::text[], :are_dropped::boolean[])
           given (table_name, column_name, is_dropped)  -- no column: the whole table is dropped
           JOIN pg_attribute ON attrelid = to_regclass(quote_ident(given.table_name))
                            AND NOT attisdropped AND attnum > 0
                            AND (given.column_name IS NULL OR attname = given.column_name)
), dependents AS (
    SELECT classid, objid, objsubid, min(format(CASE WHEN is_whole_table THEN '%s' ELSE '%s.%I' END,
                                                table_oid::regclass, column_name)) AS uses
      FROM changed_columns JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = table_oid
                                         -- 0: the object uses the table as a whole
                                         AND (refobjsubid = column_number OR is_whole_table AND refobjsubid = 0)
                                         -- Only 'n' makes PostgreSQL refuse to drop a table. Other objects, such as
                                         -- the indexes of the table, are dropped with it.
                                         AND (deptype = 'n' OR NOT is_whole_table)
     -- PostgreSQL rebuilds indexes and constraints when the type of a column changes, and drops most of them together
     -- with the column. Only a foreign key to the column makes it refuse. A foreign key of the dropped column itself
     -- depends on the column with 'a', and is dropped with it.
     WHERE classid <> 'pg_constraint'::regclass OR (is_dropped AND deptype = 'n')
     GROUP BY classid, objid, objsubid
), described AS (
    SELECT CASE relkind WHEN 'v' THEN format('view %I.%I', nspname, relname)
                        WHEN 'm' THEN format('materialized view %I.%I', nspname, relname)
                        ELSE format('rule %I on %I.%I', rulename, nspname, relname) END AS description,
           NULL::name AS name, uses
      -- A view is found through its rule `_RETURN`.
      FROM dependents JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid
           JOIN pg_class c ON c.oid = ev_class JOIN pg_namespace n ON n.oid = relnamespace
    UNION
    SELECT format('policy %I on %s', polname, polrelid::regclass), NULL, uses
      FROM dependents JOIN pg_policy p ON classid = 'pg_policy'::regclass AND p.oid = objid
    UNION
    SELECT format('trigger %I on %s', tgname, tgrelid::regclass), tgname, uses
      FROM dependents JOIN pg_trigger t ON classid = 'pg_trigger'::regclass AND t.oid = objid WHERE NOT tgisinternal
    UNION
    SELECT format('foreign key %I of %s', conname, conrelid::regclass), conname, uses
      FROM dependents JOIN pg_constraint c ON classid = 'pg_constraint'::regclass AND c.oid = objid WHERE contype = 'f'
    UNION
    SELECT format('generated column %s.%I', adrelid::regclass, attname), attname, uses
      FROM dependents JOIN pg_attrdef d ON classid = 'pg_attrdef'::regclass AND d.oid = objid
           JOIN pg_attribute a ON a.attrelid = adrelid AND a.attnum = adnum WHERE attgenerated <> ''
    UNION
    SELECT format('function %s', objid::regprocedure), proname, uses
      FROM dependents JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
    UNION
    SELECT format('publication %I', pubname), NULL, uses
      FROM dependents JOIN pg_publication_rel r ON classid = 'pg_publication_rel'::regclass AND r.oid = objid
           JOIN pg_publication b ON b.oid = prpubid
    UNION
    SELECT format('table %s', objid::regclass), c.relname, uses
      FROM dependents JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
     WHERE relkind IN ('r', 'p', 'f')
)
SELECT description, name::text AS name, min(uses) AS uses FROM described GROUP BY description, name ORDER BY description
""")


@dataclass(frozen=True, slots=True)
class Change:
    """A column that is dropped or whose type changes, or a table that is dropped (without `column`)."""

    table: str
    column: str | None
    is_dropped: bool


def sql_of(script: Script, *, is_upgrade: bool) -> str:
    """Return the SQL of a revision's upgrade or downgrade, without comments.

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
    """Return a message that names the foreign objects that make this SQL fail.

    `scripts` are all revisions. An object is not foreign if it has a `Dependent.name`, and this name occurs in the SQL
    of a revision's upgrade.
    """
    changes = list(changes_in(sql))
    if not changes:
        return None
    dependents = await database.rows(
        _DEPENDENTS,
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
    return Text(_REFUSAL, objects=listed(foreign[:_MAX_LISTED], other_count=max(0, len(foreign) - _MAX_LISTED)))
