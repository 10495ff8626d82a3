"""The statements that lock the user who logs in to a site, and that find out whether this user is staff.

After a merge, the remaining user is locked.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from wxauth.core.database import Transaction
from wxauth.core.statements import Statement
from wxauth.core.users import MAY_LOG_IN, USER, UserInSession
from wxauth.limits.queries import SITES
from wxauth_guard.errors import InvalidToken

if TYPE_CHECKING:  # because `callers` imports FastAPI, which commands do not need
    from wxauth.users.callers import Caller

_MAX_LOCK_ATTEMPTS: Final = 3  # An attempt fails only if a merge or a split gives the identity to another user.

AnyUser = TypeVar("AnyUser", bound=UserInSession)

_LOCK_USER: Final = Statement[UUID]("""
SELECT users.id FROM identities i JOIN users ON users.id = i.user_id WHERE i.app_id = :app_id AND i.openid = :openid
   FOR NO KEY UPDATE OF users -- excludes other decisions about the user, but no new rows that refer to the user
""")
_USER_OF_IDENTITY: Final = Statement[UserInSession](f"""
SELECT {USER}, i.app_id, i.openid
  FROM identities i JOIN users ON users.id = i.user_id
 WHERE i.app_id = :app_id AND i.openid = :openid
   AND {MAY_LOG_IN}
""")
_USER_IN_SESSION: Final = Statement[UserInSession](f"""
SELECT {USER}, s.app_id, s.openid
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = :session_id AND s.revoked_at IS NULL AND s.expires_at > :now AND {MAY_LOG_IN}
""")
# Whether the user of this identity, or of this unionid, has one of these roles.
HAS_ANY_ROLE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users
     WHERE roles && :roles::text[]
       AND id IN (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid
                   UNION ALL SELECT user_id FROM unionids WHERE unionid = :unionid
                   -- an import may have stored the unionid in place of the openid, and nobody has logged in with it yet
                   UNION ALL SELECT user_id FROM identities
                              WHERE app_id = :app_id AND openid = :unionid AND awaits_login))
""")


async def lock_user(transaction: Transaction, *, app_id: str | None, openid: str | None) -> UserInSession | None:
    """Lock and return the user of an identity; None if there is none, or if the user cannot log in."""
    identity = {"app_id": app_id, "openid": openid}
    return await lock_with_user(transaction, _LOCK_USER, identity, _USER_OF_IDENTITY, identity)


async def lock_caller(transaction: Transaction, caller: "Caller", *, now: datetime) -> UserInSession | None:
    """Lock and return the user of a caller's session; None if it has ended, or if the user can no longer log in."""
    identity = {"app_id": caller.user.app_id, "openid": caller.user.openid}
    session = {"session_id": caller.session_id, "now": now}
    return await lock_with_user(transaction, _LOCK_USER, identity, _USER_IN_SESSION, session)


async def lock_and_count_caller(transaction: Transaction, caller: "Caller", *, now: datetime) -> UserInSession:
    """Lock and return the user who owns the phone's session now, and count a login to a site for this user.

    Raises: InvalidToken, if the session has ended, or the user can no longer log in; RateLimited.
    """
    user = await lock_caller(transaction, caller, now=now)
    if user is None:
        raise InvalidToken("the session has ended")
    await SITES.count_user(transaction, user, now=now)
    return user


async def lock_with_user(
    transaction: Transaction,
    lock: Statement[UUID],
    lock_parameters: Mapping[str, object],
    read: Statement[AnyUser],
    read_parameters: Mapping[str, object],
) -> AnyUser | None:
    """Lock a user with the statement `lock`, and return the row that `read` finds for the same user.

    Return None if `read` finds no row, or if the user has changed between the two statements in every attempt.
    """
    for _ in range(_MAX_LOCK_ATTEMPTS):
        # `lock` finds no user if it has waited for a merge, which has given the identity to the remaining user.
        locked_id = await transaction.value(lock, **lock_parameters)
        user = await transaction.row(read, **read_parameters)
        if user is None or user.id == locked_id:
            return user
    return None
