"""The statements for people who leave: who have asked to be erased, and may still change their mind."""

from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement

# The caller has locked the user.
_SET: Final = Statement[Nothing]("UPDATE users SET erase_at = :erase_at WHERE id = :user_id")
# A row that is locked is skipped until the next time, because the person may just be staying. A row that has just been
# changed is checked again. A ban would end with the erasure: who is banned stays until the ban is over.
_LOCK_NEXT_DUE: Final = Statement[UUID]("""
SELECT id FROM users WHERE erase_at <= :now AND status = 'active' ORDER BY erase_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")


async def set_erase_at(transaction: Transaction, user_id: UUID, erase_at: datetime | None) -> None:
    """Set when a locked user is erased; None: not at all."""
    await transaction.run(_SET, user_id=user_id, erase_at=erase_at)


async def lock_next_due(transaction: Transaction, *, now: datetime) -> UUID | None:
    """Lock a user whose time has come, the earliest first; None if there is none."""
    return await transaction.value(_LOCK_NEXT_DUE, now=now)
