"""Service clients: who they are, and by which secret; and which of them was given an app's WeChat token."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from wxauth.core.database import Database
from wxauth.core.tables import ServiceClient
from wxauth.core.trail import OPERATOR, Actor, EventType, record_event
from wxauth.people.session_rows import end_sessions_of_client

_SECRET_HASH: Final = "SELECT secret_hash FROM service_clients WHERE name = $1"  # noqa: S105 - a statement
# The id says of which client, app and day it is, so that a second one of the same is none.
# $1 id  $2 type  $3 now  $4 client  $5 app_id  $6 ip
_RECORD_READING: Final = """
INSERT INTO events (id, type, at, actor, app_id, ip) VALUES ($1, $2, $3, $4, $5, $6::text::inet)
ON CONFLICT (id) DO NOTHING
"""


async def secret_hash_of(database: Database, name: str) -> bytes | None:
    """What the secret of this client is compared with; None where there is no such client.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_SECRET_HASH, name)
    return None if row is None else row["secret_hash"]


async def store_client(database: Database, *, name: str, secret_hash: bytes, now: datetime) -> bool:
    """Whether the name was free, and now is this client's. Raises: StorageUnavailable."""
    values = {"name": name, "secret_hash": secret_hash, "created_at": now}
    # One of several at once wins.
    statement = insert(ServiceClient).values(values).on_conflict_do_nothing().returning(col(ServiceClient.name))
    async with database.begin() as transaction:
        if await transaction.fetchval(statement) is None:
            return False
        await record_event(transaction, EventType.SERVICE_CLIENT_ADDED, by=OPERATOR, at=now, data={"name": name})
        return True


async def delete_client(database: Database, name: str, *, now: datetime) -> bool:
    """Whether there was such a client; there is none now, nor a session of it. Raises: StorageUnavailable."""
    statement = delete(ServiceClient).where(col(ServiceClient.name) == name).returning(col(ServiceClient.name))
    async with database.begin() as transaction:
        if await transaction.fetchval(statement) is None:
            return False
        # Behind that statement, which has waited for whoever was about to open another session.
        await end_sessions_of_client(transaction, name, by=OPERATOR, now=now)
        event = EventType.SERVICE_CLIENT_REMOVED
        await record_event(transaction, event, by=OPERATOR, at=now, data={"name": name})
        return True


async def all_clients(database: Database) -> Sequence[ServiceClient]:
    """Every client, by name. Raises: StorageUnavailable."""
    rows = await database.fetch(select(*ServiceClient.__table__.columns).order_by(col(ServiceClient.name)))  # type: ignore[attr-defined]  # SQLModel adds the table
    return [ServiceClient(**row) for row in rows]


async def record_reading(database: Database, by: Actor, *, app_id: str, now: datetime) -> None:
    """Tell that a service client was given an app's WeChat token, once a day. Raises: StorageUnavailable."""
    reading = _id_of_reading(by.name, app_id, now)
    await database.fetchrow(_RECORD_READING, reading, EventType.ACCESS_TOKEN_READ, now, by.name, app_id, by.ip)


def _id_of_reading(client_id: str, app_id: str, now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) of the day's beginning, whose random part is made of the names."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    milliseconds = int(day.timestamp() * 1000).to_bytes(6, "big")
    names = sha256("\0".join((client_id, app_id)).encode()).digest()[:10]
    return UUID(bytes=milliseconds + bytes([0x70 | names[0] & 0x0F, names[1], 0x80 | names[2] & 0x3F]) + names[3:])
