"""`/v1/me`: users read their account, list and end their sessions, and list, give and withdraw consents."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Query

from wxauth.errors import InvalidRequest, NotFound, RateLimited, Title
from wxauth.server.users import account, consents
from wxauth.server.users.bodies import (
    SessionAnswer,
    SessionsQuery,
    UserAnswer,
    user_answer,
)
from wxauth.server.users.callers import CallerDep, CallerInTurnDep, CallerWhoEndsDep, DeviceDep
from wxauth.server.users.consent_rows import ConsentRow, holding_consents, newest_consents
from wxauth.server.users.consents import (
    ConsentsQuery,
    ConsentsRequest,
)
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.web.paging import Items, Page, all_of, items_of

router = Router("me")
_NOT_IN_FORCE: Final = InvalidRequest.of("privacy", "Not the version that is in force")


@router.get("/v1/me", summary=Title("Read my profile", "查看我的资料"))
async def read_me(caller: CallerDep, settings: SettingsDep) -> UserAnswer:
    """The user behind the access token, with the identity of the session it belongs to."""
    return user_answer(caller.user, settings.consents)


@router.get("/v1/me/sessions", summary=Title("List my sessions", "查看已登录的设备"))
async def list_my_sessions(
    caller: CallerDep, database: DatabaseDep, clock: ClockDep, query: Annotated[SessionsQuery, Query()]
) -> Items[SessionAnswer]:
    """The open sessions, the most recently used first. In one app, a user keeps the newest hundred."""
    page = await account.list_sessions(database, clock, caller, after=query.after, limit=query.limit)
    items = [
        SessionAnswer.model_construct(**vars(session), current=session.id == caller.session_id)
        for session in page.items
    ]
    return items_of(Page(items, page.next_cursor))


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


@router.get("/v1/me/consents", summary=Title("List my consents", "查看我同意过的协议"))
async def list_my_consents(
    caller: CallerDep, database: DatabaseDep, query: Annotated[ConsentsQuery, Query()]
) -> Items[ConsentRow]:
    """Every consent ever given, the newest first. `withdrawn_at` is set where one was withdrawn."""
    found = await newest_consents(database, caller.user.id, limit=query.limit + 1, after=query.after)
    page = Page.by_time(found, query.limit, lambda consent: (consent.given_at, consent.id))
    return items_of(page)


@router.post("/v1/me/consents", summary=Title("Give consent", "同意协议"), failures=[_NOT_IN_FORCE, RateLimited])
async def give_my_consents(
    caller: CallerInTurnDep,
    body: ConsentsRequest,
    settings: SettingsDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
) -> Items[ConsentRow]:
    """Record the caller's consent to these documents, in the versions in force.

    Idempotent. The answer lists the caller's consents to documents in force. After 20 consents in an hour, the next one
    is `rate_limited`.
    """
    in_force = settings.consents
    consents.check_in_force(body.root, in_force)
    await consents.give_consents(database, caller.user, body.root, ip=device.ip, now=clock())
    holding = await holding_consents(database, caller.user.id, in_force)
    return all_of(holding)


@router.delete(
    "/v1/me/consents/{document}",
    summary=Title("Withdraw consent", "撤回同意"),
    failures=[NotFound("this document has not been agreed to")],
)
async def withdraw_my_consent(
    caller: CallerInTurnDep, document: str, database: DatabaseDep, clock: ClockDep, device: DeviceDep
) -> None:
    """Withdraw the caller's consent to a document. It stays in the list, with the time of withdrawal."""
    user = caller.user
    await consents.withdraw(database, user.id, document, app_id=user.app_id, ip=device.ip, now=clock())
