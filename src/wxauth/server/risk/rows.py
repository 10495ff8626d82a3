"""The statements for new users whose risk rank is unknown or was just learnt."""

from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement

_NOTE_JUDGED: Final = Statement[Nothing](
    "UPDATE users SET unjudged_since = NULL WHERE id = :user_id AND unjudged_since IS NOT NULL"
)
_IS_BANNED: Final = Statement[bool]("SELECT status = 'disabled' AS is_banned FROM users WHERE id = :user_id")


async def note_judged(database: Database, user_id: UUID) -> None:
    """Record that WeChat need not be asked about this user again. Raises: StorageUnavailable."""
    await database.run(_NOTE_JUDGED, user_id=user_id)


async def note_judged_in(transaction: Transaction, user_id: UUID) -> None:
    """As `note_judged`, in the transaction that acts on the rank."""
    await transaction.run(_NOTE_JUDGED, user_id=user_id)


async def is_banned(database: Database, user_id: UUID) -> bool:
    """Whether this user is banned now; False if there is no such user. Raises: StorageUnavailable."""
    return bool(await database.value(_IS_BANNED, user_id=user_id))
