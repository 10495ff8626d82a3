"""The query for database objects that depend on columns of wxauth's tables, including objects that wxauth created."""

from dataclasses import dataclass
from typing import Final

from wxauth.core.statements import Statement


@dataclass(frozen=True, slots=True)
class Dependent:
    """An object that uses a column of wxauth's tables. Therefore, PostgreSQL refuses to change or drop the column."""

    description: str
    """The kind and the name of the object, such as `view public.report`."""
    name: str | None
    """The name of the object, which `refusal_for_dependents` searches for in wxauth's revisions.

    None if wxauth creates no objects of this kind.
    """
    uses: str
    """The column, such as `users.nickname`, or the table if the whole table is dropped.

    If the object uses several columns or tables that change, this is the first one in alphabetical order.
    """


# The three lists of parameters are parallel. Each entry consists of one of wxauth's tables, one of the table's columns
# (NULL if the whole table is dropped), and whether the column or table is dropped (otherwise, the column's type
# changes).
#
# `changed_columns` are the given columns. For a table that is dropped, they are all columns of the table.
# `dependents` are the objects that use these columns according to PostgreSQL's catalog:
# - `classid` is the catalog table that contains the object, and `objid` is the object's row in it.
# - `refobjsubid` is the column that an object uses. It is 0 if the object uses the table as a whole, which matters only
#   if the table is dropped.
# - `deptype` 'n' is a dependency that makes PostgreSQL refuse to drop a table. Objects with another kind of dependency,
#   such as the indexes of the table, are dropped with the table.
# - PostgreSQL rebuilds indexes and constraints when the type of a column changes, and drops most of them together with
#   the column. Only a foreign key to the column makes PostgreSQL refuse to drop the column. Therefore the only
#   constraints listed are foreign keys to a column or table that is dropped. A foreign key of the dropped column itself
#   depends on the column with 'a', and is dropped with it.
# `described` adds the description and the name of each object, for one kind of object after another. A view is found
# through the view's rule `_RETURN`.
DEPENDENTS: Final = Statement[Dependent]("""
WITH changed_columns AS (
    SELECT attrelid AS table_oid, attnum AS column_number, attname AS column_name,
           given.column_name IS NULL AS is_whole_table, is_dropped
      FROM unnest(:tables::text[], :columns::text[], :are_dropped::boolean[])
           given (table_name, column_name, is_dropped)
           JOIN pg_attribute ON attrelid = to_regclass(quote_ident(given.table_name))
                            AND NOT attisdropped AND attnum > 0
                            AND (given.column_name IS NULL OR attname = given.column_name)
), dependents AS (
    SELECT classid, objid, objsubid, min(format(CASE WHEN is_whole_table THEN '%s' ELSE '%s.%I' END,
                                                table_oid::regclass, column_name)) AS uses
      FROM changed_columns JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = table_oid
                                         AND (refobjsubid = column_number OR is_whole_table AND refobjsubid = 0)
                                         AND (deptype = 'n' OR NOT is_whole_table)
     WHERE classid <> 'pg_constraint'::regclass OR (is_dropped AND deptype = 'n')
     GROUP BY classid, objid, objsubid
), described AS (
    SELECT CASE relkind WHEN 'v' THEN format('view %I.%I', nspname, relname)
                        WHEN 'm' THEN format('materialized view %I.%I', nspname, relname)
                        ELSE format('rule %I on %I.%I', rulename, nspname, relname) END AS description,
           NULL::name AS name, uses
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
