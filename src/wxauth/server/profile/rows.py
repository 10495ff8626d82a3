"""The statements that change nicknames and picture URLs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlmodel import SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement
from wxauth.server.core.trail import Actor
from wxauth.server.core.users import ORIGIN, PROFILE, USER, UserFields, UserInSession
from wxauth.server.limits.rates import PROFILE_CHANGES
from wxauth.server.phones.rows import remove_phone
from wxauth.server.users.user_rows import record_profile_change


class _Profile(SQLModel):
    nickname: str | None
    avatar_url: str | None


# Read and locked first, so that the event names only the fields that really change.
_BEFORE: Final = Statement[_Profile]("SELECT nickname, avatar_url FROM users WHERE id = :user_id FOR NO KEY UPDATE")
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

    Raises: RateLimited, StorageUnavailable.
    """
    # A transaction is never retried after a lost connection: a retry could overwrite a withdrawal made in between.
    async with database.begin() as transaction:
        before = await transaction.row(_BEFORE, user_id=user.id)
        if before is not None and "phone" in changes:
            await remove_phone(transaction, user.id, by=Actor(str(user.id)), app_id=user.app_id, now=now)
        changed: UserFields | None = await transaction.row(
            _CHANGE,
            user_id=user.id,
            has_nickname="nickname" in changes,
            nickname=changes.get("nickname"),
            has_avatar_url="avatar_url" in changes,
            avatar_url=changes.get("avatar_url"),
            app_id=user.app_id,
            openid=user.openid,
        )
        if before is not None and changed is not None:
            fields = [name for name in PROFILE if getattr(before, name) != getattr(changed, name)]
            if fields:
                await PROFILE_CHANGES.count_user(transaction, user, now=now)
                await record_profile_change(transaction, user.id, fields, app_id=user.app_id, now=now)
    return changed
