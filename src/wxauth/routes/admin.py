"""`/v1/admin`: the users, and what was done to them."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from starlette.requests import HTTPConnection

from wxauth import admin, session_keys
from wxauth.admin import Actor, UserChange
from wxauth.core.services import ServicesDep
from wxauth.core.trail import EventSearch
from wxauth.errors import InsufficientRole, InvalidRequest, LastAdmin, NotFound, PayloadTooLarge, UnknownApp
from wxauth.routes.callers import caller_of, device_of
from wxauth.routes.schemas import (
    EXAMPLE_EVENTS,
    EXAMPLE_SESSION_KEYS,
    EXAMPLE_USER_DETAIL,
    EXAMPLE_USERS,
    EventsAnswer,
    EventsQuery,
    SessionKeyResetRequest,
    SessionKeysAnswer,
    UserChangeRequest,
    UserDetailAnswer,
    UsersAnswer,
    UsersQuery,
    events_answer,
    session_keys_answer,
    user_detail_answer,
    users_answer,
)
from wxauth.store.users import ADMIN, UserSearch
from wxauth.web.answers import BEARER_SECURITY, GUARDED, failures
from wxauth.web.direct import DirectRoute


async def administrator_of(connection: HTTPConnection) -> Actor:
    """The administrator behind the request's access token, and where the request comes from."""
    caller = await caller_of(connection)
    caller.require_role(ADMIN)
    return Actor(str(caller.user["id"]), (await device_of(connection)).ip)


AdministratorDep = Annotated[Actor, Depends(administrator_of)]
"""The administrator who asks. One who was demoted or banned a moment ago is refused at once."""


async def _not_stored(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


_GUARDED: Final = (*GUARDED, InsufficientRole)
_WRONG_PARAMETER: Final = InvalidRequest.of("limit", "Input should be less than or equal to 200")
_WRONG_ID: Final = InvalidRequest.of("user_id", "Input should be a valid UUID")
_USER: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"example": EXAMPLE_USER_DETAIL}}}
}

_SESSION_KEYS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"example": EXAMPLE_SESSION_KEYS}}}
}

router = APIRouter(tags=["admin"], dependencies=[Depends(_not_stored)])
_direct = APIRouter(route_class=DirectRoute, tags=["admin"])


@router.get(
    "/v1/admin/users",
    operation_id="list_users",
    summary="Find users",
    response_model=UsersAnswer,
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_USERS}}},
        **failures(_WRONG_PARAMETER, *_GUARDED),
    },
    openapi_extra=BEARER_SECURITY,
)
async def list_users(_: AdministratorDep, services: ServicesDep, query: Annotated[UsersQuery, Query()]) -> UsersAnswer:
    """The newest first. What is given must all fit; an empty parameter is an absent one."""
    search = UserSearch(text=query.q or None, status=query.status, role=query.role, app_id=query.app_id)
    return users_answer(await admin.list_users(services.database, search, before=query.cursor, limit=query.limit))


@_direct.get(
    "/v1/admin/users/{user_id}",
    operation_id="read_user",
    summary="Read a user",
    response_model=UserDetailAnswer,
    responses={**_USER, **failures(_WRONG_ID, NotFound("there is no such user"), *_GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
async def read_user(_: AdministratorDep, services: ServicesDep, user_id: UUID) -> UserDetailAnswer:
    """A user with all identities and open sessions."""
    return user_detail_answer(await admin.read_user(services.database, user_id, now=services.clock()))


@_direct.patch(
    "/v1/admin/users/{user_id}",
    operation_id="change_user",
    summary="Ban, unban, set roles",
    response_model=UserDetailAnswer,
    responses={
        **_USER,
        **failures(_WRONG_ID, NotFound("there is no such user"), PayloadTooLarge, LastAdmin, *_GUARDED),
    },
    openapi_extra=BEARER_SECURITY,
)
async def change_user(
    administrator: AdministratorDep, services: ServicesDep, user_id: UUID, body: UserChangeRequest
) -> UserDetailAnswer:
    """Set what is named; the rest stays. The answer is the user as they are then.

    A ban ends every session; lifting it brings none back. Roles bite at once in wxauth itself, and with the next
    access token at siblings.
    """
    now = services.clock()
    change = UserChange(status=body.status, roles=body.roles)
    await admin.change_user(services.database, user_id, change, by=administrator, now=now)
    return user_detail_answer(await admin.read_user(services.database, user_id, now=now))


@_direct.delete(
    "/v1/admin/users/{user_id}",
    operation_id="erase_user",
    summary="Erase a user",
    status_code=204,
    responses=failures(_WRONG_ID, NotFound("there is no such user"), LastAdmin, *_GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def erase_user(administrator: AdministratorDep, services: ServicesDep, user_id: UUID) -> None:
    """Erase a person: user, identities, sessions, and what the audit trail tells of them.

    The next login is a new user's, so it is no ban.
    """
    await admin.erase_user(services.database, user_id, by=administrator, now=services.clock())


@_direct.delete(
    "/v1/admin/users/{user_id}/sessions",
    operation_id="end_sessions_of_user",
    summary="Log a user out everywhere",
    status_code=204,
    responses=failures(_WRONG_ID, NotFound("there is no such user"), *_GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def end_sessions_of_user(administrator: AdministratorDep, services: ServicesDep, user_id: UUID) -> None:
    """End every session of a user, who may log in again."""
    await admin.end_sessions(services.database, user_id, by=administrator, now=services.clock())


@_direct.post(
    "/v1/admin/users/{user_id}/session-keys/check",
    operation_id="check_session_keys",
    summary="Does WeChat still take the session keys",
    response_model=SessionKeysAnswer,
    responses={**_SESSION_KEYS, **failures(_WRONG_ID, NotFound("there is no such user"), *_GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
async def check_session_keys(_: AdministratorDep, services: ServicesDep, user_id: UUID) -> SessionKeysAnswer:
    """Ask WeChat about the stored session_key of each identity of a user."""
    return session_keys_answer(await session_keys.check_keys(services, user_id))


@_direct.post(
    "/v1/admin/users/{user_id}/session-keys/reset",
    operation_id="reset_session_keys",
    summary="Have WeChat replace the session keys",
    response_model=SessionKeysAnswer,
    responses={
        **_SESSION_KEYS,
        **failures(_WRONG_ID, NotFound("there is no such user"), UnknownApp, PayloadTooLarge, *_GUARDED),
    },
    openapi_extra=BEARER_SECURITY,
)
async def reset_session_keys(
    administrator: AdministratorDep, services: ServicesDep, user_id: UUID, body: SessionKeyResetRequest | None
) -> SessionKeysAnswer:
    """Have WeChat give each identity of a user, or that in one app, a new session_key, and store it.

    The old key dies at once: what was encrypted with it does not open any more. `valid` is true where a new one is
    stored, false where WeChat no longer knows the old one, and then nothing has changed.
    """
    app_id = None if body is None else body.app_id
    return session_keys_answer(await session_keys.reset_keys(services, user_id, app_id=app_id, by=administrator))


@router.get(
    "/v1/admin/events",
    operation_id="list_events",
    summary="Read the audit trail",
    response_model=EventsAnswer,
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_EVENTS}}},
        **failures(_WRONG_PARAMETER, *_GUARDED),
    },
    openapi_extra=BEARER_SECURITY,
)
async def list_events(
    _: AdministratorDep, services: ServicesDep, query: Annotated[EventsQuery, Query()]
) -> EventsAnswer:
    """The newest first. What is given must all fit; an empty parameter is an absent one."""
    search = EventSearch(user_id=query.user_id, type=query.type)
    return events_answer(await admin.list_events(services.database, search, before=query.cursor, limit=query.limit))


router.routes.extend(_direct.routes)
