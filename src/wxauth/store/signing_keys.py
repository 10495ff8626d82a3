"""Signing keys, as every replica must see them."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic_core import from_json
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.store.database import Database
from wxauth.store.models import StoredSigningKey

_TABLE: Final = StoredSigningKey.__table__  # type: ignore[attr-defined]  # SQLModel adds it
_PUBLISHED: Final = select(_TABLE).order_by(_TABLE.c.activates_at, _TABLE.c.id)
# The same, for each worker's look every few seconds: by asyncpg itself it is one way there and back.
_PUBLISHED_NOW: Final = """
    SELECT id, kid, public_jwk, private_key, created_at, activates_at, retires_at
      FROM signing_keys
     WHERE retires_at IS NULL OR retires_at > $1
     ORDER BY activates_at, id
"""
# One key, however many replicas start or rotate at once: the second waits, then finds the first one's.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))")


async def published_keys(database: Database, *, now: datetime) -> list[StoredSigningKey]:
    """Every key that is to be published, the oldest first. Raises: StorageUnavailable."""
    rows = await database.fetch(_PUBLISHED_NOW, now)
    return [StoredSigningKey(**{**row, "public_jwk": from_json(row["public_jwk"])}) for row in rows]


async def add_key(
    database: Database,
    make: Callable[[Sequence[StoredSigningKey]], StoredSigningKey | None],
    *,
    others_retire_after: timedelta,
    now: datetime,
) -> list[StoredSigningKey]:
    """Store the key that `make` gives, if it gives one to those published by now; then every published key.

    The others retire that long after it has begun to sign.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        await transaction.execute(_LOCK)
        stored = await _published(transaction, now=now)
        key = make(stored)
        if key is None:
            return stored
        retires_at = key.activates_at + others_retire_after
        await transaction.execute(update(_TABLE).where(_TABLE.c.retires_at.is_(None)).values(retires_at=retires_at))
        await transaction.execute(insert(_TABLE).values(**key.model_dump()))
        return await _published(transaction, now=now)


async def replace_private_key(database: Database, key: StoredSigningKey, sealed_anew: bytes) -> int:
    """Store this in place of the sealed private half, if it is still the one that was read; 1, else 0.

    Raises: StorageUnavailable.
    """
    is_the_same = (_TABLE.c.id == key.id) & (_TABLE.c.private_key == key.private_key)
    async with database.begin() as transaction:
        replaced = await transaction.execute(update(_TABLE).where(is_the_same).values(private_key=sealed_anew))
        return replaced.rowcount


async def erase_retired_keys(database: Database, *, now: datetime) -> list[str]:
    """Erase the keys that are published no longer; their kids. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        kids = await transaction.execute(delete(_TABLE).where(_TABLE.c.retires_at <= now).returning(_TABLE.c.kid))
        return list(kids.scalars())


async def _published(transaction: AsyncConnection, *, now: datetime) -> list[StoredSigningKey]:
    rows = await transaction.execute(_PUBLISHED.where((_TABLE.c.retires_at.is_(None)) | (_TABLE.c.retires_at > now)))
    return [StoredSigningKey(**row) for row in rows.mappings()]
