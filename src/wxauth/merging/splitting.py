"""The splitting of a user who wrongly stands for two people, after a wrong merge or a mistake in an imported file."""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from wxauth.core.clock import new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.errors import SplitRefused
from wxauth.i18n import lazy_gettext as _
from wxauth.merging.splitting_queries import Separation, has_external_id, move_to_new_user
from wxauth.sessions.queries import EndReason
from wxauth.users.admin import locked_remaining
from wxauth.users.status_queries import StatusAndRoles, StatusChange, change_status_and_roles

log = get_logger()


class SplitUsers(NamedTuple):
    remaining_id: UUID
    new_user_id: UUID


async def split(
    database: Database,
    user_id: UUID,
    *,
    app_id: str,
    openid: str,
    external_id: str | None = None,
    by: Actor,
    now: datetime,
) -> SplitUsers:
    """Move an identity, the user's others with the same unionid, this unionid and the external id to a new user.

    All other data stays, but a number that only the moved identities have verified is removed and, unless the user is
    banned, so are the unionids that no remaining identity has. The sessions of the moved identities end. wxauth never
    merges the two users automatically again.

    Raises: NotFound; SplitRefused, if the user has requested erasure, has no such identity or external id, or would
    keep no identity; InsufficientRole, if the actor must not act on staff.
    """
    async with locked_remaining(database, user_id, by=by) as (transaction, remaining_id, account):
        if account.is_leaving:
            raise SplitRefused(_("the user has requested erasure. Cancel the erasure first"))
        separation = await _allowed_separation(
            transaction, remaining_id, app_id=app_id, openid=openid, external_id=external_id
        )
        # The sessions must end before the move, because a trigger moves the sessions of the identities to the new user.
        await separation.end_leaving_sessions(transaction, reason=EndReason.ADMINISTRATOR, by=by, now=now)
        new_user_id = new_id(now)
        has_lost_number = await move_to_new_user(
            transaction, separation, new_user_id, external_id=external_id, is_banned=account.is_banned
        )
        data = {
            "new_user_id": new_user_id,
            "app_ids": separation.leaving_app_ids,
            "kept_app_ids": separation.staying_app_ids,
        }
        await record_event(transaction, EventType.USER_SPLIT, by=by, at=now, user_id=remaining_id, data=data)
        # The new user is active and has no roles. If the user is banned, this change bans the new user, too.
        new_account = StatusAndRoles(roles=())
        status_change = StatusChange(new_user_id, before=new_account, after=replace(new_account, ban=account.ban))
        await change_status_and_roles(transaction, [status_change], by=by, now=now)
        if has_lost_number:
            await record_event(transaction, EventType.PHONE_REMOVED, by=by, at=now, user_id=remaining_id)
    log.info("user_split", user_id=remaining_id, new_user_id=new_user_id, actor=by.name)
    status_change.report(by=by)
    return SplitUsers(remaining_id, new_user_id)


async def _allowed_separation(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, external_id: str | None
) -> Separation:
    separation = await Separation.of(transaction, user_id, app_id=app_id, openid=openid)
    if separation is None:
        raise SplitRefused(_("this identity doesn't belong to the user"))
    if not separation.staying:
        raise SplitRefused(_("the user must keep at least one identity"))
    if external_id is not None and not await has_external_id(transaction, user_id, external_id):
        raise SplitRefused(_("this external_id doesn't belong to the user"))
    return separation
