"""The statements that lock and set how users stand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement


class LockedUser(TypedDict):
    """How a user stands, who is locked."""

    id: UUID
    status: str
    roles: list[str]
    ban_reason: str | None
    banned_until: datetime | None


# In the order of ids, so that two of these never wait for each other.
_LOCK: Final = Statement[LockedUser](
    "SELECT id, status, roles, ban_reason, banned_until FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR UPDATE"
)
# Locks all administrators too, in the same order. Settles the race of two administrators who demote each other: the
# second one waits, and then sees that no other is left.
_LOCK_WITH_ADMINISTRATORS: Final = Statement[LockedUser]("""
SELECT id, status, roles, ban_reason, banned_until
  FROM users WHERE id = ANY (:user_ids) OR ('admin' = ANY (roles) AND status = 'active')
 ORDER BY id FOR UPDATE
""")
_ARE_ADMINISTRATORS: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM users WHERE id = ANY (:user_ids) AND 'admin' = ANY (roles) AND status = 'active')
""")
# Whoever else changes one of these bans at this moment decides about it: a locked row is left to the next look, and one
# that has just been changed is checked again.
_LOCK_OVER: Final = Statement[LockedUser]("""
SELECT id, status, roles, ban_reason, banned_until
  FROM users WHERE banned_until <= :now ORDER BY banned_until LIMIT :size
   FOR UPDATE SKIP LOCKED
""")
_SET: Final = Statement[Nothing]("""
UPDATE users SET status = :status, roles = :roles, ban_reason = :ban_reason, banned_until = :banned_until
 WHERE id = :user_id
""")


async def lock_users(
    transaction: Transaction, user_ids: Sequence[UUID], *, with_administrators: bool = False
) -> Sequence[LockedUser]:
    """Lock these users until the transaction ends; how those stand who exist.

    `with_administrators` locks all active administrators too, so that they stay administrators meanwhile.
    """
    return await transaction.rows(_LOCK_WITH_ADMINISTRATORS if with_administrators else _LOCK, user_ids=user_ids)


async def some_are_administrators(transaction: Transaction, user_ids: Sequence[UUID]) -> bool:
    """Whether one of these users is an active administrator at this moment. Nobody is locked."""
    return bool(await transaction.value(_ARE_ADMINISTRATORS, user_ids=user_ids))


async def lock_users_whose_ban_is_over(transaction: Transaction, *, now: datetime, size: int) -> Sequence[LockedUser]:
    """Lock users whose ban has ended, the earliest end first."""
    return await transaction.rows(_LOCK_OVER, now=now, size=size)


async def set_standing(
    transaction: Transaction,
    user_id: UUID,
    *,
    status: str,
    roles: Sequence[str],
    ban_reason: str | None,
    banned_until: datetime | None,
) -> None:
    """Set how a locked user stands."""
    await transaction.run(
        _SET, user_id=user_id, status=status, roles=roles, ban_reason=ban_reason, banned_until=banned_until
    )
