"""The statements that change a person's name and picture, and forget what is withdrawn."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.tables import USER, UserRow

# $1 user id  $2 whether the nickname changes  $3 to what  $4 whether the picture changes  $5 to what
_CHANGE: Final = f"""
UPDATE users SET nickname = CASE WHEN $2 THEN $3 ELSE nickname END,
                 avatar_url = CASE WHEN $4 THEN $5 ELSE avatar_url END
 WHERE id = $1
RETURNING {USER}
"""  # noqa: S608 - put together from constants
# $1 user id  $2 names of columns
_CLEAR: Final = """
UPDATE users SET nickname = CASE WHEN 'nickname' = ANY ($2::text[]) THEN NULL ELSE nickname END,
                 avatar_url = CASE WHEN 'avatar_url' = ANY ($2::text[]) THEN NULL ELSE avatar_url END,
                 phone = CASE WHEN 'phone' = ANY ($2::text[]) THEN NULL ELSE phone END
 WHERE id = $1
"""


async def change_profile(database: Database, user_id: UUID, changes: Mapping[str, str | None]) -> UserRow | None:
    """Set `nickname` and `avatar_url` where they are named; the user as they are then, None where they are gone.

    Raises: StorageUnavailable.
    """
    # In a transaction, which is never sent again: it would overwrite what has been written since, as a withdrawal.
    async with database.begin() as transaction:
        user: UserRow | None = await transaction.fetchrow(
            _CHANGE,
            user_id,
            "nickname" in changes,
            changes.get("nickname"),
            "avatar_url" in changes,
            changes.get("avatar_url"),
        )
    return user


async def clear_fields(transaction: Transaction, user_id: UUID, fields: Sequence[str]) -> None:
    """Forget what is named of `nickname`, `avatar_url` and `phone`."""
    await transaction.execute(_CLEAR, user_id, fields)
