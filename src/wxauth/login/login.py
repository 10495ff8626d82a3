"""Login, refresh and logout in mini-programs and mobile apps."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, NotRequired
from uuid import UUID

from pydantic import AliasChoices, Field, StrictBool
from typing_extensions import TypedDict

from wxauth import errors
from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.core.users import UserInSession
from wxauth.keys.issuer import Issuer, TokenSession
from wxauth.login.codes import CodeLogins
from wxauth.login.login_counts import LoginCounts
from wxauth.login.login_queries import LoggedIn
from wxauth.phones.phones import Phones
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import EndReason, end_session
from wxauth.sessions.refresh_queries import RefreshRefusal, RefreshRefused, rotate_refresh_token
from wxauth.sessions.refresh_tokens import RefreshTokens, session_lifetimes
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.users.consent_queries import give_consents, missing_from
from wxauth.users.schemas import (
    AVATAR_URL_ALIASES,
    NICKNAME_ALIASES,
    AvatarUrl,
    Nickname,
    UserAnswer,
    is_uploaded_picture,
    user_answer,
)
from wxauth.web.schemas import Lenient, ShownSessionId, body_like
from wxauth_guard.errors import WxAuthError

_KINDS_WITHOUT_BROWSER: Final = ("mini_program", "mobile_app")
"""The kinds of apps in which the operator's program gets the login code from WeChat.

In the other kinds, a browser gets an authorization code.
"""
EXAMPLE_JWT: Final = "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9..."
"""The beginning of an access token, for examples in the documentation."""

log = get_logger()

LoginCode = Annotated[str, Field(min_length=1, max_length=256)]


class LoginRequest(Lenient):
    """The code of a login, and the profile fields, phone code and consents that the user gave.

    Only `code`, `app_id` and `stay` can make the login fail.
    """

    # A login ignores an invalid value of an `optional` field, and removes lone surrogates from a `cleaned` field.
    optional = frozenset({"nickname", "avatar_url", "phone_code", "consents"})
    cleaned = ("nickname",)
    model_config = body_like({"code": "0a1B2c3D4e5F6g7H8i9J", "nickname": "小明"})

    code: LoginCode = Field(
        validation_alias=AliasChoices("code", "jsCode", "js_code"),
        description="The code from `wx.login`, or from `SendAuth` in a mobile app. Also accepted as `jsCode`, "
        "`js_code`. Works once, for some minutes.",
        repr=False,
    )
    app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("app_id", "appId", "appid"),
        description="The mini-program or mobile app. Also accepted as `appId`, `appid`. Default: the first "
        "configured mini-program.",
    )
    nickname: Nickname | None = Field(
        default=None,
        validation_alias=NICKNAME_ALIASES,
        description="Also accepted as `nickName`, `userName`. Unchanged if absent, null or empty, or 微信用户, which "
        "WeChat returns for every user.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AVATAR_URL_ALIASES,
        description="An https URL. Also accepted as `avatarUrl`. Unchanged if absent, null or empty, or if "
        "it is the URL of an uploaded picture or of WeChat's grey one.",
    )
    phone_code: Annotated[str, Field(max_length=256)] | None = Field(
        default=None,
        validation_alias=AliasChoices("phone_code", "phoneCode"),
        description="The phone button's code, to bind the number too. Also accepted as `phoneCode`. "
        "If it fails, the login still succeeds: see `phone_error`.",
        repr=False,
    )
    consents: dict[str, str] | None = Field(
        default=None,
        description="Documents that the user agrees to, with their versions. Versions not in force are ignored: "
        "see `consents_due`.",
    )
    stay: StrictBool = Field(
        default=False,
        description="Whether to cancel the erasure that the user has requested. Set it if a user whose login fails "
        "with `account_leaving` wants to stay. For any other user, it changes nothing.",
    )


class TokenAnswer(TypedDict):
    """A pair of tokens, and their user."""

    access_token: Annotated[str, Field(description="A JWT (RFC 9068), ES256.", examples=[EXAMPLE_JWT])]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Lifetime of the access token in seconds.", examples=[900])]
    refresh_token: Annotated[str, Field(examples=["wxr_..."])]
    refresh_expires_in: Annotated[
        int, Field(description="Seconds until an unused session expires.", examples=[2592000])
    ]
    session_id: ShownSessionId
    is_new_user: Annotated[bool, Field(description="Whether the login has created the user. False after a refresh.")]
    user: UserAnswer
    phone_error: NotRequired[Annotated[str, Field(description="Why `phone_code` failed: the `code` of the problem.")]]
    ignored: NotRequired[
        Annotated[
            dict[str, str],
            Field(
                description="Fields of the login that wxauth ignored, each with the `code` of the problem. Absent if "
                "none.",
                examples=[{"nickname": "invalid_request"}],
            ),
        ]
    ]


@part
class Logins:
    """The logins with codes from mini-programs and mobile apps, and the refreshes and logouts of sessions."""

    apps: Apps
    issuer: Issuer
    clock: Clock
    settings: Settings
    code_logins: CodeLogins
    login_counts: LoginCounts
    refresh_tokens: RefreshTokens
    database: Database
    phones: Phones

    async def log_in(self, app: App, body: LoginRequest, device: Device) -> TokenAnswer:
        """Exchange a `wx.login` code, or a code from a mobile app, for tokens. A person's first login creates the user.

        wxauth stores nothing about the made-up user of a snapshot, or about an unknown person who may not sign up. It
        also stores nothing about an unknown person who lacks the unionid that the app requires, because without a
        unionid, one person could become two users. It refuses a user who has asked to be erased, unless `stay` is set.

        An optional field that is invalid or refused does not make the login fail, because the user can log in without
        it. The response names the fields that wxauth has left out. These fields include a nickname or picture that the
        user changes too often.

        Raises: WrongAppKind; WeChatError, including LacksUnionid; SnapshotUser, SignUpClosed, SignUpRefused,
            SignUpUnavailable, AccountDisabled, AccountLeaving, StorageUnavailable.
        """
        if app.kind not in _KINDS_WITHOUT_BROWSER:
            raise errors.WrongAppKind(
                f"a code of the kind {app.kind} belongs to a browser: only /v1/authorize knows which"
            )
        # If the issuer is not ready, the request must fail before it uses up the code.
        self.issuer.ensure_ready()

        # None and an empty value leave the stored picture unchanged. So does the URL of an uploaded picture, which only
        # an upload may set.
        avatar_url = body.avatar_url or None
        if is_uploaded_picture(avatar_url, self.settings.issuer):
            avatar_url = None
        refresh_expires_in = session_lifetimes(self.settings).unrefreshed
        identity, wechat_ms = await self.code_logins.exchange_code(app, body.code)
        now = self.clock()
        login = await self.code_logins.log_in(
            app,
            identity,
            device,
            nickname=body.nickname or None,
            avatar_url=avatar_url,
            cancels_erasure=body.stay,
            expires_in=refresh_expires_in,
            now=now,
        )
        self.login_counts.count_login(is_new=login.is_new, at=now)
        self._log_login(login, app, device, wechat_ms=wechat_ms)

        user: UserInSession = login.user
        ignored = {**body.left_out, **dict.fromkeys(login.ignored_fields, errors.RateLimited.code)}
        if body.consents:
            user, consents_error = await self._with_consents(user, body.consents, ip=device.ip, now=now)
            if consents_error is not None:
                ignored["consents"] = consents_error
        phone_error = None
        if body.phone_code:
            user, phone_error = await self._with_phone(user, body.phone_code)
        return self._token_answer(
            user,
            session_id=login.session_id,
            generation=0,
            refresh_expires_in=refresh_expires_in,
            # The user is not new if the phone number belongs to an existing user, with whom the new user was merged.
            is_new_user=login.is_new and user.id == login.user.id,
            phone_error=phone_error,
            ignored=ignored,
            now=now,
        )

    async def refresh(self, *, refresh_token: str, device: Device) -> TokenAnswer:
        """Exchange a refresh token for a new pair of tokens.

        The new refresh token replaces the old one. If the old one is sent again soon, and before the new one is used,
        for example because the response was lost, return the same new refresh token. If it is sent again later, end the
        session. Unless the refresh is refused, the session stores the address and the User-Agent of `device`.

        Raises: InvalidRefreshToken, RefreshTokenExpired, RefreshTokenReused, SessionReplaced, SessionRevoked,
            AccountDisabled, StorageUnavailable.
        """
        now = self.clock()
        token = self.refresh_tokens.parse(refresh_token)
        if token is None:
            raise errors.InvalidRefreshToken("the refresh token isn't one of wxauth's")
        # If the issuer is not ready, the request must fail before it uses up the token.
        self.issuer.ensure_ready()
        outcome = await rotate_refresh_token(
            self.database,
            token,
            ip=device.ip,
            user_agent=device.user_agent,
            lifetimes=session_lifetimes(self.settings),
            now=now,
        )
        if isinstance(outcome, RefreshRefused):
            raise self._refresh_error(outcome, token.session_id)

        # Read the clock again, because the statement might have waited for several seconds.
        now = self.clock()
        added = self.settings.address_field(device.ip)
        log.info("refreshed", user_id=outcome.id, app_id=outcome.app_id, session_id=token.session_id, **added)
        return self._token_answer(
            outcome,
            session_id=token.session_id,
            generation=outcome.generation,
            refresh_expires_in=int((outcome.expires_at - now).total_seconds()),
            is_new_user=False,
            now=now,
        )

    async def log_out(self, *, session_id: UUID) -> None:
        """End a session. Do nothing if the session has already ended, or has never existed.

        Raises: StorageUnavailable.
        """
        # If the session belongs to a website, the website itself has sent the token, so it needs no logout token.
        user_id = await end_session(
            self.database, session_id=session_id, reason=EndReason.SIGNED_OUT, site_knows=True, now=self.clock()
        )
        if user_id is not None:
            log.info("logged_out", user_id=user_id, session_id=session_id)

    def _refresh_error(self, refused: RefreshRefused, session_id: UUID) -> WxAuthError:
        """Return the error for a refused refresh. If the token was reused, log that.

        SessionReplaced refers the developer to `max_sessions`. In an app without this limit, a session is replaced only
        if its identity has too many open sessions (see `MAX_OPEN_SESSIONS`), and the error is SessionRevoked.
        """
        has_limit = refused.app_id is not None and self.apps.max_sessions_of(refused.app_id) is not None
        match refused.why:
            case RefreshRefusal.DISABLED:
                return errors.AccountDisabled(until=refused.banned_until, user_id=refused.user_id)
            case RefreshRefusal.REPLACED if has_limit:
                return errors.SessionReplaced("a newer login took this session's place: see max_sessions of the app")
            case RefreshRefusal.REVOKED | RefreshRefusal.REPLACED:
                return errors.SessionRevoked("the session has ended")
            case RefreshRefusal.EXPIRED:
                return errors.RefreshTokenExpired("the session was idle for too long, or has reached its maximum age")
            case RefreshRefusal.REUSED:
                log.warning("refresh_token_reused", session_id=session_id, consequence="the session has ended")
                return errors.RefreshTokenReused("the refresh token had been used before: the session has ended")
            case _:  # UNKNOWN, because the other reasons occur only in refreshes by websites
                return errors.InvalidRefreshToken("there is no such session")

    def _log_login(self, login: LoggedIn, app: App, device: Device, *, wechat_ms: float) -> None:
        """Log a login, and the profile fields that the login left out.

        `wechat_ms` is the time, in milliseconds, that WeChat took to respond.
        """
        user_id = login.user.id
        if login.ignored_fields:
            fields = {"fields": login.ignored_fields, "reason": errors.RateLimited.code}
            log.warning("login_without_profile", user_id=user_id, app_id=app.app_id, **fields)
        log.info(
            "logged_in",
            user_id=user_id,
            app_id=app.app_id,
            session_id=login.session_id,
            is_new=login.is_new,
            wechat_ms=wechat_ms,
            database_ms=login.milliseconds,
            **self.settings.address_field(device.ip),
        )

    async def _with_consents(
        self, user: UserInSession, requested: Mapping[str, str], *, ip: str | None, now: datetime
    ) -> tuple[UserInSession, str | None]:
        """Record the user's consents to the versions that are in force. Return the updated user and None.

        `requested` contains the version of each document, by the document's name. If wxauth refuses the consents or
        cannot store them, return the unchanged user and the error code, because the login has succeeded.
        """
        in_force = self.settings.consents
        valid = {document: version for document, version in requested.items() if in_force.get(document) == version}
        if not missing_from(user.consents, valid):
            return user, None
        try:
            consents = await give_consents(self.database, user, valid, ip=ip, now=now)
        except WxAuthError as exc:
            log.warning("login_without_consents", user_id=user.id, app_id=user.app_id, reason=exc.code)
            return user, exc.code
        return user.model_copy(update={"consents": dict(consents)}), None

    async def _with_phone(self, user: UserInSession, code: str) -> tuple[UserInSession, str | None]:
        """Bind the phone number that belongs to this code of the phone button. Return the updated user and None.

        If that fails for any reason, return the unchanged user and the error code, because the login has succeeded.
        """
        try:
            return await self.phones.bind(user, code), None
        except WxAuthError as exc:
            log.warning("login_without_phone", user_id=user.id, app_id=user.app_id, reason=exc.code)
            return user, exc.code
        except Exception:  # even a defect must not take away the tokens of a login that has succeeded
            log.exception("login_without_phone", user_id=user.id, app_id=user.app_id, reason=errors.InternalError.code)
            return user, errors.InternalError.code

    def _token_answer(
        self,
        user: UserInSession,
        *,
        session_id: UUID,
        generation: int,
        refresh_expires_in: int,
        is_new_user: bool,
        phone_error: str | None = None,
        ignored: Mapping[str, str] | None = None,
        now: datetime,
    ) -> TokenAnswer:
        """Return the response with a new access token, and with the session's refresh token of this generation.

        `phone_error` and `ignored` are the fields of the response with these names. The response leaves them out if
        they are empty.
        """
        claims = self.apps.claims_of(user.app_id)
        issued = self.issuer.issue(
            user, TokenSession(id=session_id, seconds_left=refresh_expires_in, claims=claims), now=now
        )
        answer: TokenAnswer = {
            "access_token": issued.value,
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
            "refresh_token": self.refresh_tokens.issue(session_id, generation),
            "refresh_expires_in": refresh_expires_in,
            "session_id": session_id,
            "is_new_user": is_new_user,
            "user": user_answer(user, self.settings.consents),
        }
        if phone_error is not None:
            answer["phone_error"] = phone_error
        if ignored:
            answer["ignored"] = dict(ignored)
        return answer
