"""The statements that lock and set the standing of users, and note whose risk WeChat has judged."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.users import IS_ADMINISTRATOR, Person


class LockedUser(SQLModel):
    """The standing of a locked user."""

    id: UUID
    status: Literal["active", "disabled"]
    roles: list[str]
    ban_reason: str | None
    banned_until: datetime | None
    erase_at: datetime | None


_COLUMNS: Final = ", ".join(LockedUser.model_fields)
# In the order of ids, to avoid deadlocks.
_LOCK: Final = Statement[LockedUser](
    f"SELECT {_COLUMNS} FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR UPDATE"  # noqa: S608 - put together from constants
)
# Also locks all administrators, in the same order. Decides the race of two administrators who demote each other: the
# second one waits, and then sees that no other is left.
_LOCK_WITH_ADMINISTRATORS: Final = Statement[LockedUser](f"""
SELECT {_COLUMNS}
  FROM users WHERE id = ANY (:user_ids) OR ({IS_ADMINISTRATOR})
 ORDER BY id FOR UPDATE
""")  # noqa: S608 - put together from constants
_ARE_ADMINISTRATORS: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM users WHERE id = ANY (:user_ids) AND {IS_ADMINISTRATOR})
""")  # noqa: S608 - put together from constants
# A concurrent change of such a ban takes precedence: a locked row is skipped until the next time, and a row that has
# just been changed is checked again.
_LOCK_ENDED_BANS: Final = Statement[LockedUser](f"""
SELECT {_COLUMNS}
  FROM users WHERE banned_until <= :now ORDER BY banned_until LIMIT :size
   FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - put together from constants
_SET: Final = Statement[Nothing]("""
UPDATE users SET status = :status, roles = :roles, ban_reason = :ban_reason, banned_until = :banned_until,
                 ban_from = CASE WHEN ban_reason IS NOT DISTINCT FROM :ban_reason THEN ban_from END
 WHERE id = :user_id
""")


async def lock_users(
    transaction: Transaction, user_ids: Sequence[UUID], *, with_administrators: bool = False
) -> Sequence[LockedUser]:
    """Lock these users until the transaction ends. Returns the standing of those that exist.

    `with_administrators` also locks and returns all active administrators, so that they stay administrators meanwhile.
    """
    return await transaction.rows(_LOCK_WITH_ADMINISTRATORS if with_administrators else _LOCK, user_ids=user_ids)


async def some_are_administrators(transaction: Transaction, user_ids: Sequence[UUID]) -> bool:
    """Whether one of these users is an active administrator now. It locks nobody."""
    return bool(await transaction.value(_ARE_ADMINISTRATORS, user_ids=user_ids))


async def lock_users_whose_ban_has_ended(transaction: Transaction, *, now: datetime, size: int) -> Sequence[LockedUser]:
    """Lock users whose ban has ended, the earliest end first."""
    return await transaction.rows(_LOCK_ENDED_BANS, now=now, size=size)


async def set_standing(
    transaction: Transaction,
    user_id: UUID,
    *,
    status: str,
    roles: Sequence[str],
    ban_reason: str | None,
    banned_until: datetime | None,
) -> None:
    """Set the standing of a locked user."""
    await transaction.run(
        _SET, user_id=user_id, status=status, roles=roles, ban_reason=ban_reason, banned_until=banned_until
    )


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
