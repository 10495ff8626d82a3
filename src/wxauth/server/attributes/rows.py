"""The statements on the attributes of users."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement

_READ: Final = Statement[dict[str, Any] | None]("SELECT attributes FROM users WHERE id = :user_id")
# Null means the same as empty: most users have none, and a null costs a login nothing.
_WRITE: Final = Statement[Nothing]("UPDATE users SET attributes = NULLIF(:attributes::jsonb, '{}') WHERE id = :user_id")


async def read_attributes(transaction: Transaction, user_id: UUID) -> Mapping[str, Any]:
    """The attributes of a user; none if there is no such user."""
    return await transaction.value(_READ, user_id=user_id) or {}


async def write_attributes(transaction: Transaction, user_id: UUID, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a user."""
    await transaction.run(_WRITE, user_id=user_id, attributes=attributes)
