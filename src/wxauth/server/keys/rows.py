"""Signing keys as they are stored for all replicas: those of access tokens, and those of id_tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from wxauth.server.core.database import Database, Transaction
from wxauth.server.keys.tables import StoredSigningKey

# Settles the race of replicas that start or rotate at once: the second waits, and then finds the first one's key.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('wxauth.signing_keys'))"


def _reading_part(table: str) -> str:
    # $1 now
    return f"""
SELECT id, kid, public_jwk, private_key, created_at, activates_at, retires_at
  FROM {table}
 WHERE retires_at IS NULL OR retires_at > $1
 ORDER BY activates_at, id
"""  # noqa: S608 - a constant


def _adding_part(table: str) -> str:
    # $1 id  $2 kid  $3 public_jwk  $4 private_key  $5 created_at  $6 activates_at  $7 retires_at
    return f"""
INSERT INTO {table} (id, kid, public_jwk, private_key, created_at, activates_at, retires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""  # noqa: S608 - a constant


def _dating_part(table: str) -> str:
    # $1 id  $2 created_at  $3 activates_at  $4 retires_at
    return f"UPDATE {table} SET created_at = $2, activates_at = $3, retires_at = $4 WHERE id = $1"  # noqa: S608


def _erasing_one_part(table: str) -> str:
    return f"DELETE FROM {table} WHERE id = $1"  # noqa: S608 - a constant


def _replacing_part(table: str) -> str:
    # $1 id  $2 the former private half  $3 the new one
    return f"UPDATE {table} SET private_key = $3 WHERE id = $1 AND private_key = $2 RETURNING id"  # noqa: S608


def _erasing_part(table: str) -> str:
    return f"DELETE FROM {table} WHERE retires_at <= $1 RETURNING kid"  # noqa: S608 - a constant


_READ_SIGNING_KEYS: Final = _reading_part("signing_keys")
_READ_ID_TOKEN_KEYS: Final = _reading_part("id_token_keys")
_DATE_SIGNING_KEY: Final = _dating_part("signing_keys")
_DATE_ID_TOKEN_KEY: Final = _dating_part("id_token_keys")
_ERASE_SIGNING_KEY: Final = _erasing_one_part("signing_keys")
_ERASE_ID_TOKEN_KEY: Final = _erasing_one_part("id_token_keys")
_ADD_SIGNING_KEY: Final = _adding_part("signing_keys")
_ADD_ID_TOKEN_KEY: Final = _adding_part("id_token_keys")
_REPLACE_SIGNING_KEY: Final = _replacing_part("signing_keys")
_REPLACE_ID_TOKEN_KEY: Final = _replacing_part("id_token_keys")
_ERASE_SIGNING_KEYS: Final = _erasing_part("signing_keys")
_ERASE_ID_TOKEN_KEYS: Final = _erasing_part("id_token_keys")
# A key that has retired, too: an id_token that has expired still says whose session it is.
# $1 kid
_READ_PUBLIC_HALF: Final = "SELECT public_jwk FROM id_token_keys WHERE kid = $1"
_ARE_WANTED: Final = """
SELECT EXISTS (SELECT FROM clients WHERE title IS NOT NULL) OR EXISTS (SELECT FROM id_token_keys) AS are_wanted
"""


@dataclass(frozen=True, slots=True)
class KeyTable:
    """The table of one kind of keys. Both have the same columns."""

    read: str
    add: str
    date: str
    erase: str
    replace: str
    erase_retired: str


SIGNING_KEYS: Final = KeyTable(
    _READ_SIGNING_KEYS,
    _ADD_SIGNING_KEY,
    _DATE_SIGNING_KEY,
    _ERASE_SIGNING_KEY,
    _REPLACE_SIGNING_KEY,
    _ERASE_SIGNING_KEYS,
)
"""The keys of access tokens."""
ID_TOKEN_KEYS: Final = KeyTable(
    _READ_ID_TOKEN_KEYS,
    _ADD_ID_TOKEN_KEY,
    _DATE_ID_TOKEN_KEY,
    _ERASE_ID_TOKEN_KEY,
    _REPLACE_ID_TOKEN_KEY,
    _ERASE_ID_TOKEN_KEYS,
)
"""The keys of id_tokens."""
KEY_TABLES: Final = (SIGNING_KEYS, ID_TOKEN_KEYS)


async def id_token_keys_are_wanted(database: Database) -> bool:
    """Whether there is a site, or has been one. Raises: StorageUnavailable."""
    row = await database.fetchrow(_ARE_WANTED)
    return bool(row["are_wanted"])


async def published_keys(
    database: Database, *, now: datetime, table: KeyTable = SIGNING_KEYS
) -> list[StoredSigningKey]:
    """Every key that is to be published, the oldest first. Raises: StorageUnavailable."""
    return await _published(database, table, now=now)


async def lock_keys(transaction: Transaction, table: KeyTable, *, now: datetime) -> list[StoredSigningKey]:
    """Lock the keys until the transaction ends; every published key, the oldest first."""
    await transaction.fetchval(_LOCK)
    return await _published(transaction, table, now=now)


async def store_keys(
    transaction: Transaction, table: KeyTable, before: Sequence[StoredSigningKey], after: Sequence[StoredSigningKey]
) -> None:
    """Store the changes from the keys before to the keys after: add, date anew, delete. The keys are locked."""
    known = {key.id: key for key in before}
    for key in after:
        former = known.pop(key.id, None)
        if former is None:
            values = key.id, key.kid, key.public_jwk, key.private_key, key.created_at, key.activates_at, key.retires_at
            await transaction.execute(table.add, *values)
        elif former is not key:
            await transaction.execute(table.date, key.id, key.created_at, key.activates_at, key.retires_at)
    for erased in known:
        await transaction.execute(table.erase, erased)


async def replace_private_key(
    database: Database, key: StoredSigningKey, sealed_anew: bytes, *, table: KeyTable = SIGNING_KEYS
) -> bool:
    """Store this in place of the sealed private half, if it is still the one that was read; whether it was.

    Raises: StorageUnavailable.
    """
    return await database.fetchrow(table.replace, key.id, key.private_key, sealed_anew) is not None


async def public_half(database: Database, kid: str) -> dict[str, Any] | None:
    """The public half of a key of id_tokens, as long as it is stored. Raises: StorageUnavailable."""
    row = await database.fetchrow(_READ_PUBLIC_HALF, kid)
    return None if row is None else row["public_jwk"]


async def erase_retired_keys(database: Database, *, now: datetime, longest_session: timedelta) -> list[str]:
    """Delete the keys that are no longer published; their kids. Raises: StorageUnavailable.

    A key of id_tokens stays for the longest session of a website, which its id_token may end all that time.
    """
    erased = await database.fetch(SIGNING_KEYS.erase_retired, now)
    erased += await database.fetch(ID_TOKEN_KEYS.erase_retired, now - longest_session)
    return [row["kid"] for row in erased]


async def _published(asked: Database | Transaction, table: KeyTable, *, now: datetime) -> list[StoredSigningKey]:
    return [StoredSigningKey(**row) for row in await asked.fetch(table.read, now)]
