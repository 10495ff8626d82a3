"""`POST /v1/login`, `/v1/refresh`, `/v1/logout` and `/v1/me/decrypt`."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request

from wxauth.errors import (
    AccountDisabled,
    AccountLeaving,
    CodeUsed,
    InvalidCode,
    InvalidRefreshToken,
    InvalidRequest,
    RateLimited,
    RefreshTokenExpired,
    RefreshTokenReused,
    SessionKeyExpired,
    SessionReplaced,
    SessionRevoked,
    SignUpClosed,
    SignUpRefused,
    SignUpUnavailable,
    SnapshotUser,
    StorageUnavailable,
    Title,
    UnknownApp,
    WeChatUserBlocked,
    WrongAppKind,
)
from wxauth.server.apps.registry import Apps, AppsDep
from wxauth.server.core.metrics import OUR_FAULTS, CountedBlock, Counter
from wxauth.server.core.settings import Settings
from wxauth.server.login.bodies import (
    DecryptedAnswer,
    DecryptRequest,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    TokenAnswer,
    token_answer,
)
from wxauth.server.login.entering import Asked
from wxauth.server.login.login import LoginLimiter, Logins
from wxauth.server.session_keys.session_keys import SessionKeys
from wxauth.server.sessions.refresh_tokens import RefreshTokensDep
from wxauth.server.users.callers import DeviceDep, PrincipalDep, verified
from wxauth.server.web.answers import BEARER, GUARDED, WECHAT_FAILURES
from wxauth.server.web.dependencies import ClockDep, SettingsDep, VerifierDep, provide
from wxauth.server.web.direct import Router, ValidatedWith
from wxauth.server.wechat.errcodes import FAULTS_OF_WECHAT, errcode_label

router = Router("login")

LoginLimiterDep = Annotated[LoginLimiter, Depends(provide(LoginLimiter))]
LoginsDep = Annotated[Logins, Depends(provide(Logins))]
SessionKeysDep = Annotated[SessionKeys, Depends(provide(SessionKeys))]

LOGIN: Final = "/v1/login"
REFRESH: Final = "/v1/refresh"

LOGINS: Final = Counter(
    "wxauth_logins",
    "Logins, by app and outcome: ok, new (a new user) or the code of the error; errcode is WeChat's.",
    "app_id",
    "outcome",
    "errcode",
)
OUTCOMES: Final = ("ok", "new", *(fault.code for fault in (*OUR_FAULTS, *FAULTS_OF_WECHAT)))
"""The outcomes that exist from the start, for each app."""
REFRESHES: Final = Counter(
    "wxauth_refreshes",
    "Token refreshes, by outcome: ok or the code of the error.",
    "outcome",
    first=("ok", *(fault.code for fault in OUR_FAULTS)),
)

_UNREAD: Final = ""
"""In place of the app id of a login whose body was not read."""
_WRONG_WATERMARK: Final = InvalidRequest.of("encrypted_data", "The watermark is another app's")


def _counted(apps: Apps, app_id: str | None) -> CountedBlock:
    label = apps.label_of(app_id)
    return CountedBlock(lambda outcome, error: LOGINS.count(label, outcome, errcode_label(error)))


async def admit_login(device: DeviceDep, apps: AppsDep, limiter: LoginLimiterDep) -> None:
    """Count a login of the client's address, before its body is read: wrong bodies count too. Raises: RateLimited."""
    try:
        await limiter.admit_address(device.ip)
    except RateLimited:
        with _counted(apps, _UNREAD):
            raise


@router.post(
    LOGIN,
    summary=Title("Log in with a wx.login code", "用 wx.login 的 code 登录"),
    failures=[
        UnknownApp,
        InvalidCode,
        CodeUsed,
        WeChatUserBlocked,
        SignUpClosed,
        SignUpRefused,
        SignUpUnavailable,
        SnapshotUser,
        WrongAppKind,
        AccountDisabled,
        AccountLeaving,
        RateLimited,
        *WECHAT_FAILURES,
        StorageUnavailable,
    ],
)
async def log_in(
    _: Annotated[None, Depends(admit_login)],
    body: Annotated[LoginRequest, ValidatedWith(Settings)],
    settings: SettingsDep,
    apps: AppsDep,
    logins: LoginsDep,
    device: DeviceDep,
) -> TokenAnswer:
    """Exchange a one-time `wx.login` code for an access token and a refresh token.

    The first login creates the user. A code works once: after any failure, call `wx.login` again. A mobile app sends
    the code of the SDK's `SendAuth`, and its `app_id`.
    """
    app_id = body.app_id or None
    with _counted(apps, app_id) as counted:
        asked = Asked(
            code=body.code,
            device=device,
            nickname=body.nickname or None,
            avatar_url=body.avatar_url or None,
            stays=body.stay,
        )
        tokens = await logins.log_in(asked, app_id=app_id, phone_code=body.phone_code or None, consents=body.consents)
        counted.outcome = "new" if tokens.is_new_user else "ok"
    return token_answer(tokens, settings.consents)


@router.post(
    REFRESH,
    summary=Title("Refresh the tokens", "用刷新令牌换取新的一对令牌"),
    failures=[
        InvalidRefreshToken,
        RefreshTokenExpired,
        RefreshTokenReused,
        SessionReplaced,
        SessionRevoked,
        AccountDisabled,
        StorageUnavailable,
    ],
)
async def refresh(body: RefreshRequest, settings: SettingsDep, logins: LoginsDep, device: DeviceDep) -> TokenAnswer:
    """Exchange a refresh token for a new access token and the next refresh token.

    A refresh token works once. If it is sent again soon (because the answer was lost, or two tabs sent it), it gets the
    same successor. If it is sent again later, it may have been stolen: the session is ended.
    """
    with REFRESHES.outcome_of():
        tokens = await logins.refresh(refresh_token=body.refresh_token, device=device)
    return token_answer(tokens, settings.consents)


@router.post(
    "/v1/logout",
    summary=Title("Log out", "退出登录"),
    failures=GUARDED,
    openapi_extra={"security": [*BEARER, {}]},
)
async def log_out(
    request: Request,
    verifier: VerifierDep,
    clock: ClockDep,
    refresh_tokens: RefreshTokensDep,
    logins: LoginsDep,
    body: LogoutRequest | None = None,
) -> None:
    """End the session of the refresh token in the body or, without one, of the access token.

    Idempotent: 204 whether or not the session was still open. The refresh token is void at once; siblings accept the
    access token until it expires.
    """
    if body is None or body.refresh_token is None:
        # This checks only the token: the session may have ended already.
        principal = await verified(request, verifier, clock)
        await logins.log_out(session_id=principal.session_id)
    elif (token := refresh_tokens.parse(body.refresh_token)) is not None:
        await logins.log_out(session_id=token.session_id)


@router.post(
    "/v1/me/decrypt",
    summary=Title("Decrypt encryptedData", "解密 encryptedData"),
    tag="me",
    failures=[_WRONG_WATERMARK, WrongAppKind, SessionKeyExpired],
)
async def decrypt(principal: PrincipalDep, body: DecryptRequest, session_keys: SessionKeysDep) -> DecryptedAnswer:
    """Verify and decrypt the `encryptedData` and `iv` that WeChat gave the mini-program.

    WeChat changes the key with a login: upon `session_key_expired`, log in again, then let the user tap again, because
    earlier data can no longer be decrypted. The watermark must be of the session's app and at most a day old.
    """
    return {"data": await session_keys.decrypt(principal, encrypted_data=body.encrypted_data, iv=body.iv)}
