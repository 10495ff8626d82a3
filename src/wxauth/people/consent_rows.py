"""The statements that write consents: their history, and the present ones on the user's row, together."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.ids import new_id

PRESENT_CONSENTS: Final = """
       (SELECT jsonb_object_agg(document, version)
          FROM (SELECT DISTINCT ON (document) document, version FROM consents
                 WHERE user_id = users.id AND withdrawn_at IS NULL
                 ORDER BY document, given_at DESC, id DESC) AS newest)"""
"""SQL for `users.consents`: of each document the version that was given last and not withdrawn."""

# Settles the race of two changes: the second waits here, and sees what the first has written.
_LOCK: Final = "SELECT consents FROM users WHERE id = $1 FOR UPDATE"
# Adds nothing if the same consent still holds, as after a document has been set back to a former version.
# $1 id  $2 user id  $3 document  $4 version  $5 now  $6 app_id  $7 ip
_ADD: Final = """
INSERT INTO consents (id, user_id, document, version, given_at, app_id, ip)
SELECT $1, $2, $3, $4, $5, $6, $7::text::inet
 WHERE NOT EXISTS (SELECT FROM consents WHERE user_id = $2 AND document = $3 AND version = $4 AND withdrawn_at IS NULL)
RETURNING id
"""
# $1 user id  $2 document → version
_NOTE_GIVEN: Final = "UPDATE users SET consents = COALESCE(consents, '{}') || $2::jsonb WHERE id = $1"
# $1 user id  $2 document  $3 now
_WITHDRAW: Final = """
UPDATE consents SET withdrawn_at = $3 WHERE user_id = $1 AND document = $2 AND withdrawn_at IS NULL
"""
_NOTE_WITHDRAWN: Final = "UPDATE users SET consents = NULLIF(consents - $2::text, '{}') WHERE id = $1"
_ALL: Final = """
SELECT document, version, given_at, withdrawn_at, app_id, ip FROM consents WHERE user_id = $1
 ORDER BY given_at DESC, id DESC
"""


class ConsentRow(TypedDict):
    """A person's consent to a version of a document."""

    document: str
    version: str
    given_at: datetime
    withdrawn_at: datetime | None
    app_id: str | None
    """The app in which the person agreed."""
    ip: Any
    """An address, as asyncpg reads it, or None."""


async def lock_consents(transaction: Transaction, user_id: UUID) -> Mapping[str, str] | None:
    """Lock a user's present consents, document → version, until the transaction ends; None if there is no such user."""
    row = await transaction.fetchrow(_LOCK, user_id)
    return None if row is None else row["consents"] or {}


async def add_consent(
    transaction: Transaction,
    user_id: UUID,
    *,
    document: str,
    version: str,
    app_id: str,
    ip: str | None,
    now: datetime,
) -> bool:
    """Add a consent of a locked user to the history; whether it was new."""
    added = await transaction.fetchval(_ADD, new_id(now), user_id, document, version, now, app_id, ip)
    return added is not None


async def note_given(transaction: Transaction, user_id: UUID, given: Mapping[str, str]) -> None:
    """Set present consents of a locked user."""
    await transaction.execute(_NOTE_GIVEN, user_id, given)


async def withdraw_consent(transaction: Transaction, user_id: UUID, *, document: str, now: datetime) -> None:
    """Withdraw a locked user's consent to any version of a document."""
    await transaction.execute(_WITHDRAW, user_id, document, now)
    await transaction.execute(_NOTE_WITHDRAWN, user_id, document)


async def consents_of(asked: Database | Transaction, user_id: UUID) -> Sequence[ConsentRow]:
    """All that a user has ever agreed to, the newest first. Raises: StorageUnavailable, where a database is asked."""
    rows: Sequence[ConsentRow] = await asked.fetch(_ALL, user_id)
    return rows
