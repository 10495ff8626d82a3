"""The statements that lock and set how users stand."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from wxauth.server.core.database import Transaction

# In the order of ids, so that two of these never wait for each other.
_LOCK: Final = "SELECT id, status, roles FROM users WHERE id = ANY ($1) ORDER BY id FOR UPDATE"
# Locks all administrators too, in the same order. Settles the race of two administrators who demote each other: the
# second one waits, and then sees that no other is left.
_LOCK_WITH_ADMINISTRATORS: Final = """
SELECT id, status, roles FROM users WHERE id = ANY ($1) OR ('admin' = ANY (roles) AND status = 'active')
 ORDER BY id FOR UPDATE
"""
_ARE_ADMINISTRATORS: Final = """
SELECT EXISTS (SELECT FROM users WHERE id = ANY ($1) AND 'admin' = ANY (roles) AND status = 'active')
"""
_SET: Final = "UPDATE users SET status = $2, roles = $3 WHERE id = $1"


async def lock_users(
    transaction: Transaction, user_ids: Sequence[UUID], *, with_administrators: bool = False
) -> Sequence[Any]:
    """Lock these users until the transaction ends; `id`, `status` and `roles` of those who exist.

    `with_administrators` locks all active administrators too, so that they stay administrators meanwhile.
    """
    rows: Sequence[Any] = await transaction.fetch(_LOCK_WITH_ADMINISTRATORS if with_administrators else _LOCK, user_ids)
    return rows


async def some_are_administrators(transaction: Transaction, user_ids: Sequence[UUID]) -> bool:
    """Whether one of these users is an active administrator at this moment. Nobody is locked."""
    return bool(await transaction.fetchval(_ARE_ADMINISTRATORS, user_ids))


async def set_status_and_roles(transaction: Transaction, user_id: UUID, status: str, roles: Sequence[str]) -> None:
    """Set the status and roles of a locked user."""
    await transaction.execute(_SET, user_id, status, roles)
