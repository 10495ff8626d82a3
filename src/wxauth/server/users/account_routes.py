"""`/v1/me`: users read their account, and list and end their sessions."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from wxauth.errors import NotFound, Title
from wxauth.server.users import account
from wxauth.server.users.bodies import (
    SessionsAnswer,
    SessionsQuery,
    UserAnswer,
    open_session_answer,
    user_answer,
)
from wxauth.server.users.callers import CallerDep, CallerWhoEndsDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep
from wxauth.server.web.direct import Router

router = Router("me")


@router.get("/v1/me", summary=Title("Read my profile", "查看我的资料"))
async def read_me(caller: CallerDep, settings: SettingsDep) -> UserAnswer:
    """The user behind the access token, with the identity of the session it belongs to."""
    return user_answer(caller.user, settings.consents)


@router.get("/v1/me/sessions", summary=Title("List my sessions", "查看已登录的设备"))
async def list_my_sessions(
    caller: CallerDep, database: DatabaseDep, clock: ClockDep, query: Annotated[SessionsQuery, Query()]
) -> SessionsAnswer:
    """The open sessions, the most recently used first. In one app, a user keeps the newest hundred."""
    page = await account.list_sessions(database, clock, caller, after=query.after, limit=query.limit)
    return {
        "items": [
            {**open_session_answer(session), "current": session.id == caller.session_id} for session in page.items
        ],
        "next_cursor": page.next_cursor,
    }


@router.delete("/v1/me/sessions", summary=Title("End my other sessions", "下线其他所有设备"))
async def end_my_other_sessions(caller: CallerWhoEndsDep, database: DatabaseDep, clock: ClockDep) -> None:
    """End every session except the caller's."""
    await account.end_other_sessions(database, clock, caller)


@router.delete(
    "/v1/me/sessions/{session_id}", summary=Title("End one of my sessions", "下线某台设备"), failures=[NotFound]
)
async def end_my_session(caller: CallerWhoEndsDep, session_id: UUID, database: DatabaseDep, clock: ClockDep) -> None:
    """End one of the caller's sessions, possibly this one. Idempotent."""
    await account.end_my_session(database, clock, caller, session_id)
