"""The statements about former ids: those of users who were merged into another one."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement

# The user of a present or former id.
_CURRENT: Final = Statement[UUID]("""
SELECT id FROM users WHERE id = :user_id
 UNION ALL
SELECT user_id FROM former_users WHERE id = :user_id
 LIMIT 1
""")
_REMAINING: Final = Statement[UUID]("SELECT user_id FROM former_users WHERE id = :former_id")
_FORMER_EXTERNAL_IDS: Final = Statement[str](
    "SELECT external_id FROM former_external_ids WHERE user_id = :user_id ORDER BY external_id"
)
_FORMER: Final = Statement[UUID]("SELECT id FROM former_users WHERE user_id = :user_id ORDER BY merged_at, id")


async def current_user(asked: Database | Transaction, user_id: UUID) -> UUID | None:
    """The user of a present or former id; None if there is none."""
    return await asked.value(_CURRENT, user_id=user_id)


async def remaining_user(asked: Database | Transaction, former_id: UUID) -> UUID | None:
    """The user into whom this one was merged; None if this id was never merged."""
    return await asked.value(_REMAINING, former_id=former_id)


async def former_ids(asked: Database | Transaction, user_id: UUID) -> Sequence[UUID]:
    """The ids that were merged into this user, the first merge first."""
    return await asked.values(_FORMER, user_id=user_id)


async def former_external_ids(asked: Database | Transaction, user_id: UUID) -> Sequence[str]:
    """The external ids of users who were merged into this one because of WeChat's unionid."""
    return await asked.values(_FORMER_EXTERNAL_IDS, user_id=user_id)
