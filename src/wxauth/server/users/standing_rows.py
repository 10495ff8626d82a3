"""The statements that lock and set how users stand."""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement


class LockedUser(TypedDict):
    """How a user stands, who is locked."""

    id: UUID
    status: str
    roles: list[str]


# In the order of ids, so that two of these never wait for each other.
_LOCK: Final = Statement[LockedUser](
    "SELECT id, status, roles FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR UPDATE"
)
# Locks all administrators too, in the same order. Settles the race of two administrators who demote each other: the
# second one waits, and then sees that no other is left.
_LOCK_WITH_ADMINISTRATORS: Final = Statement[LockedUser]("""
SELECT id, status, roles FROM users WHERE id = ANY (:user_ids) OR ('admin' = ANY (roles) AND status = 'active')
 ORDER BY id FOR UPDATE
""")
_ARE_ADMINISTRATORS: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM users WHERE id = ANY (:user_ids) AND 'admin' = ANY (roles) AND status = 'active')
""")
_SET: Final = Statement[Nothing]("UPDATE users SET status = :status, roles = :roles WHERE id = :user_id")


async def lock_users(
    transaction: Transaction, user_ids: Sequence[UUID], *, with_administrators: bool = False
) -> Sequence[LockedUser]:
    """Lock these users until the transaction ends; `id`, `status` and `roles` of those who exist.

    `with_administrators` locks all active administrators too, so that they stay administrators meanwhile.
    """
    return await transaction.rows(_LOCK_WITH_ADMINISTRATORS if with_administrators else _LOCK, user_ids=user_ids)


async def some_are_administrators(transaction: Transaction, user_ids: Sequence[UUID]) -> bool:
    """Whether one of these users is an active administrator at this moment. Nobody is locked."""
    return bool(await transaction.value(_ARE_ADMINISTRATORS, user_ids=user_ids))


async def set_status_and_roles(transaction: Transaction, user_id: UUID, status: str, roles: Sequence[str]) -> None:
    """Set the status and roles of a locked user."""
    await transaction.run(_SET, user_id=user_id, status=status, roles=roles)
