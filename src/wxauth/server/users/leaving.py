"""Leaving: who has asked to be erased is shut out for some days, and may change their mind (`ERASURE_GRACE_DAYS`).

A user who is leaving has no open session: all are ended when the person asks, and no door opens another one before the
person stays. So what requires a session need not ask. Merges, splits and imports leave such users alone. A ban of such
a user outlasts the days of grace: the erasure waits for its end.
"""

from datetime import datetime
from uuid import UUID

from wxauth.errors import AccountDisabled, AccountLeaving
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import EndReason, end_sessions
from wxauth.server.users import erasing
from wxauth.server.users.leaving_rows import lock_next_due, set_erase_at
from wxauth.server.users.standing import Standing, lock_standing

log = get_logger()


async def leave_later(transaction: Transaction, user_id: UUID, *, erase_at: datetime, now: datetime) -> None:
    """Shut out a locked user who has asked to be erased at this time."""
    by = Actor(str(user_id))
    await set_erase_at(transaction, user_id, erase_at)
    await end_sessions(transaction, user_id, reason=EndReason.LEAVING, by=by, now=now)
    await record_event(transaction, EventType.USER_LEAVING, by=by, at=now, user_id=user_id, data={"erase_at": erase_at})


async def cancel_leaving(
    transaction: Transaction, user_id: UUID, standing: Standing, *, by: Actor, now: datetime
) -> bool:
    """Keep a locked user. Returns False, and changes nothing, if the user is not leaving."""
    if not standing.is_leaving:
        return False
    await set_erase_at(transaction, user_id, None)
    await record_event(transaction, EventType.USER_STAYED, by=by, at=now, user_id=user_id)
    return True


async def stay(database: Database, user_id: UUID, *, now: datetime) -> None:
    """Keep a user who has come back, unless they are banned."""
    async with database.begin() as transaction:
        standing = await lock_standing(transaction, user_id)
        if standing is None or standing.is_banned:
            return
        stays = await cancel_leaving(transaction, user_id, standing, by=Actor(str(user_id)), now=now)
    if stays:
        log.info(EventType.USER_STAYED.logged, user_id=user_id)


def check_may_enter(user_id: UUID, standing: Standing) -> None:
    """Check that a user is neither banned nor leaving. Raises: AccountDisabled, AccountLeaving."""
    if standing.is_banned:
        raise AccountDisabled(until=standing.banned_until, user_id=user_id)
    if standing.erase_at is not None:
        raise AccountLeaving(standing.erase_at, user_id=user_id)


async def erase_next_due(database: Database, *, now: datetime) -> bool:
    """Erase a user whose time has come. Returns whether there was one."""
    async with database.begin() as transaction:
        user_id = await lock_next_due(transaction, now=now)
        if user_id is None:
            return False
        await erasing.erase_user(transaction, user_id, by=Actor(str(user_id)), now=now)
    log.info("user_erased", user_id=user_id)
    return True
