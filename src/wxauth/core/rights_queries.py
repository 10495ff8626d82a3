"""The SQL that finds wxauth's tables and sequences, and the query that returns the REVOKE statements for them."""

from typing import Final

from wxauth.core.models import all_tables
from wxauth.core.statements import Statement

VERSION_TABLE: Final = "alembic_version"
REVOKES_FROM_PUBLIC: Final = Statement[str]("""
WITH RECURSIVE tables_and_partitions (oid) AS (
    SELECT c.oid FROM unnest(:tables::text[]) name JOIN pg_class c ON c.oid = to_regclass(quote_ident(name))
     WHERE c.relkind IN ('r', 'p')
     UNION SELECT inhrelid FROM pg_inherits JOIN tables_and_partitions parent ON inhparent = parent.oid
), relations AS (
    SELECT c.oid, relkind, relowner, relacl, relnamespace, format('%I.%I', nspname, relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.oid IN (SELECT oid FROM tables_and_partitions)
        OR relkind = 'S' AND c.oid IN (SELECT objid FROM pg_depend
                                        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
                                          AND refobjid IN (SELECT oid FROM tables_and_partitions)
                                          AND deptype IN ('a', 'i'))  -- of a serial or an identity column
)
SELECT format('REVOKE ALL ON %s %s FROM PUBLIC', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, name)
  FROM relations
 WHERE pg_has_role(relowner, 'USAGE')  -- the current role owns it, or inherits the privileges of its owner
   -- The grantee 0 stands for PUBLIC. Rights can also be granted on columns, and a REVOKE on the table takes them, too.
   AND (EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0)
        OR EXISTS (SELECT FROM pg_attribute a, aclexplode(attacl) WHERE attrelid = relations.oid AND grantee = 0))
 ORDER BY name
""")


def our_tables() -> list[str]:
    """Return the names of wxauth's tables, and of the table that stores the revision."""
    return [*all_tables().tables, VERSION_TABLE]
