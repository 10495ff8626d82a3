"""Sessions: who is in one, and what becomes of it when its refresh token is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from wxauth.core.database import Database
from wxauth.core.tables import UserStatus
from wxauth.core.trail import SYSTEM, EventType, NewEvent, record_event
from wxauth.errors import StorageUnavailable

# The user may have been banned, erased or merged since the token was signed, the session revoked.
_USER_IN_SESSION: Final = """
SELECT users.id, s.app_id, s.openid, unionid, nickname, avatar_url, phone, roles, status, users.created_at,
       last_login_at
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND users.status = 'active'
"""


async def user_in_session(database: Database, *, session_id: UUID, user_id: UUID) -> Mapping[str, Any] | None:
    """The user with the identity of this session, or None where it is revoked or the user may not use it.

    Raises: StorageUnavailable.
    """
    return await database.fetchrow(_USER_IN_SESSION, session_id, user_id)


_ATTEMPTS: Final = 3


class EndReason(StrEnum):
    """Why a session is no more."""

    REUSED = "reused"
    BANNED = "banned"
    SIGNED_OUT = "signed_out"


class Refusal(StrEnum):
    """Why a genuine refresh token is refused."""

    ERASED = "erased"
    DISABLED = "disabled"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REUSED = "reused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A use of a refresh token."""

    session_id: UUID
    generation: int
    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long a session lasts, in seconds."""

    unused: int
    at_most: int
    reuse_grace: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """A session whose refresh token has a successor."""

    generation: int
    """The successor's."""
    expires_at: datetime
    user: Mapping[str, Any]
    """The user, with the app_id and openid of the session."""


# The newest token (or a newer one: then this database is an older copy) makes way for its successor. Its
# immediate predecessor, within the grace, has that same successor. Any other one has been stolen, or its thief
# has been faster: the session ends. A concurrent use waits here for the row, then sees what the first has done.
#
# $1 session id  $2 generation of the token  $3 now  $4 start of the grace  $5 seconds to live unused
# $6 seconds to live at most  $7 ip  $8 user_agent  $9 id of the event, if there is one
_IS_NEWEST = "$2 >= s.generation"
_IS_GOOD = f"({_IS_NEWEST} OR ($2 = s.generation - 1 AND s.rotated_at >= $4))"
_ROTATE: Final = f"""
WITH used AS (
UPDATE sessions s
   SET generation = CASE WHEN {_IS_NEWEST} THEN $2 + 1 ELSE s.generation END,
       rotated_at = CASE WHEN {_IS_NEWEST} THEN $3 ELSE s.rotated_at END,
       expires_at = CASE WHEN {_IS_NEWEST}
                         THEN LEAST($3 + make_interval(secs => $5), s.created_at + make_interval(secs => $6))
                         ELSE s.expires_at END,
       last_used_at = CASE WHEN {_IS_GOOD} THEN $3 ELSE s.last_used_at END,
       ip = CASE WHEN {_IS_GOOD} THEN $7::text::inet ELSE s.ip END,
       user_agent = CASE WHEN {_IS_GOOD} THEN $8 ELSE s.user_agent END,
       revoked_at = CASE WHEN {_IS_GOOD} THEN NULL ELSE $3 END,
       revoked_reason = CASE WHEN {_IS_GOOD} THEN NULL ELSE '{EndReason.REUSED}' END,
       session_key = CASE WHEN {_IS_GOOD} THEN s.session_key END
  FROM users
 WHERE s.id = $1 AND users.id = s.user_id
   AND s.revoked_at IS NULL AND s.expires_at > $3 AND s.created_at + make_interval(secs => $6) > $3
   AND users.status = 'active'
RETURNING s.generation, s.expires_at, s.revoked_at IS NOT NULL AS is_reused, s.app_id, s.openid,
          users.id, unionid, nickname, avatar_url, phone, roles, status, users.created_at, last_login_at
), noted AS (
INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
SELECT $9, '{EventType.REFRESH_TOKEN_REUSED}', $3, '{SYSTEM}', id, app_id, $7::text::inet,
       jsonb_build_object('session_id', $1)
  FROM used WHERE is_reused
)
SELECT * FROM used
"""  # noqa: S608 - put together from the constants above

# $1 session id  $2 now  $3 seconds to live at most
_WHY_NOT: Final = """
SELECT status, revoked_at, LEAST(expires_at, s.created_at + make_interval(secs => $3)) <= $2 AS is_expired
  FROM sessions s JOIN users ON users.id = s.user_id WHERE s.id = $1
"""

_END: Final = """
UPDATE sessions SET revoked_at = $2, revoked_reason = $3, session_key = NULL WHERE id = $1 AND revoked_at IS NULL
RETURNING user_id
"""

_OPEN_SESSIONS: Final = """
SELECT id, app_id, user_agent, ip, created_at, last_used_at, expires_at FROM sessions
 WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
 ORDER BY last_used_at DESC, id DESC
"""

_BELONGS_TO: Final = "SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2"

_END_OTHERS: Final = text("""
    UPDATE sessions SET revoked_at = :now, revoked_reason = :reason, session_key = NULL
     WHERE user_id = :user_id AND revoked_at IS NULL AND id IS DISTINCT FROM :kept
    RETURNING expires_at > :now AS was_open
""")


async def rotate_refresh_token(
    database: Database, use: Use, *, lifetimes: Lifetimes, now: datetime
) -> Rotated | Refusal:
    """Give a refresh token its successor; a use that must not be ends the session. One statement, unless refused.

    Raises: StorageUnavailable.
    """
    for _ in range(_ATTEMPTS):
        row = await database.fetchrow(
            _ROTATE,
            use.session_id,
            use.generation,
            now,
            now - timedelta(seconds=lifetimes.reuse_grace),
            lifetimes.unused,
            lifetimes.at_most,
            use.ip,
            use.user_agent,
            uuid7(),
        )
        if row is not None:
            return Refusal.REUSED if row["is_reused"] else Rotated(row["generation"], row["expires_at"], row)
        refusal = await _why_not(database, use.session_id, lifetimes, now=now)
        if refusal is not None:
            return refusal
    raise StorageUnavailable("too many changes to this session at once")


async def end_session(database: Database, *, session_id: UUID, reason: EndReason, now: datetime) -> UUID | None:
    """End a session; its user's id, or None where it had ended before or never was. Raises: StorageUnavailable."""
    row = await database.fetchrow(_END, session_id, now, reason)
    return None if row is None else row["user_id"]


async def open_sessions(database: Database, user_id: UUID, *, now: datetime) -> Sequence[Mapping[str, Any]]:
    """Where a user is logged in, the last used first. Raises: StorageUnavailable."""
    return await database.fetch(_OPEN_SESSIONS, user_id, now)


async def session_belongs_to(database: Database, *, session_id: UUID, user_id: UUID) -> bool:
    """Whether this user has, or had, that session. Raises: StorageUnavailable."""
    return await database.fetchrow(_BELONGS_TO, session_id, user_id) is not None


async def end_sessions(
    transaction: AsyncConnection,
    user_id: UUID,
    *,
    reason: EndReason,
    actor: str,
    now: datetime,
    kept: UUID | None = None,
    ip: str | None = None,
) -> int:
    """End every session of a user but the one to be kept, and record it; how many were open."""
    values = {"now": now, "reason": reason, "user_id": user_id, "kept": kept}
    ended: int = sum((await transaction.execute(_END_OTHERS, values)).scalars())
    if ended:
        data = {"reason": reason, "sessions": ended}
        event = NewEvent(type=EventType.SESSIONS_ENDED, at=now, actor=actor, user_id=user_id, ip=ip, data=data)
        await record_event(transaction, event)
    return ended


async def _why_not(database: Database, session_id: UUID, lifetimes: Lifetimes, *, now: datetime) -> Refusal | None:
    """None where there is no reason by now: the session was being linked to another user, or a ban lifted."""
    row = await database.fetchrow(_WHY_NOT, session_id, now, lifetimes.at_most)
    if row is None:
        return Refusal.ERASED
    if row["status"] == UserStatus.DISABLED:
        return Refusal.DISABLED
    if row["revoked_at"] is not None:
        return Refusal.REVOKED
    return Refusal.EXPIRED if row["is_expired"] else None
