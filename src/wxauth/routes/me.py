"""`/v1/me`: the account of the person who asks."""

from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter

from wxauth import accounts, session_keys
from wxauth.core.services import ServicesDep
from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    InvalidRequest,
    LastAdmin,
    NotFound,
    PayloadTooLarge,
    PhoneTaken,
    RateLimited,
    SessionKeyExpired,
    UnknownApp,
    WeChatUserBlocked,
)
from wxauth.routes.callers import CallerDep, PrincipalDep
from wxauth.routes.schemas import (
    EXAMPLE_DECRYPTED,
    EXAMPLE_SESSIONS,
    EXAMPLE_USER,
    DecryptedAnswer,
    DecryptRequest,
    PhoneRequest,
    ProfileChange,
    SessionsAnswer,
    UserAnswer,
    open_session_answer,
    user_answer,
)
from wxauth.web.answers import BEARER_SECURITY, GUARDED, WECHAT_FAILURES, failures
from wxauth.web.direct import DirectRoute

router = APIRouter(route_class=DirectRoute, tags=["me"])

_WRONG_WATERMARK: Final = InvalidRequest.of("encrypted_data", "The watermark is another app's")

_USER: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": EXAMPLE_USER}}}}


@router.get(
    "/v1/me",
    operation_id="read_me",
    summary="Who am I",
    response_model=UserAnswer,
    responses={**_USER, **failures(*GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
async def read_me(caller: CallerDep) -> UserAnswer:
    """The user behind the access token, with the identity of the session it belongs to."""
    return user_answer(caller.user)


@router.post(
    "/v1/me",
    operation_id="change_me_by_post",
    summary="Change my profile, where PATCH cannot be sent",
    response_model=UserAnswer,
    responses={**_USER, **failures(InvalidRequest, PayloadTooLarge, *GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
@router.patch(
    "/v1/me",
    operation_id="change_me",
    summary="Change my profile",
    response_model=UserAnswer,
    responses={**_USER, **failures(InvalidRequest, PayloadTooLarge, *GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
async def change_me(caller: CallerDep, body: ProfileChange, services: ServicesDep) -> UserAnswer:
    """Set what is named, clear what is null or empty; the rest stays.

    `wx.request` has no PATCH, so POST does the same. A nickname that WeChat finds against the rules is
    `invalid_request`, where the service has it checked.
    """
    return user_answer(await accounts.change_profile(services, caller, body.changes()))


@router.delete(
    "/v1/me",
    operation_id="erase_me",
    summary="Erase my account",
    status_code=204,
    responses=failures(LastAdmin, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def erase_me(caller: CallerDep, services: ServicesDep) -> None:
    """Erase the person: user, identities, sessions, and what the audit trail tells of them.

    The next login is a new user's.
    """
    await accounts.erase_me(services, caller)


@router.post(
    "/v1/me/phone",
    operation_id="bind_my_phone",
    summary="Bind my phone number",
    response_model=UserAnswer,
    responses={
        **_USER,
        **failures(
            InvalidRequest,
            PayloadTooLarge,
            UnknownApp,
            InvalidCode,
            CodeUsed,
            PhoneTaken,
            WeChatUserBlocked,
            RateLimited,
            *WECHAT_FAILURES,
            *GUARDED,
        ),
    },
    openapi_extra=BEARER_SECURITY,
)
async def bind_my_phone(caller: CallerDep, body: PhoneRequest, services: ServicesDep) -> UserAnswer:
    """Bind the number behind a code of the phone button.

    What WeChat answered is kept: after a failure (and after a lost answer) send the same code again, which asks
    WeChat nothing more. At `invalid_code` and `code_used` let the person tap again.
    """
    return user_answer(await accounts.bind_phone(services, caller, body.code))


@router.post(
    "/v1/me/decrypt",
    operation_id="decrypt",
    summary="Open encryptedData",
    response_model=DecryptedAnswer,
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_DECRYPTED}}},
        **failures(_WRONG_WATERMARK, PayloadTooLarge, SessionKeyExpired, *GUARDED),
    },
    openapi_extra=BEARER_SECURITY,
)
async def decrypt(principal: PrincipalDep, body: DecryptRequest, services: ServicesDep) -> DecryptedAnswer:
    """Check and open what WeChat gave the mini-program as `encryptedData` and `iv`.

    WeChat changes the key with a login: at `session_key_expired` log in again, then let the person tap again, for
    what was encrypted before does not open any more. The watermark must be of the session's app and of the last day.
    """
    return {"data": await session_keys.decrypt(services, principal, encrypted_data=body.encrypted_data, iv=body.iv)}


@router.get(
    "/v1/me/sessions",
    operation_id="list_my_sessions",
    summary="Where am I logged in",
    response_model=SessionsAnswer,
    responses={200: {"content": {"application/json": {"example": EXAMPLE_SESSIONS}}}, **failures(*GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
async def list_my_sessions(caller: CallerDep, services: ServicesDep) -> SessionsAnswer:
    """Every open session, the last used first."""
    sessions = await accounts.list_sessions(services, caller)
    return {
        "items": [
            {**open_session_answer(session), "current": session["id"] == caller.session_id} for session in sessions
        ],
        "next_cursor": None,
    }


@router.delete(
    "/v1/me/sessions",
    operation_id="end_my_other_sessions",
    summary="Log out everywhere else",
    status_code=204,
    responses=failures(*GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def end_my_other_sessions(caller: CallerDep, services: ServicesDep) -> None:
    """End every session but the one that asks."""
    await accounts.end_other_sessions(services, caller)


@router.delete(
    "/v1/me/sessions/{session_id}",
    operation_id="end_my_session",
    summary="Log out on one device",
    status_code=204,
    responses=failures(InvalidRequest, NotFound, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def end_my_session(caller: CallerDep, session_id: UUID, services: ServicesDep) -> None:
    """End one of my sessions, this one too; 204 again where it has ended."""
    await accounts.end_my_session(services, caller, session_id)
