"""Signing keys, as every replica must see them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlmodel import col

from wxauth.core.database import Database, Transaction
from wxauth.core.tables import StoredSigningKey

_TABLE: Final = StoredSigningKey.__table__  # type: ignore[attr-defined]  # SQLModel adds it
# One change at a time, however many replicas start or rotate at once: the second waits, then finds the first one's.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))"
# $1 id  $2 kid  $3 public_jwk  $4 private_key  $5 created_at  $6 activates_at  $7 retires_at
_ADD: Final = """
INSERT INTO signing_keys (id, kid, public_jwk, private_key, created_at, activates_at, retires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
# $1 id  $2 created_at  $3 activates_at  $4 retires_at
_DATE: Final = "UPDATE signing_keys SET created_at = $2, activates_at = $3, retires_at = $4 WHERE id = $1"
_ERASE: Final = "DELETE FROM signing_keys WHERE id = $1"
# $1 id  $2 the former private half  $3 the new one
_REPLACE: Final = "UPDATE signing_keys SET private_key = $3 WHERE id = $1 AND private_key = $2 RETURNING id"
# $1 id  $2 the private half
_GIVE_UP: Final = "DELETE FROM signing_keys WHERE id = $1 AND private_key = $2 RETURNING kid"
_ERASE_RETIRED: Final = "DELETE FROM signing_keys WHERE retires_at <= $1 RETURNING kid"


async def published_keys(database: Database, *, now: datetime) -> list[StoredSigningKey]:
    """Every key that is to be published, the oldest first. Raises: StorageUnavailable."""
    return await _published(database, now=now)


async def lock_keys(transaction: Transaction, *, now: datetime) -> list[StoredSigningKey]:
    """Every key that is to be published, the oldest first; nobody else changes them until the transaction ends."""
    await transaction.fetchval(_LOCK)
    return await _published(transaction, now=now)


async def store_keys(
    transaction: Transaction, before: Sequence[StoredSigningKey], after: Sequence[StoredSigningKey]
) -> None:
    """Make these of those that are locked: some added, some dated anew, some erased."""
    known = {key.id: key for key in before}
    for key in after:
        former = known.pop(key.id, None)
        if former is None:
            values = key.id, key.kid, key.public_jwk, key.private_key, key.created_at, key.activates_at, key.retires_at
            await transaction.execute(_ADD, *values)
        elif former is not key:
            await transaction.execute(_DATE, key.id, key.created_at, key.activates_at, key.retires_at)
    for erased in known:
        await transaction.execute(_ERASE, erased)


async def replace_private_key(database: Database, key: StoredSigningKey, sealed_anew: bytes) -> bool:
    """Store this in place of the sealed private half, if it is still the one that was read; whether it was.

    Raises: StorageUnavailable.
    """
    return await database.fetchrow(_REPLACE, key.id, key.private_key, sealed_anew) is not None


async def give_up_key(database: Database, key: StoredSigningKey) -> bool:
    """Publish this key no more, if it is still the one that was read; whether it was. Raises: StorageUnavailable."""
    return await database.fetchrow(_GIVE_UP, key.id, key.private_key) is not None


async def erase_retired_keys(database: Database, *, now: datetime) -> list[str]:
    """Erase the keys that are published no longer; their kids. Raises: StorageUnavailable."""
    return [row["kid"] for row in await database.fetch(_ERASE_RETIRED, now)]


async def _published(asked: Database | Transaction, *, now: datetime) -> list[StoredSigningKey]:
    retires_at = col(StoredSigningKey.retires_at)
    published = select(_TABLE).where(retires_at.is_(None) | (retires_at > now))
    in_order = published.order_by(col(StoredSigningKey.activates_at), col(StoredSigningKey.id))
    return [StoredSigningKey(**row) for row in await asked.fetch(in_order)]
