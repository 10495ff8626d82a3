"""`/v1/admin`: the users, and what was done to them."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from wxauth.errors import (
    InvalidRequest,
    LastAdmin,
    MergeRefused,
    NotFound,
    PayloadTooLarge,
)
from wxauth.server.core.services import ServicesDep
from wxauth.server.core.trail import EventSearch
from wxauth.server.users import admin
from wxauth.server.users.admin import UserChange
from wxauth.server.users.bodies import (
    EXAMPLE_EVENTS,
    EXAMPLE_USER_DETAIL,
    EXAMPLE_USERS,
    EventsAnswer,
    EventsQuery,
    MergeRequest,
    UserChangeRequest,
    UserDetailAnswer,
    UsersAnswer,
    UsersQuery,
    events_answer,
    user_detail_answer,
    users_answer,
)
from wxauth.server.users.callers import AdministratorDep, FreshLoginDep
from wxauth.server.users.rows import UserSearch
from wxauth.server.web.answers import BEARER_SECURITY, FOR_ADMINISTRATORS, FOR_FRESH_ADMINISTRATORS, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id
from wxauth.server.web.paging import not_stored

WRONG_USER_ID: Final = InvalidRequest.of("user_id", "Input should be a valid UUID")
NO_SUCH_USER: Final = NotFound("there is no such user")
NO_SUCH_SESSION: Final = NotFound("this user has no such session")

_WRONG_PARAMETER: Final = InvalidRequest.of("limit", "Input should be less than or equal to 200")


lists = APIRouter(tags=["admin"], dependencies=[Depends(not_stored)], generate_unique_id_function=operation_id)
router = APIRouter(route_class=DirectRoute, tags=["admin"], generate_unique_id_function=operation_id)


@lists.get(
    "/v1/admin/users",
    summary="Find users",
    responses=answers(EXAMPLE_USERS, _WRONG_PARAMETER, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def list_users(_: AdministratorDep, services: ServicesDep, query: Annotated[UsersQuery, Query()]) -> UsersAnswer:
    """The newest first. What is given must all fit; an empty parameter is an absent one."""
    search = UserSearch(text=query.q or None, status=query.status, role=query.role, app_id=query.app_id)
    return users_answer(await admin.list_users(services.database, search, before=query.cursor, limit=query.limit))


@router.get(
    "/v1/admin/users/{user_id}",
    summary="Read a user",
    responses=answers(EXAMPLE_USER_DETAIL, WRONG_USER_ID, NO_SUCH_USER, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def read_user(_: AdministratorDep, services: ServicesDep, user_id: UUID) -> UserDetailAnswer:
    """A user with all identities and open sessions."""
    return user_detail_answer(await admin.read_user(services.database, user_id, now=services.clock()))


@router.patch(
    "/v1/admin/users/{user_id}",
    summary="Ban, unban, set roles",
    responses=answers(
        EXAMPLE_USER_DETAIL,
        WRONG_USER_ID,
        NO_SUCH_USER,
        PayloadTooLarge,
        LastAdmin,
        *FOR_FRESH_ADMINISTRATORS,
    ),
    openapi_extra=BEARER_SECURITY,
)
async def change_user(
    administrator: AdministratorDep,
    is_fresh: FreshLoginDep,
    services: ServicesDep,
    user_id: UUID,
    body: UserChangeRequest,
) -> UserDetailAnswer:
    """Set what is named; the rest stays. The answer is the user as they are then.

    A ban ends every session; lifting it brings none back. Roles bite at once in wxauth itself, and with the next
    access token at siblings. Whoever gives the role `admin`, or changes a banned user who keeps it, must have logged in
    lately: `ADMIN_FRESH_LOGIN`.
    """
    now = services.clock()
    change = UserChange(status=body.status, roles=body.roles)
    await admin.change_user(services.database, user_id, change, by=administrator, may_promote=is_fresh, now=now)
    return user_detail_answer(await admin.read_user(services.database, user_id, now=now))


@router.post(
    "/v1/admin/users/{user_id}/merge",
    summary="Merge a user into another one",
    responses=answers(
        EXAMPLE_USER_DETAIL,
        WRONG_USER_ID,
        NO_SUCH_USER,
        PayloadTooLarge,
        LastAdmin,
        MergeRefused("they are one user already"),
        *FOR_FRESH_ADMINISTRATORS,
    ),
    openapi_extra=BEARER_SECURITY,
)
async def merge_users(
    administrator: AdministratorDep,
    is_fresh: FreshLoginDep,
    services: ServicesDep,
    user_id: UUID,
    body: MergeRequest,
) -> UserDetailAnswer:
    """Make one user of two; the answer is the one that remains.

    Identities, sessions and consents go along; roles are united, and a ban of either follows. It cannot be undone. If
    one of the two has the role `admin`, you must have logged in lately: `ADMIN_FRESH_LOGIN`.
    """
    remaining = await admin.merge_users(
        services.database,
        user_id,
        into=body.into,
        by=administrator,
        may_promote=is_fresh,
        now=services.clock(),
        observe=services.metrics.merged,
    )
    return user_detail_answer(remaining)


@router.delete(
    "/v1/admin/users/{user_id}",
    summary="Erase a user",
    status_code=204,
    responses=failures(WRONG_USER_ID, NO_SUCH_USER, LastAdmin, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def erase_user(administrator: AdministratorDep, services: ServicesDep, user_id: UUID) -> None:
    """Erase a person: user, identities, sessions, and what the audit trail tells of them.

    The next login is a new user's, so it is no ban.
    """
    await admin.erase_user(services.database, user_id, by=administrator, now=services.clock())


@router.delete(
    "/v1/admin/users/{user_id}/sessions",
    summary="Log a user out everywhere",
    status_code=204,
    responses=failures(WRONG_USER_ID, NO_SUCH_USER, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def end_sessions_of_user(administrator: AdministratorDep, services: ServicesDep, user_id: UUID) -> None:
    """End every session of a user, who may log in again."""
    await admin.end_sessions(services.database, user_id, by=administrator, now=services.clock())


@router.delete(
    "/v1/admin/users/{user_id}/sessions/{session_id}",
    summary="Log a user out on one device",
    status_code=204,
    responses=failures(WRONG_USER_ID, NO_SUCH_SESSION, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def end_session_of_user(
    administrator: AdministratorDep, services: ServicesDep, user_id: UUID, session_id: UUID
) -> None:
    """End one session of a user; 204 again where it has ended."""
    await admin.end_session(services.database, user_id, session_id, by=administrator, now=services.clock())


@lists.get(
    "/v1/admin/events",
    summary="Read the audit trail",
    responses=answers(EXAMPLE_EVENTS, _WRONG_PARAMETER, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def list_events(
    _: AdministratorDep, services: ServicesDep, query: Annotated[EventsQuery, Query()]
) -> EventsAnswer:
    """The newest first. What is given must all fit; an empty parameter is an absent one."""
    search = EventSearch(user_id=query.user_id, types=query.type, since=query.since, until=query.until)
    return events_answer(await admin.list_events(services.database, search, before=query.cursor, limit=query.limit))
