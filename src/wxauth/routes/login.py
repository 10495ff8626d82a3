"""`POST /v1/login`, `/v1/refresh` and `/v1/logout`."""

from fastapi import APIRouter
from starlette.requests import Request

from wxauth import login
from wxauth.core.services import ServicesDep
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
    SessionRevoked,
    StorageUnavailable,
    UnknownApp,
    WeChatUserBlocked,
)
from wxauth.routes.callers import DeviceDep
from wxauth.routes.schemas import (
    EXAMPLE_TOKENS,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    TokenAnswer,
    user_answer,
)
from wxauth.web.answers import BEARER_SECURITY, GUARDED, WECHAT_FAILURES, failures
from wxauth.web.direct import DirectRoute

router = APIRouter(route_class=DirectRoute, tags=["login"])


@router.post(
    "/v1/login",
    operation_id="log_in",
    summary="Log in with a wx.login code",
    response_model=TokenAnswer,
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_TOKENS}}},
        **failures(
            InvalidRequest,
            PayloadTooLarge,
            UnknownApp,
            InvalidCode,
            CodeUsed,
            WeChatUserBlocked,
            AccountDisabled,
            RateLimited,
            *WECHAT_FAILURES,
            StorageUnavailable,
        ),
    },
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
            device=device,
        )
        outcome.name = "new" if tokens.is_new_user else "ok"
    return token_answer(tokens)


@router.post(
    "/v1/refresh",
    operation_id="refresh",
    summary="Exchange a refresh token for a new pair",
    response_model=TokenAnswer,
    responses={
        200: {"content": {"application/json": {"example": {**EXAMPLE_TOKENS, "is_new_user": False}}}},
        **failures(
            InvalidRequest,
            PayloadTooLarge,
            InvalidRefreshToken,
            RefreshTokenExpired,
            RefreshTokenReused,
            SessionRevoked,
            AccountDisabled,
            StorageUnavailable,
        ),
    },
)
async def refresh(body: RefreshRequest, services: ServicesDep, device: DeviceDep) -> TokenAnswer:
    """Keep the session going: a new access token, and the refresh token's successor.

    A refresh token is used once. Sent again soon (its answer was lost, or two tabs sent it), it gets the same
    successor; sent again later, it ends the session, since somebody else may have it.
    """
    with services.metrics.refresh():
        tokens = await login.refresh(services, refresh_token=body.refresh_token, device=device)
    return token_answer(tokens)


@router.post(
    "/v1/logout",
    operation_id="log_out",
    summary="End a session",
    status_code=204,
    responses=failures(InvalidRequest, PayloadTooLarge, *GUARDED),
    openapi_extra={"security": [*BEARER_SECURITY["security"], {}]},
)
async def log_out(body: LogoutRequest | None, request: Request, services: ServicesDep) -> None:
    """End the session of the refresh token in the body or, without one, of the access token.

    204 whatever the refresh token is, and 204 again: what is to be is so. The refresh token dies at once, the
    access token at siblings when it expires.
    """
    if body is None or body.refresh_token is None:
        principal = await services.guard(request)  # an ended session may be ended again
        await login.log_out(services, session_id=principal.session_id)
    elif (token := services.refresh_tokens.parse(body.refresh_token)) is not None:
        await login.log_out(services, session_id=token.session_id)


def token_answer(tokens: login.Tokens) -> TokenAnswer:
    """The body that carries tokens."""
    answer: TokenAnswer = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "refresh_expires_in": tokens.refresh_expires_in,
        "session_id": tokens.session_id,
        "is_new_user": tokens.is_new_user,
        "user": user_answer(tokens.user),
    }
    if tokens.phone_error is not None:
        answer["phone_error"] = tokens.phone_error
    return answer
