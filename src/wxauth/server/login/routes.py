"""`POST /v1/login`, `/v1/refresh` and `/v1/logout`; and opening data with a login's session_key."""

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request

from wxauth.errors import (
    AccountDisabled,
    CodeUsed,
    InvalidCode,
    InvalidRefreshToken,
    InvalidRequest,
    PayloadTooLarge,
    RateLimited,
    RefreshTokenExpired,
    RefreshTokenReused,
    SessionKeyExpired,
    SessionRevoked,
    SignUpClosed,
    StorageUnavailable,
    UnknownApp,
    WeChatUserBlocked,
)
from wxauth.server.core.services import ServicesDep
from wxauth.server.login import login
from wxauth.server.login.bodies import (
    EXAMPLE_DECRYPTED,
    EXAMPLE_TOKENS,
    DecryptedAnswer,
    DecryptRequest,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    TokenAnswer,
    token_answer,
)
from wxauth.server.session_keys import session_keys
from wxauth.server.users.callers import DeviceDep, PrincipalDep
from wxauth.server.web.answers import BEARER_SECURITY, GUARDED, WECHAT_FAILURES, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, generate_unique_id_function=operation_id)

_WRONG_WATERMARK: Final = InvalidRequest.of("encrypted_data", "The watermark is another app's")


@router.post(
    "/v1/login",
    summary="Log in with a wx.login code",
    tags=["login"],
    responses=answers(
        EXAMPLE_TOKENS,
        InvalidRequest,
        PayloadTooLarge,
        UnknownApp,
        InvalidCode,
        CodeUsed,
        WeChatUserBlocked,
        SignUpClosed,
        AccountDisabled,
        RateLimited,
        *WECHAT_FAILURES,
        StorageUnavailable,
    ),
)
async def log_in(body: LoginRequest, services: ServicesDep, device: DeviceDep) -> TokenAnswer:
    """Exchange a one-time `wx.login` code for an access token and a refresh token.

    The user is made at first sight. A code works once: after any failure, call `wx.login` again.
    """
    app_id = body.app_id or None
    with services.metrics.login(app_id) as outcome:
        tokens = await login.log_in(
            services,
            code=body.code,
            app_id=app_id,
            nickname=body.nickname or None,
            avatar_url=body.avatar_url or None,
            phone_code=body.phone_code or None,
            consents=body.consents,
            device=device,
        )
        outcome.name = "new" if tokens.is_new_user else "ok"
    return token_answer(tokens, services.settings.consents)


@router.post(
    "/v1/refresh",
    summary="Exchange a refresh token for a new pair",
    tags=["login"],
    responses=answers(
        {**EXAMPLE_TOKENS, "is_new_user": False},
        InvalidRequest,
        PayloadTooLarge,
        InvalidRefreshToken,
        RefreshTokenExpired,
        RefreshTokenReused,
        SessionRevoked,
        AccountDisabled,
        StorageUnavailable,
    ),
)
async def refresh(body: RefreshRequest, services: ServicesDep, device: DeviceDep) -> TokenAnswer:
    """Keep the session going: a new access token, and the refresh token's successor.

    A refresh token is used once. Sent again soon (its answer was lost, or two tabs sent it), it gets the same
    successor; sent again later, it ends the session, since somebody else may have it.
    """
    with services.metrics.refresh():
        tokens = await login.refresh(services, refresh_token=body.refresh_token, device=device)
    return token_answer(tokens, services.settings.consents)


@router.post(
    "/v1/logout",
    summary="End a session",
    tags=["login"],
    status_code=204,
    responses=failures(InvalidRequest, PayloadTooLarge, *GUARDED),
    openapi_extra={"security": [*BEARER_SECURITY["security"], {}]},
)
async def log_out(request: Request, services: ServicesDep, body: LogoutRequest | None = None) -> None:
    """End the session of the refresh token in the body or, without one, of the access token.

    204 whatever the refresh token is, and 204 again: what is to be is so. The refresh token dies at once, the
    access token at siblings when it expires.
    """
    if body is None or body.refresh_token is None:
        principal = await services.guard(request)  # an ended session may be ended again
        await login.log_out(services, session_id=principal.session_id)
    elif (token := services.refresh_tokens.parse(body.refresh_token)) is not None:
        await login.log_out(services, session_id=token.session_id)


@router.post(
    "/v1/me/decrypt",
    summary="Open encryptedData",
    tags=["me"],
    responses=answers(EXAMPLE_DECRYPTED, _WRONG_WATERMARK, PayloadTooLarge, SessionKeyExpired, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def decrypt(principal: PrincipalDep, body: DecryptRequest, services: ServicesDep) -> DecryptedAnswer:
    """Check and open what WeChat gave the mini-program as `encryptedData` and `iv`.

    WeChat changes the key with a login: at `session_key_expired` log in again, then let the person tap again, for
    what was encrypted before does not open any more. The watermark must be of the session's app and of the last day.
    """
    return {"data": await session_keys.decrypt(services, principal, encrypted_data=body.encrypted_data, iv=body.iv)}
