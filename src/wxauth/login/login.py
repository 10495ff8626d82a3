"""Login, refresh and logout in mini-programs and mobile apps."""

from collections.abc import Mapping
from datetime import datetime
from time import perf_counter
from typing import Final, Protocol
from uuid import UUID

from wxauth import errors
from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import address_field, get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.sealing import Sealer
from wxauth.core.services import part
from wxauth.core.users import UserInSession
from wxauth.keys.access_tokens import AccessTokens, TokenSession
from wxauth.keys.keyring import KeyRing
from wxauth.login.count_queries import LoginCounts
from wxauth.login.login_queries import LoggedIn, Login, record_login
from wxauth.login.schemas import LoginRequest, TokenAnswer
from wxauth.login.sign_up_hook import SignUpHook
from wxauth.phones.phones import Phones
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import EndReason, end_session
from wxauth.sessions.refresh_queries import RefreshRefusal, RefreshRefused, rotate_refresh_token
from wxauth.sessions.refresh_tokens import RefreshTokens, session_lifetimes
from wxauth.settings.apps import App
from wxauth.settings.roles import MAX_ROLES
from wxauth.settings.settings import Settings
from wxauth.users.consent_queries import give_consents, missing_from
from wxauth.users.last_seen_queries import LastSeen
from wxauth.users.schemas import is_uploaded_picture, user_answer
from wxauth.wechat.client import WeChat, WeChatIdentity, report_misconfigured
from wxauth_guard.errors import WxAuthError

# In the other kinds, a browser gets an authorization code.
_KINDS_WITHOUT_BROWSER: Final = ("mini_program", "mobile_app")

WECHAT_SECONDS: Final = Histogram(
    "wxauth_wechat_seconds",
    "Duration of code exchanges with WeChat for logins, including retries.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60),
)

log = get_logger()


class LacksUnionid(errors.WeChatMisconfigured):
    """WeChat has returned no unionid for an unknown person, although the app requires one."""


class LoginParts(Protocol):
    apps: Apps
    database: Database
    hook: SignUpHook


async def exchange_code(wechat: WeChat, app: App, code: str) -> tuple[WeChatIdentity, float]:
    """Exchange a login code with WeChat. Return the person's identity, and the duration in milliseconds.

    Raises: WeChatError; SnapshotUser, if WeChat has shown only a snapshot (a preview) of the page, for which it
        makes up a user.
    """
    started = perf_counter()
    try:
        identity = await wechat.exchange(app, code)
    finally:
        seconds = perf_counter() - started
        WECHAT_SECONDS.observe(seconds)
    if identity.is_snapshot:
        raise _refused_snapshot(app)
    return identity, round(seconds * 1000, 1)


async def log_in_identity(parts: LoginParts, app: App, login: Login, *, now: datetime) -> LoggedIn:
    """Find or create the user of an identity, and open a session, by the rules of the app and the settings.

    Before this function creates a user, it asks the sign-up hook, if there is one.

    Raises: AccountDisabled, AccountLeaving; SnapshotUser, if the identity is probably made up; SignUpClosed,
        LacksUnionid, SignUpRefused, SignUpUnavailable, if the person is unknown and may not sign up;
        StorageUnavailable, including TooManyChanges.
    """
    apps, has_hook = parts.apps, parts.hook.is_on
    # Without a unionid, one person could become two users.
    lacks_required_unionid = login.unionid is None and app.unionid_in_force == "required"
    may_sign_up = apps.may_sign_up(app) and not lacks_required_unionid
    # With a hook, the first attempt must not create a user, because the hook must be asked about new users.
    login.may_sign_up = may_sign_up and not has_hook
    login.roles = apps.roles_at_sign_up(app)
    login.max_sessions = app.max_sessions
    login.may_be_snapshot = app.kind != "mini_program"  # for mini-programs, WeChat makes up no identities
    try:
        logged_in = await record_login(parts.database, login, now=now)
    except errors.SignUpClosed:
        if lacks_required_unionid:
            raise _refused_without_unionid(app) from None
        if not (has_hook and may_sign_up):
            raise
        logged_in = await _sign_up_with_hook(parts, app, login, now=now)
    except errors.SnapshotUser:
        raise _refused_snapshot(app) from None
    user = logged_in.user
    if user.status == "disabled":
        log.warning("login_refused", reason="account_disabled", user_id=user.id, app_id=user.app_id)
        raise errors.AccountDisabled(until=user.banned_until, user_id=user.id)
    if user.erase_at is not None:
        log.info("login_refused", reason="account_leaving", user_id=user.id, app_id=user.app_id)
        raise errors.AccountLeaving(user.erase_at, user_id=user.id)
    return logged_in


async def _sign_up_with_hook(parts: LoginParts, app: App, login: Login, *, now: datetime) -> LoggedIn:
    # The first attempt to store the login has shown that the person would be a new user. The hook is called between the
    # two attempts, so that no connection to the database is held meanwhile.
    initial = await parts.hook.initial_fields(app, login)
    roles = tuple(dict.fromkeys((*login.roles, *initial.roles)))
    if len(roles) > MAX_ROLES:
        log.warning("sign_up_hook_member_left_out", app_id=app.app_id, member="roles")
    else:
        login.roles = roles
    login.initial, login.may_sign_up = initial, True
    logged_in = await record_login(parts.database, login, now=now)
    if logged_in.is_new and logged_in.user.external_id != initial.external_id:
        log.warning("sign_up_hook_member_left_out", app_id=app.app_id, member="external_id")
    return logged_in


@part
class Logins:
    apps: Apps
    keys: KeyRing
    access_tokens: AccessTokens
    clock: Clock
    settings: Settings
    wechat: WeChat
    sealer: Sealer
    hook: SignUpHook
    login_counts: LoginCounts
    refresh_tokens: RefreshTokens
    database: Database
    phones: Phones
    last_seen: LastSeen

    def __post_init__(self) -> None:
        self._lifetimes = session_lifetimes(self.settings)
        self._unrefreshed_seconds = self._lifetimes.unrefreshed

    async def log_in(self, app: App, body: LoginRequest, device: Device) -> TokenAnswer:
        """Exchange a login code for tokens. The first login of a person creates the user.

        An optional field that is invalid or refused does not make the login fail, because the user can log in without
        it. The response names what was left out.
        """
        if app.kind not in _KINDS_WITHOUT_BROWSER:
            raise errors.WrongAppKind(
                f"a code of the kind {app.kind} belongs to a browser: only /v1/authorize knows which"
            )
        self.keys.ensure_ready()  # a request that would fail must not use up the code

        identity, wechat_ms = await exchange_code(self.wechat, app, body.code)
        now = self.clock()
        # None and an empty value leave the stored picture unchanged. So does the URL of an uploaded picture, which only
        # an upload may set.
        avatar_url = body.avatar_url or None
        if avatar_url is not None and is_uploaded_picture(avatar_url, self.settings.issuer):
            avatar_url = None
        login = Login(
            app_id=app.app_id,
            openid=identity.openid,
            unionid=identity.unionid,
            nickname=body.nickname or None,
            avatar_url=avatar_url,
            session_key=self.sealer.seal_session_key(identity.session_key, app.app_id, identity.openid),
            ip=device.ip,
            user_agent=device.user_agent,
            expires_in=self._unrefreshed_seconds,
            cancels_erasure=body.stay,
        )
        logged_in = await log_in_identity(self, app, login, now=now)
        self.login_counts.count_login(is_new=logged_in.is_new, at=now)
        self._log_login(logged_in, app, device, wechat_ms=wechat_ms)

        user: UserInSession = logged_in.user
        ignored = {**body.left_out, **dict.fromkeys(logged_in.ignored_fields, errors.RateLimited.code)}
        if body.consents:
            user, consents_error = await self._with_consents(user, body.consents, ip=device.ip, now=now)
            if consents_error is not None:
                ignored["consents"] = consents_error
        phone_error = None
        if body.phone_code:
            user, phone_error = await self._with_phone(user, body.phone_code)
        return self._token_answer(
            user,
            session_id=logged_in.session_id,
            generation=0,
            refresh_expires_in=self._unrefreshed_seconds,
            # The user is not new if the phone number belongs to an existing user, with whom the new user was merged.
            is_new_user=logged_in.is_new and user.id == logged_in.user.id,
            phone_error=phone_error,
            ignored=ignored,
            now=now,
        )

    async def refresh(self, *, refresh_token: str, device: Device) -> TokenAnswer:
        """Exchange a refresh token for a new pair of tokens.

        If the old token is sent again soon, because the response was lost, the result is the same new token. If the old
        token is sent later, or after the new token was used, the session ends.
        """
        now = self.clock()
        token = self.refresh_tokens.parse(refresh_token)
        if token is None:
            raise errors.InvalidRefreshToken("the refresh token isn't one of wxauth's")
        self.keys.ensure_ready()  # a request that would fail must not use up the token
        outcome = await rotate_refresh_token(
            self.database,
            token,
            ip=device.ip,
            user_agent=device.user_agent,
            lifetimes=self._lifetimes,
            now=now,
        )
        if isinstance(outcome, RefreshRefused):
            raise self._refresh_error(outcome, token.session_id)

        self.last_seen.note(outcome, at=now)
        # Read the clock again, because the statement might have waited for several seconds.
        now = self.clock()
        added = address_field(device.ip, is_logged=self.settings.log_addresses)
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
        """End a session, unless it has ended already."""
        # If the session belongs to a website, the website itself has sent the token, so it needs no logout token.
        user_id = await end_session(
            self.database, session_id=session_id, reason=EndReason.SIGNED_OUT, site_knows=True, now=self.clock()
        )
        if user_id is not None:
            log.info("logged_out", user_id=user_id, session_id=session_id)

    def _refresh_error(self, refused: RefreshRefused, session_id: UUID) -> WxAuthError:
        has_limit = refused.app_id is not None and self.apps.max_sessions_of(refused.app_id) is not None
        match refused.why:
            case RefreshRefusal.DISABLED:
                return errors.AccountDisabled(until=refused.banned_until, user_id=refused.user_id)
            case RefreshRefusal.REPLACED if has_limit:
                return errors.SessionReplaced("a newer login took this session's place: see max_sessions of the app")
            case RefreshRefusal.REVOKED | RefreshRefusal.REPLACED:  # the app has no max_sessions to refer to
                return errors.SessionRevoked("the session has ended")
            case RefreshRefusal.EXPIRED:
                return errors.RefreshTokenExpired("the session was idle for too long, or has reached its maximum age")
            case RefreshRefusal.REUSED:
                log.warning("refresh_token_reused", session_id=session_id, consequence="the session has ended")
                return errors.RefreshTokenReused("the refresh token had been used before: the session has ended")
            case _:  # UNKNOWN, because the other reasons occur only in refreshes by websites
                return errors.InvalidRefreshToken("there is no such session")

    def _log_login(self, logged_in: LoggedIn, app: App, device: Device, *, wechat_ms: float) -> None:
        user_id = logged_in.user.id
        if logged_in.ignored_fields:
            fields = {"fields": logged_in.ignored_fields, "reason": errors.RateLimited.code}
            log.warning("login_without_profile", user_id=user_id, app_id=app.app_id, **fields)
        log.info(
            "logged_in",
            user_id=user_id,
            app_id=app.app_id,
            session_id=logged_in.session_id,
            is_new=logged_in.is_new,
            wechat_ms=wechat_ms,
            database_ms=logged_in.milliseconds,
            **address_field(device.ip, is_logged=self.settings.log_addresses),
        )

    async def _with_consents(
        self, user: UserInSession, requested: Mapping[str, str], *, ip: str | None, now: datetime
    ) -> tuple[UserInSession, str | None]:
        """Return the user and the code of a failure, which must not fail a login that has succeeded."""
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
        """Return the user and the code of a failure, which must not fail a login that has succeeded."""
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
        claims = self.apps.claims_of(user.app_id)
        issued = self.access_tokens.issue(
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


def _refused_without_unionid(app: App) -> LacksUnionid:
    reason = "WeChat didn't return a unionid, but this app requires one"
    what_to_change = "bind the app to the Open Platform account of your other apps, or set its unionid to optional"
    report_misconfigured(app_id=app.app_id, reason=reason, what_to_change=what_to_change)
    return LacksUnionid(f"{reason}: {what_to_change}")


def _refused_snapshot(app: App) -> errors.SnapshotUser:
    log.warning("login_refused", reason=errors.SnapshotUser.code, app_id=app.app_id)
    return errors.SnapshotUser(
        "WeChat showed a snapshot of the page and returned a made-up user:"
        " log in again after the person has tapped 'use the full service' on the page"
    )
