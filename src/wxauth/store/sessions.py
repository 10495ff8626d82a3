"""Sessions, as their owner asks for them."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from wxauth.store.database import Database

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
