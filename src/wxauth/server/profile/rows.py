"""The statements that change a person's name and picture, and clear what the person withdraws."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.tables import USER, UserInSession, UserRow
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.limits.rates import PROFILE_CHANGES

# Read and locked first, so that the event names only the fields that really change. $1 user id
_BEFORE: Final = "SELECT nickname, avatar_url FROM users WHERE id = $1 FOR NO KEY UPDATE"
# $1 user id  $2 whether the nickname changes  $3 to what  $4 whether the picture changes  $5 to what
_CHANGE: Final = f"""
UPDATE users SET nickname = CASE WHEN $2 THEN $3 ELSE nickname END,
                 avatar_url = CASE WHEN $4 THEN $5 ELSE avatar_url END
 WHERE id = $1
RETURNING {USER}
"""  # noqa: S608 - put together from constants
# $1 user id  $2 names of columns
_CLEAR: Final = """
WITH before AS (
    SELECT id, phone FROM users WHERE id = $1
)
UPDATE users SET nickname = CASE WHEN 'nickname' = ANY ($2::text[]) THEN NULL ELSE nickname END,
                 avatar_url = CASE WHEN 'avatar_url' = ANY ($2::text[]) THEN NULL ELSE avatar_url END,
                 phone = CASE WHEN 'phone' = ANY ($2::text[]) THEN NULL ELSE users.phone END,
                 phone_proved_at = CASE WHEN 'phone' = ANY ($2::text[]) THEN NULL ELSE phone_proved_at END
  FROM before
 WHERE users.id = before.id
RETURNING before.phone IS NOT NULL AND users.phone IS NULL
"""


async def change_profile(
    database: Database, user: UserInSession, changes: Mapping[str, str | None], *, now: datetime
) -> UserRow | None:
    """Set those of `nickname` and `avatar_url` that are named; the changed user, or None if the user is gone.

    Raises: RateLimited, StorageUnavailable.
    """
    # A transaction is never retried after a lost connection. A retry could overwrite a withdrawal made in between.
    async with database.begin() as transaction:
        before = await transaction.fetchrow(_BEFORE, user["id"])
        changed: UserRow | None = await transaction.fetchrow(
            _CHANGE,
            user["id"],
            "nickname" in changes,
            changes.get("nickname"),
            "avatar_url" in changes,
            changes.get("avatar_url"),
        )
        if changed is not None:
            fields = [name for name, value in before.items() if changed[name] != value]  # type: ignore[literal-required]  # two of them
            if fields:
                await PROFILE_CHANGES.count_user(transaction, user, now=now)
                await record_profile_change(transaction, user["id"], fields, app_id=user["app_id"], now=now)
    return changed


async def record_profile_change(
    transaction: Transaction, user_id: UUID, fields: Sequence[str], *, app_id: str, now: datetime
) -> None:
    """Record which of `nickname` and `avatar_url` a person has changed."""
    await record_event(
        transaction,
        EventType.PROFILE_CHANGED,
        by=Actor(str(user_id)),
        at=now,
        user_id=user_id,
        app_id=app_id,
        data={"fields": fields},
    )


async def clear_fields(transaction: Transaction, user_id: UUID, fields: Sequence[str]) -> bool:
    """Clear those of `nickname`, `avatar_url` and `phone` that are named; whether the user has lost a phone number."""
    return bool(await transaction.fetchval(_CLEAR, user_id, fields))
