"""Sessions: who is in one, where somebody is logged in, and how a session ends."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypedDict
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.tables import USER, UserInSession
from wxauth.core.trail import Actor, EventType, record_event

START: Final = UUID(int=0)
"""Before the first session."""
END: Final = UUID(int=2**128 - 1)
"""After the last one."""


class EndReason(StrEnum):
    """Why a session is no more."""

    REUSED = "reused"
    BANNED = "banned"
    SIGNED_OUT = "signed_out"


class OpenSession(TypedDict):
    """A login on one device."""

    id: UUID
    app_id: str
    user_agent: str | None
    ip: Any
    """An address, as asyncpg reads it, or None."""
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


# The user may have been banned, erased or merged since the token was signed, the session revoked, or over.
# $1 session id  $2 user id  $3 now
_USER_IN_SESSION: Final = f"""
SELECT s.app_id, s.openid, {USER}
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3 AND users.status = 'active'
"""  # noqa: S608 - put together from constants
_OPEN_SESSIONS: Final = """
SELECT id, app_id, user_agent, ip, created_at, last_used_at, expires_at FROM sessions
 WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
 ORDER BY last_used_at DESC, id DESC
"""
_BELONGS_TO: Final = "SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2"

# $1 session id  $2 now  $3 reason
_END: Final = """
UPDATE sessions SET revoked_at = $2, revoked_reason = $3, session_key = NULL WHERE id = $1 AND revoked_at IS NULL
RETURNING user_id
"""
# $1 user id  $2 now  $3 reason  $4 session id to be kept
_END_OTHERS: Final = """
UPDATE sessions SET revoked_at = $2, revoked_reason = $3, session_key = NULL
 WHERE user_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $4
RETURNING expires_at > $2 AS was_open
"""

_END_OF_PAGE: Final = "SELECT id, created_at FROM sessions WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1"


async def user_in_session(
    database: Database, *, session_id: UUID, user_id: UUID, now: datetime
) -> UserInSession | None:
    """The user with the identity of this session, or None where it has ended or the user may not use it.

    Raises: StorageUnavailable.
    """
    user: UserInSession | None = await database.fetchrow(_USER_IN_SESSION, session_id, user_id, now)
    return user


async def open_sessions(database: Database, user_id: UUID, *, now: datetime) -> Sequence[OpenSession]:
    """Where a user is logged in, the last used first. Raises: StorageUnavailable."""
    sessions: Sequence[OpenSession] = await database.fetch(_OPEN_SESSIONS, user_id, now)
    return sessions


async def session_belongs_to(database: Database, *, session_id: UUID, user_id: UUID) -> bool:
    """Whether this user has, or had, that session. Raises: StorageUnavailable."""
    return await database.fetchrow(_BELONGS_TO, session_id, user_id) is not None


async def end_session(database: Database, *, session_id: UUID, reason: EndReason, now: datetime) -> UUID | None:
    """End a session; its user's id, or None where it had ended before or never was. Raises: StorageUnavailable."""
    row = await database.fetchrow(_END, session_id, now, reason)
    return None if row is None else row["user_id"]


async def end_sessions(
    transaction: Transaction,
    user_id: UUID,
    *,
    reason: EndReason,
    by: Actor,
    now: datetime,
    kept: UUID | None = None,
) -> None:
    """End every session of a user but the one to be kept, and record it where one of them was open."""
    ended = await transaction.fetch(_END_OTHERS, user_id, now, reason, kept)
    number = sum(row["was_open"] for row in ended)
    if number:
        data = {"reason": reason, "sessions": number}
        await record_event(transaction, EventType.SESSIONS_ENDED, by=by, at=now, user_id=user_id, data=data)


async def end_of_page(transaction: Transaction, *, after: UUID, size: int) -> tuple[UUID, datetime | None]:
    """Of all sessions in the order of their ids, the last one of a page and when it began; `END` behind the last."""
    last = await transaction.fetchrow(_END_OF_PAGE, after, size - 1)
    return (END, None) if last is None else (last["id"], last["created_at"])
