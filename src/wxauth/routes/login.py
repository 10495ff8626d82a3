"""`POST /v1/login`."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import HTTPConnection

from wxauth import login
from wxauth.errors import (
    AccountDisabled,
    CodeUsed,
    InvalidCode,
    InvalidRequest,
    PayloadTooLarge,
    StorageUnavailable,
    UnknownApp,
    WeChatBadResponse,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatTimeout,
    WeChatUnavailable,
    WeChatUserBlocked,
)
from wxauth.routes.client_address import client_ip
from wxauth.routes.direct import DirectRoute
from wxauth.routes.failures import failures
from wxauth.routes.schemas import EXAMPLE_TOKENS, LoginRequest, TokenAnswer, user_answer
from wxauth.services import ServicesDep

_MAX_USER_AGENT = 512

router = APIRouter(route_class=DirectRoute, tags=["login"])


async def device_of(connection: HTTPConnection) -> login.Device:
    """Where the request comes from."""
    user_agent = connection.headers.get("user-agent")
    return login.Device(ip=client_ip(connection.scope), user_agent=user_agent and user_agent[:_MAX_USER_AGENT])


DeviceDep = Annotated[login.Device, Depends(device_of)]
"""Where the request comes from, for the list of a user's devices."""


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
            WeChatRateLimited,
            WeChatBadResponse,
            WeChatMisconfigured,
            WeChatUnavailable,
            WeChatTimeout,
            StorageUnavailable,
        ),
    },
)
async def log_in(body: LoginRequest, services: ServicesDep, device: DeviceDep) -> TokenAnswer:
    """Exchange a one-time `wx.login` code for an access token and a refresh token.

    The user is made at first sight. A code works once: after any failure, call `wx.login` again.
    """
    tokens = await login.log_in(
        services,
        code=body.code,
        app_id=body.app_id or None,
        nickname=body.nickname or None,
        avatar_url=body.avatar_url or None,
        device=device,
    )
    return token_answer(tokens)


def token_answer(tokens: login.Tokens) -> TokenAnswer:
    """The body that carries tokens."""
    return {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "refresh_expires_in": tokens.refresh_expires_in,
        "session_id": tokens.session_id,
        "is_new_user": tokens.is_new_user,
        "user": user_answer(tokens.user),
    }
