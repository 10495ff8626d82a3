"""Service clients: who they are, and by which secret."""

from datetime import datetime
from typing import Final

from sqlalchemy import Executable, delete, select
from sqlalchemy.dialects.postgresql import insert

from wxauth.core.database import Database
from wxauth.core.tables import ServiceClient
from wxauth.core.trail import OPERATOR, EventType, NewEvent, record_event

_TABLE: Final = ServiceClient.__table__  # type: ignore[attr-defined]  # SQLModel adds it
_SECRET_HASH: Final = "SELECT secret_hash FROM service_clients WHERE name = $1"  # noqa: S105 - a statement


async def secret_hash_of(database: Database, name: str) -> bytes | None:
    """What the secret of this client is compared with; None where there is no such client.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_SECRET_HASH, name)
    return None if row is None else row["secret_hash"]


async def store_client(database: Database, *, name: str, secret_hash: bytes, now: datetime) -> bool:
    """Whether the name was free, and now is this client's. Raises: StorageUnavailable."""
    values = {"name": name, "secret_hash": secret_hash, "created_at": now}
    statement = insert(_TABLE).values(values).on_conflict_do_nothing().returning(_TABLE.c.name)  # one wins a race
    return await _changes_a_client(database, statement, EventType.SERVICE_CLIENT_ADDED, now=now)


async def delete_client(database: Database, name: str, *, now: datetime) -> bool:
    """Whether there was such a client; there is none now. Raises: StorageUnavailable."""
    statement = delete(_TABLE).where(_TABLE.c.name == name).returning(_TABLE.c.name)
    return await _changes_a_client(database, statement, EventType.SERVICE_CLIENT_REMOVED, now=now)


async def all_clients(database: Database) -> list[ServiceClient]:
    """Every client, by name. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        rows = await transaction.execute(select(_TABLE).order_by(_TABLE.c.name))
        return [ServiceClient(**row) for row in rows.mappings()]


async def _changes_a_client(database: Database, statement: Executable, event: EventType, *, now: datetime) -> bool:
    async with database.begin() as transaction:
        name = (await transaction.execute(statement)).scalar()
        if name is not None:
            await record_event(transaction, NewEvent(type=event, at=now, actor=OPERATOR, data={"name": name}))
        return name is not None
