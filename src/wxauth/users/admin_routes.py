"""The routes, such as `/v1/admin/users`, with which staff manage users and read the history."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from wxauth.core.models import EventFields
from wxauth.core.trail import Actor
from wxauth.core.users import PROFILE_FIELDS
from wxauth.errors import LastAdmin, NotFound, RateLimited
from wxauth.i18n import lazy_gettext as _
from wxauth.users import admin, history_queries
from wxauth.users.admin import UserChange
from wxauth.users.callers import FreshAdministratorDep, FreshLoginDep, StaffDep
from wxauth.users.history_queries import EventsQuery, ListedLogin, LoginsQuery, UserSummary
from wxauth.users.phone_numbers import masked
from wxauth.users.schemas import ListedUserAnswer, UserChangeRequest, UserDetailAnswer, UsersAnswer, users_answer
from wxauth.users.search_queries import UsersQuery, as_user_id, find_users, term_kind_of
from wxauth.users.staff_read_queries import Read, StaffReads
from wxauth.users.user_queries import UNKNOWN_USER
from wxauth.web.answers import Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.web.direct import Router
from wxauth.web.pages import Items, items_of
from wxauth_guard.errors import InsufficientRole

StaffReadsDep = Annotated[StaffReads, Depends(provide(StaffReads)), Entails(failures=(RateLimited,))]

NO_SUCH_USER: Final = NotFound(UNKNOWN_USER)
_NO_SUCH_SESSION: Final = NotFound(admin.UNKNOWN_SESSION)
MAX_NAMES: Final = 100  # their ids are in the URL, whose length is limited

router = Router("admin")


class NamesQuery(BaseModel):
    """The ids of the users whose names the caller wants to read."""

    user_id: Annotated[list[UUID], Field(min_length=1, max_length=MAX_NAMES)] = Field(
        description=f"The ID of a user. Repeat the parameter for up to {MAX_NAMES} users."
    )


class LoginsAnswer(Items[ListedLogin]):
    """A page of logins, the newest first."""

    incomplete_results: bool = Field(
        description="True if the search stopped after a second. Use `next_cursor` to continue."
    )


class NamesAnswer(BaseModel):
    """The users with the given ids, in no particular order. Unknown ids are left out."""

    items: list[UserSummary]


@router.get("/v1/admin/users", summary=_("Search users"))
async def list_users(
    staff: StaffDep,
    reads: StaffReadsDep,
    settings: SettingsDep,
    database: DatabaseDep,
    query: Annotated[UsersQuery, Query()],
) -> UsersAnswer:
    """List users, the newest first. All given filters must match, and an empty parameter counts as absent.

    The role `support` sees masked phone numbers, and may search for complete phone numbers.
    """
    region = settings.phone_region
    page = await find_users(database, query, region=region)
    reads.note_search(staff, term_kind=term_kind_of(query.q, region=region), found=len(page.items))
    answer = users_answer(page)
    for user in answer["items"]:
        _mask_for(staff, user)
    return answer


@router.get("/v1/admin/users/{user_id}", summary=_("Read a user"), failures=[NO_SUCH_USER])
async def read_user(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, clock: ClockDep, user_id: UUID
) -> UserDetailAnswer:
    """Return a user with all identities and former IDs, recent sessions (open and ended), and the newest consents.

    The role `support` sees a masked phone number.
    """
    user = await admin.read_user(database, user_id, now=clock())
    reads.note_read(staff, Read.USER, user["id"])
    _mask_for(staff, user)
    return user


@router.patch(
    "/v1/admin/users/{user_id}",
    summary=_("Ban or unban a user, set roles and attributes, or clear fields of the profile"),
    failures=[NO_SUCH_USER, LastAdmin],
)
async def change_user(
    staff: StaffDep,
    has_fresh_login: FreshLoginDep,
    reads: StaffReadsDep,
    database: DatabaseDep,
    clock: ClockDep,
    user_id: UUID,
    body: UserChangeRequest,
) -> UserDetailAnswer:
    """Set the given fields, and leave the others unchanged. A ban replaces the reason and the end of an earlier ban.

    To clear a field of the profile, such as `nickname`, set the field to null. To keep a user who has asked to be
    erased, set `erase_at` to null. These fields accept no other value.

    A ban ends every session, and is lifted automatically within a minute after `until`. Roles take effect at once in
    wxauth, and with the next access token in other services. To add a role, or to change a banned user who afterwards
    still has the role `admin` or `support`, the administrator must have logged in within `ADMIN_FRESH_LOGIN`. The role
    `support` cannot set roles or attributes, cancel an erasure, or change users with one of these roles.
    """
    now = clock()
    change = UserChange(
        **body.model_dump(exclude={*PROFILE_FIELDS, "erase_at"}),
        # In a request, the profile fields and `erase_at` can only be null.
        cleared_fields=body.model_fields_set.intersection(PROFILE_FIELDS),
        cancels_erasure="erase_at" in body.model_fields_set,
    )
    if staff.must_spare_staff:  # the role `support`
        _check_support_may_make(change)
    has_changed = await admin.change_user(database, user_id, change, by=staff, may_add_roles=has_fresh_login, now=now)
    user = await admin.read_user(database, user_id, now=now)
    # If the request has changed something, the event of the change is enough for the audit trail.
    if not has_changed:
        reads.note_read(staff, Read.USER, user["id"])
    _mask_for(staff, user)
    return user


@router.delete("/v1/admin/users/{user_id}", summary=_("Erase a user"), failures=[NO_SUCH_USER, LastAdmin])
async def erase_user(
    administrator: FreshAdministratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID
) -> None:
    """Erase a user, with the identities, the sessions, and the user's data in the audit trail.

    This is not a ban, because the next login creates a new user. The administrator must have logged in within
    `ADMIN_FRESH_LOGIN`.
    """
    await admin.erase_user(database, user_id, by=administrator, now=clock())


@router.delete("/v1/admin/users/{user_id}/sessions", summary=_("End all sessions of a user"), failures=[NO_SUCH_USER])
async def end_sessions_of_user(staff: StaffDep, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """End every session of a user, and the logins of the user's browsers. The user may log in again."""
    await admin.end_all_sessions(database, user_id, by=staff, now=clock())


@router.delete(
    "/v1/admin/users/{user_id}/sessions/{session_id}",
    summary=_("End one session of a user"),
    failures=[_NO_SUCH_SESSION],
)
async def end_session_of_user(
    staff: StaffDep, database: DatabaseDep, clock: ClockDep, user_id: UUID, session_id: UUID
) -> None:
    """End one session of a user. Repeating the request changes nothing.

    If the session was open, and was opened in a browser, also end the login of that browser.
    """
    await admin.end_one_session(database, user_id, session_id, by=staff, now=clock())


@router.get("/v1/admin/events", summary=_("Read the audit trail"))
async def list_events(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, query: Annotated[EventsQuery, Query()]
) -> Items[EventFields]:
    """List events, the newest first. All given filters must match, and an empty parameter counts as absent."""
    await reads.store()  # so that the list also contains the reads that this process still has in memory
    page = await history_queries.find_events(database, query)
    # A list of the events about a user, and a list of the events by a user, both count as reads of the user's data.
    actor_id = None if query.actor is None else as_user_id(query.actor)
    for user_id in {query.user_id, actor_id}:
        if user_id is not None and page.items:
            reads.note_read(staff, Read.EVENTS, user_id)
    return items_of(page)


@router.get("/v1/admin/logins", summary=_("List logins"))
async def list_logins(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, query: Annotated[LoginsQuery, Query()]
) -> LoginsAnswer:
    """List the logins whose sessions are stored, the newest first.

    All given filters must match, and an empty parameter counts as absent. To list refused logins, use
    `GET /v1/admin/refusals`.
    """
    page = await history_queries.find_logins(database, query)
    if query.user_id is not None and page.items:
        reads.note_read(staff, Read.LOGINS, query.user_id)
    return LoginsAnswer.model_construct(  # without validating the rows again
        items=list(page.items), next_cursor=page.next_cursor, incomplete_results=page.is_incomplete
    )


@router.get("/v1/admin/names", summary=_("Read the names of users"))
async def read_names(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, query: Annotated[NamesQuery, Query()]
) -> NamesAnswer:
    """Return a short description of each of these users, for lists of events, logins and refusals.

    The audit trail records one event for all of these users.
    """
    users = await database.rows(history_queries.USER_SUMMARIES, ids=query.user_id)
    if users:
        reads.note_read(staff, Read.NAMES, *(user.id for user in users))
    return NamesAnswer.model_construct(items=list(users))  # without validating the rows again


def _check_support_may_make(change: UserChange) -> None:
    only_for_administrators = {
        "roles": change.roles is not None,
        "attributes": change.attributes is not None,
        "erase_at": change.cancels_erasure,
    }
    for name, is_requested in only_for_administrators.items():
        if is_requested:
            raise InsufficientRole(f"{name}: this change requires the role admin")


def _mask_for(staff: Actor, user: ListedUserAnswer) -> None:
    if user["phone"] is not None and staff.must_spare_staff:
        user["phone"] = masked(user["phone"])
