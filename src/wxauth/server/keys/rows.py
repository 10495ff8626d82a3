"""The stored signing keys, of access tokens and of id_tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.keys.models import StoredSigningKey

# Decides the race of replicas that start or rotate at once: the second waits, and then sees the first one's key.
_LOCK: Final = Statement[object]("SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))")
# Includes retired keys: an expired id_token still identifies the session that it may end.
_READ_PUBLIC_HALF: Final = Statement[dict[str, Any]]("SELECT public_jwk FROM id_token_keys WHERE kid = :kid")
_ARE_NEEDED: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM clients WHERE title IS NOT NULL) OR EXISTS (SELECT FROM id_token_keys) AS are_wanted
""")


@dataclass(frozen=True, slots=True)
class KeyTable:
    """The statements for the table of one kind of keys. Both tables have the same columns."""

    read: Statement[StoredSigningKey]
    add: Statement[Nothing]
    date: Statement[Nothing]
    delete: Statement[Nothing]
    replace: Statement[UUID]
    delete_retired: Statement[str]


def _key_table(table: str) -> KeyTable:
    columns = StoredSigningKey.model_fields
    return KeyTable(
        read=Statement[StoredSigningKey](f"""
SELECT {", ".join(columns)} FROM {table} WHERE retires_at IS NULL OR retires_at > :now ORDER BY activates_at, id
"""),  # noqa: S608 - constants
        add=Statement[Nothing](f"""
INSERT INTO {table} ({", ".join(columns)}) VALUES ({", ".join(f":{name}" for name in columns)})
"""),  # noqa: S608 - constants
        date=Statement[Nothing](f"""
UPDATE {table} SET created_at = :created_at, activates_at = :activates_at, retires_at = :retires_at WHERE id = :id
"""),  # noqa: S608 - constants
        delete=Statement[Nothing](f"DELETE FROM {table} WHERE id = :id"),  # noqa: S608 - constants
        replace=Statement[UUID](f"""
UPDATE {table} SET private_key = :anew WHERE id = :id AND private_key = :former RETURNING id
"""),  # noqa: S608 - constants
        delete_retired=Statement[str](f"DELETE FROM {table} WHERE retires_at <= :now RETURNING kid"),  # noqa: S608 - constants
    )


SIGNING_KEY_TABLE: Final = _key_table("signing_keys")
"""The keys of access tokens."""
ID_TOKEN_KEYS: Final = _key_table("id_token_keys")
"""The keys of id_tokens."""
KEY_TABLES: Final = (SIGNING_KEY_TABLE, ID_TOKEN_KEYS)


async def id_token_keys_are_needed(database: Database) -> bool:
    """Whether there is a site, or has been one. Raises: StorageUnavailable."""
    return bool(await database.value(_ARE_NEEDED))


async def published_keys(
    database: Database, *, now: datetime, table: KeyTable = SIGNING_KEY_TABLE
) -> Sequence[StoredSigningKey]:
    """The published keys, the oldest first. Raises: StorageUnavailable."""
    return await _published(database, table, now=now)


async def lock_keys(transaction: Transaction, table: KeyTable, *, now: datetime) -> Sequence[StoredSigningKey]:
    """Lock the keys until the transaction ends. Returns the published keys, the oldest first."""
    await transaction.value(_LOCK)
    return await _published(transaction, table, now=now)


async def store_keys(
    transaction: Transaction, table: KeyTable, before: Sequence[StoredSigningKey], after: Sequence[StoredSigningKey]
) -> None:
    """Store the difference between two states of the keys, which must be locked: new keys, new dates, deleted keys."""
    known = {key.id: key for key in before}
    for key in after:
        former = known.pop(key.id, None)
        if former is None:
            await transaction.run(table.add, **key.model_dump())
        elif former is not key:
            dates = {"created_at": key.created_at, "activates_at": key.activates_at, "retires_at": key.retires_at}
            await transaction.run(table.date, id=key.id, **dates)
    for deleted in known:
        await transaction.run(table.delete, id=deleted)


async def replace_private_key(
    database: Database, key: StoredSigningKey, sealed_anew: bytes, *, table: KeyTable = SIGNING_KEY_TABLE
) -> bool:
    """Replace a key's sealed private half. Returns False if it has changed since it was read.

    Raises: StorageUnavailable.
    """
    replaced = await database.value(table.replace, id=key.id, former=key.private_key, anew=sealed_anew)
    return replaced is not None


async def public_half(database: Database, kid: str) -> dict[str, Any] | None:
    """The public JWK of a stored key of id_tokens, or None. Raises: StorageUnavailable."""
    return await database.value(_READ_PUBLIC_HALF, kid=kid)


async def delete_retired_keys(database: Database, *, now: datetime, longest_session: timedelta) -> list[str]:
    """Delete the keys that are no longer published. Returns their kids.

    A key of id_tokens is kept for `longest_session` beyond that, because an id_token can end its website's session all
    that time.

    Raises: StorageUnavailable.
    """
    deleted = await database.values(SIGNING_KEY_TABLE.delete_retired, now=now)
    return [*deleted, *await database.values(ID_TOKEN_KEYS.delete_retired, now=now - longest_session)]


async def _published(asked: Database | Transaction, table: KeyTable, *, now: datetime) -> Sequence[StoredSigningKey]:
    return await asked.rows(table.read, now=now)
