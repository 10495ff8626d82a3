"""Service clients as they are stored, and the record of which client was given an app's WeChat token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from wxauth.server.core.database import Database
from wxauth.server.core.tables import ServiceClient
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import end_sessions_of_client

_SECRETS: Final = """
SELECT secret_hash, former_secret_hash, former_secret_until, scopes FROM service_clients WHERE name = $1
"""
# There is one former secret at most: the present secret replaces it. A public client is given none: with a secret it
# would be let in where only confidential clients are.
# $1 name  $2 the new secret's hash  $3 until when the present secret works; NULL if it ends now
_RENEW: Final = """
UPDATE service_clients c
   SET secret_hash = $2, former_secret_hash = CASE WHEN $3::timestamptz IS NOT NULL THEN secret_hash END,
       former_secret_until = $3
 WHERE name = $1 AND NOT EXISTS (SELECT FROM oauth_clients o WHERE o.name = c.name AND o.is_public)
RETURNING scopes || (SELECT o.scopes FROM oauth_clients o WHERE o.name = c.name)
"""
# The id is made of client, app and day: a second event of the same three conflicts with the first, and is not stored.
# $1 id  $2 type  $3 now  $4 client  $5 app_id  $6 ip
_RECORD_READING: Final = """
INSERT INTO events (id, type, at, actor, app_id, ip) VALUES ($1, $2, $3, $4, $5, $6::text::inet)
ON CONFLICT (id) DO NOTHING
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The hashes of a client's secrets, and its scopes."""

    secret_hash: bytes = field(repr=False)
    former_secret_hash: bytes | None = field(repr=False)
    former_secret_until: datetime | None
    scopes: Sequence[str]

    def is_former_good(self, now: datetime) -> bool:
        """Whether the secret before this one still works."""
        return self.former_secret_until is not None and now < self.former_secret_until


async def find_secrets(database: Database, name: str) -> Secrets | None:
    """The hashes and scopes of this client; None if there is no such client.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_SECRETS, name)
    return None if row is None else Secrets(**row)


async def store_client(
    database: Database, *, name: str, secret_hash: bytes, scopes: Sequence[str], by: Actor, now: datetime
) -> bool:
    """Store a new client; whether its name was free. Raises: StorageUnavailable."""
    values = {"name": name, "secret_hash": secret_hash, "created_at": now, "scopes": scopes}
    # Of several requests for one name at once, one wins.
    statement = insert(ServiceClient).values(values).on_conflict_do_nothing().returning(col(ServiceClient.name))
    async with database.begin() as transaction:
        if await transaction.fetchval(statement) is None:
            return False
        data = {"name": name, "scopes": scopes}
        await record_event(transaction, EventType.SERVICE_CLIENT_ADDED, by=by, at=now, data=data)
        return True


async def renew_secret(
    database: Database, name: str, *, secret_hash: bytes, former_until: datetime | None, by: Actor, now: datetime
) -> Sequence[str] | None:
    """Give a client another secret; all its scopes, or None if no client of this name has a secret.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        scopes: Sequence[str] | None = await transaction.fetchval(_RENEW, name, secret_hash, former_until)
        if scopes is not None:
            await record_event(transaction, EventType.CLIENT_SECRET_RENEWED, by=by, at=now, data={"name": name})
    return scopes


async def delete_client(database: Database, name: str, *, by: Actor, now: datetime) -> bool:
    """Delete a client and end its sessions; whether there was such a client. Raises: StorageUnavailable."""
    statement = delete(ServiceClient).where(col(ServiceClient.name) == name).returning(col(ServiceClient.name))
    async with database.begin() as transaction:
        if await transaction.fetchval(statement) is None:
            return False
        # After the DELETE, which waits for logins that are just opening a session of this client.
        await end_sessions_of_client(transaction, name, by=by, now=now)
        await record_event(transaction, EventType.SERVICE_CLIENT_REMOVED, by=by, at=now, data={"name": name})
        return True


async def record_reading(database: Database, by: Actor, *, app_id: str, now: datetime) -> None:
    """Record, once a day, that a service client was given an app's WeChat token. Raises: StorageUnavailable."""
    reading = _id_of_reading(by.name, app_id, now)
    await database.fetchrow(_RECORD_READING, reading, EventType.ACCESS_TOKEN_READ.value, now, by.name, app_id, by.ip)


def _id_of_reading(client_id: str, app_id: str, now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) of the day's beginning, with a hash of both names in place of random bits."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    milliseconds = int(day.timestamp() * 1000).to_bytes(6, "big")
    names = sha256("\0".join((client_id, app_id)).encode()).digest()[:10]
    return UUID(bytes=milliseconds + bytes([0x70 | names[0] & 0x0F, names[1], 0x80 | names[2] & 0x3F]) + names[3:])
