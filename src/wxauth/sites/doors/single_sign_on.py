"""Single sign-on: a site that was added with `--sso` gets a code from the login that a browser already has.

The user presses a button for it, unless the site has received a code from this login before, and sends `prompt=none`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from wxauth.clients.oauth_requests import Parameters, parse_parameters
from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import NotFound, RateLimited
from wxauth.limits.concurrency import Concurrency
from wxauth.random_secrets import hash_of, new_secret
from wxauth.settings.settings import Settings
from wxauth.sites import browser_login_queries
from wxauth.sites.authorization_codes import PagelessLogin, add_with_code, proved_after
from wxauth.sites.browser_login_queries import BrowserUser, lock_browser_user
from wxauth.sites.door import AUTHORIZATION_CODE_LASTS, DOOR_LOGINS, Door, DoorOutcome
from wxauth.sites.queries import SiteLogin
from wxauth.sites.requests import HINTS, SiteRequest, SiteRequests, refusal
from wxauth.sites.responses import AUTHORIZE_PATH, Browser, Onward, response_to_site
from wxauth.sites.secrets import UNKNOWN_PAGE
from wxauth.sites.waiting import find_open_page

CODES_PER_MINUTE: Final = 60  # from one browser's login
_MINUTE: Final = timedelta(minutes=1)
_NO_LOGIN: Final = "this browser has no login that can be used"

log = get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class _PressedPage:
    """A page on which the user has pressed a button. The page shows who is logged in to this browser."""

    page: SiteLogin
    parameters: Parameters  # without `id_token_hint`
    hint: Mapping[str, str]  # from the page's form

    def repeating_redirect(self, **changed: str) -> Onward:
        """Return the redirect that repeats the site's request. `changed` replaces or adds parameters."""
        return Onward(f"{AUTHORIZE_PATH}?{urlencode({**self.parameters, **self.hint, **changed})}")


@part
class SingleSignOn:
    """The part that answers the sign-in requests that come from browsers with a login."""

    settings: Settings
    database: Database
    clock: Clock
    concurrency: Concurrency
    site_requests: SiteRequests

    async def user_of(self, browser: Browser, *, client_id: str = "") -> BrowserUser | None:
        """Return the user of this browser's login, if it has one, and if the user may log in.

        `client_id` is the site for the result's `knows_site`.
        """
        if not browser.login_cookie or self.settings.sso_ttl == 0:
            return None
        return await self.database.row(
            browser_login_queries.BROWSER_USER,
            cookie_hash=hash_of(browser.login_cookie),
            client_id=client_id,
            proved_after=proved_after(self.settings, self.clock()),
        )

    async def user_satisfying(self, request: SiteRequest, browser: Browser) -> BrowserUser | None:
        """Return the user of this browser's login, if the login satisfies the site's request."""
        if not request.client.sso:
            return None
        user = await self.user_of(browser, client_id=request.client.name)
        if user is None or not _satisfies(user, request, now=self.clock()):
            return None
        return user

    async def answer_silently(self, request: SiteRequest, browser: Browser) -> Onward:
        """Return the redirect with an authorization code, for `prompt=none`. Raises: SentBack; Unanswerable."""
        user = await self.user_satisfying(request, browser)
        if user is None:
            raise refusal(request, "login_required", _NO_LOGIN)
        if not user.knows_site:
            raise refusal(request, "interaction_required", "the user hasn't continued to this site yet")
        onward = await self._redirect_with_code(request, browser, expected=user)
        if onward is None:  # the browser's login has just changed or ended
            raise refusal(request, "login_required", _NO_LOGIN)
        return onward

    async def go_on(self, page_id: str, browser: Browser, form: str) -> Onward:
        """Return the redirect after "continue": to the site, with a code, or to a new page if the login has changed.

        Raises: NotFound, if the page is not open, or shows no user; SentBack, with the error for the site;
            Unanswerable; RateLimited; OAuthError, if the form is invalid.
        """
        pressed = await self._find_pressed(page_id, browser, form)
        request = await self.site_requests.check(pressed.parameters, ip=browser.ip)
        # The stored parameters do not contain the hint, but the page's row stores the user whom the hint named.
        request.hinted_user_id = pressed.page.hinted_user_id
        user = await self.user_satisfying(request, browser)
        if user is not None and user.login_id == pressed.page.browser_login_id:
            onward = await self._redirect_with_code(request, browser, expected=user)
            if onward is not None:
                return onward
        return pressed.repeating_redirect()

    async def use_another(self, page_id: str, browser: Browser, form: str) -> Onward:
        """Return the redirect after "Use another account". The repeated request requires a new proof.

        Raises: NotFound, if the page is not open, or shows no user; OAuthError, if the form is invalid.
        """
        pressed = await self._find_pressed(page_id, browser, form)
        return pressed.repeating_redirect(prompt="login")

    async def _find_pressed(self, page_id: str, browser: Browser, form: str) -> _PressedPage:
        sent = parse_parameters(form)
        page = await find_open_page(self.database, page_id, browser, now=self.clock())
        if page.query is None:
            raise NotFound(UNKNOWN_PAGE)
        hint = {name: sent[name] for name in HINTS if name in sent}
        return _PressedPage(page, parse_parameters(page.query), hint)

    async def _redirect_with_code(
        self, request: SiteRequest, browser: Browser, *, expected: BrowserUser
    ) -> Onward | None:
        """Store a login with a code, and return the redirect; None if the browser's login is no longer `expected`."""
        now = self.clock()
        code = new_secret()
        try:
            # A browser's login has its own queue, as a session has.
            async with (
                self.concurrency.of_session(expected.login_id, expected.id),
                self.database.begin() as transaction,
            ):
                user = await self._store_code(transaction, request, browser, code, expected=expected, now=now)
        except RateLimited as exc:
            DOOR_LOGINS.count(Door.SSO, DoorOutcome.REFUSED)
            raise refusal(request, "temporarily_unavailable", exc.detail) from None
        if user is None:
            return None
        client_id = request.client.name
        log.info("site_authorized", client_id=client_id, user_id=user.id, app_id=user.app_id, door=Door.SSO)
        return response_to_site(self.settings, request, code=code)

    async def _store_code(
        self,
        transaction: Transaction,
        request: SiteRequest,
        browser: Browser,
        code: str,
        *,
        expected: BrowserUser,
        now: datetime,
    ) -> BrowserUser | None:
        valid_after = proved_after(self.settings, now)
        client_id = request.client.name
        cookie_hash = hash_of(browser.login_cookie)
        user = await lock_browser_user(transaction, cookie_hash, client_id=client_id, proved_after=valid_after)
        # Since the caller read the login, another user might have logged in with this browser.
        if user is None or user.login_id != expected.login_id or not _satisfies(user, request, now=now):
            return None
        # Because of abs(), times in the far future, which a clock that was ahead has stored, do not count.
        recent_codes_at = [at for at in user.codes_at if abs(now - at) < _MINUTE]
        if len(recent_codes_at) >= CODES_PER_MINUTE:
            raise RateLimited("this browser has requested too many codes")
        time_left = user.authenticated_at - valid_after  # until the browser's login expires
        values = PagelessLogin(
            door=Door.SSO,
            authenticated_at=user.authenticated_at,
            authenticated_by=user.authenticated_by,
            device=browser,
            lifetime=min(AUTHORIZATION_CODE_LASTS, time_left),
            browser_login_id=user.login_id,
        )
        await add_with_code(transaction, request, user, code, values, now=now)
        codes_at = [*recent_codes_at, now]
        await transaction.run(
            browser_login_queries.RECORD_CODE, id=user.login_id, codes_at=codes_at, client_id=client_id
        )
        return user


def _satisfies(user: BrowserUser, request: SiteRequest, *, now: datetime) -> bool:
    if request.requires_new_login or request.hinted_user_id not in (None, user.id):
        return False
    if request.max_age is None:
        return True
    # `max_age=0` requires a new login, even if the user has proved who they are at this moment.
    return request.max_age > 0 and (now - user.authenticated_at).total_seconds() <= request.max_age
