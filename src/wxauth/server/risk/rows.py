"""The statements for new users whose risk rank is unknown or was just learnt."""

from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.users.person import Person

_NOTE_JUDGED: Final = Statement[Nothing](
    "UPDATE users SET unjudged_since = NULL WHERE id = :user_id AND unjudged_since IS NOT NULL"
)
_IS_BANNED: Final = Statement[bool]("""
SELECT status = 'disabled' AS is_banned FROM identities JOIN users ON users.id = user_id
 WHERE (app_id, openid) = (:app_id, :openid)
""")


async def note_judged(database: Database, user_id: UUID) -> None:
    """Record that WeChat need not be asked about this user again."""
    await database.run(_NOTE_JUDGED, user_id=user_id)


async def note_judged_in(transaction: Transaction, user_id: UUID) -> None:
    """As `note_judged`, in the transaction that acts on the rank."""
    await transaction.run(_NOTE_JUDGED, user_id=user_id)


async def is_banned(database: Database, person: Person) -> bool:
    """Whether the identity's user is banned now; False if there is none."""
    return bool(await database.value(_IS_BANNED, app_id=person.app_id, openid=person.openid))
