-- List the roles that can use wxauth's tables, and the statements that revoke their privileges. It changes nothing.
-- Who can change these tables can become a wxauth administrator. Run it as the role of your service:
--     psql "$(printf %s "$WXAUTH_DATABASE_URL" | sed 's/pgbouncer=[^&]*&*//')" -f deploy/postgres/other-roles.sql
-- Run the printed statements, from the first to the last, as the tables' owner or a superuser.
WITH RECURSIVE tables (oid) AS (
    SELECT to_regclass(name)::oid FROM regexp_split_to_table('
               admin_links, alembic_version, apps, attempts, avatars, browser_login_sites, browser_logins, clients,
               consents, deliveries, erasures, events, events_unplaced, feed, feed_swept, former_external_ids,
               former_users, hourly_numbers, identities, issuers, js_tickets, phone_answers, push_messages, refusals,
               scan_pictures, sessions, signing_keys, site_logins, sweeps, unionids, users, webhooks, website_sessions
           ', '[,\s]+') name WHERE name <> ''
     UNION SELECT inhrelid FROM pg_inherits JOIN tables ON inhparent = oid  -- partitions
), relations AS (
    SELECT oid, relkind, relname, relowner, relacl, relnamespace FROM pg_class c
     WHERE oid IN (SELECT oid FROM tables)
        OR relkind = 'S' AND EXISTS (SELECT FROM pg_depend JOIN tables ON refobjid = tables.oid
                                      WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i'))
), excused AS (
    -- Superusers, the owner and its members, roles for all data, the current role and, unless it has the owner's
    -- rights, the roles whose rights it has. Their members aren't excused.
    SELECT oid FROM pg_roles r
     WHERE rolsuper OR EXISTS (SELECT FROM relations WHERE pg_has_role(r.oid, relowner, 'MEMBER'))
        OR rolname IN (current_user, session_user, 'pg_read_all_data', 'pg_write_all_data', 'pg_maintain')
        OR pg_has_role(r.oid, 'USAGE') AND NOT EXISTS (SELECT FROM relations WHERE pg_has_role(relowner, 'USAGE'))
), grants AS (
    SELECT r.*, acl.*, grantee = 0 OR EXISTS (
               -- A role with NOINHERIT counts, because it can SET ROLE. Who can't use the schema can't use the tables.
               SELECT FROM pg_roles m
                WHERE pg_has_role(m.oid, grantee, 'MEMBER') AND m.oid NOT IN (SELECT oid FROM excused)
                  AND has_schema_privilege(m.oid, relnamespace, 'USAGE')) AS is_usable,
           CASE relkind WHEN 'S' THEN privilege_type <> 'SELECT'
                        ELSE privilege_type NOT IN ('SELECT', 'REFERENCES', 'MAINTAIN') END AS writes
      FROM relations r CROSS JOIN LATERAL (
               SELECT * FROM aclexplode(relacl)
                UNION ALL SELECT e.* FROM pg_attribute, aclexplode(attacl) e WHERE attrelid = r.oid) acl
     WHERE grantee <> relowner
), revocations AS (
    SELECT grantee AS role, bool_or(writes) AS writes,
           grantor = relowner AS is_last, bool_or(is_grantable) AS passed_on,
           -- For tables, PostgreSQL accepts GRANTED BY only with the current role.
           CASE WHEN grantor <> relowner THEN format('SET ROLE %I; ', pg_get_userbyid(grantor)) ELSE '' END
           || format('REVOKE ALL ON %s %s FROM ', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                     string_agg(DISTINCT format('%s.%I', relnamespace::regnamespace, relname), ', '))
           || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END || ' CASCADE;'
           || CASE WHEN grantor <> relowner THEN ' RESET ROLE;' ELSE '' END AS statement
      FROM grants WHERE is_usable AND grantee NOT IN (SELECT oid FROM excused)
     GROUP BY grantee, relkind = 'S', relkind, grantor, relowner
     UNION ALL
    SELECT member, rolsuper OR rolname = 'pg_write_all_data'
           OR EXISTS (SELECT FROM grants WHERE grantee = roleid AND writes), true, admin_option,
           format('REVOKE %I FROM %I', rolname, pg_get_userbyid(member))
           -- From PostgreSQL 16 on, each grantor's membership is one of its own.
           || CASE WHEN to_jsonb(m) ? 'set_option' THEN format(' GRANTED BY %I', pg_get_userbyid(grantor)) ELSE '' END
           || ' CASCADE;'
      FROM pg_auth_members m JOIN pg_roles r ON r.oid = roleid
     WHERE roleid IN (SELECT oid FROM excused) AND member NOT IN (SELECT oid FROM excused)
       AND (rolsuper OR rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain')
            OR EXISTS (SELECT FROM grants WHERE grantee = roleid))
       AND (COALESCE((to_jsonb(m) ->> 'inherit_option')::boolean, true)
            OR COALESCE((to_jsonb(m) ->> 'set_option')::boolean, true))
)
SELECT CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END AS role,
       (SELECT string_agg(quote_ident(rolname), ', ' ORDER BY rolname) FROM pg_roles m
         WHERE role <> 0 AND m.oid <> role AND NOT rolsuper AND pg_has_role(m.oid, role, 'MEMBER')) AS members,
       CASE WHEN writes THEN 'change' ELSE 'read or lock' END AS can, statement
  FROM revocations ORDER BY is_last, passed_on, role, statement;
