"""The query for the steps that revoke the rights of outsiders on wxauth's tables and sequences.

An outsider is a role that may use the tables, and is not excused (see the CTE `excused`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wxauth.core.database import Database
from wxauth.core.rights_queries import OUR_RELATIONS, our_tables
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
class Revocation:
    """A step that takes rights on wxauth's tables or sequences from a role. Names are quoted for SQL."""

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


_REVOCATIONS: Final = Statement[Revocation](f"""
WITH RECURSIVE {OUR_RELATIONS}, owners AS (
    SELECT DISTINCT relowner AS oid FROM pg_class WHERE oid IN (SELECT oid FROM own_tables)
), roles_for_all_data (oid, writes) AS (
    SELECT oid, rolname = 'pg_write_all_data' FROM pg_roles
     WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain')
), excused (oid) AS (
    -- The roles that may have rights: superusers, the owner and its members, the role of the session, the current role,
    -- the roles for all data and, if the current role lacks the rights of the owner, the roles whose rights it has.
    SELECT r.oid FROM pg_roles r
     WHERE rolsuper OR EXISTS (SELECT FROM owners o WHERE pg_has_role(r.oid, o.oid, 'MEMBER'))
        OR rolname IN (current_user, session_user)
        OR NOT EXISTS (SELECT FROM owners o WHERE pg_has_role(o.oid, 'USAGE')) AND pg_has_role(r.oid, 'USAGE')
    UNION SELECT oid FROM roles_for_all_data
), memberships AS (
    -- All memberships, except those that allow neither inheriting nor SET ROLE. Such memberships exist from PostgreSQL
    -- 16 on, in which a REVOKE must also name the grantor of the membership. The columns for these options are read as
    -- JSON, because older versions do not have them.
    SELECT roleid, member, grantor, admin_option, to_jsonb(m) ? 'set_option' AS has_grantor FROM pg_auth_members m
     WHERE COALESCE((to_jsonb(m) ->> 'inherit_option')::boolean, true)
        OR COALESCE((to_jsonb(m) ->> 'set_option')::boolean, true)
), grants AS (
    -- The rights on relations and columns. The grantee with the oid 0 is PUBLIC.
    SELECT relkind = 'S' AS is_sequence, relnamespace, relowner, name, acl.*,
           CASE relkind WHEN 'S' THEN privilege_type IN ('USAGE', 'UPDATE')
                        ELSE privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER') END AS writes
      FROM relations r CROSS JOIN LATERAL (
               SELECT grantor, grantee, privilege_type, is_grantable FROM aclexplode(relacl)
               UNION ALL
               SELECT e.grantor, e.grantee, e.privilege_type, e.is_grantable
                 FROM pg_attribute a, aclexplode(attacl) e WHERE attrelid = r.oid AND NOT attisdropped) acl
     WHERE grantee <> relowner
), direct_holders (role, writes) AS (
    -- Each role that has a right by itself, and whether the right allows writing.
    SELECT grantee, bool_or(writes) FROM grants GROUP BY grantee
    UNION ALL SELECT oid, writes FROM roles_for_all_data
    UNION ALL SELECT oid, true FROM pg_roles WHERE rolsuper
), holders (role, writes) AS (
    -- Each role that has a right by itself or through a membership. A role with NOINHERIT counts, because it can SET
    -- ROLE.
    SELECT role, writes FROM direct_holders
    UNION SELECT member, writes FROM holders JOIN memberships ON roleid = role
), outsiders (via, role) AS (
    -- Each holder that is not excused, with itself in "via", and again for each role through which it has a right.
    SELECT DISTINCT role, role FROM holders WHERE role NOT IN (SELECT oid FROM excused)
    UNION SELECT via, member FROM outsiders JOIN memberships ON roleid = role
           WHERE member NOT IN (SELECT oid FROM excused)
), revocations AS (
    -- If neither a role nor a role that has its rights may use the schema, none of them can use the tables in it, so
    -- the rights of the role are not reported. The rights of PUBLIC are always reported.
    SELECT grantee AS role, NULL::oid AS of_group,
           (array_agg(DISTINCT name))[1 : :most_relations] AS relations, is_sequence,
           CASE WHEN grantor <> relowner THEN grantor END AS by_whom, bool_or(is_grantable) AS may_have_passed_on
      FROM grants
     WHERE grantee = 0 OR grantee NOT IN (SELECT oid FROM excused)
                      AND EXISTS (SELECT FROM outsiders WHERE via = grantee
                                     AND has_schema_privilege(role, relnamespace, 'USAGE'))
     GROUP BY grantee, is_sequence, CASE WHEN grantor <> relowner THEN grantor END
    UNION ALL
    -- The grantor with the oid 10 is the first superuser. Any superuser can revoke in its name.
    SELECT member, roleid, '{{}}', false, CASE WHEN has_grantor AND grantor <> 10 THEN grantor END, admin_option
      FROM memberships
     WHERE roleid IN (SELECT role FROM holders) AND roleid IN (SELECT oid FROM excused)
       AND member NOT IN (SELECT oid FROM excused) AND EXISTS (SELECT FROM relations)
), judged AS (
    -- Whether the role may write also depends on its rights on other relations, and on its memberships.
    SELECT r.*, EXISTS (SELECT FROM holders h WHERE h.role = r.role AND writes) AS may_write FROM revocations r
), numbered AS (
    -- The place of each revocation in its kind (writing or only reading), and the number of revocations of the kind.
    SELECT *, row_number() OVER kind AS place, count(*) OVER (PARTITION BY may_write) AS size FROM judged
    WINDOW kind AS (PARTITION BY may_write ORDER BY role, of_group NULLS FIRST, is_sequence, by_whom NULLS FIRST)
)
SELECT CASE n.role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(n.role)) END AS role,
       quote_ident(pg_get_userbyid(of_group)) AS "group", relations, is_sequence AS are_sequences,
       quote_ident(pg_get_userbyid(by_whom)) AS grantor, may_have_passed_on,
       ARRAY(SELECT quote_ident(pg_get_userbyid(o.role)) FROM outsiders o WHERE via = n.role AND o.role <> n.role
              ORDER BY 1 LIMIT :most_members) AS members,
       (SELECT count(*) FROM outsiders o WHERE via = n.role AND o.role <> n.role) AS member_count,
       may_write, GREATEST(size - :most, 0) AS unlisted_count
  FROM numbered n WHERE place <= :most ORDER BY may_write DESC, place
""")


async def read_revocations(database: Database) -> Sequence[Revocation]:
    """Return the steps that revoke the rights of other roles. The steps for roles that may write come first."""
    limits = {"most": MOST_REVOCATIONS, "most_members": MOST_MEMBERS, "most_relations": MOST_RELATIONS}
    return await database.rows(_REVOCATIONS, tables=our_tables(), **limits)
