"""The queries of the checks, apart from the queries for rights. They change nothing."""

from dataclasses import dataclass
from typing import Final

from wxauth.core.revisions import why_unfit
from wxauth.core.statements import Statement
from wxauth.i18n import Text
from wxauth.session_keys.queries import SealedSessionKey

SAMPLE_SIZE: Final = 1000
"""The largest number of rows in a sample.

A sample of sessions can have twice this number of rows, because it contains the oldest and the newest sessions.
"""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """The properties of the database server that a check judges."""

    version: str
    version_number: int
    """The version in PostgreSQL's format, in which 180001 is 18.1."""
    is_standby: bool
    """Whether the server is in recovery, as a standby server is."""
    is_read_only: bool
    """Whether a new transaction is read-only."""
    isolation: str
    """The isolation level of a transaction that sets no level itself."""
    engine: str
    """The result of the SQL function `version()`, which names the product."""
    has_plpgsql: bool
    """Whether PL/pgSQL, the language of wxauth's triggers, is installed."""
    encoding: str
    """The encoding of the database."""

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
    """The properties of a webhook that a check judges."""

    name: str
    is_enabled: bool
    is_stuck: bool
    """Whether a delivery has been waiting, and no event has been delivered, for `checks.database.STUCK_AFTER`."""


READ_SERVER: Final = Statement[PostgresServer]("""
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('transaction_isolation') AS isolation, version() AS engine,
       EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql') AS has_plpgsql,
       current_setting('server_encoding') AS encoding
""")
# The sample contains the oldest and the newest sessions, because an old session may still need the previous secret key.
# UNION removes duplicates. There are some if the table has fewer than 2 × :size rows.
SOME_SESSION_KEYS: Final = Statement[SealedSessionKey]("""
SELECT id AS session_id, app_id, openid, session_key AS sealed
  FROM ((SELECT id, app_id, openid, session_key FROM sessions ORDER BY id LIMIT :size)
        UNION
        (SELECT id, app_id, openid, session_key FROM sessions ORDER BY id DESC LIMIT :size)) ends
 WHERE session_key IS NOT NULL
""")
# A webhook is stuck if it has accepted no event since `stuck_since`, although its first waiting delivery was queued
# before then. `delivered_at` is null if the webhook has never accepted an event. Without a waiting delivery, a webhook
# is not stuck.
WEBHOOK_STATES: Final = Statement[WebhookState]("""
SELECT w.name, w.is_enabled,
       COALESCE(w.delivered_at < :stuck_since, true) AND COALESCE((
           SELECT d.at < :stuck_since FROM deliveries d WHERE d.receiver_id = w.id AND d.state = 'pending'
            ORDER BY d.id LIMIT 1
       ), false) AS is_stuck
  FROM webhooks w ORDER BY w.name
""")
