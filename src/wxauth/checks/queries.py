"""The queries of `wxauth check`. None of them writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wxauth.core.database import Database
from wxauth.core.statements import Statement
from wxauth.core.users import IS_ADMINISTRATOR
from wxauth.session_keys.queries import SealedSessionKey

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
