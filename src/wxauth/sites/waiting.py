"""The pages on which wxauth waits for a user's decision, and the state of a page's scan."""

from datetime import datetime
from enum import StrEnum
from typing import NoReturn

from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.services import part
from wxauth.errors import NotFound, RateLimited
from wxauth.random_secrets import new_secret
from wxauth.sites import queries
from wxauth.sites.authorization_codes import AuthorizationCodes, is_still_approved, lock_user_and_login
from wxauth.sites.door import MAX_PRESSES
from wxauth.sites.models import Stage
from wxauth.sites.queries import LockedLogin, SiteLogin
from wxauth.sites.responses import MAY_NOT_LOG_IN, REFUSED, Browser, Onward, SentBack
from wxauth.sites.secrets import UNKNOWN_PAGE, page_hashes


class PressesUsedUp(RateLimited):
    """The error after the last permitted use of a page's button. Unlike with other limits, waiting does not help."""


class ScanPageOver(NotFound):
    """The error after the QR code of a page has expired, or after the site has opened its session."""


class PageState(StrEnum):
    """The state of a scan, as the script of its page reads it."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    APPROVED = "approved"
    DENIED = "denied"
    OVER = "over"  # expired, or redeemed by the site


async def find_open_page(database: Database, page_id: str, browser: Browser, *, now: datetime) -> SiteLogin:
    """Return the login that this page of this browser shows. Raises: NotFound, if there is no open page."""
    page = await database.row(queries.BY_PAGE, **page_hashes(page_id, browser.cookie))
    if page is None or not page.is_page_open(now):
        raise NotFound(UNKNOWN_PAGE)
    return page


async def lock_open_page(transaction: Transaction, page: SiteLogin, *, now: datetime) -> LockedLogin:
    """Lock the row of a page, to record a press of its button. Raises: NotFound, if the page has ended."""
    locked = await transaction.row(queries.LOCK, id=page.id, now=now)
    if locked is None or not locked.is_page_open(now):
        raise NotFound(UNKNOWN_PAGE)
    return locked


def next_press(presses: int) -> int:
    """Return the number of the next press of a page's button. Raises: PressesUsedUp."""
    if presses >= MAX_PRESSES:
        raise PressesUsedUp("the button on this page was pressed too often")
    return presses + 1


@part
class ScanPages:
    """The part that answers the requests of the page with a QR code. The other pages use only `cancel`."""

    database: Database
    clock: Clock
    codes: AuthorizationCodes

    async def state(self, page_id: str, browser: Browser) -> PageState:
        return state_of(await self._find_scan(page_id, browser), now=self.clock())

    async def go_on(self, page_id: str, browser: Browser) -> Onward:
        """Return the redirect to the site with an authorization code, after the user has approved the scan.

        Raises: NotFound, if there is no decision yet; ScanPageOver; SentBack, if the user has refused, can no longer
            log in, or is not the user of the site's `id_token_hint`; RateLimited.
        """
        page = await self._find_scan(page_id, browser)
        now = self.clock()
        state = state_of(page, now=now)
        if state is PageState.DENIED:
            raise SentBack(page, REFUSED)
        if state is PageState.OVER:
            raise ScanPageOver("the QR code has expired or has already been used")
        if state is not PageState.APPROVED:
            raise NotFound("there is no decision yet")
        return await self._redirect_with_code(page, browser, now=now)

    async def cancel(self, page_id: str, browser: Browser) -> NoReturn:
        """Send the browser back to the site, because the user does not want to log in."""
        page = await find_open_page(self.database, page_id, browser, now=self.clock())
        raise SentBack(page, "the user returned to the site")

    async def _find_scan(self, page_id: str, browser: Browser) -> SiteLogin:
        page = await self.database.row(queries.BY_PAGE, **page_hashes(page_id, browser.cookie))
        if page is None or page.scene_hash is None:
            raise NotFound("this browser doesn't show this QR code")
        return page

    async def _redirect_with_code(self, page: SiteLogin, browser: Browser, *, now: datetime) -> Onward:
        code = new_secret()
        async with self.codes.queue(page), self.database.begin() as transaction:
            login, user = await lock_user_and_login(transaction, page, now=now)
            if login is None or user is None or not is_still_approved(login, login.granted_until, now=now):
                raise SentBack(page, MAY_NOT_LOG_IN)
            proof_id = await self.codes.store(transaction, login, user, code, browser, now=now)
        return await self.codes.redirect(login, user, code, browser, proof_id=proof_id, now=now)


def state_of(page: SiteLogin, *, now: datetime) -> PageState:
    """Return the state of a login whose QR code a page shows."""
    if page.stage == Stage.REFUSED:
        return PageState.DENIED
    if page.stage == Stage.REDEEMED or page.scan_ends_at <= now:
        return PageState.OVER
    if page.stage in (Stage.APPROVED, Stage.CODED):
        return PageState.APPROVED
    if page.stage == Stage.CLAIMED:
        return PageState.CLAIMED
    return PageState.WAITING
