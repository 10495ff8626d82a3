"""Removing phone numbers: people remove their own, staff remove those of others."""

from datetime import datetime
from uuid import UUID

from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor
from wxauth.server.phones.rows import remove_phone
from wxauth.server.users.account import Caller, locked_caller
from wxauth.server.users.admin import locked_remaining

log = get_logger()


async def remove_my_phone(database: Database, clock: Clock, caller: Caller) -> None:
    """Remove the caller's number. Idempotent. Raises: InvalidToken."""
    user_id, now = caller.user.id, clock()
    async with locked_caller(database, caller, now=now) as transaction:
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
    async with locked_remaining(database, user_id, spares_staff=spares_staff) as (transaction, remaining_id, _):
        await remove_phone(transaction, remaining_id, by=by, now=now)
    log.info("phone_removed", user_id=remaining_id, actor=by.name)
