"""Erasing one of the WeChat accounts of a user who was merged from several, with all that came with it."""

from datetime import datetime
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.merging.merging_rows import erase_leaving
from wxauth.server.merging.origin_rows import Parting, Side, record_moved
from wxauth.server.sessions.rows import EndReason, record_ended
from wxauth.server.users.erasure_rows import erase_person_data


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
    session_ids = await erase_leaving(transaction, parting, lost=lost, now=now)
    await erase_person_data(transaction, parting.leaving_ids)
    await record_ended(transaction, user_id, session_ids, reason=EndReason.ERASED, by=by, now=now)
    removed = EventType.IDENTITY_REMOVED
    for left_app_id in sorted(parting.apps_of_leaving):
        await record_event(transaction, removed, by=by, at=now, user_id=user_id, app_id=left_app_id)
    await record_moved(transaction, user_id, parting.facts, by=by, now=now)
    return True
