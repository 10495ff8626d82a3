"""Removing phone numbers: people remove their own, staff remove those of others."""

from datetime import datetime
from uuid import UUID

from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor
from wxauth.server.phones.rows import remove_phone
from wxauth.server.users.account import Caller, check_session
from wxauth.server.users.admin import decide_about
from wxauth.server.users.standing import Standing, lock_standing

log = get_logger()


async def remove_my_phone(database: Database, clock: Clock, caller: Caller) -> None:
    """Remove the caller's number. Idempotent. Raises: InvalidToken."""
    user_id, now = caller.user.id, clock()
    async with database.begin() as transaction:
        await lock_standing(transaction, user_id)
        await check_session(transaction, caller, now=now)
        is_removed = await remove_phone(
            transaction, user_id, by=Actor(str(user_id)), app_id=caller.user.app_id, now=now
        )
    if is_removed:
        log.info("phone_removed", user_id=user_id)


async def remove_phone_of(
    database: Database, user_id: UUID, *, by: Actor, spares_staff: bool = False, now: datetime
) -> None:
    """Remove a user's number. Idempotent. A former id means the user that remains.

    Raises: NotFound, InsufficientRole.
    """

    async def remove(transaction: Transaction, remaining_id: UUID, _: Standing) -> UUID:
        await remove_phone(transaction, remaining_id, by=by, now=now)
        return remaining_id

    remaining_id = await decide_about(database, user_id, remove, spares_staff=spares_staff)
    log.info("phone_removed", user_id=remaining_id, actor=by.name)
