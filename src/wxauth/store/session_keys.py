"""The session_keys that WeChat gave, each sealed with the login it came with.

WeChat takes one for each identity, the one that it gave last: that of the newest session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.core.database import Database


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What may open data that reaches a session."""

    app_id: str
    openid: str
    newest: bytes | None
    """Sealed, as is the other one."""
    own: bytes | None


@dataclass(frozen=True, slots=True)
class CurrentKey:
    """The session_key that an identity was given last; None where no session has one any more."""

    app_id: str
    openid: str
    session_id: UUID | None
    sealed: bytes | None


# As sessions.user_in_session has it: the user may have been banned, erased or merged, the session revoked.
_IN_SESSION: Final = """
SELECT s.app_id, s.openid,
       (SELECT newest.session_key FROM sessions newest
         WHERE newest.user_id = s.user_id AND newest.app_id = s.app_id AND newest.openid = s.openid
           AND newest.session_key IS NOT NULL
         ORDER BY newest.id DESC LIMIT 1) AS newest,
       s.session_key AS own
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND users.status = 'active'
"""
_OF_USER: Final = """
SELECT i.app_id, i.openid, newest.id AS session_id, newest.session_key AS sealed
  FROM identities i
  LEFT JOIN LATERAL (
       SELECT s.id, s.session_key FROM sessions s
        WHERE s.user_id = i.user_id AND s.app_id = i.app_id AND s.openid = i.openid AND s.session_key IS NOT NULL
        ORDER BY s.id DESC LIMIT 1) newest ON true
 WHERE i.user_id = $1
 ORDER BY i.created_at, i.app_id, i.openid
"""
# A login meanwhile has a session of its own, which stays the newest. What else may have come between is the
# session's end, after which it has no key, and the former key's being sealed anew, which is why it is not compared.
_REPLACE: Final = text("""
    UPDATE sessions SET session_key = :sealed WHERE id = :session_id AND session_key IS NOT NULL RETURNING user_id
""")


async def keys_in_session(database: Database, *, session_id: UUID, user_id: UUID) -> SessionKeys | None:
    """What this session may be sent data for; None where it is revoked or the user may not use it.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_IN_SESSION, session_id, user_id)
    return None if row is None else SessionKeys(**row)


async def current_keys(database: Database, user_id: UUID) -> Sequence[CurrentKey]:
    """One for each identity of a user, the oldest first; none where there is no such user.

    Raises: StorageUnavailable.
    """
    return [CurrentKey(**row) for row in await database.fetch(_OF_USER, user_id)]


async def replace_key(transaction: AsyncConnection, session_id: UUID, sealed: bytes) -> UUID | None:
    """Store a session's key in place of the former one; the session's user, or None where it has none any more."""
    replaced: UUID | None = (
        await transaction.execute(_REPLACE, {"session_id": session_id, "sealed": sealed})
    ).scalar_one_or_none()
    return replaced
