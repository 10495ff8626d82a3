"""The login with WeChat's page, through a service account in WeChat's browser or through a website app on a computer.

WeChat's browsers send some callbacks twice. Only the first one exchanges the code, and the others wait for the
outcome.
"""

import asyncio
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from wxauth.apps.registry import Apps
from wxauth.clients.models import Client
from wxauth.core.background import Background
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import CodeUsed, InvalidCode, NotFound, SnapshotUser, StorageUnavailable, UnknownApp
from wxauth.login.count_queries import LoginCounts
from wxauth.login.login import LacksUnionid, exchange_code, log_in_identity
from wxauth.login.login_queries import Login
from wxauth.login.sign_up_hook import SignUpHook
from wxauth.random_secrets import hash_of
from wxauth.sessions.devices import Device
from wxauth.settings.apps import App
from wxauth.settings.roles import STAFF_ROLES
from wxauth.settings.settings import Settings
from wxauth.sites import queries, user_queries
from wxauth.sites.asking import ScanLimits, new_press
from wxauth.sites.authorization_codes import AuthorizationCodes
from wxauth.sites.door import AMR, DOOR_LOGINS, OUTCOME_KEPT, VISIT_LASTS, Door, DoorOutcome
from wxauth.sites.models import Stage
from wxauth.sites.queries import SiteLogin
from wxauth.sites.responses import ANOTHER_USER, AUTHORIZE_PATH, Browser, Onward, SentBack, response_to_site
from wxauth.sites.secrets import authorization_code_of, page_id_of
from wxauth.sites.waiting import find_open_page, lock_open_page, next_press
from wxauth.wechat.client import WeChat, WeChatIdentity
from wxauth_guard.errors import WxAuthError

CALLBACK_PATH: Final = f"{AUTHORIZE_PATH}/wechat"
CALLBACK_EXTRA_SECONDS: Final = 2.0  # that a repeated callback waits beyond the setting `wechat_timeout`
OUTCOME_CHECK_PAUSE_SECONDS: Final = 0.1

_STATE_BYTES: Final = 16
# The state is hexadecimal, because WeChat allows only letters and digits.
_STATE: Final = re.compile(rf"[0-9a-f]{{{2 * _STATE_BYTES}}}", re.ASCII)


class VisitOutcome(StrEnum):
    """The outcome of a visit: after a failure, the `error` that the site gets, or the name of a page."""

    LOGGED_IN = "logged_in"
    ACCESS_DENIED = "access_denied"
    LOGIN_REQUIRED = "login_required"  # another user than the one of the site's `id_token_hint`
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    SERVER_ERROR = "server_error"
    SNAPSHOT = "snapshot"  # WeChat has shown only a snapshot of the page. The user can try again.
    AGAIN = "again"  # WeChat has refused the code. The user can try again.


_CODES_AFTER_REFUSAL: Final = frozenset({"", "authdeny"})  # Older versions of WeChat send `authdeny`.
_TEMPORARY_STATUSES: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
# Any other failure counts as `FAILED`.
_OUTCOMES_COUNTED: Final = {
    VisitOutcome.ACCESS_DENIED: DoorOutcome.REFUSED,
    VisitOutcome.LOGIN_REQUIRED: DoorOutcome.REFUSED,
    VisitOutcome.SNAPSHOT: DoorOutcome.SNAPSHOT,
}
_CLOSED_TO_STAFF: Final = (
    "administrators and support staff must log in with a QR code on the same network: see SCAN_ADMIN_ANYWHERE"
)
# The site gets these descriptions. After any other outcome, the browser stays on wxauth's pages.
_DESCRIPTIONS: Final = {
    VisitOutcome.ACCESS_DENIED: "the user refused, or can't log in",
    VisitOutcome.LOGIN_REQUIRED: ANOTHER_USER,
    VisitOutcome.TEMPORARILY_UNAVAILABLE: "WeChat or the service didn't respond in time",
    VisitOutcome.SERVER_ERROR: "WeChat rejects this app: the service's log has the cause",
}

log = get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class WeChatCallback:
    """A browser's callback from WeChat's page."""

    browser: Browser
    state: str
    code: str  # after a refusal, one of `_CODES_AFTER_REFUSAL`

    @property
    def code_for_site(self) -> str:
        """The authorization code that the site gets after this callback."""
        return authorization_code_of(self.browser.cookie, self.state)


class VisitRefused(Exception):
    """The user has refused, or the site or the user may not use WeChat's page."""


def is_open_on_computers(client: Client) -> bool:
    """Return whether users can log in to this client with WeChat's page on a computer.

    That page does not show which browser it logs in, so it can't prove that the browser is near.
    """
    return client.website_app_id is not None and not client.near


@part
class Visits:
    """The visits to WeChat's page, and the logins of the users whose browsers return from it."""

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    scan_limits: ScanLimits
    background: Background
    login_counts: LoginCounts
    wechat: WeChat
    hook: SignUpHook  # for `log_in_identity`
    codes: AuthorizationCodes

    async def begin(self, page_id: str, browser: Browser) -> Onward:
        """Begin a visit after the user has pressed the page's button, and return the redirect to WeChat's page.

        Raises: NotFound, if the page has ended, or the site has no app for this visit; PressesUsedUp; RateLimited;
            SentBack, if the visit cannot begin.
        """
        page = await find_open_page(self.database, page_id, browser, now=self.clock())
        # A page with a QR code is for a computer. A page with only a button is for WeChat's browser.
        if page.scene_hash is not None:
            door, app_id = Door.WEBSITE, page.website_app_id
        else:
            door, app_id = Door.ACCOUNT, page.account_app_id
        if app_id is None:
            raise NotFound("this site doesn't have this app")
        await self.scan_limits.browsers.admit_address(browser.ip)
        try:
            if door is Door.WEBSITE and page.near:
                raise VisitRefused("this site was added with --near")
            app = self.apps.for_login(app_id)
        except (VisitRefused, WxAuthError) as exc:
            outcome = _log_and_classify(exc, door=door, client_id=page.client_id, app_id=app_id)
            _count_failure(door, outcome)
            raise SentBack(page, _DESCRIPTIONS[outcome], error=outcome) from None
        state = await self._store_visit(page, door, app_id)
        return Onward(_url_of_wechats_page(self.settings, app, door, state))

    async def _store_visit(self, page: SiteLogin, door: Door, app_id: str) -> str:
        now = self.clock()
        state = secrets.token_hex(_STATE_BYTES)
        async with self.database.begin() as transaction:
            locked = await lock_open_page(transaction, page, now=now)
            locked.presses = next_press(locked.presses)
            # The page stays open as long as the visit, so that the user can try again.
            locked.expires_at = max(locked.expires_at, now + VISIT_LASTS)
            locked.kept_until = max(locked.kept_until, locked.expires_at)
            await queries.save(transaction, locked)
            # `_approve` sets the address and the User-Agent, which can change during the visit.
            visit = new_press(locked, Device(None, None), lifetime=VISIT_LASTS, now=now, door=door)
            visit.app_id, visit.state_hash = app_id, hash_of(state)
            await queries.add(transaction, visit)
        return state

    async def finish(self, callback: WeChatCallback) -> Onward:
        """Return the redirect after a callback from WeChat's page: to the site, or to a page of wxauth.

        Raises: NotFound, if this browser has no such visit; StorageUnavailable.
        """
        if not _STATE.fullmatch(callback.state):
            raise NotFound("the state isn't from wxauth")
        hashes = {"state_hash": hash_of(callback.state), "browser_hash": hash_of(callback.browser.cookie)}
        code_hash = hash_of(callback.code)
        pending = await self._record_first_callback(hashes, code_hash)
        if pending is not None:
            # The task continues even if the browser closes the connection, because the browser might repeat the
            # callback.
            completion = self.background.start(self._complete(pending, callback), name="wechat_visit")
            outcome = await asyncio.shield(completion)
            if outcome is not VisitOutcome.LOGGED_IN:
                return self._after_failure(pending, outcome, callback)
        # A repeated callback waits for the outcome. If this callback has logged the user in, the outcome is stored, so
        # the call returns at once, with the visit as the login has changed it.
        visit = await self._wait_for_outcome(hashes)
        if visit.wechat_code_hash != code_hash:  # this callback has another code, or the visit had expired
            return self._redirect_to_page(visit, callback, "over")
        outcome = VisitOutcome(visit.outcome or VisitOutcome.TEMPORARILY_UNAVAILABLE)
        if outcome is VisitOutcome.LOGGED_IN:
            onward = await self._after_login(visit, callback)
        else:
            onward = self._after_failure(visit, outcome, callback)
        return onward.with_login_cookie(callback.browser.cookie, visit.proof_id)

    async def _record_first_callback(self, hashes: dict[str, bytes], code_hash: bytes) -> SiteLogin | None:
        """Record the first callback of an open visit, and return the visit; None for any other callback."""
        found = await self.database.row(queries.BY_STATE, **hashes)
        now = self.clock()
        if found is None or found.wechat_code_hash is not None:  # a repeated callback needs no transaction
            return None
        async with self.database.begin() as transaction:
            visit = await transaction.row(queries.LOCK, id=found.id, now=now)
            if visit is None or visit.wechat_code_hash is not None or visit.expires_at <= now:
                return None
            visit.stage, visit.wechat_code_hash = Stage.CLAIMED, code_hash
            await queries.save(transaction, visit)
        return visit

    async def _complete(self, visit: SiteLogin, callback: WeChatCallback) -> VisitOutcome:
        door = visit.taken_door
        fields = {"client_id": visit.client_id, "app_id": visit.app_id}
        try:
            if callback.code in _CODES_AFTER_REFUSAL:
                raise VisitRefused("the user refused")
            if door is Door.WEBSITE and visit.near:  # an operator has set `--near` during the visit
                raise VisitRefused("this site was added with --near")
            await self._log_in(visit, callback)
            return VisitOutcome.LOGGED_IN
        except SentBack:  # the user is not the user of the site's `id_token_hint`
            outcome = VisitOutcome.LOGIN_REQUIRED
        except (VisitRefused, WxAuthError) as exc:
            outcome = _log_and_classify(exc, door=door, **fields)
        except Exception:  # any other fault must also end the visit, because repeated callbacks wait for its outcome
            log.exception("visit_failed", door=door, **fields)
            outcome = VisitOutcome.SERVER_ERROR
        _count_failure(door, outcome)
        try:
            await self._store_failure(visit, outcome)
        except StorageUnavailable:
            log.warning("visit_outcome_not_stored", door=door, **fields)  # a repeated callback times out
        return outcome

    async def _store_failure(self, visit: SiteLogin, outcome: VisitOutcome) -> None:
        async with self.database.begin() as transaction:
            locked = await transaction.row(queries.LOCK, id=visit.id, now=self.clock())
            if locked is not None and locked.outcome is None:
                locked.stage, locked.outcome = Stage.REFUSED, outcome
                await queries.save(transaction, locked)

    async def _log_in(self, visit: SiteLogin, callback: WeChatCallback) -> None:
        app = self.apps.for_login(visit.app_id)
        browser = callback.browser
        identity, wechat_ms = await exchange_code(self.wechat, app, callback.code)
        if self._is_closed_to_staff(visit.taken_door):
            await self._check_is_not_staff(app, identity)
        now = self.clock()
        wanted = Login(
            app_id=app.app_id,
            openid=identity.openid,
            unionid=identity.unionid,
            ip=browser.ip,
            user_agent=browser.user_agent,
            expires_in=None,  # opens no session: the site opens its own when it redeems the code
        )
        login = await log_in_identity(self, app, wanted, now=now)
        self.login_counts.count_login(is_new=login.is_new, at=now)
        await self._approve(visit, identity.openid, callback, now=now)
        fields = {"is_new": login.is_new, "wechat_ms": wechat_ms, "database_ms": login.milliseconds}
        log.info("site_authorized", client_id=visit.client_id, user_id=login.user.id, app_id=app.app_id, **fields)

    async def _approve(self, visit: SiteLogin, openid: str, callback: WeChatCallback, *, now: datetime) -> None:
        browser, door = callback.browser, visit.taken_door
        async with self.database.begin() as transaction:
            user = await user_queries.lock_user(transaction, app_id=visit.app_id, openid=openid)
            locked = await transaction.row(queries.LOCK, id=visit.id, now=now)
            # Only the task of the first callback writes an outcome, so there should be none yet. If there were one, the
            # site could get two codes.
            if user is None or locked is None or locked.outcome is not None:
                raise VisitRefused("the user can no longer log in, or the site has been removed")
            if self._is_closed_to_staff(door) and not STAFF_ROLES.isdisjoint(user.roles):  # got the role meanwhile
                raise VisitRefused(_CLOSED_TO_STAFF)
            pressed_at = locked.created_at  # the site's `auth_time` is the time of the press
            locked.approve(user, authenticated_at=pressed_at, authenticated_by=AMR[door], until=locked.expires_at)
            locked.outcome = VisitOutcome.LOGGED_IN
            locked.browser_ip, locked.browser_user_agent = browser.ip, browser.user_agent
            locked.kept_until = max(locked.kept_until, locked.expires_at + OUTCOME_KEPT)
            await self.codes.store(transaction, locked, user, callback.code_for_site, browser, now=now)

    def _is_closed_to_staff(self, door: Door) -> bool:
        return door is Door.WEBSITE and not self.settings.scan_admin_anywhere

    async def _check_is_not_staff(self, app: App, identity: WeChatIdentity) -> None:
        is_staff = await self.database.value(
            user_queries.HAS_ANY_ROLE,
            app_id=app.app_id,
            openid=identity.openid,
            unionid=identity.unionid,
            roles=list(STAFF_ROLES),
        )
        if is_staff:
            raise VisitRefused(_CLOSED_TO_STAFF)

    async def _wait_for_outcome(self, hashes: dict[str, bytes]) -> SiteLogin:
        """Return the visit as soon as it has an outcome, which another process might store, or after a deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.wechat_timeout + CALLBACK_EXTRA_SECONDS
        while True:
            visit = await self.database.row(queries.BY_STATE, **hashes)
            if visit is None:
                raise NotFound("this browser didn't start this visit")
            if visit.wechat_code_hash is None or visit.outcome is not None or loop.time() >= deadline:
                return visit
            await asyncio.sleep(OUTCOME_CHECK_PAUSE_SECONDS)

    async def _after_login(self, visit: SiteLogin, callback: WeChatCallback) -> Onward:
        if visit.stage == Stage.REDEEMED:
            return self._redirect_to_page(visit, callback, "done")
        now = self.clock()
        if visit.user_id is None or visit.code_expires_at is None or visit.code_expires_at <= now:
            return self._redirect_to_page(visit, callback, "over")
        # Another user's login ends before the site gets the code. If ending it fails, the outcome stays stored, and a
        # repeated callback tries again.
        await self.codes.end_browser_login_of_another(visit, visit.user_id, callback.browser, now=now)
        return response_to_site(self.settings, visit, code=callback.code_for_site)

    def _after_failure(self, visit: SiteLogin, outcome: VisitOutcome, callback: WeChatCallback) -> Onward:
        if outcome in (VisitOutcome.SNAPSHOT, VisitOutcome.AGAIN):
            return self._redirect_to_page(visit, callback, outcome)
        return SentBack(visit, _DESCRIPTIONS[outcome], error=outcome).onward(self.settings)

    def _redirect_to_page(self, visit: SiteLogin, callback: WeChatCallback, name: str) -> Onward:
        assert visit.pressed_on is not None  # `new_press` has set it
        page_id = page_id_of(callback.browser.cookie, visit.pressed_on)
        return Onward(f"{self.settings.issuer}{AUTHORIZE_PATH}/{page_id}/wechat/{name}")


def _count_failure(door: Door, outcome: VisitOutcome) -> None:
    DOOR_LOGINS.count(door, _OUTCOMES_COUNTED.get(outcome, DoorOutcome.FAILED))


def _url_of_wechats_page(settings: Settings, app: App, door: Door, state: str) -> str:
    # WeChat's documentation of web authorization requires this order of parameters.
    parameters = {
        "appid": app.app_id,
        "redirect_uri": f"{settings.issuer}{CALLBACK_PATH}",
        "response_type": "code",
        "scope": "snsapi_login",
        "state": state,
    }
    path = "qrconnect"
    if door is Door.ACCOUNT:
        path = "oauth2/authorize"
        # WeChat returns a unionid only with `snsapi_userinfo`.
        parameters["scope"] = "snsapi_userinfo" if app.unionid_in_force == "required" else "snsapi_base"
        # WeChat does not document this parameter. Developers report that WeChat repeats fewer callbacks if the
        # parameter is present.
        parameters["connect_redirect"] = "1"
    return f"{settings.wechat_open_url}/connect/{path}?{urlencode(parameters)}#wechat_redirect"


def _log_and_classify(error: VisitRefused | WxAuthError, **fields: str | None) -> VisitOutcome:
    """Return the outcome of a visit with this error. Log the error, unless the user can try again."""
    if isinstance(error, VisitRefused):
        log.info("visit_refused", **fields, reason=str(error))
        return VisitOutcome.ACCESS_DENIED
    fields |= {"reason": error.code, "detail": error.detail}
    match error:
        case SnapshotUser():
            return VisitOutcome.SNAPSHOT
        case InvalidCode() | CodeUsed():
            return VisitOutcome.AGAIN
        case UnknownApp():
            log.error("visit_failed", **fields, what_to_change="see 'wxauth apps list' and 'wxauth clients list'")
            return VisitOutcome.SERVER_ERROR
    log.warning("visit_failed", **fields)
    if error.status == HTTPStatus.FORBIDDEN or isinstance(error, LacksUnionid):
        return VisitOutcome.ACCESS_DENIED
    if error.status in _TEMPORARY_STATUSES:
        return VisitOutcome.TEMPORARILY_UNAVAILABLE
    return VisitOutcome.SERVER_ERROR
