"""The queries of the checks. They change nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wxauth.core.database import Database
from wxauth.core.revisions import why_unfit
from wxauth.core.rights_queries import VERSION_TABLE, our_tables
from wxauth.core.statements import Nothing, Statement, fragment
from wxauth.i18n import Text
from wxauth.session_keys.queries import SealedSessionKey

# A sample of sessions can have twice this number of rows: the oldest and the newest.
SAMPLE_SIZE: Final = 1000


@dataclass(frozen=True, slots=True)
class PostgresServer:
    version: str
    version_number: int  # in PostgreSQL's format, in which 180001 is 18.1
    is_standby: bool
    is_read_only: bool
    isolation: str  # of a transaction that sets no level itself
    engine: str  # the result of the SQL function `version()`
    has_plpgsql: bool  # the language of wxauth's triggers
    encoding: str

    @property
    def major_version(self) -> int:
        """The major version as a number, for example 18."""
        return self.version_number // 10000

    @property
    def why_unfit(self) -> Text | None:
        """The reason why wxauth cannot use the server at all; None if it can."""
        return why_unfit(self.engine, has_plpgsql=self.has_plpgsql, encoding=self.encoding)


@dataclass(frozen=True, slots=True)
class WebhookState:
    name: str
    is_enabled: bool
    is_stuck: bool


@dataclass(frozen=True, slots=True)
class RecentAddresses:
    """The addresses from which the newest sessions were opened."""

    user_count: int
    addresses: list[str]  # at most two, without their prefix lengths


READ_SERVER: Final = Statement[PostgresServer]("""
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('transaction_isolation') AS isolation, version() AS engine,
       EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql') AS has_plpgsql,
       current_setting('server_encoding') AS encoding
""")
# The sample contains the oldest and the newest sessions, because an old session may still need the previous secret key.
SOME_SESSION_KEYS: Final = Statement[SealedSessionKey]("""
SELECT id AS session_id, app_id, openid, session_key AS sealed
  FROM ((SELECT id, app_id, openid, session_key FROM sessions ORDER BY id LIMIT :size)
        UNION  -- without duplicates, which exist if the table has fewer than 2 × :size rows
        (SELECT id, app_id, openid, session_key FROM sessions ORDER BY id DESC LIMIT :size)) ends
 WHERE session_key IS NOT NULL
""")
RECENT_ADDRESSES: Final = Statement[RecentAddresses]("""
SELECT count(DISTINCT user_id)::int AS user_count,
       COALESCE((array_agg(DISTINCT host(opened)))[1 : 2], '{}') AS addresses
  FROM (SELECT user_id, created_at, COALESCE(opened_ip, ip) AS opened
          -- before the condition, so that few rows are read even if there were no recent logins
          FROM sessions ORDER BY id DESC LIMIT :size) newest
 WHERE created_at > :since AND opened IS NOT NULL
""")
WEBHOOK_STATES: Final = Statement[WebhookState]("""
SELECT w.name, w.is_enabled,
       -- a stuck webhook has accepted no event since `:stuck_since`, although its first waiting delivery is older
       COALESCE(w.delivered_at < :stuck_since, true)  -- null: it has never accepted an event
       AND COALESCE((
           SELECT d.at < :stuck_since FROM deliveries d WHERE d.receiver_id = w.id AND d.state = 'pending'
            ORDER BY d.id LIMIT 1
       ), false) AS is_stuck  -- null: no delivery is waiting
  FROM webhooks w ORDER BY w.name
""")


_SCHEMA_ELSEWHERE: Final = Statement[str](f"""
SELECT quote_ident(nspname) FROM pg_namespace n
 -- The schema must contain two of our tables, because another program may have a table with one of these names.
 WHERE 2 = (SELECT count(*) FROM pg_class
             WHERE relnamespace = n.oid AND relkind IN ('r', 'p')
               AND relname IN ('{VERSION_TABLE}', 'identities'))
   -- The role may use the schema, or can use no schema in the search_path, or the search_path names the schema. In the
   -- search_path, "$user" stands for the schema with the name of the role.
   AND (has_schema_privilege(n.oid, 'USAGE') OR current_schema() IS NULL
        OR quote_ident(CASE nspname WHEN current_user THEN '$user' ELSE nspname END)
           = ANY (string_to_array(current_setting('search_path'), ', '))
        OR quote_ident(nspname) = ANY (string_to_array(current_setting('search_path'), ', ')))
 -- A schema that the role may not use comes first, because usually only this right is missing: the search_path
 -- names the schema.
 ORDER BY has_schema_privilege(n.oid, 'USAGE'), nspname LIMIT 1
""")
_TABLES_WITH_HIDDEN_ROWS: Final = Statement[str]("""
WITH policies AS (
    -- The policies that apply to the role. The role with the oid 0 is PUBLIC.
    SELECT polrelid, polcmd, polpermissive,
           COALESCE(pg_get_expr(polqual, polrelid), 'true') = 'true'
           AND COALESCE(pg_get_expr(polwithcheck, polrelid), 'true') = 'true' AS is_unconditional
      FROM pg_policy
     WHERE EXISTS (SELECT FROM unnest(polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE'))
)
SELECT format('%I.%I', nspname, relname) AS name
  FROM unnest(:tables::text[]) wanted JOIN pg_class c ON c.oid = to_regclass(quote_ident(wanted))
       JOIN pg_namespace n ON n.oid = relnamespace
 WHERE row_security_active(c.oid)
   -- Row-level security hides no rows from the role if each command (SELECT, INSERT, UPDATE and DELETE) has a
   -- permissive policy without a condition, and no policy is restrictive. The command * means all commands.
   AND (EXISTS (SELECT FROM policies p WHERE polrelid = c.oid AND NOT polpermissive)
        OR EXISTS (SELECT FROM unnest('{r,a,w,d}'::"char"[]) command
                    WHERE NOT EXISTS (SELECT FROM policies
                                       WHERE polrelid = c.oid AND polpermissive AND is_unconditional
                                         AND polcmd IN (command, '*'))))
 ORDER BY 1
""")


async def schema_elsewhere(database: Database) -> str | None:
    """Return the quoted name of a schema with wxauth's tables that the role can't use, or that its search_path lacks.

    Call this function only if the role finds none of wxauth's tables.
    """
    return await database.value(_SCHEMA_ELSEWHERE)


async def tables_with_hidden_rows(database: Database) -> Sequence[str]:
    """Return the tables in which row-level security might hide rows from the role."""
    return await database.values(_TABLES_WITH_HIDDEN_ROWS, tables=our_tables())


async def ensure_rights(database: Database) -> None:
    """Let PostgreSQL plan each use of wxauth's tables, which requires the same rights. Nothing is executed.

    Raises: StorageUnavailable, whose cause is PostgreSQL's error for the first right that the role lacks.
    """
    names = ",".join(fragment(name) for name in our_tables() if name != VERSION_TABLE)
    await database.run(
        Statement[Nothing](f"""
        DO $$
        DECLARE
            our_table regclass;
            our_column name;
        BEGIN
            EXECUTE 'EXPLAIN SELECT FROM {VERSION_TABLE}';
            FOR our_table, our_column IN
                SELECT attrelid, attname FROM unnest('{{{names}}}'::text[]) wanted
                       JOIN pg_attribute ON attrelid = to_regclass(wanted) AND attnum = 1
            LOOP
                EXECUTE format('EXPLAIN SELECT FROM %s', our_table);
                EXECUTE format('EXPLAIN INSERT INTO %s DEFAULT VALUES', our_table);
                EXECUTE format('EXPLAIN UPDATE %s SET %I = DEFAULT', our_table, our_column);
                EXECUTE format('EXPLAIN DELETE FROM %s', our_table);
            END LOOP;
            IF to_regprocedure('nickname_bigrams(text)') IS NOT NULL THEN
                EXECUTE 'EXPLAIN SELECT nickname_bigrams('''')';
            END IF;
        END $$
        """)
    )
