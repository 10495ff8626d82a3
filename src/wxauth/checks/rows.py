"""What `wxauth check` asks the database. Nothing of it writes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlmodel import SQLModel

from wxauth.core.database import Database
from wxauth.profile.phone_rows import StoredAnswer, pending_answers

SAMPLE: Final = 1000
"""Rows that are looked at, from either end."""

_SERVER: Final = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('transaction_isolation') AS isolation
"""
# Only the owner of a table may alter it, and whoever is a member of that role. $1 our tables
_RIGHTS: Final = """
WITH here AS (
    SELECT c.oid, c.relowner FROM pg_class c
     WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind = 'r' AND c.relname = ANY ($1)
)
SELECT quote_ident(current_user) AS role,
       quote_ident(current_schema()) AS schema,
       COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       NOT EXISTS (SELECT FROM here
                    WHERE NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                               AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
       ) AS may_use,
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM here
         WHERE NOT pg_has_role(relowner, 'USAGE') LIMIT 1) AS owner
"""
_SESSION_KEYS: Final = """
SELECT app_id, openid, session_key AS sealed
  FROM ((SELECT id, app_id, openid, session_key FROM sessions ORDER BY id LIMIT $1)
        UNION
        (SELECT id, app_id, openid, session_key FROM sessions ORDER BY id DESC LIMIT $1)) ends
 WHERE session_key IS NOT NULL
"""
# By the primary key, in the order of the openids, which is none: a sample of old and new users.
_USERS: Final = """
SELECT count(*) AS users, count(unionid) AS with_unionid,
       EXISTS (SELECT FROM phone_answers WHERE app_id = $1) AS give_phones
  FROM (SELECT user_id FROM identities WHERE app_id = $1 ORDER BY openid LIMIT $2) sample
  JOIN users ON users.id = user_id
"""


# $1 since when nothing may be stuck
_WEBHOOKS: Final = """
SELECT w.name, w.is_enabled,
       COALESCE(w.delivered_at < $1, true) AND COALESCE((
           SELECT d.at < $1 FROM deliveries d WHERE d.webhook_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1
       ), false) AS is_stuck
  FROM webhooks w ORDER BY w.name
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers."""

    version: str
    version_number: int
    """As PostgreSQL counts: 180001 is 18.1."""
    is_standby: bool
    is_read_only: bool
    isolation: str
    """Of a single statement."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the role of the database's URL may do there. Names are as SQL wants them."""

    role: str
    schema: str | None
    """Where its tables are, or would be."""
    may_create: bool
    may_use: bool
    """Whether it may read and write each of our tables that is there."""
    owner: str | None
    """Whose the tables are, if not its own."""

    @property
    def missing_to_serve(self) -> str | None:
        """What somebody has to let this role do before it can use the tables that are there."""
        if self.schema is None:
            return f"GRANT USAGE, CREATE ON SCHEMA public TO {self.role}"
        if not self.may_use:
            return f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {self.schema} TO {self.role}"
        return None

    @property
    def missing_to_migrate(self) -> str | None:
        """What somebody has to let this role do before it can change the schema."""
        if self.schema is None:
            return f"GRANT USAGE, CREATE ON SCHEMA public TO {self.role}"
        if not self.may_create:
            return f"GRANT CREATE ON SCHEMA {self.schema} TO {self.role}"
        if self.owner is not None:
            return f"GRANT {self.owner} TO {self.role}"
        return None


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A session_key as it is stored."""

    app_id: str
    openid: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Users:
    """What a sample of an app's users tells of the app."""

    users: int
    with_unionid: int
    give_phones: bool
    """Whether anybody has given a phone number lately."""


@dataclass(frozen=True, slots=True)
class WebhookState:
    """How a webhook does."""

    name: str
    is_enabled: bool
    is_stuck: bool
    """Whether something has waited for a time in which nothing was delivered."""


async def webhook_states(database: Database, *, stuck_since: datetime) -> Sequence[WebhookState]:
    """How each webhook does, by name. Raises: StorageUnavailable."""
    return [WebhookState(**row) for row in await database.fetch(_WEBHOOKS, stuck_since)]


async def server(database: Database) -> Server:
    """Who answers. Raises: StorageUnavailable."""
    row = await database.fetchrow(_SERVER)
    assert row is not None
    return Server(**row)


async def rights(database: Database) -> Rights:
    """What we may do. Raises: StorageUnavailable."""
    row = await database.fetchrow(_RIGHTS, [*SQLModel.metadata.tables, "alembic_version"])
    assert row is not None
    return Rights(**row)


async def some_session_keys(database: Database, *, size: int = SAMPLE) -> Sequence[SealedKey]:
    """Those of the oldest and of the newest sessions. Raises: StorageUnavailable."""
    return [SealedKey(**row) for row in await database.fetch(_SESSION_KEYS, size)]


async def some_phone_answers(database: Database, *, now: datetime, size: int = SAMPLE) -> Sequence[StoredAnswer]:
    """The oldest whose number is still to be bound. Raises: StorageUnavailable."""
    return await pending_answers(database, asked_before=now, size=size)


async def some_users(database: Database, app_id: str, *, size: int = SAMPLE) -> Users:
    """What some of an app's users tell. Raises: StorageUnavailable."""
    row = await database.fetchrow(_USERS, app_id, size)
    assert row is not None
    return Users(**row)
