"""The operations on users that staff and services perform through the API, and that operators perform with commands."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from wxauth.core.database import ATTEMPTS_OF_OPERATORS, ChangedMeanwhile, Database, Transaction, begin_locked
from wxauth.core.logs import get_logger
from wxauth.core.outages import CONFLICTS
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import UserStatus
from wxauth.errors import ExternalIdTaken, LoginTooOld, NotFound
from wxauth.i18n import TextError, lazy_gettext as _
from wxauth.sessions.list_queries import OPEN_SESSIONS, PAST_SESSIONS
from wxauth.sessions.queries import EndReason, end_session_of_locked_user, end_sessions
from wxauth.settings.roles import ADMIN, MAX_ROLES
from wxauth.users import erasure_queries, user_queries
from wxauth.users.attributes import Attributes, WrongAttributes, patch_attributes
from wxauth.users.consent_queries import NEWEST_CONSENTS
from wxauth.users.erasure_queries import cancel_erasure
from wxauth.users.schemas import UserDetailAnswer, listed_user_answer
from wxauth.users.search_queries import USER_BY_ID, ListedUser
from wxauth.users.status_queries import (
    Ban,
    StatusAndRoles,
    StatusChange,
    UserIsGone,
    change_status_and_roles,
    lock_user,
)
from wxauth.web.pages import FIRST_PAGE
from wxauth_guard.errors import FieldError, InsufficientRole, InvalidRequest

MAX_ROWS_IN_LIST: Final = 100  # staff can also end sessions that are not listed
STAFF_IS_SPARED: Final = "this user is an administrator or support staff: to change them, you need the role admin"
UNKNOWN_SESSION: Final = "this user doesn't have this session"

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """The changes to make to a user. None changes nothing, but a ban replaces an earlier ban's reason and end."""

    status: UserStatus | None = None
    reason: str | None = None
    until: datetime | None = None
    roles: Sequence[str] | None = None  # replaces all roles
    granted_role: str | None = None
    revoked_role: str | None = None
    attributes: Attributes | None = None  # a JSON merge patch (RFC 7396)
    cleared_fields: Collection[str] = ()  # some of `PROFILE_FIELDS`
    cancels_erasure: bool = False

    def applied_to(self, before: StatusAndRoles) -> StatusAndRoles:
        """Return the status and roles after the change.

        Raises: InvalidRequest, if a ban's reason or end is given without a ban; TextError, if the user would have too
        many roles.
        """
        roles = list(before.roles if self.roles is None else self.roles)
        if self.granted_role is not None:
            roles.append(self.granted_role)
        roles_after = tuple(dict.fromkeys(role for role in roles if role != self.revoked_role))
        if len(roles_after) > MAX_ROLES:  # only by granting a role, because a request's list is never too long
            raise TextError(_("a user can have at most {n} roles", n=MAX_ROLES))
        return replace(before, roles=roles_after, ban=self._ban_after(before.ban))

    def _ban_after(self, before: Ban | None) -> Ban | None:
        requested = Ban(self.reason, self.until)
        if self.status is UserStatus.DISABLED:
            # A new ban replaces the reason and the end of an earlier one.
            return requested
        if self.status is None and before is not None:
            # The user stays banned. The request changes the reason or the end only if it contains a new value.
            return Ban(requested.reason or before.reason, requested.until or before.until)
        # The user is active, or becomes active again.
        fields_of_ban = requested.data
        if fields_of_ban:
            message = "Must be given with a ban, because this user isn't banned"
            errors = [FieldError(name, message) for name in fields_of_ban]
            raise InvalidRequest("only a ban has a reason and an end", errors=errors)
        return None

    @property
    def could_remove_administrator(self) -> bool:
        """Whether an administrator could lose the role, or be banned."""
        takes_role = self.revoked_role == ADMIN or (self.roles is not None and ADMIN not in self.roles)
        return takes_role or self.status is UserStatus.DISABLED


async def read_user(database: Database, user_id: UUID, *, now: datetime) -> UserDetailAnswer:
    """Return the user with this present or former id. Raises: NotFound."""
    user = await read_listed_user(database, user_id)
    newest_of_user: dict[str, object] = {"user_id": user.id, "limit": MAX_ROWS_IN_LIST}
    answer: UserDetailAnswer = {
        **listed_user_answer(user),  # type: ignore[typeddict-item]  # mypy wrongly requires the optional keys, too
        "sessions": list(await database.rows(OPEN_SESSIONS, **newest_of_user, now=now, **FIRST_PAGE)),
        "ended_sessions": list(await database.rows(PAST_SESSIONS, **newest_of_user, now=now)),
        "consents": list(await database.rows(NEWEST_CONSENTS, **newest_of_user, **FIRST_PAGE)),
    }
    former_ids = await database.values(user_queries.FORMER_IDS, user_id=user.id)
    if former_ids:
        answer["former_ids"] = list(former_ids)
    former_external_ids = await database.values(user_queries.FORMER_EXTERNAL_IDS, user_id=user.id)
    if former_external_ids:
        answer["former_external_ids"] = list(former_external_ids)
    return answer


async def read_listed_user(database: Database, user_id: UUID) -> ListedUser:
    """Return the user with this present or former id, and all identities. Raises: NotFound."""
    user = await database.row(USER_BY_ID, user_id=user_id)
    if user is None:
        raise NotFound(user_queries.UNKNOWN_USER)
    return user


async def change_user(
    database: Database,
    user_id: UUID,
    change: UserChange,
    *,
    by: Actor,
    may_add_roles: bool = True,
    now: datetime,
) -> bool:
    """Change the user with this present or former id, and return whether anything has changed.

    `may_add_roles` is False if the actor's login is too old for it. The change of a banned user who is still staff
    afterwards adds a role, too, because it might lift the ban.

    Raises: InvalidRequest; TextError, if the user would have too many roles; NotFound; InsufficientRole; LastAdmin;
    LoginTooOld, if the change requires `may_add_roles`.
    """
    if change.until is not None and change.until <= now:
        raise InvalidRequest.of("until", _("Must be a time in the future"))

    # An actor who spares staff can't change an administrator, so the other administrators need not be locked.
    could_remove_administrator = change.could_remove_administrator and not by.must_spare_staff
    locked = locked_remaining(database, user_id, by=by, could_remove_administrator=could_remove_administrator)
    async with locked as (transaction, remaining_id, before):
        after = change.applied_to(before)
        if after.adds_roles_to(before) and not may_add_roles:
            raise LoginTooOld
        status_change = StatusChange(remaining_id, before, after)
        await change_status_and_roles(transaction, [status_change], by=by, now=now)
        other_fields_changed = await _change_other_fields(transaction, remaining_id, before, change, by=by, now=now)
    status_change.report(by=by)
    return bool(status_change.events) or other_fields_changed


async def _change_other_fields(
    transaction: Transaction, user_id: UUID, before: StatusAndRoles, change: UserChange, *, by: Actor, now: datetime
) -> bool:
    has_changed = False
    if change.attributes is not None:
        try:
            has_changed |= await patch_attributes(transaction, user_id, change.attributes, by=by, now=now)
        except WrongAttributes as exc:
            raise InvalidRequest.of("attributes", exc.text) from None
    if change.cancels_erasure:
        has_changed |= await cancel_erasure(transaction, user_id, before, by=by, now=now)
    if change.cleared_fields:
        cleared = await user_queries.clear_fields(transaction, user_id, change.cleared_fields)
        if cleared:
            data = {"fields": cleared}
            await record_event(transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=user_id, data=data)
            has_changed = True
    return has_changed


async def set_external_id(
    database: Database, user_id: UUID, external_id: str | None, *, by: Actor, now: datetime
) -> None:
    """Replace or remove an external id. Raises: NotFound, InsufficientRole, ExternalIdTaken."""
    try:
        async with locked_remaining(database, user_id, by=by) as (transaction, remaining_id, _account):
            if not await transaction.value(user_queries.SET_EXTERNAL_ID, user_id=remaining_id, external_id=external_id):
                return  # the user already has this external id or, if it is None, has none
            if await transaction.value(user_queries.IS_FORMER_EXTERNAL_ID, external_id=external_id):
                # This error rolls the change back.
                raise ExternalIdTaken("the ID belonged to a user who was merged into another user")
            data = {"fields": ["external_id"]}
            await record_event(transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=remaining_id, data=data)
    except CONFLICTS:
        raise ExternalIdTaken("another user has this ID") from None


async def erase_user(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """Erase the user with this present or former id. Raises: NotFound, InsufficientRole, LastAdmin."""
    locked = locked_remaining(database, user_id, by=by, could_remove_administrator=True)
    async with locked as (transaction, remaining_id, _account):
        await erasure_queries.erase_user(transaction, remaining_id, by=by, now=now)
    log.info("user_erased", user_id=remaining_id, actor=by.name)


async def end_all_sessions(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """End a user's sessions, and the logins of browsers. Raises: NotFound, InsufficientRole."""
    async with locked_remaining(database, user_id, by=by) as (transaction, remaining_id, _account):
        await end_sessions(transaction, remaining_id, reason=EndReason.ADMINISTRATOR, by=by, now=now)
    log.info("sessions_ended", user_id=remaining_id, actor=by.name)


async def end_one_session(database: Database, user_id: UUID, session_id: UUID, *, by: Actor, now: datetime) -> None:
    """End a session and, if it is of a browser, the login there. Raises: NotFound, InsufficientRole."""
    reason = EndReason.ADMINISTRATOR
    async with locked_remaining(database, user_id, by=by) as (transaction, remaining_id, _account):
        if not await end_session_of_locked_user(transaction, remaining_id, session_id, reason=reason, by=by, now=now):
            raise NotFound(UNKNOWN_SESSION)
    log.info("session_ended", user_id=remaining_id, session_id=session_id, actor=by.name)


@asynccontextmanager
async def locked_remaining(
    database: Database, user_id: UUID, *, by: Actor, could_remove_administrator: bool = False
) -> AsyncIterator[tuple[Transaction, UUID, StatusAndRoles]]:
    """Lock the user with this present or former id. Yield the transaction, the present id, and the status and roles.

    Raises: NotFound; LastAdmin, if `could_remove_administrator` is set, and the user is the only administrator;
    InsufficientRole, if the actor must not act on staff; TooManyChanges, if other transactions have changed the user
    first at each attempt.
    """
    lock = partial(_lock_remaining, user_id=user_id, by=by, could_remove_administrator=could_remove_administrator)
    locked = begin_locked(database, lock, attempts=ATTEMPTS_OF_OPERATORS)
    async with locked as (transaction, (remaining_id, account)):
        yield transaction, remaining_id, account


async def _lock_remaining(
    transaction: Transaction, *, user_id: UUID, by: Actor, could_remove_administrator: bool
) -> tuple[UUID, StatusAndRoles]:
    remaining_id = await user_queries.current_user_id(transaction, user_id)
    try:
        account = await lock_user(
            transaction, user_id=remaining_id, could_remove_administrator=could_remove_administrator
        )
    except UserIsGone:  # a merge or an erasure has just removed the user
        raise ChangedMeanwhile from None
    if by.must_spare_staff and account.is_staff:
        raise InsufficientRole(STAFF_IS_SPARED)
    return remaining_id, account
