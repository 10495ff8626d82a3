"""The statements that write consents: their history, and the present ones on the user's row, together.

A merge leaves the former user's consents where they are. So a user's consents are those of all ids of the user.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import new_id
from wxauth.server.sessions.rows import END


def ids_of(user_id: str) -> str:
    """SQL for all ids of a user, present and former."""
    return (
        f"ARRAY (SELECT {user_id} UNION ALL SELECT former.id FROM former_users former WHERE former.user_id = {user_id})"  # noqa: S608 - put together from constants
    )


_ITS_IDS: Final = ids_of("$1::uuid")
PRESENT_CONSENTS: Final = f"""
       (SELECT jsonb_object_agg(document, version)
          FROM (SELECT DISTINCT ON (document) document, version FROM consents
                 WHERE user_id = ANY ({ids_of("users.id")}) AND withdrawn_at IS NULL
                 ORDER BY document, given_at DESC, id DESC) AS newest)"""  # noqa: S608 - put together from constants
"""SQL for `users.consents`: of each document the version that was given last and not withdrawn."""

# Settles the race of two changes: the second waits here, and sees what the first has written.
_LOCK: Final = "SELECT consents FROM users WHERE id = $1 FOR UPDATE"
# Adds nothing if the same consent still holds, as after a document has been set back to a former version.
# $1 user id  $2 id  $3 document  $4 version  $5 now  $6 app_id  $7 ip
_ADD: Final = f"""
INSERT INTO consents (id, user_id, document, version, given_at, app_id, ip)
SELECT $2, $1, $3, $4, $5, $6, $7::text::inet
 WHERE NOT EXISTS (SELECT FROM consents
                    WHERE user_id = ANY ({_ITS_IDS}) AND document = $3 AND version = $4 AND withdrawn_at IS NULL)
RETURNING id
"""  # noqa: S608 - put together from constants
# $1 user id  $2 document → version
_NOTE_GIVEN: Final = "UPDATE users SET consents = COALESCE(consents, '{}') || $2::jsonb WHERE id = $1"
# $1 user id  $2 document  $3 now
_WITHDRAW: Final = f"""
UPDATE consents SET withdrawn_at = $3
 WHERE user_id = ANY ({_ITS_IDS}) AND document = $2 AND withdrawn_at IS NULL
"""  # noqa: S608 - put together from constants
_NOTE_WITHDRAWN: Final = "UPDATE users SET consents = NULLIF(consents - $2::text, '{}') WHERE id = $1"
# The newest by each of the ids, because an index has them in order by one id alone.
# $1 user id  $2 how many  $3 and $4 where the page before ended: given_at and id, or NULL
_NEWEST: Final = f"""
SELECT page.*
  FROM unnest({_ITS_IDS}) AS known (id) CROSS JOIN LATERAL (
       SELECT id, document, version, given_at, withdrawn_at, app_id, ip FROM consents
        WHERE user_id = known.id
          AND (given_at, id) < (COALESCE($3::timestamptz, 'infinity'), COALESCE($4::uuid, '{END}'))
        ORDER BY given_at DESC, id DESC LIMIT $2) page
 ORDER BY given_at DESC, id DESC LIMIT $2
"""  # noqa: S608 - put together from constants
# $1 user id  $2 documents  $3 their versions
_HOLDING: Final = f"""
SELECT DISTINCT ON (document) id, document, version, given_at, withdrawn_at, app_id, ip
  FROM consents JOIN unnest($2::text[], $3::text[]) AS wanted (document, version) USING (document, version)
 WHERE user_id = ANY ({_ITS_IDS}) AND withdrawn_at IS NULL
 ORDER BY document, given_at DESC, id DESC
"""  # noqa: S608 - put together from constants


class ConsentRow(TypedDict):
    """A person's consent to a version of a document."""

    id: UUID
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
    added = await transaction.fetchval(_ADD, user_id, new_id(now), document, version, now, app_id, ip)
    return added is not None


async def note_given(transaction: Transaction, user_id: UUID, given: Mapping[str, str]) -> None:
    """Set present consents of a locked user."""
    await transaction.execute(_NOTE_GIVEN, user_id, given)


async def withdraw_consent(transaction: Transaction, user_id: UUID, *, document: str, now: datetime) -> None:
    """Withdraw a locked user's consent to any version of a document."""
    await transaction.execute(_WITHDRAW, user_id, document, now)
    await transaction.execute(_NOTE_WITHDRAWN, user_id, document)


async def newest_consents(
    database: Database, user_id: UUID, *, limit: int, after: tuple[datetime, UUID] | None = None
) -> Sequence[ConsentRow]:
    """What a user has agreed to, the newest first; what follows `after`, the time and id of the last one before.

    Raises: StorageUnavailable.
    """
    rows: Sequence[ConsentRow] = await database.fetch(_NEWEST, user_id, limit, *(after or (None, None)))
    return rows


async def holding_consents(database: Database, user_id: UUID, documents: Mapping[str, str]) -> Sequence[ConsentRow]:
    """The user's consents to these versions of documents, if they hold; the newest first.

    Raises: StorageUnavailable.
    """
    rows = await database.fetch(_HOLDING, user_id, list(documents), list(documents.values()))
    return sorted(rows, key=lambda row: (row["given_at"], row["id"]), reverse=True)
