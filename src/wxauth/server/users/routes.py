"""`/v1/me`: the account of the person who asks, and where they are logged in."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from wxauth.errors import InvalidRequest, LastAdmin, NotFound
from wxauth.server.core.services import ServicesDep
from wxauth.server.users import account
from wxauth.server.users.bodies import (
    EXAMPLE_SESSIONS,
    EXAMPLE_USER,
    SessionsAnswer,
    SessionsQuery,
    UserAnswer,
    open_session_answer,
    user_answer,
)
from wxauth.server.users.callers import CallerDep
from wxauth.server.web.answers import BEARER_SECURITY, GUARDED, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id
from wxauth.server.web.paging import not_stored, timed_cursor

_WRONG_PARAMETER: Final = InvalidRequest.of("limit", "Input should be less than or equal to 200")

lists = APIRouter(tags=["me"], dependencies=[Depends(not_stored)], generate_unique_id_function=operation_id)
router = APIRouter(route_class=DirectRoute, tags=["me"], generate_unique_id_function=operation_id)


@router.get("/v1/me", summary="Who am I", responses=answers(EXAMPLE_USER, *GUARDED), openapi_extra=BEARER_SECURITY)
async def read_me(caller: CallerDep, services: ServicesDep) -> UserAnswer:
    """The user behind the access token, with the identity of the session it belongs to."""
    return user_answer(caller.user, services.settings.consents)


@router.delete(
    "/v1/me",
    summary="Erase my account",
    status_code=204,
    responses=failures(LastAdmin, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def erase_me(caller: CallerDep, services: ServicesDep) -> None:
    """Erase the person: user, identities, sessions, and what the audit trail tells of them.

    The next login is a new user's.
    """
    await account.erase_me(services, caller)


@lists.get(
    "/v1/me/sessions",
    summary="Where am I logged in",
    responses=answers(EXAMPLE_SESSIONS, _WRONG_PARAMETER, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def list_my_sessions(
    caller: CallerDep, services: ServicesDep, query: Annotated[SessionsQuery, Query()]
) -> SessionsAnswer:
    """The open sessions, the last used first. Of one app a person keeps the newest hundred."""
    found = await account.list_sessions(services, caller, after=query.after, limit=query.limit)
    sessions = found[: query.limit]
    last = sessions[-1] if len(found) > len(sessions) else None
    return {
        "items": [
            {**open_session_answer(session), "current": session["id"] == caller.session_id} for session in sessions
        ],
        "next_cursor": None if last is None else timed_cursor(last["last_used_at"], last["id"]),
    }


@router.delete(
    "/v1/me/sessions",
    summary="Log out everywhere else",
    status_code=204,
    responses=failures(*GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def end_my_other_sessions(caller: CallerDep, services: ServicesDep) -> None:
    """End every session but the one that asks."""
    await account.end_other_sessions(services, caller)


@router.delete(
    "/v1/me/sessions/{session_id}",
    summary="Log out on one device",
    status_code=204,
    responses=failures(InvalidRequest, NotFound, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def end_my_session(caller: CallerDep, session_id: UUID, services: ServicesDep) -> None:
    """End one of my sessions, this one too; 204 again where it has ended."""
    await account.end_my_session(services, caller, session_id)
