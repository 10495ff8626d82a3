"""The queries for the rights that wxauth's own role, and all other roles, have on wxauth's tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wxauth.core.database import Database
from wxauth.core.rights_queries import OUR_RELATIONS, VERSION_TABLE, our_tables
from wxauth.core.statements import Statement

MOST_REVOCATIONS: Final = 20
"""The largest number of revocations that the query returns for each kind of role.

The kinds are roles that may change data, and roles that may only read or lock it.
"""
MOST_MEMBERS: Final = 5
"""The largest number of members that are named for each role."""
MOST_RELATIONS: Final = 100
"""The largest number of tables, or of sequences, that one revocation names."""


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


# The parts of the statement that need a reason:
# - `elsewhere`: A schema counts if it contains two of wxauth's tables, because another program may have a table with
#   one of these names. In addition, one of three conditions must hold: the role may use the schema, the search_path
#   names the schema, or the role can use no schema in the search_path. In the search_path, "$user" stands for the
#   schema with the role's name. A schema that the role may not use comes first, because the search_path usually names
#   this schema, so that only the right to use the schema is missing.
# - `policies`: The role with the oid 0 is PUBLIC.
# - `owner`: Only the owner of a table, a member of the owner, or a superuser may alter the table.
# - `hidden_in`: Row-level security hides no rows from the role if each command has a permissive policy without a
#   condition, and no policy is restrictive. The commands r, a, w and d are SELECT, INSERT, UPDATE and DELETE, and `*`
#   means all commands.
_RIGHTS: Final = Statement[RoleRights](f"""
WITH here AS (
    SELECT c.oid, c.relowner, c.relnamespace, format('%I.%I', nspname, relname) AS name
      FROM unnest(:tables::text[]) wanted JOIN pg_class c ON c.oid = to_regclass(quote_ident(wanted))
           JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.relkind IN ('r', 'p')
), elsewhere AS (
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
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM here
         WHERE NOT pg_has_role(relowner, 'USAGE') LIMIT 1) AS owner,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One step that revokes the rights of a role on wxauth's tables or sequences. Names are quoted for SQL."""

    role: str
    """The role that loses the rights. `PUBLIC` stands for all roles."""
    group: str | None
    """The role in which `role` loses its membership; None if `role` loses its own rights."""
    relations: list[str]
    """The tables, or the sequences, on which the role loses all rights, at most `MOST_RELATIONS`.

    The list is empty if the role loses a membership.
    """
    are_sequences: bool
    grantor: str | None
    """The role that must run the REVOKE; None if the owner or a superuser can run it."""
    may_have_passed_on: bool
    """Whether the role might have granted the right to other roles."""
    members: list[str]
    """The roles that have the rights through a membership in this role, at most `MOST_MEMBERS`."""
    member_count: int
    """The number of all roles that have the rights through a membership in this role, including unlisted roles."""
    may_write: bool
    """Whether the role may change data. If not, it may only read or lock data."""
    unlisted_count: int
    """The number of further revocations for roles of this kind, writing or reading, that the result does not list."""


# The steps of the statement:
# - `roles_for_all_data` contains PostgreSQL's roles for all data.
# - `excused` contains the roles that may have rights: superusers, the owner and its members, PostgreSQL's roles for all
#   data, the role of the session, the current role and, if the current role lacks the owner's rights, the roles whose
#   rights it has.
# - `edges` contains the memberships, except those that allow neither inheriting nor SET ROLE. Such memberships exist
#   from PostgreSQL 16 on, in which a REVOKE must also name the grantor of the membership. The columns for these options
#   are read as JSON, because older versions do not have them.
# - `grants` contains the rights on relations and columns. The grantee with the oid 0 is PUBLIC.
# - `sources` contains each role that has a right by itself, and whether the right allows writing. Superusers and
#   PostgreSQL's roles for all data have rights by themselves, too.
# - `reach` contains each role that has a right, and all roles that have the right through a membership. A role with
#   NOINHERIT counts, because it can `SET ROLE`.
# - `below` contains pairs of roles that are not excused: each role in `reach` with itself, and with each role that has
#   the right through it.
# - `steps` contains the revocations. If neither a role nor a role that has its rights may use the schema, none of them
#   can use the tables in it, so the role's rights are not reported. The rights of PUBLIC are always reported. The
#   grantor with the oid 10 is the first superuser. Any superuser can revoke in its name.
# - `judged` adds whether the role may write. Rights on other relations, or through a membership, count as well.
# - `numbered` numbers the revocations of each kind (writing or only reading), and adds the number of all revocations of
#   the kind.
_REVOCATIONS: Final = Statement[Revocation](f"""
WITH RECURSIVE {OUR_RELATIONS}, owners AS (
    SELECT DISTINCT relowner AS oid FROM pg_class WHERE oid IN (SELECT oid FROM own_tables)
), roles_for_all_data (oid, writes) AS (
    SELECT oid, rolname = 'pg_write_all_data' FROM pg_roles
     WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain')
), excused (oid) AS (
    SELECT r.oid FROM pg_roles r
     WHERE rolsuper OR EXISTS (SELECT FROM owners o WHERE pg_has_role(r.oid, o.oid, 'MEMBER'))
        OR rolname IN (current_user, session_user)
        OR NOT EXISTS (SELECT FROM owners o WHERE pg_has_role(o.oid, 'USAGE')) AND pg_has_role(r.oid, 'USAGE')
    UNION SELECT oid FROM roles_for_all_data
), edges AS (
    SELECT roleid, member, grantor, admin_option, to_jsonb(m) ? 'set_option' AS has_grantor FROM pg_auth_members m
     WHERE COALESCE((to_jsonb(m) ->> 'inherit_option')::boolean, true)
        OR COALESCE((to_jsonb(m) ->> 'set_option')::boolean, true)
), grants AS (
    SELECT relkind = 'S' AS is_sequence, relnamespace, relowner, name, x.*,
           CASE relkind WHEN 'S' THEN privilege_type IN ('USAGE', 'UPDATE')
                        ELSE privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER') END AS writes
      FROM relations r CROSS JOIN LATERAL (
               SELECT grantor, grantee, privilege_type, is_grantable FROM aclexplode(relacl)
               UNION ALL
               SELECT e.grantor, e.grantee, e.privilege_type, e.is_grantable
                 FROM pg_attribute a, aclexplode(attacl) e WHERE attrelid = r.oid AND NOT attisdropped) x
     WHERE grantee <> relowner
), sources (oid, writes) AS (
    SELECT grantee, bool_or(writes) FROM grants GROUP BY grantee
    UNION ALL SELECT oid, writes FROM roles_for_all_data
    UNION ALL SELECT oid, true FROM pg_roles WHERE rolsuper
), reach (role, writes) AS (
    SELECT oid, writes FROM sources UNION SELECT member, writes FROM reach JOIN edges ON roleid = role
), below (top, role) AS (
    SELECT DISTINCT role, role FROM reach WHERE role NOT IN (SELECT oid FROM excused)
    UNION SELECT top, member FROM below JOIN edges ON roleid = role WHERE member NOT IN (SELECT oid FROM excused)
), steps AS (
    SELECT grantee AS role, NULL::oid AS of_group,
           (array_agg(DISTINCT name))[1 : :most_relations] AS relations, is_sequence,
           CASE WHEN grantor <> relowner THEN grantor END AS by_whom, bool_or(is_grantable) AS may_have_passed_on
      FROM grants
     WHERE grantee = 0 OR grantee NOT IN (SELECT oid FROM excused)
                      AND EXISTS (SELECT FROM below WHERE top = grantee
                                     AND has_schema_privilege(role, relnamespace, 'USAGE'))
     GROUP BY grantee, is_sequence, CASE WHEN grantor <> relowner THEN grantor END
    UNION ALL
    SELECT member, roleid, '{{}}', false, CASE WHEN has_grantor AND grantor <> 10 THEN grantor END, admin_option
      FROM edges
     WHERE roleid IN (SELECT role FROM reach) AND roleid IN (SELECT oid FROM excused)
       AND member NOT IN (SELECT oid FROM excused) AND EXISTS (SELECT FROM relations)
), judged AS (
    SELECT steps.*, EXISTS (SELECT FROM reach r WHERE r.role = steps.role AND writes) AS may_write FROM steps
), numbered AS (
    SELECT *, row_number() OVER kind AS place, count(*) OVER (PARTITION BY may_write) AS size FROM judged
    WINDOW kind AS (PARTITION BY may_write ORDER BY role, of_group NULLS FIRST, is_sequence, by_whom NULLS FIRST)
)
SELECT CASE s.role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(s.role)) END AS role,
       quote_ident(pg_get_userbyid(of_group)) AS "group", relations, is_sequence AS are_sequences,
       quote_ident(pg_get_userbyid(by_whom)) AS grantor, may_have_passed_on,
       ARRAY(SELECT quote_ident(pg_get_userbyid(b.role)) FROM below b WHERE top = s.role AND b.role <> s.role
              ORDER BY 1 LIMIT :most_members) AS members,
       (SELECT count(*) FROM below b WHERE top = s.role AND b.role <> s.role) AS member_count,
       may_write, GREATEST(size - :most, 0) AS unlisted_count
  FROM numbered s WHERE place <= :most ORDER BY may_write DESC, place
""")
"""The query for the revocations of the rights that other roles have on wxauth's tables and sequences."""


async def read_revocations(database: Database) -> Sequence[Revocation]:
    """Return the steps that revoke the rights of other roles. The steps for roles that may write come first."""
    limits = {"most": MOST_REVOCATIONS, "most_members": MOST_MEMBERS, "most_relations": MOST_RELATIONS}
    return await database.rows(_REVOCATIONS, tables=our_tables(), **limits)
