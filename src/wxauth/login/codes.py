"""The exchange of login codes with WeChat, for a login, or for a proof that the user is present.

A login code comes from `wx.login` in a mini-program, and from OAuth in any other kind of app.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.sealing import Sealer, session_key_context
from wxauth.core.services import part
from wxauth.errors import AccountDisabled, AccountLeaving, SignUpClosed, SnapshotUser, WeChatMisconfigured, WrongPerson
from wxauth.limits.rate_limits import RateLimiter
from wxauth.login.batched_queries import UserAtLogin
from wxauth.login.login_queries import InitialFields, LoggedIn, Login, record_login
from wxauth.login.sign_up_hook import SignUpHook
from wxauth.session_keys.queries import STORE_KEY
from wxauth.sessions.devices import Device
from wxauth.settings.apps import App
from wxauth.settings.roles import MAX_ROLES
from wxauth.settings.settings import Settings
from wxauth.users.callers import Caller
from wxauth.web.answers import CODE_FAILURES, Failure
from wxauth.wechat.client import WeChat, WeChatIdentity, report_misconfigured

WECHAT_SECONDS: Final = Histogram(
    "wxauth_wechat_seconds",
    "Duration of code exchanges with WeChat for logins, including retries.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60),
)
PROOF_FAILURES: Final[Sequence[Failure]] = (*CODE_FAILURES, WrongPerson)
"""The failures of a request that contains a new login code as proof that the user is present."""

log = get_logger()


class LacksUnionid(WeChatMisconfigured):
    """The error for an unknown person for whom WeChat has returned no unionid, although the app requires one."""


@part
class CodeLogins:
    """The part that exchanges login codes with WeChat, and stores the logins."""

    settings: Settings
    wechat: WeChat
    database: Database
    sealer: Sealer
    hook: SignUpHook

    async def exchange_code(self, app: App, code: str) -> tuple[WeChatIdentity, float]:
        """Exchange a login code with WeChat.

        Return the person's identity, and the duration of the exchange in milliseconds.

        Raises: WeChatError; SnapshotUser, if WeChat has shown only a snapshot (a preview) of the page, for which it
            makes up a user.
        """
        with WECHAT_SECONDS.time() as exchange:
            identity = await self.wechat.exchange(app, code)
        if identity.is_snapshot:
            raise _refused_snapshot(app)
        return identity, exchange.milliseconds

    async def log_in(
        self,
        app: App,
        identity: WeChatIdentity,
        device: Device,
        *,
        nickname: str | None = None,
        avatar_url: str | None = None,
        cancels_erasure: bool = False,
        expires_in: int | None,
        now: datetime,
    ) -> LoggedIn:
        """Find or create the user of an identity, and open a session.

        The session expires if it is not used for `expires_in` seconds. If `expires_in` is None, open no session. With
        `cancels_erasure`, cancel the user's request for erasure. `nickname` and `avatar_url` are the profile that the
        request contains. Before this method creates a user, it asks the sign-up hook, if there is one.

        Raises: AccountDisabled, AccountLeaving; SnapshotUser, if the identity is probably made up; SignUpClosed,
            LacksUnionid, SignUpRefused, SignUpUnavailable, if the person is unknown and may not sign up;
            StorageUnavailable, including TooManyChanges.
        """
        lacks_required_unionid = identity.unionid is None and app.unionid_in_force == "required"
        may_sign_up = self.settings.may_sign_up(app) and not lacks_required_unionid
        login = Login(
            app_id=app.app_id,
            openid=identity.openid,
            unionid=identity.unionid,
            nickname=nickname,
            avatar_url=avatar_url,
            session_key=_sealed_key(self.sealer, app, identity),
            ip=device.ip,
            user_agent=device.user_agent,
            expires_in=expires_in,
            # With a hook, the first attempt must not create a user, because the hook must be asked about new users.
            may_sign_up=may_sign_up and not self.hook.is_on,
            roles=self.settings.roles_at_sign_up(app),
            max_sessions=app.max_sessions,
            cancels_erasure=cancels_erasure,
            may_be_snapshot=not app.is_mini_program,
        )
        try:
            logged_in = await record_login(self.database, login, now=now)
        except SignUpClosed:
            if lacks_required_unionid:
                raise _refused_without_unionid(app) from None
            if not (self.hook.is_on and may_sign_up):
                raise
            logged_in = await self._sign_up_with_hook(app, identity, login, ip=device.ip, now=now)
        except SnapshotUser:
            raise _refused_snapshot(app) from None
        _check_may_log_in(logged_in.user)
        return logged_in

    async def _sign_up_with_hook(
        self, app: App, identity: WeChatIdentity, login: Login, *, ip: str | None, now: datetime
    ) -> LoggedIn:
        """Ask the sign-up hook about a person whose login has just been refused, and record the login again.

        This method is called after a refusal, because only the refusal shows that the person would be a new user. No
        database connection is held while wxauth calls the hook, because the call is between the two attempts.

        Raises: SignUpRefused, SignUpUnavailable, and the errors of `record_login`.
        """
        initial = await self.hook.initial_fields(app, identity, ip=ip)
        logged_in = await record_login(self.database, _with_initial_fields(login, initial), now=now)
        if logged_in.is_new and logged_in.user.external_id != initial.external_id:
            log.warning("sign_up_hook_member_left_out", app_id=app.app_id, member="external_id")
        return logged_in


class LoginLimiter(RateLimiter):
    """The limit on the logins and proofs (see `Proofs`) from one client address, which `LOGIN_RATE_LIMIT` defines.

    This subclass exists because wxauth finds each of its parts by the part's class.
    """


@part
class Proofs:
    """The part that checks, with a new login code, that the user of a session is present."""

    apps: Apps
    limiter: LoginLimiter
    wechat: WeChat
    sealer: Sealer
    database: Database
    clock: Clock

    async def prove(self, caller: Caller, login_code: str, *, ip: str | None) -> None:
        """Check with WeChat that a new login code belongs to the session's identity, within the rate limit of logins.

        `ip` is the client's address, to which the rate limit applies. In a mini-program, the call to `wx.login` might
        have replaced the identity's session_key. Therefore, this method stores the new session_key in the session, and
        in the session of the identity's newest login, if these sessions are open. It does not store a new unionid,
        because the next login does that. It raises no error if the session has ended, because the statement that relies
        on the proof must check that.

        Raises: RateLimited, UnknownApp, WeChatError, StorageUnavailable; WrongPerson, if the code belongs to another
            identity.
        """
        app_id = caller.user.app_id
        await self.limiter.admit_address(ip)
        app = self.apps.find(app_id)
        asked_at = self.clock()
        # There is no check for snapshots, because the made-up user of a snapshot has a different openid.
        identity = await self.wechat.exchange(app, login_code)
        if identity.openid != caller.user.openid:
            log.warning("wrong_person", user_id=caller.user.id, app_id=app_id, session_id=caller.session_id)
            raise WrongPerson("login_code belongs to a different person from the session's user: log in again")
        sealed = _sealed_key(self.sealer, app, identity)
        if sealed is not None:
            await self.database.run(STORE_KEY, session_id=caller.session_id, sealed=sealed, asked_at=asked_at)


def _sealed_key(sealer: Sealer, app: App, identity: WeChatIdentity) -> bytes | None:
    """Return the sealed session_key of an identity; None if WeChat has returned no session_key."""
    if identity.session_key is None:
        return None
    return sealer.seal(identity.session_key, context=session_key_context(app.app_id, identity.openid))


def _check_may_log_in(user: UserAtLogin) -> None:
    """Check that a user may log in. If not, log the refusal.

    Raises: AccountDisabled, if the user is banned; AccountLeaving, if the user is about to be erased.
    """
    if user.status == "disabled":
        log.warning("login_refused", reason="account_disabled", user_id=user.id, app_id=user.app_id)
        raise AccountDisabled(until=user.banned_until, user_id=user.id)
    if user.erase_at is not None:
        log.info("login_refused", reason="account_leaving", user_id=user.id, app_id=user.app_id)
        raise AccountLeaving(user.erase_at, user_id=user.id)


def _with_initial_fields(login: Login, initial: InitialFields) -> Login:
    """Return a login that may sign up the person, with the initial fields that the sign-up hook has returned.

    If the user would have too many roles, leave out the hook's roles, and log this.
    """
    roles = tuple(dict.fromkeys((*login.roles, *initial.roles)))
    if len(roles) > MAX_ROLES:
        log.warning("sign_up_hook_member_left_out", app_id=login.app_id, member="roles")
        roles = tuple(login.roles)
    return replace(login, may_sign_up=True, roles=roles, initial=initial)


def _refused_without_unionid(app: App) -> LacksUnionid:
    """Log that wxauth refuses an unknown person without a unionid, and return the error."""
    reason = "WeChat didn't return a unionid, but this app requires one"
    what_to_change = "bind the app to the Open Platform account of your other apps, or set its unionid to optional"
    report_misconfigured(app_id=app.app_id, reason=reason, what_to_change=what_to_change)
    return LacksUnionid(f"{reason}: {what_to_change}")


def _refused_snapshot(app: App) -> SnapshotUser:
    """Log that wxauth refuses the made-up user of a snapshot, and return the error."""
    log.warning("login_refused", reason=SnapshotUser.code, app_id=app.app_id)
    return SnapshotUser(
        "WeChat showed a snapshot of the page and returned a made-up user:"
        " log in again after the person has tapped 'use the full service' on the page"
    )
