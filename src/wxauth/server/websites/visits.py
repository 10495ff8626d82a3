"""Login by WeChat's own page: in WeChat's browser by a service account, on a computer by a website app.

The browser goes to WeChat's page when the person presses a button, and comes back with WeChat's code. The first
callback exchanges that code; WeChat's browsers send some callbacks twice.
"""

import asyncio
import re
import secrets
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import urlencode

from wxauth.errors import (
    AccountDisabled,
    AccountLeaving,
    CodeUsed,
    InvalidCode,
    NotFound,
    SignUpClosed,
    SignUpRefused,
    SignUpUnavailable,
    SnapshotUser,
    StorageUnavailable,
    UnknownApp,
    WeChatRateLimited,
    WeChatTimeout,
    WeChatUnavailable,
    WeChatUserBlocked,
    WxAuthError,
)
from wxauth.server.apps.registry import Apps
from wxauth.server.clients.models import Client
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import new_id
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.users import STAFF_ROLES, UserInSession
from wxauth.server.login.entering import Entering, LacksUnionid
from wxauth.server.numbers.numbers import Numbers
from wxauth.server.sessions.devices import Device
from wxauth.server.websites import visit_rows
from wxauth.server.websites.authorize import AUTHORIZE_PATH, Asking, sent_back
from wxauth.server.websites.browser_login_rows import Proof
from wxauth.server.websites.browser_logins import (
    BrowserCookies,
    Onward,
    WayBack,
    end_login_of_another,
    onward_to,
    proves_login,
    record_proof,
)
from wxauth.server.websites.doors import AMR, DOORS, Door, DoorOutcome
from wxauth.server.websites.grant_rows import (
    AnotherPerson,
    add_grant,
    lock_visitor,
    put_code,
    record_authorized,
)
from wxauth.server.websites.models import GrantFields
from wxauth.server.websites.scan_limits import PressesUsedUp, ScanLimits
from wxauth.server.websites.secrets import NO_SUCH_PAGE, code_of, hash_of, page_hashes, page_id_of
from wxauth.server.websites.visit_rows import LockedVisit, Visit, VisitOutcome

CALLBACK: Final = f"{AUTHORIZE_PATH}/wechat"
CALLBACK_EXTRA_SECONDS: Final = 2.0
"""Seconds that a repeated callback waits beyond WeChat's timeout."""
OUTCOME_CHECK_PAUSE_SECONDS: Final = 0.1
"""Seconds between two checks for the outcome of the first callback."""

_STATE: Final = re.compile("[0-9a-f]{32}", re.ASCII)
_STATE_BYTES: Final = 16
_DENIED: Final = (AccountDisabled, AccountLeaving, SignUpClosed, SignUpRefused, WeChatUserBlocked, LacksUnionid)
_TRY_LATER: Final = (WeChatRateLimited, WeChatUnavailable, WeChatTimeout, SignUpUnavailable, StorageUnavailable)
_OUTCOMES: Final = {
    VisitOutcome.ACCESS_DENIED: DoorOutcome.REFUSED,
    VisitOutcome.LOGIN_REQUIRED: DoorOutcome.REFUSED,
    VisitOutcome.SNAPSHOT: DoorOutcome.SNAPSHOT,
    VisitOutcome.AGAIN: DoorOutcome.FAILED,
    VisitOutcome.TEMPORARILY_UNAVAILABLE: DoorOutcome.FAILED,
    VisitOutcome.SERVER_ERROR: DoorOutcome.FAILED,
}
_DESCRIPTIONS: Final = {
    VisitOutcome.ACCESS_DENIED: "the person has refused, or may not log in",
    VisitOutcome.LOGIN_REQUIRED: AnotherPerson.answer["error_description"],
    VisitOutcome.TEMPORARILY_UNAVAILABLE: "WeChat or the service gave no answer in time",
    VisitOutcome.SERVER_ERROR: "WeChat does not answer this app: the log of the service has the cause",
}

log = get_logger()


class WeChatCallback(NamedTuple):
    """A browser's callback from WeChat's page, and the browser's cookie."""

    cookie: str
    state: str
    code: str
    """Empty if the person has declined."""
    cookies: BrowserCookies

    def __repr__(self) -> str:
        return "WeChatCallback()"


class VisitRefused(Exception):
    """This site or this person may not log in this way."""


def is_open_on_computers(client: Client) -> bool:
    """Whether people may log in to this client by WeChat's page on a computer.

    That page does not show the person which browser logs in, so it is not allowed where phone and browser must be near
    each other.
    """
    return client.website_app_id is not None and not client.near


@part
class Visits:
    """Sends browsers to WeChat's page, and logs in the people whose browsers return from it."""

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    scan_limits: ScanLimits
    background: Background
    numbers: Numbers
    entering: Entering

    async def after_press(self, page_id: str, cookie: str | None, *, device: Device) -> WayBack | str:
        """Where a press of the button leads: to WeChat's page, or to the site with an error.

        Raises: NotFound, PressesUsedUp, RateLimited.
        """
        hashes = page_hashes(page_id, cookie)
        page = await visit_rows.page_to_press(self.database, **hashes, now=self.clock())
        if page is None:
            raise NotFound(NO_SUCH_PAGE)
        door = Door.WEBSITE if page.has_scene else Door.ACCOUNT
        app_id = page.website_app_id if door is Door.WEBSITE else page.account_app_id
        if app_id is None:
            raise NotFound("this site has no such app")
        await self.scan_limits.browsers.admit_address(device.ip)
        try:
            if door is Door.WEBSITE and page.near:
                raise VisitRefused("this site was added with --near")
            app = self.apps.for_login(app_id)
        except (VisitRefused, WxAuthError) as exc:
            outcome = _outcome_of(exc, door, client_id=page.client_id, app_id=app_id)
            DOORS.count(door, _OUTCOMES[outcome])
            return _with_error(self.settings, page, outcome)
        now, state = self.clock(), secrets.token_hex(_STATE_BYTES)
        if not await visit_rows.add_visit(
            self.database,
            new_id(now),
            **hashes,
            state_hash=hash_of(state),
            door=door,
            app_id=app_id,
            now=now,
        ):
            raise PressesUsedUp("the button of one page was pressed too often")
        return _wechats_page(self.settings, app, door, state)

    async def finish(self, callback: WeChatCallback, *, device: Device) -> Onward:
        """Where the browser goes after a callback from WeChat's page: to the site, or to a page of ours.

        Raises: NotFound, if this browser has no such visit.
        """
        if not _STATE.fullmatch(callback.state):
            raise NotFound("no state of ours")
        hashes = {"state_hash": hash_of(callback.state), "browser_hash": hash_of(callback.cookie)}
        code_hash = hash_of(callback.code)
        visit = await visit_rows.take_visit(self.database, **hashes, code_hash=code_hash, now=self.clock())
        if visit is not None:
            # Continues even if the browser closes the connection, because it may come again.
            work = self.background.start(self._settle(visit, callback, device=device), name="wechat_visit")
            outcome = await asyncio.shield(work)
            if outcome is not VisitOutcome.LOGGED_IN:
                return Onward(_destination(self.settings, self.clock, visit, outcome, callback))
        visit = await _wait_for_outcome(self.settings, self.database, hashes)
        if visit.wechat_code_hash != code_hash:  # another code, or too late
            return Onward(_page(self.settings, visit, callback, "over"))
        outcome = VisitOutcome(visit.outcome or VisitOutcome.TEMPORARILY_UNAVAILABLE)
        to = _destination(self.settings, self.clock, visit, outcome, callback)
        if outcome is not VisitOutcome.LOGGED_IN:
            return Onward(to)
        return onward_to(to, callback.cookies, visit.proof_id)

    async def _settle(self, visit: Visit, callback: WeChatCallback, *, device: Device) -> VisitOutcome:
        """Identify the visitor, and store the outcome for callbacks that wait for it."""
        door, fields = Door(visit.door), {"client_id": visit.client_id, "app_id": visit.app_id}
        try:
            if not callback.code:
                raise VisitRefused("the person has refused")
            if door is Door.WEBSITE and visit.near:
                raise VisitRefused("this site was added with --near")
            if not await self._enter(visit, callback, door, device=device):
                raise VisitRefused("the person may not log in any more, or the site has been removed")
            return VisitOutcome.LOGGED_IN
        except AnotherPerson:
            outcome = VisitOutcome.LOGIN_REQUIRED
        except (VisitRefused, WxAuthError) as exc:
            outcome = _outcome_of(exc, door, **fields)
        except Exception:
            log.exception("visit_failed", door=door, **fields)
            outcome = VisitOutcome.SERVER_ERROR
        DOORS.count(door, _OUTCOMES[outcome])
        try:
            await visit_rows.settle_visit(self.database, visit.id, outcome)
        except StorageUnavailable:
            log.warning("visit_not_settled", door=door, **fields)  # a repeated callback waits in vain
        return outcome

    async def _enter(self, visit: Visit, callback: WeChatCallback, door: Door, *, device: Device) -> bool:
        """Exchange WeChat's code, find or create the user, and make the site's code.

        Returns False if the user may not log in, or the client has been removed.
        """
        app = self.apps.for_login(visit.app_id)
        identity, wechat_ms = await self.entering.exchange_code(app, callback.code)
        ids = {"app_id": app.app_id, "openid": identity.openid}
        is_closed_to_staff = door is Door.WEBSITE and not self.settings.scan_admin_anywhere
        if is_closed_to_staff and await visit_rows.has_any_role(
            self.database, STAFF_ROLES, **ids, unionid=identity.unionid
        ):
            raise VisitRefused(
                "administrators and support staff log in by a scan in one network: see SCAN_ADMIN_ANYWHERE"
            )
        now = self.clock()
        login, database_ms = await self.entering.record_identity(app, identity, expires_in=None, device=device, now=now)
        self.numbers.count_login(is_new=login.is_new, at=now)
        async with self.database.begin() as transaction:
            person = await lock_visitor(transaction, **ids)
            pending = None if person is None else await visit_rows.lock_visit(transaction, visit.id)
            if person is not None and pending is not None:
                await _grant(transaction, self.settings, person, pending, callback, door=door, device=device, now=now)
        if person is None or pending is None:
            return False
        if pending.sso:
            await end_login_of_another(self.database, self.settings, callback.cookies, person.id, now=now)
        fields = {"is_new": login.is_new, "wechat_ms": wechat_ms, "database_ms": database_ms}
        log.info("site_authorized", client_id=visit.client_id, user_id=login.user.id, app_id=app.app_id, **fields)
        return True


def _wechats_page(settings: Settings, app: App, door: Door, state: str) -> str:
    # WeChat requires this order (its page on web authorization).
    parameters = {
        "appid": app.app_id,
        "redirect_uri": f"{settings.issuer}{CALLBACK}",
        "response_type": "code",
        "scope": "snsapi_login",
        "state": state,
    }
    path = "qrconnect"
    if door is Door.ACCOUNT:
        path = "oauth2/authorize"
        parameters["scope"] = "snsapi_userinfo" if app.unionid_in_force == "required" else "snsapi_base"
        parameters["connect_redirect"] = "1"
    return f"{settings.wechat_open_url}/connect/{path}?{urlencode(parameters)}#wechat_redirect"


async def _wait_for_outcome(settings: Settings, database: Database, hashes: dict[str, bytes]) -> Visit:
    """Wait for the visit's outcome, until it has one, nobody works on it, or the time is up.

    Raises: NotFound.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.wechat_timeout + CALLBACK_EXTRA_SECONDS
    while True:
        visit = await visit_rows.find_visit(database, **hashes)
        if visit is None:
            raise NotFound("this browser has no such visit")
        if visit.wechat_code_hash is None or visit.outcome is not None or loop.time() >= deadline:
            return visit
        await asyncio.sleep(OUTCOME_CHECK_PAUSE_SECONDS)


async def _grant(
    transaction: Transaction,
    settings: Settings,
    person: UserInSession,
    visit: LockedVisit,
    callback: WeChatCallback,
    *,
    door: Door,
    device: Device,
    now: datetime,
) -> None:
    """Store what the person has granted, by pressing the button, the site's code, and the login of the browser."""
    login = None
    if proves_login(settings, door, callback.cookies, is_shared=visit.sso):
        proof = Proof(
            grant_id=visit.id,
            client_id=visit.client_id,
            user_id=person.id,
            app_id=person.app_id,
            openid=person.openid,
            authenticated_at=visit.created_at,
            authenticated_by=AMR[door],
        )
        login = await record_proof(transaction, settings, proof, callback.cookies, now=now)
    grant = GrantFields(
        id=visit.id,
        client_id=visit.client_id,
        scope=visit.scope,
        door=door,
        app_id=person.app_id,
        openid=person.openid,
        approving_session_id=None,
        authenticated_at=visit.created_at,
        authenticated_by=AMR[door],
        browser_ip=device.ip,
        browser_user_agent=device.user_agent,
        expires_at=visit.expires_at,
        browser_login_id=None if login is None else login.id,
    )
    code = code_of(callback.cookie, callback.state)
    await visit_rows.approve_visit(transaction, visit)
    await add_grant(transaction, grant)
    await put_code(transaction, grant.id, hash_of(code), visit, now=now)
    await record_authorized(transaction, person, client_id=visit.client_id, door=door, ip=device.ip, now=now)


def _outcome_of(error: VisitRefused | WxAuthError, door: Door, *, client_id: str, app_id: str) -> VisitOutcome:
    fields = {"door": door, "client_id": client_id, "app_id": app_id}
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
    if isinstance(error, _DENIED):
        return VisitOutcome.ACCESS_DENIED
    return VisitOutcome.TEMPORARILY_UNAVAILABLE if isinstance(error, _TRY_LATER) else VisitOutcome.SERVER_ERROR


def _destination(
    settings: Settings, clock: Clock, visit: Visit, outcome: VisitOutcome, callback: WeChatCallback
) -> WayBack | str:
    """Where the browser continues, without WeChat's code and state."""
    if outcome is VisitOutcome.LOGGED_IN:
        if visit.is_redeemed:
            return _page(settings, visit, callback, "done")
        if visit.code_expires_at is None or visit.code_expires_at <= clock():
            return _page(settings, visit, callback, "over")
        code = code_of(callback.cookie, callback.state)
        return sent_back(settings, visit, code=code)
    if outcome in (VisitOutcome.SNAPSHOT, VisitOutcome.AGAIN):
        return _page(settings, visit, callback, outcome)
    return _with_error(settings, visit, outcome)


def _page(settings: Settings, visit: Visit, callback: WeChatCallback, name: str) -> str:
    return f"{settings.issuer}{AUTHORIZE_PATH}/{page_id_of(callback.cookie, visit.request_id)}/wechat/{name}"


def _with_error(settings: Settings, asking: Asking, outcome: VisitOutcome) -> WayBack:
    error = {"error": str(outcome), "error_description": _DESCRIPTIONS[outcome]}
    return sent_back(settings, asking, **error)
