"""The routes for login, refresh, logout and erasure of one's own account."""

from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic import AliasChoices, BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from wxauth import errors
from wxauth.apps.registry import Apps
from wxauth.apps.routes import AppsDep
from wxauth.core.logs import get_logger
from wxauth.core.metrics import OUR_FAULTS, CountedBlock, Counter
from wxauth.core.trail import Actor, EventType
from wxauth.i18n import lazy_gettext as _
from wxauth.login.login import Logins
from wxauth.login.proofs import PROOF_FAILURES, LoginLimiter, Proofs
from wxauth.login.schemas import LoginCode, LoginRequest, TokenAnswer
from wxauth.sessions.refresh_tokens import RefreshTokens
from wxauth.users.callers import CallerDep, ConcurrencyDep, DeviceDep, locked_caller, verified
from wxauth.users.erasure_queries import erase_user, schedule_erasure
from wxauth.web.answers import BEARER, CODE_FAILURES, GUARDED, example_of
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, VerifierDep, provide
from wxauth.web.direct import Router
from wxauth.web.schemas import body_like
from wxauth.wechat.errcodes import FAULTS_OF_WECHAT, errcode_label
from wxauth_guard.errors import WxAuthError

LOGIN: Final = "/v1/login"
REFRESH: Final = "/v1/refresh"
_UNREAD_APP_ID: Final = ""  # before the body is read; in metrics, this app is `unknown`
_REFRESH_TOKENS: Final = AliasChoices("refresh_token", "refreshToken")


class ProofRequest(BaseModel):
    """The proof that the user is present: the code of a new login with WeChat."""

    model_config = body_like({"login_code": "0a1B2c3D4e5F6g7H8i9J"})

    login_code: LoginCode = Field(
        description="The code from a new `wx.login` call, or from `SendAuth` in a mobile app. It works once, "
        "within a few minutes.",
        repr=False,
    )


class RefreshRequest(BaseModel):
    """The refresh token that the last login or refresh returned."""

    model_config = body_like({"refresh_token": "wxr_..."})

    refresh_token: str = Field(
        validation_alias=_REFRESH_TOKENS, description="Also accepted as `refreshToken`.", repr=False
    )


class LogoutRequest(BaseModel):
    """The body of a logout. It identifies the session to end by the session's refresh token.

    Without a refresh token, wxauth ends the session of the access token.
    """

    model_config = body_like({"refresh_token": "wxr_..."})

    refresh_token: str | None = Field(
        default=None, validation_alias=_REFRESH_TOKENS, description="Also accepted as `refreshToken`.", repr=False
    )


class LeavingAnswer(BaseModel):
    """The time at which wxauth will erase a user who has requested erasure."""

    erase_at: datetime = Field(examples=["2026-11-27T08:00:00Z"])


router = Router("login")

log = get_logger()

LoginLimiterDep = Annotated[LoginLimiter, Depends(provide(LoginLimiter))]
LoginsDep = Annotated[Logins, Depends(provide(Logins))]
ProofsDep = Annotated[Proofs, Depends(provide(Proofs))]
RefreshTokensDep = Annotated[RefreshTokens, Depends(provide(RefreshTokens))]

LOGINS: Final = Counter(
    "wxauth_logins",
    "Logins, by app and outcome: ok, new (a new user) or the code of the error; errcode is WeChat's.",
    "app_id",
    "outcome",
    "errcode",
)
# Each app has a series for these even before a login has such an outcome.
OUTCOMES: Final = ("ok", "new", *(fault.code for fault in (*OUR_FAULTS, *FAULTS_OF_WECHAT)))
REFRESHES: Final = Counter(
    "wxauth_refreshes",
    "Token refreshes, by outcome: ok or the code of the error.",
    "outcome",
    first=("ok", *(fault.code for fault in OUR_FAULTS)),
)
_ERASURE_FAILURES: Final = [*PROOF_FAILURES, errors.LastAdmin]
_LEAVING_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    HTTPStatus.ACCEPTED.value: {
        "description": "With `ERASURE_GRACE_DAYS`, when the user will be erased.",
        "content": {"application/json": {"example": example_of(LeavingAnswer)}},
    }
}


def _count_login(apps: Apps, app_id: str | None, outcome: str, error: WxAuthError | None) -> None:
    LOGINS.count(apps.label_of(app_id), outcome, "" if error is None else errcode_label(error))
    if error is not None:  # `Refusals` reads the app from the error
        error.app_id = apps.default_id if app_id is None else app_id


async def admit_login(device: DeviceDep, apps: AppsDep, limiter: LoginLimiterDep) -> None:
    """Count a login before its body is read, because requests with a wrong body must count, too."""
    try:
        await limiter.admit_address(device.ip)
    except errors.RateLimited as exc:
        _count_login(apps, _UNREAD_APP_ID, exc.code, exc)
        raise


@router.post(
    LOGIN,
    summary=_("Log in with a wx.login code"),
    failures=[
        *CODE_FAILURES,
        errors.SignUpClosed,
        errors.SignUpRefused,
        errors.SignUpUnavailable,
        errors.SnapshotUser,
        errors.WrongAppKind,
        errors.AccountDisabled,
        errors.AccountLeaving,
        errors.StorageUnavailable,
    ],
)
async def log_in(
    _admitted: Annotated[None, Depends(admit_login)],
    body: LoginRequest,
    apps: AppsDep,
    logins: LoginsDep,
    device: DeviceDep,
) -> TokenAnswer:
    """Exchange a one-time `wx.login` code for an access token and a refresh token.

    The first login creates the user. A code works only once, so call `wx.login` again after any failure. A mobile app
    sends the code of the SDK's `SendAuth`, and its `app_id`.
    """
    app_id = body.app_id or None
    with CountedBlock(partial(_count_login, apps, app_id)) as counted:
        tokens = await logins.log_in(apps.for_login(app_id), body, device)
        counted.outcome = "new" if tokens["is_new_user"] else "ok"
    return tokens


@router.post(
    REFRESH,
    summary=_("Refresh the tokens"),
    failures=[
        errors.InvalidRefreshToken,
        errors.RefreshTokenExpired,
        errors.RefreshTokenReused,
        errors.SessionReplaced,
        errors.SessionRevoked,
        errors.AccountDisabled,
        errors.StorageUnavailable,
    ],
)
async def refresh(body: RefreshRequest, logins: LoginsDep, device: DeviceDep) -> TokenAnswer:
    """Exchange a refresh token for a new access token and the next refresh token.

    A refresh token works once. If it is sent again soon, because the response was lost or two tabs sent it, it returns
    the same next token. If it is sent again later, or after the next token was used, it may have been stolen, so the
    session is ended.
    """
    with REFRESHES.outcome_of():
        return await logins.refresh(refresh_token=body.refresh_token, device=device)


@router.post(
    "/v1/logout",
    summary=_("Log out"),
    failures=GUARDED,
    openapi_extra={"security": [*BEARER, {}]},  # the access token is optional
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

    The response is 204 even if the session has already ended, or if the refresh token is not one of wxauth's. The
    session's refresh token is void at once. Other services accept the access token until it expires.
    """
    if body is None or body.refresh_token is None:
        # Check only the token and not the session, because the session might have ended already.
        principal = await verified(request, verifier, clock)
        await logins.log_out(session_id=principal.session_id)
        return
    token = refresh_tokens.parse(body.refresh_token)
    if token is not None:
        await logins.log_out(session_id=token.session_id)


@router.post(
    "/v1/me/erasure",
    summary=_("Erase my account (for clients that can't send a body with DELETE)"),
    tag="me",
    operation_id="erase_me_by_post",
    failures=_ERASURE_FAILURES,
    responses=_LEAVING_RESPONSES,
)
@router.delete(
    "/v1/me", summary=_("Erase my account"), tag="me", failures=_ERASURE_FAILURES, responses=_LEAVING_RESPONSES
)
async def erase_me(
    caller: CallerDep,
    body: ProofRequest,
    proofs: ProofsDep,
    concurrency: ConcurrencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
) -> Response | None:
    """Erase the user, with the identities, the sessions, and the user's data in the audit trail.

    `login_code` proves that the user holds the phone, because an access token may have been stolen. The code must
    belong to the session's identity. The next login creates a new user. Some clients send no body with DELETE, so POST
    to `/v1/me/erasure` does the same.

    With `ERASURE_GRACE_DAYS`, all sessions end at once, and the rest is erased at `erase_at`, unless the user logs in
    with `stay` before, or an administrator cancels the erasure.
    """
    user_id = caller.user.id
    in_turn = partial(concurrency.of_session, caller.session_id, user_id, ends_sessions=True)
    locked = partial(locked_caller, database, caller, could_remove_administrator=True)
    async with in_turn(), locked(now=clock()):
        # This block only checks that the user may be erased, so that wxauth does not call WeChat for a request that it
        # would then refuse.
        pass
    await proofs.prove(caller, body.login_code, ip=device.ip)
    now = clock()  # read again, because WeChat might have taken seconds to respond
    if settings.erasure_grace_days == 0:
        async with in_turn(), locked(now=now) as transaction:
            await erase_user(transaction, user_id, by=Actor(str(user_id)), now=now)
        log.info("user_erased", user_id=user_id)
        return None
    erase_at = now + timedelta(days=settings.erasure_grace_days)
    async with in_turn(), locked(now=now) as transaction:
        await schedule_erasure(transaction, user_id, erase_at=erase_at, now=now)
    log.info(EventType.USER_LEAVING.log_event, user_id=user_id)
    leaving = LeavingAnswer(erase_at=erase_at).model_dump_json()
    return Response(leaving, HTTPStatus.ACCEPTED, headers={"Cache-Control": "no-store"}, media_type="application/json")
