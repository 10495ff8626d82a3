"""The query for the rights that wxauth's own role has on wxauth's tables."""

from dataclasses import dataclass
from typing import Final

from wxauth.core.database import Database
from wxauth.core.rights_queries import VERSION_TABLE, our_tables
from wxauth.core.statements import Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRights:
    """The rights of the role in WXAUTH_DATABASE_URL. Names are quoted for SQL."""

    role: str
    schema: str | None
    """The schema that contains wxauth's tables, or would contain them; None if the role can use no such schema."""
    may_create: bool
    """Whether the role may create tables in the current schema."""
    may_use: bool
    """Whether the role may read and write all of wxauth's tables that exist."""
    may_call: bool
    """Whether the role may call `nickname_bigrams`, a function that wxauth's statements use; true if it is missing."""
    owner: str | None
    """The owner of the tables, if the role lacks the owner's rights; otherwise None."""
    hidden_in: list[str]
    """The tables in which row-level security might hide rows from the role."""
    elsewhere: str | None
    """A schema that contains wxauth's tables, if the role finds none of them in its search_path; otherwise None."""
    may_use_elsewhere: bool
    """Whether the role may use the schema `elsewhere`."""

    @property
    def missing_to_serve(self) -> str | None:
        """The GRANT that this role needs first in order to use the tables; None if it needs none.

        If the role can use no schema, the GRANT also lets it create the tables.
        """
        if self.elsewhere is not None:
            return None if self.may_use_elsewhere else f"GRANT USAGE ON SCHEMA {self.elsewhere} TO {self.role}"
        if self.schema is None:
            return f"GRANT USAGE, CREATE ON SCHEMA public TO {self.role}"
        if not self.may_use:
            return f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {self.schema} TO {self.role}"
        if not self.may_call:
            return f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {self.schema} TO {self.role}"
        return None

    @property
    def missing_to_migrate(self) -> str | None:
        """The GRANT that this role needs first in order to change the schema; None if it needs none."""
        if self.schema is None:
            return self.missing_to_serve
        if not self.may_create:
            return f"GRANT CREATE ON SCHEMA {self.schema} TO {self.role}"
        if self.owner is not None:
            return f"GRANT {self.owner} TO {self.role}"
        return None

    @property
    def to_see_all_rows(self) -> str:
        """The statements, separated by semicolons, that let this role see all rows despite row-level security.

        Row-level security hides rows from a role with the owner's rights only if it is forced on the owner.
        """
        if self.owner is None:
            return "; ".join(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY" for table in self.hidden_in)
        return f"ALTER ROLE {self.role} BYPASSRLS"


_RIGHTS: Final = Statement[RoleRights](f"""
WITH here AS (
    -- The tables of wxauth that the role finds in its search_path.
    SELECT c.oid, c.relowner, c.relnamespace, format('%I.%I', nspname, relname) AS name
      FROM unnest(:tables::text[]) wanted JOIN pg_class c ON c.oid = to_regclass(quote_ident(wanted))
           JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.relkind IN ('r', 'p')
), elsewhere AS (
    -- A schema counts if it contains two of our tables, because another program may have a table with one of these
    -- names. In addition, one of three conditions must hold: the role may use the schema, the search_path names the
    -- schema, or the role can use no schema in the search_path. In the search_path, "$user" stands for the schema with
    -- the name of the role. A schema that the role may not use comes first, because the search_path usually names this
    -- schema, so that only the right to use the schema is missing.
    SELECT n.oid, nspname FROM pg_namespace n
     WHERE NOT EXISTS (SELECT FROM here)
       AND 2 = (SELECT count(*) FROM pg_class
                 WHERE relnamespace = n.oid AND relkind IN ('r', 'p')
                   AND relname IN ('{VERSION_TABLE}', 'identities'))
       AND (has_schema_privilege(n.oid, 'USAGE') OR current_schema() IS NULL
            OR quote_ident(CASE nspname WHEN current_user THEN '$user' ELSE nspname END)
               = ANY (string_to_array(current_setting('search_path'), ', '))
            OR quote_ident(nspname) = ANY (string_to_array(current_setting('search_path'), ', ')))
     ORDER BY has_schema_privilege(n.oid, 'USAGE'), nspname LIMIT 1
), policies AS (
    -- The policies that apply to the role. The role with the oid 0 is PUBLIC.
    SELECT polrelid, polcmd, polpermissive,
           COALESCE(pg_get_expr(polqual, polrelid), 'true') = 'true'
           AND COALESCE(pg_get_expr(polwithcheck, polrelid), 'true') = 'true' AS is_unconditional
      FROM pg_policy
     WHERE EXISTS (SELECT FROM unnest(polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE'))
)
SELECT quote_ident(current_user) AS role,
       quote_ident(COALESCE((SELECT nspname FROM here JOIN pg_namespace n ON n.oid = relnamespace LIMIT 1),
                            current_schema())) AS schema,
       COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       NOT EXISTS (SELECT FROM here
                    WHERE NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                               AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
       ) AS may_use,
       COALESCE(has_function_privilege(to_regprocedure('nickname_bigrams(text)'), 'EXECUTE'), true) AS may_call,
       -- Only the owner of a table, a member of the owner, or a superuser may alter the table.
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM here
         WHERE NOT pg_has_role(relowner, 'USAGE') LIMIT 1) AS owner,
       -- Row-level security hides no rows from the role if each command (SELECT, INSERT, UPDATE and DELETE) has a
       -- permissive policy without a condition, and no policy is restrictive. The command * means all commands.
       ARRAY(SELECT name FROM here
              WHERE row_security_active(oid)
                AND (EXISTS (SELECT FROM policies p WHERE polrelid = oid AND NOT polpermissive)
                     OR EXISTS (SELECT FROM unnest('{{r,a,w,d}}'::"char"[]) command
                                 WHERE NOT EXISTS (SELECT FROM policies
                                                    WHERE polrelid = oid AND polpermissive AND is_unconditional
                                                      AND polcmd IN (command, '*'))))
              ORDER BY 1) AS hidden_in,
       (SELECT quote_ident(nspname) FROM elsewhere) AS elsewhere,
       COALESCE((SELECT has_schema_privilege(oid, 'USAGE') FROM elsewhere), false) AS may_use_elsewhere
""")


async def read_rights(database: Database) -> RoleRights:
    """Return the rights of wxauth's own role."""
    return await database.one(_RIGHTS, tables=our_tables())
