"""The statements that change nicknames and picture URLs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.core.trail import Actor
from wxauth.server.core.users import ORIGIN, PROFILE, USER, UserFields, UserInSession
from wxauth.server.limits.rows import PROFILE_CHANGES
from wxauth.server.phones.rows import remove_phone
from wxauth.server.users.user_rows import record_profile_change

# Read and locked first, so that the event names only the fields that really change.
_LOCK: Final = Statement[UserFields](f"SELECT {USER} FROM users WHERE id = :user_id FOR NO KEY UPDATE")  # noqa: S608 - put together from constants
_CHANGE: Final = Statement[UserFields](f"""
UPDATE users SET nickname = CASE WHEN :has_nickname THEN :nickname ELSE nickname END,
                 avatar_url = CASE WHEN :has_avatar_url THEN :avatar_url ELSE avatar_url END,
                 nickname_from = CASE WHEN :has_nickname AND :nickname IS DISTINCT FROM nickname
                                      THEN {ORIGIN} ELSE nickname_from END,
                 avatar_url_from = CASE WHEN :has_avatar_url AND :avatar_url IS DISTINCT FROM avatar_url
                                        THEN {ORIGIN} ELSE avatar_url_from END
 WHERE id = :user_id
RETURNING {USER}
""")  # noqa: S608 - put together from constants


async def store_profile(
    database: Database, user: UserInSession, changes: Mapping[str, str | None], *, now: datetime
) -> UserFields | None:
    """Set those of `nickname` and `avatar_url` that are given, and remove the phone number if that is. It must be None.

    Returns the changed user; None if the user is gone.

    Raises: RateLimited.
    """
    # A transaction is never retried after a lost connection: a retry could overwrite a withdrawal made in between.
    async with database.begin() as transaction:
        before = await transaction.row(_LOCK, user_id=user.id)
        if before is None:
            return None
        if "phone" in changes:
            await remove_phone(transaction, user.id, by=Actor(str(user.id)), app_id=user.app_id, now=now)
        locked = UserInSession.of(before, app_id=user.app_id, openid=user.openid)
        return await change_profile_of(transaction, locked, changes, now=now)


async def change_profile_of(
    transaction: Transaction,
    user: UserInSession,
    changes: Mapping[str, str | None],
    *,
    ip: str | None = None,
    now: datetime,
) -> UserFields | None:
    """Set those of `nickname` and `avatar_url` that are given, of a locked user. A real change counts.

    Raises: RateLimited, before anything is written.
    """
    fields = [name for name in PROFILE if name in changes and changes[name] != getattr(user, name)]
    if fields:
        await PROFILE_CHANGES.count_user(transaction, user, now=now)
        await record_profile_change(transaction, user.id, fields, app_id=user.app_id, ip=ip, now=now)
    return await transaction.row(
        _CHANGE,
        user_id=user.id,
        has_nickname="nickname" in changes,
        nickname=changes.get("nickname"),
        has_avatar_url="avatar_url" in changes,
        avatar_url=changes.get("avatar_url"),
        app_id=user.app_id,
        openid=user.openid,
    )
