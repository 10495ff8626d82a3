"""The authorization codes that sites get, whichever door (way to log in) the user takes.

Sites added with `--sso` share the browser's login. A login to such a site creates or renews the browser's login, if the
door proves who uses the browser: such a login to a site is called a proof. The browser's login ends if another user
logs in to such a site with this browser, or if its user logs out in this browser.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from wxauth.core.clock import new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import UserInSession
from wxauth.limits.concurrency import Concurrency
from wxauth.random_secrets import hash_of
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import END_SESSIONS_OF_BROWSER_LOGIN, EndReason, end_selected
from wxauth.settings.settings import Settings
from wxauth.sites import browser_login_queries, queries, user_queries
from wxauth.sites.asking import new_login
from wxauth.sites.door import AUTHORIZATION_CODE_LASTS, OUTCOME_KEPT, PROVING_DOORS, Door
from wxauth.sites.models import RequestFields, Stage
from wxauth.sites.queries import LockedLogin, SiteLogin
from wxauth.sites.requests import SiteRequest
from wxauth.sites.responses import ANOTHER_USER, Browser, Onward, SentBack, response_to_site
from wxauth.sites.secrets import login_cookie_of
from wxauth.users.user_queries import CURRENT_USER_ID

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PagelessLogin:
    """The values of a login that needs no page, beside its request and its user."""

    door: Door
    authenticated_at: datetime
    authenticated_by: str  # an `amr` value (RFC 8176)
    device: Device
    lifetime: timedelta = AUTHORIZATION_CODE_LASTS
    claimed_session_id: UUID | None = None
    browser_login_id: UUID | None = None


@part
class AuthorizationCodes:
    """The part that stores authorization codes for approved logins, and that renews and ends the logins of browsers."""

    settings: Settings
    database: Database
    concurrency: Concurrency

    def queue(self, login: SiteLogin) -> AbstractAsyncContextManager[None]:
        """Wait in the queue of a login and, after the approval, in the queue that its user's tabs share."""
        if login.user_id is None:
            return self.concurrency.queue(login.id)
        return self.concurrency.of_session(login.id, login.user_id)

    async def store(
        self,
        transaction: Transaction,
        login: LockedLogin,
        user: UserInSession,
        code: str,
        browser: Browser,
        *,
        now: datetime,
    ) -> UUID | None:
        """Store a code in a locked login, in place of any previous code. Return the `proof_id` that `redirect` needs.

        Raises: SentBack, before anything is stored, if the site's `id_token_hint` names another user.
        """
        await _check_hint(transaction, login, user)
        proof_id = await self._store_proof(transaction, login, user, browser, now=now)
        is_first = login.code_hash is None
        login.stage = Stage.CODED
        login.code_hash, login.code_expires_at = hash_of(code), now + AUTHORIZATION_CODE_LASTS
        await queries.save(transaction, login)
        if is_first:
            await record_authorized(
                transaction, user, login.client_id, login, door=login.taken_door, ip=browser.ip, now=now
            )
        return proof_id

    async def _store_proof(
        self, transaction: Transaction, login: LockedLogin, user: UserInSession, browser: Browser, *, now: datetime
    ) -> UUID | None:
        """If `login` is a proof, create or renew the browser's login, and return the `proof_id` of the browser's login.

        The caller must store `login.browser_login_id`, which this method sets.
        """
        if not (browser.cookie and makes_browser_login(self.settings, login, is_web_view=browser.is_web_view)):
            return None
        browser_login = await browser_login_queries.store_proof(
            transaction,
            login,
            user,
            login_id=new_id(now),
            browser_hash=hash_of(browser.cookie),
            cookie_hash=hash_of(browser.login_cookie),
            new_cookie_hash=hash_of(login_cookie_of(browser.cookie, login.id)),
            proved_after=proved_after(self.settings, now),
        )
        if browser_login is None:
            return None
        login.browser_login_id = browser_login.id
        return browser_login.proof_id

    async def redirect(
        self,
        login: LockedLogin,
        user: UserInSession,
        code: str,
        browser: Browser,
        *,
        proof_id: UUID | None,
        now: datetime,
    ) -> Onward:
        """Return the redirect to the site with the code. End another user's login of this browser.

        The transaction of `store` must have ended, because this call locks a user in a transaction of its own.
        """
        await self.end_browser_login_of_another(login, user.id, browser, now=now)
        return response_to_site(self.settings, login, code=code).with_login_cookie(browser.cookie, proof_id)

    async def end_browser_login_of_another(
        self, login: SiteLogin, user_id: UUID, browser: Browser, *, now: datetime
    ) -> None:
        """End the login of this browser if it belongs to another user, and if this site shares logins."""
        if login.sso:
            await self.end_browser_login(browser, other_than=user_id, now=now)

    async def end_browser_login(
        self, browser: Browser, *, of: UUID | None = None, other_than: UUID | None = None, now: datetime
    ) -> None:
        """End the login of this browser, and the sessions that sites have opened from it.

        `of` and `other_than` limit this to the login of one user, or to that of any other user.
        """
        if not browser.login_cookie or self.settings.sso_ttl == 0:
            return
        async with self.database.begin() as transaction:
            user = await browser_login_queries.lock_browser_user(
                transaction, hash_of(browser.login_cookie), proved_after=proved_after(self.settings, now)
            )
            if user is None or user.id == other_than:
                return
            if of is not None and user.id != of:
                return
            await transaction.run(browser_login_queries.DELETE_BROWSER_LOGIN, id=user.login_id)
            sessions = {"browser_login_id": user.login_id, "user_id": user.id}
            by = Actor(str(user.id))
            await end_selected(
                transaction, END_SESSIONS_OF_BROWSER_LOGIN, sessions, reason=EndReason.SIGNED_OUT, by=by, now=now
            )
        log.info("browser_login_ended", user_id=user.id)


async def lock_user_and_login(
    transaction: Transaction, login: SiteLogin, *, now: datetime
) -> tuple[LockedLogin | None, UserInSession | None]:
    """Lock the user of an approved login, and then the login.

    The login is None if it was deleted or its site was removed. The user is None if they cannot log in, or if the
    login has no identity.
    """
    user = await user_queries.lock_user(transaction, app_id=login.app_id, openid=login.openid)
    locked = await transaction.row(queries.LOCK, id=login.id, now=now)
    if locked is None or locked.openid is None:
        return locked, None
    return locked, user


def is_still_approved(login: LockedLogin, until: datetime | None, *, now: datetime) -> bool:
    """Return whether the approval of a locked login is valid. The caller checks whether the user can log in.

    `until` is the time at which the approval or, for a redemption, the code expires.
    """
    if login.stage not in (Stage.APPROVED, Stage.CODED) or until is None or until <= now:
        return False
    if login.claimed_session_id is not None and not login.is_phone_session_open:
        return False
    # `proof_id` is None if the browser's login has ended.
    return login.browser_login_id is None or login.proof_id is not None


def makes_browser_login(settings: Settings, login: SiteLogin, *, is_web_view: bool) -> bool:
    """Return whether a login to a site creates or renews the login of its browser."""
    # A mini-program's web-view has no login.
    return settings.sso_ttl > 0 and login.sso and not is_web_view and login.taken_door in PROVING_DOORS


async def add_with_code(
    transaction: Transaction,
    request: SiteRequest,
    user: UserInSession,
    code: str,
    values: PagelessLogin,
    *,
    now: datetime,
) -> None:
    """Store a login that needs no page, with its code, and record it. The caller has locked the user.

    Raises: SentBack, if the site's `id_token_hint` names another user; Unanswerable, if the client no longer exists.
    """
    await _check_hint(transaction, request, user)
    expires_at = now + values.lifetime
    login = new_login(
        request,
        request.client.name,
        values.device,
        lifetime=values.lifetime,
        kept_for=OUTCOME_KEPT,
        now=now,
        door=values.door,
        claimed_session_id=values.claimed_session_id,
        browser_login_id=values.browser_login_id,
        code_hash=hash_of(code),
        code_expires_at=expires_at,
    )
    login.approve(
        user,
        authenticated_at=values.authenticated_at,
        authenticated_by=values.authenticated_by,
        until=expires_at,
    )
    login.stage = Stage.CODED
    await queries.add(transaction, login)  # never False, because this login has no user code that might be taken
    await record_authorized(transaction, user, login.client_id, login, door=values.door, ip=values.device.ip, now=now)


async def record_authorized(
    transaction: Transaction,
    user: UserInSession,
    client_id: str,
    request: RequestFields | None = None,
    *,
    door: Door,
    ip: str | None,
    now: datetime,
) -> None:
    """Record that a site gets a code or, without a sign-in request, an id_token for a user."""
    details = {"client_id": client_id, "door": door}
    if request is not None and request.resource is not None:
        details |= {"resource": request.resource, "scope": request.scope}
    await record_event(
        transaction,
        EventType.SITE_AUTHORIZED,
        by=Actor(str(user.id), ip),
        at=now,
        user_id=user.id,
        app_id=user.app_id,
        data=details,
    )


def proved_after(settings: Settings, now: datetime) -> datetime:
    """Return the time since which a user must have proved who they are for a browser's login to be valid now."""
    return now - timedelta(seconds=settings.sso_ttl)


async def _check_hint(transaction: Transaction, request: RequestFields, user: UserInSession) -> None:
    if request.hinted_user_id in (None, user.id):
        return
    # Since the site got the id_token, the user of the hint might have been merged into this user.
    if await transaction.value(CURRENT_USER_ID, user_id=request.hinted_user_id) != user.id:
        raise SentBack(request, ANOTHER_USER, error="login_required")
