"""The statements that change nicknames and picture URLs, and clear withdrawn data."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import ORIGIN, USER, UserFields, UserInSession
from wxauth.server.limits.rates import PROFILE_CHANGES
from wxauth.server.users.user_rows import record_profile_change


class _Profile(TypedDict):
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
_CLEAR: Final = Statement[bool]("""
WITH before AS (
    SELECT id, phone FROM users WHERE id = :user_id
)
UPDATE users SET nickname = CASE WHEN 'nickname' = ANY (:fields::text[]) THEN NULL ELSE nickname END,
                 avatar_url = CASE WHEN 'avatar_url' = ANY (:fields::text[]) THEN NULL ELSE avatar_url END,
                 phone = CASE WHEN 'phone' = ANY (:fields::text[]) THEN NULL ELSE users.phone END,
                 phone_verified_at = CASE WHEN 'phone' = ANY (:fields::text[]) THEN NULL ELSE phone_verified_at END
  FROM before
 WHERE users.id = before.id
RETURNING before.phone IS NOT NULL AND users.phone IS NULL
""")


async def store_profile(
    database: Database, user: UserInSession, changes: Mapping[str, str | None], *, now: datetime
) -> UserFields | None:
    """Set those of `nickname` and `avatar_url` that are given. Returns the changed user; None if the user is gone.

    Raises: RateLimited, StorageUnavailable.
    """
    # A transaction is never retried after a lost connection: a retry could overwrite a withdrawal made in between.
    async with database.begin() as transaction:
        before = await transaction.row(_BEFORE, user_id=user.id)
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
            fields = [name for name, value in before.items() if getattr(changed, name) != value]
            if fields:
                await PROFILE_CHANGES.count_user(transaction, user, now=now)
                await record_profile_change(transaction, user.id, fields, app_id=user.app_id, now=now)
    return changed


async def clear_fields(transaction: Transaction, user_id: UUID, fields: Sequence[str]) -> bool:
    """Clear those of `nickname`, `avatar_url` and `phone` that are named. Returns whether a phone was cleared."""
    return bool(await transaction.value(_CLEAR, user_id=user_id, fields=fields))
