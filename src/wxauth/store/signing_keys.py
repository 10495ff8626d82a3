"""Signing keys, as every replica must see them."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.store.database import Database
from wxauth.store.models import StoredSigningKey

_TABLE: Final = StoredSigningKey.__table__  # type: ignore[attr-defined]  # SQLModel adds it
_PUBLISHED: Final = select(_TABLE).order_by(_TABLE.c.activates_at, _TABLE.c.id)
# One key, however many replicas start at once: the second waits, then finds the first one's.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))")


async def published_keys(database: Database, *, now: datetime) -> list[StoredSigningKey]:
    """Every key that is to be published, the oldest first. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await _published(transaction, now=now)


async def make_first_key(
    database: Database, make: Callable[[], StoredSigningKey], *, now: datetime
) -> list[StoredSigningKey]:
    """Store the key that `make` gives, unless there is one by now; then every published key.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        await transaction.execute(_LOCK)
        if not await _published(transaction, now=now):
            await transaction.execute(insert(_TABLE).values(**make().model_dump()))
        return await _published(transaction, now=now)


async def _published(transaction: AsyncConnection, *, now: datetime) -> list[StoredSigningKey]:
    rows = await transaction.execute(_PUBLISHED.where((_TABLE.c.retires_at.is_(None)) | (_TABLE.c.retires_at > now)))
    return [StoredSigningKey(**row) for row in rows.mappings()]
