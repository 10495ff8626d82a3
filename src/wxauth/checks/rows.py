"""What `wxauth check` asks the database. Nothing of it writes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from wxauth.core.database import Database
from wxauth.profile.phone_rows import StoredAnswer, pending_answers

SAMPLE: Final = 1000
"""Rows that are looked at, from either end."""

_SERVER: Final = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('transaction_isolation') AS isolation
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


async def server(database: Database) -> Server:
    """Who answers. Raises: StorageUnavailable."""
    row = await database.fetchrow(_SERVER)
    assert row is not None
    return Server(**row)


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
