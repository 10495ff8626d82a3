"""The routes `/v1/me`, where users read and change their account, end their sessions, and manage their consents."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Query

from wxauth.core.logs import get_logger
from wxauth.core.trail import Actor
from wxauth.errors import NotFound, RateLimited
from wxauth.i18n import lazy_gettext as _
from wxauth.sessions.list_queries import OPEN_SESSIONS
from wxauth.sessions.queries import ARE_OF_ONE_USER, EndReason, end_session, end_sessions
from wxauth.users.callers import CallerDep, CallerEndingSessionsDep, CallerInTurnDep, DeviceDep, locked_caller
from wxauth.users.consent_queries import (
    NEWEST_CONSENTS,
    NOT_AGREED,
    NOT_IN_FORCE,
    ConsentRow,
    check_in_force,
    give_consents,
    valid_consents,
    withdraw_consent,
)
from wxauth.users.schemas import (
    ConsentsQuery,
    ConsentsRequest,
    ProfileChange,
    SessionAnswer,
    SessionsQuery,
    UserAnswer,
    is_uploaded_picture,
    user_answer,
)
from wxauth.users.user_queries import store_profile
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep
from wxauth.web.direct import Router
from wxauth.web.pages import Items, Page, all_of, items_of, timed_cursor
from wxauth_guard.errors import InvalidRequest, InvalidToken

router = Router("me")
log = get_logger()

_UNKNOWN_SESSION: Final = "you don't have this session"
_NO_SUCH_SESSION: Final = NotFound(_UNKNOWN_SESSION)
_WRONG_VERSION: Final = InvalidRequest.of("privacy", NOT_IN_FORCE)


@router.get("/v1/me", summary=_("Read my profile"))
async def read_me(caller: CallerDep, settings: SettingsDep) -> UserAnswer:
    """Return the user of the access token, with the identity of its session."""
    return user_answer(caller.user, settings.consents)


@router.get("/v1/me/sessions", summary=_("List my sessions"))
async def list_my_sessions(
    caller: CallerDep, database: DatabaseDep, clock: ClockDep, query: Annotated[SessionsQuery, Query()]
) -> Items[SessionAnswer]:
    """List the open sessions, the most recently used first.

    For each of the user's openids, wxauth keeps only the 100 newest sessions open, or fewer if the app has
    `max_sessions`.
    """
    # The query reads one row more than fits on the page, because the additional row shows that there is a next page.
    rows = await database.rows(OPEN_SESSIONS, user_id=caller.user.id, now=clock(), limit=query.limit + 1, **query.after)
    page = Page.with_cursor(rows, query.limit, lambda session: timed_cursor(session.last_used_at, session.id))
    items = [  # without validating the rows again
        SessionAnswer.model_construct(**vars(session), current=session.id == caller.session_id)
        for session in page.items
    ]
    return items_of(Page(items, page.next_cursor))


@router.delete("/v1/me/sessions", summary=_("End my other sessions"))
async def end_my_other_sessions(caller: CallerEndingSessionsDep, database: DatabaseDep, clock: ClockDep) -> None:
    """End every session except the caller's, and the logins of the user's browsers."""
    user_id = caller.user.id
    by = Actor(str(user_id))
    reason = EndReason.SIGNED_OUT_ELSEWHERE
    now = clock()
    # To avoid deadlocks, this request locks the user first, as every operation that ends several sessions does.
    async with locked_caller(database, caller, now=now) as transaction:
        await end_sessions(transaction, user_id, reason=reason, by=by, now=now, except_id=caller.session_id)


@router.delete("/v1/me/sessions/{session_id}", summary=_("End one of my sessions"), failures=[_NO_SUCH_SESSION])
async def end_my_session(
    caller: CallerEndingSessionsDep, session_id: UUID, database: DatabaseDep, clock: ClockDep
) -> None:
    """End one of the caller's sessions, which may be the session of this request.

    If the session is open, was opened in a browser, and is not the session of this request, also end the login of that
    browser.
    Repeating the request changes nothing.
    """
    # This query compares the owners of both sessions, because a merge might just have given them a different owner.
    if not await database.value(ARE_OF_ONE_USER, one_id=session_id, other_id=caller.session_id):
        raise NotFound(_UNKNOWN_SESSION)
    is_current = session_id == caller.session_id
    reason = EndReason.SIGNED_OUT if is_current else EndReason.SIGNED_OUT_ELSEWHERE
    await end_session(database, session_id=session_id, reason=reason, now=clock())
    log.info("logged_out", user_id=caller.user.id, session_id=session_id)


@router.get("/v1/me/consents", summary=_("List my consents"))
async def list_my_consents(
    caller: CallerDep, database: DatabaseDep, query: Annotated[ConsentsQuery, Query()]
) -> Items[ConsentRow]:
    """List all consents that the caller has ever given, the newest first. In a valid one, `withdrawn_at` is null."""
    rows = await database.rows(NEWEST_CONSENTS, user_id=caller.user.id, limit=query.limit + 1, **query.after)
    page = Page.with_cursor(rows, query.limit, lambda consent: timed_cursor(consent.given_at, consent.id))
    return items_of(page)


@router.post("/v1/me/consents", summary=_("Give consent"), failures=[_WRONG_VERSION, RateLimited])
async def give_my_consents(
    caller: CallerInTurnDep,
    body: ConsentsRequest,
    settings: SettingsDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
) -> Items[ConsentRow]:
    """Record the caller's consent to these documents, in the versions in force.

    Repeating the request changes nothing. The response lists the caller's consents to all documents in force. After 20
    consents in an hour, the next one fails with `rate_limited`.
    """
    in_force = settings.consents
    check_in_force(body.root, in_force)
    await give_consents(database, caller.user, body.root, ip=device.ip, now=clock())
    return all_of(await valid_consents(database, caller.user.id, in_force))


@router.delete("/v1/me/consents/{document}", summary=_("Withdraw consent"), failures=[NotFound(NOT_AGREED)])
async def withdraw_my_consent(
    caller: CallerInTurnDep, document: str, database: DatabaseDep, clock: ClockDep, device: DeviceDep
) -> None:
    """Withdraw the caller's consent to a document. The consent stays in the list, with the time of withdrawal."""
    user = caller.user
    await withdraw_consent(database, user.id, document, app_id=user.app_id, ip=device.ip, now=clock())


@router.post(
    "/v1/me",
    summary=_("Change my profile (for clients that can't send PATCH)"),
    operation_id="change_me_by_post",
    failures=[RateLimited],
)
@router.patch("/v1/me", summary=_("Change my profile"), failures=[RateLimited])
async def change_me(
    caller: CallerInTurnDep,
    body: ProfileChange,
    settings: SettingsDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> UserAnswer:
    """Set the given fields, and clear those that are null or empty. The other fields are unchanged.

    `wx.request` can't send PATCH, so POST does the same. After 60 changes in an hour, the next one fails with
    `rate_limited`.
    """
    changes = body.changes()
    # A form might send back the URL of an uploaded picture. The URL is ignored, because this request cannot set it.
    if is_uploaded_picture(changes.get("avatar_url"), settings.issuer):
        del changes["avatar_url"]
    user = await store_profile(database, caller.user, changes, now=clock())
    if user is None:
        raise InvalidToken("the session has ended")
    log.info("profile_changed", user_id=user.id, fields=sorted(changes))
    return user_answer(user, settings.consents)
