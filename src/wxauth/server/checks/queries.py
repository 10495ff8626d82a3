"""The queries of `wxauth check`. None of them writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
from sqlmodel import SQLModel

from wxauth.errors import StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.server.core.database import STATEMENT_CACHE, Database
from wxauth.server.core.outages import STATEMENT_LOST, NotConnected, raise_if_unavailable
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import IS_ADMINISTRATOR
from wxauth.server.session_keys.queries import SealedSessionKey

_ECHO: Final = "SELECT $1::int"
_PROBE: Final = "wxauth_check"
"""The only name of a statement behind `?pgbouncer=true`. PostgreSQL logs it: see `keeps_prepared`."""
_MISSING_LIMITS: Final = Statement[str]("""
SELECT format('ALTER ROLE %I SET %s = %L', current_user, name, milliseconds || 'ms') AS mend
  FROM unnest(:names::text[], :milliseconds::int[]) WITH ORDINALITY
       AS wanted (name, milliseconds, place) JOIN pg_settings USING (name)
 WHERE setting = '0' ORDER BY place
""")
SAMPLE: Final = 1000
"""The number of rows in a sample. A sample of sessions has this number from each end of the table."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """The database server."""

    version: str
    version_number: int
    """In PostgreSQL's format: 180001 is 18.1."""
    is_standby: bool
    is_read_only: bool
    isolation: str
    """The isolation level of a single statement."""
    engine: str = "PostgreSQL"
    """The result of version()."""
    has_plpgsql: bool = True
    encoding: str = "UTF8"
    """That of the database."""


class WalStatistics(SQLModel):
    """What the server has written to its write-ahead log since its statistics began, and two of its settings."""

    since: datetime
    bytes: int
    page_bytes: int
    """An upper bound for the bytes of whole-page images among them."""
    compression: str
    has_lz4: bool
    checkpoint_timeout: int
    """Seconds."""


READ_WAL: Final = Statement[WalStatistics]("""
SELECT stats_reset AS since, wal_bytes::bigint AS bytes,
       LEAST(wal_fpi * current_setting('block_size')::int, wal_bytes)::bigint AS page_bytes,
       current_setting('wal_compression') AS compression,
       COALESCE((SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'wal_compression'), false) AS has_lz4,
       (SELECT setting::int FROM pg_settings WHERE name = 'checkpoint_timeout') AS checkpoint_timeout
  FROM pg_stat_wal
""")
"""Requires a view that exists since PostgreSQL 14."""


@dataclass(frozen=True, slots=True)
class TextOrder:
    """The version of the operating system's, or ICU's, order of text; None if it has none."""

    database: str
    """Quoted for SQL."""
    recorded: str | None
    """When the database was made."""
    present: str | None
    columns: list[str]
    """Those of our columns that are ordered by a version that has changed."""


READ_ORDER: Final = Statement[TextOrder]("""
SELECT quote_ident(datname) AS database, datcollversion AS recorded,
       pg_database_collation_actual_version(d.oid) AS present,
       ARRAY(SELECT format('%s.%s', attrelid::regclass, attname)
               FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_collation o ON o.oid = attcollation
              WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind = 'r' AND attnum > 0
                AND NOT attisdropped
                AND CASE WHEN collprovider = 'd'
                         THEN datcollversion IS DISTINCT FROM pg_database_collation_actual_version(d.oid)
                         ELSE collversion <> pg_collation_actual_version(o.oid) END
              ORDER BY 1) AS columns
  FROM pg_database d WHERE datname = current_database()
""")
"""Requires columns that exist since PostgreSQL 15."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What an administrator of the database has to look after."""

    vacuums: bool
    """Whether autovacuum runs."""
    not_vacuumed: list[str]
    """Our tables for which it is switched off."""
    inactive_slots: list[str]
    """Replication slots that nobody reads."""
    retained: int
    """Bytes of write-ahead log that the worst of them retains."""
    oldest_id: int
    """The age of the oldest transaction id or multixact id in the cluster. At 2 ** 31 it takes no more writes."""
    idle_transactions: list[int]
    """The processes of the server that have been idle in a transaction since the time in question."""


READ_UPKEEP: Final = Statement[Upkeep]("""
WITH slots AS (
    SELECT slot_name::text AS name, COALESCE(pg_wal_lsn_diff(
               CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END, restart_lsn), 0)::bigint AS retained
      FROM pg_replication_slots WHERE NOT active AND NOT temporary
)
SELECT current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on' AS vacuums,
       ARRAY(SELECT relname::text FROM pg_class
              WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind = 'r'
                AND relname = ANY (:tables)
                AND EXISTS (SELECT FROM pg_options_to_table(reloptions)
                             WHERE option_name = 'autovacuum_enabled' AND NOT option_value::boolean)
              ORDER BY relname) AS not_vacuumed,
       ARRAY(SELECT name FROM slots ORDER BY retained DESC, name LIMIT 5) AS inactive_slots,
       COALESCE((SELECT max(retained) FROM slots), 0) AS retained,
       (SELECT max(GREATEST(age(datfrozenxid), mxid_age(datminmxid))) FROM pg_database) AS oldest_id,
       ARRAY(SELECT pid FROM pg_stat_activity
              WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND state_change < :idle_since
              ORDER BY state_change LIMIT 5) AS idle_transactions
""")


@dataclass(frozen=True, slots=True)
class UserSample:
    """Statistics of a sample of an app's users."""

    users: int
    with_unionid: int
    give_phones: bool
    """Whether anybody has given a phone number recently."""


@dataclass(frozen=True, slots=True)
class WebhookState:
    """The state of a webhook."""

    name: str
    is_enabled: bool
    is_stuck: bool
    """Whether a delivery waits, and nothing has been delivered for `STUCK_AFTER`."""


READ_SERVER: Final = Statement[PostgresServer]("""
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('transaction_isolation') AS isolation, version() AS engine,
       EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql') AS has_plpgsql,
       current_setting('server_encoding') AS encoding
""")
# Of the oldest and of the newest sessions.
SOME_SESSION_KEYS: Final = Statement[SealedSessionKey]("""
SELECT id AS session_id, app_id, openid, session_key AS sealed
  FROM ((SELECT id, app_id, openid, session_key FROM sessions ORDER BY id LIMIT :size)
        UNION
        (SELECT id, app_id, openid, session_key FROM sessions ORDER BY id DESC LIMIT :size)) ends
 WHERE session_key IS NOT NULL
""")
HAS_USERS: Final = Statement[bool]("SELECT EXISTS (SELECT FROM users) AS has_users")
HAS_ADMINISTRATORS: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM users WHERE {IS_ADMINISTRATOR}) AS has_administrators
""")
# Reads identities in the order of their primary key. Openids are random, so that is a sample of old and new users.
SOME_USERS: Final = Statement[UserSample]("""
SELECT count(*) AS users, count(unionid) AS with_unionid,
       EXISTS (SELECT FROM phone_answers WHERE app_id = :app_id) AS give_phones
  FROM (SELECT user_id FROM identities WHERE app_id = :app_id ORDER BY openid LIMIT :size) sample
  JOIN users ON users.id = user_id
""")
# A webhook is stuck if it has accepted nothing, and a delivery has waited, since before this time.
WEBHOOK_STATES: Final = Statement[WebhookState]("""
SELECT w.name, w.is_enabled,
       COALESCE(w.delivered_at < :stuck_since, true) AND COALESCE((
           SELECT d.at < :stuck_since FROM deliveries d WHERE d.receiver_id = w.id AND d.state = 'pending'
            ORDER BY d.id LIMIT 1
       ), false) AS is_stuck
  FROM webhooks w ORDER BY w.name
""")


async def missing_limits(database: Database) -> Sequence[str]:
    """Statements with which an administrator sets missing time limits on our role.

    They are needed behind a pooler, where single statements run without limits of our own: one locked row could then
    block everybody.
    """
    limits = database.deadlines.limits
    return await database.values(_MISSING_LIMITS, names=list(limits), milliseconds=list(limits.values()))


async def certificate_of(database: Database) -> bytes | None:
    """The certificate of the server, or of the pooler, as DER; None without TLS."""
    try:
        connection = await database.connect()
    except NotConnected as exc:
        raise StorageUnavailable(_("the database does not answer")) from exc
    try:
        tls = connection._transport.get_extra_info("ssl_object")  # asyncpg does not show it
        return None if tls is None else tls.getpeercert(binary_form=True)
    finally:
        connection.terminate()


async def keeps_prepared(database: Database) -> bool | None:
    """Whether a connection keeps its prepared statements. Behind some poolers it does not.

    None if this cannot be determined, because only one connection is available. Where they are not kept, PostgreSQL
    logs an error, because only the use of a statement shows it.
    """
    connections: list[asyncpg.Connection] = []
    try:
        connections += [await database.connect(**{STATEMENT_CACHE: 0}) for _ in range(2)]
        first, second = connections
        echo = await first.prepare(_ECHO, name=_PROBE)
        await echo.fetchval(1)
        await second.execute("BEGIN")  # occupies the server connection that the pooler has just used for the first
        await echo.fetchval(2)
    except STATEMENT_LOST:
        return False
    except Exception as exc:
        if isinstance(exc, TimeoutError) or isinstance(exc.__cause__, TimeoutError):
            return None
        raise_if_unavailable(exc)
        raise
    finally:
        for connection in connections:
            connection.terminate()
    return True
