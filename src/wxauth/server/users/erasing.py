"""Erasing a user, or one of the WeChat accounts of a user who was merged from several, with all that came with it.

Who has asked to be erased is shut out for some days, and may change their mind (`ERASURE_GRACE_DAYS`). A user who is
leaving has no open session: all are ended when the person asks, and no door opens another one before the person stays.
So what requires a session need not ask. Merges, splits and imports leave such users alone. A ban of such a user
outlasts the days of grace: the erasure waits for its end.
"""

from datetime import datetime
from uuid import UUID

from wxauth.errors import AccountDisabled, AccountLeaving
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import EndReason, end_erased_sessions, end_sessions, record_ended
from wxauth.server.users.erasure_rows import erase_person_data, lock_next_due, set_erase_at
from wxauth.server.users.merging_rows import former_ids
from wxauth.server.users.origin_rows import Parting, Side, belongings_of, record_moved
from wxauth.server.users.splitting_rows import erase_leaving
from wxauth.server.users.standing import Standing, lock_standing
from wxauth.server.users.user_rows import delete_user

log = get_logger()


async def erase_user(transaction: Transaction, user_id: UUID, *, by: Actor, now: datetime) -> bool:
    """Erase a locked user. Returns False if there is none with this id.

    Only events with the ids of the user and of the sessions remain. They contain the address of an administrator who
    erases a user, but not the person's own. If there is a lot to erase, the rest follows later: see `erasure_rows.py`.
    """
    if by.name == str(user_id):
        by = Actor(by.name)
    former = await former_ids(transaction, user_id)
    sessions = await end_erased_sessions(transaction, user_id, now=now)
    if not await delete_user(transaction, user_id):
        return False
    await erase_person_data(transaction, [user_id, *former])
    await record_ended(transaction, user_id, sessions, reason=EndReason.ERASED, by=by, now=now)
    data = {"former_ids": former}
    await record_event(transaction, EventType.USER_ERASED, by=by, at=now, user_id=user_id, data=data)
    return True


async def erase_identities(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, by: Actor, now: datetime
) -> bool:
    """Erase an identity of a locked user and all others with its unionid, with what is known to have come with them.

    That is name, picture, number, external ids and consents, the reason for a ban, and events and refusals of the
    former ids. The identities' sessions are deleted, and recorded as ended. What the user has lost is recorded, so that
    who knows users by events alone loses it too.

    Returns False, and does nothing, if the user has no other identity.
    """
    parting = await Parting.of(transaction, user_id, (app_id, openid))
    if parting is None or parting.is_whole:
        return False
    lost = [name for name in parting.fields_on(Side.LEAVES) if name != "phone" or not parting.is_number_of_staying]
    before = await belongings_of(transaction, user_id)
    session_ids = await erase_leaving(transaction, parting, lost=lost, now=now)
    await erase_person_data(transaction, parting.leaving_ids)
    await record_ended(transaction, user_id, session_ids, reason=EndReason.ERASED, by=by, now=now)
    removed = EventType.IDENTITY_REMOVED
    for left_app_id in sorted(parting.apps_of_leaving):
        await record_event(transaction, removed, by=by, at=now, user_id=user_id, app_id=left_app_id)
    await record_moved(transaction, user_id, before, by=by, now=now)
    return True


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
        await erase_user(transaction, user_id, by=Actor(str(user_id)), now=now)
    log.info("user_erased", user_id=user_id)
    return True
