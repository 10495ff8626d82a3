"""The login in a phone's browser outside WeChat.

A link (see `mini_program_urls`) opens the mini-program, which shows a number, and the user types this number in the
browser. A phone cannot scan its own screen, and a mini-program cannot return to such a browser. Anyone can open the
link, so an attacker might send the link to another person. Only the number shows that the browser and the phone belong
to one person.
"""

import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.sealing import Sealer, link_number_context
from wxauth.core.services import part
from wxauth.errors import NotFound
from wxauth.random_secrets import hash_of, new_secret
from wxauth.sessions.devices import Device
from wxauth.settings.settings import Settings
from wxauth.site_logins import person_queries, queries
from wxauth.site_logins.asking import ScanLimits, new_press
from wxauth.site_logins.authorization_codes import AuthorizationCodes, is_still_approved
from wxauth.site_logins.doors import MAX_WRONG_NUMBERS, SCAN_LASTS, SITE_LOGINS, Door, DoorOutcome
from wxauth.site_logins.mini_program_urls import MiniProgramUrls
from wxauth.site_logins.models import UNDECIDED, Stage
from wxauth.site_logins.pages import find_open_page, lock_open_page, next_press
from wxauth.site_logins.queries import LockedLogin, SiteLogin
from wxauth.site_logins.responses import MAY_NOT_LOG_IN, REFUSED, Browser, Onward, SentBack
from wxauth.site_logins.scans import NUMBER_DIGITS
from wxauth.site_logins.secrets import NO_SUCH_PAGE, new_scene

_NUMBER: Final = re.compile(rf"[0-9]{{{NUMBER_DIGITS}}}")
"""The form of a link's number."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The outcome if the typed number is wrong, or was not compared. The browser then shows the page again."""

    page: SiteLogin
    is_wrong: bool
    """Whether the number was compared, and counted as wrong.

    If it was not compared, the page has no link yet, the user has not approved the login, the link has just changed,
    the number has expired, or the typed text is not six digits.
    """


@part
class Links:
    """The steps of a login by link, in which the user types the number from the mini-program in the browser."""

    settings: Settings
    database: Database
    clock: Clock
    sealer: Sealer
    scan_limits: ScanLimits
    codes: AuthorizationCodes
    mini_program_urls: MiniProgramUrls

    async def after_press(self, page_id: str, browser: Browser) -> Onward:
        """End the page's previous link, store a new link, and return the redirect that opens the mini-program with it.

        Raises: NotFound, if the page has ended, or its site has no link now; PressesUsedUp, if the button was pressed
            too often; RateLimited.
        """
        page = await find_open_page(self.database, page_id, browser, now=self.clock())
        url_without_scene = await self.mini_program_urls.of(page.site_app_id) if page.link else None
        if url_without_scene is None:
            raise NotFound("this site doesn't have this link")
        await self.scan_limits.browsers.admit_address(browser.ip)
        now = self.clock()  # read again, because WeChat may have taken seconds to make the URL
        scene = new_scene()
        async with self.database.begin() as transaction:
            locked = await lock_open_page(transaction, page, now=now)
            previous = await transaction.row(queries.LAST_LINK, page_id=locked.id)
            press_number = next_press(0 if previous is None else previous.presses)
            if previous is not None:
                # A phone may be deciding about the previous link, so its row must be locked before it changes.
                locked_previous = await transaction.row(queries.LOCK, id=previous.id, now=now)
                if locked_previous is not None:
                    await _end_link(transaction, locked_previous)
            # The phone shows the browser that has requested the page.
            page_browser = Device(locked.browser_ip, locked.browser_user_agent)
            lifetime = min(SCAN_LASTS, locked.expires_at - now)
            link = new_press(locked, page_browser, lifetime=lifetime, now=now, door=Door.LINK)
            link.presses, link.scene_hash = press_number, hash_of(scene)
            await queries.add(transaction, link)
        return Onward(self.mini_program_urls.with_scene(url_without_scene, scene))

    async def go_on(self, page_id: str, browser: Browser, typed: str) -> Onward | TryAgain:
        """Return the redirect to the site with a code if the typed number is right. Otherwise, return TryAgain.

        If this was the last permitted wrong number, return the redirect that reports the error to the site instead. The
        transaction locks the page before it compares a number. Therefore, simultaneous requests wait for each other,
        and wxauth compares at most `MAX_WRONG_NUMBERS` wrong numbers.

        Raises: NotFound, if the page is not open; SentBack, if the user has refused, can no longer log in, or is not
            the user of the site's `id_token_hint`; RateLimited; CannotOpen, if no secret key decrypts the number.
        """
        now = self.clock()
        number = "".join(typed.split())  # users type spaces between the digits
        found_page = await find_open_page(self.database, page_id, browser, now=now)
        found_link = await self.database.row(queries.LAST_LINK, page_id=found_page.id)
        if found_link is None:
            return TryAgain(found_page, is_wrong=False)
        async with self.codes.queue(found_link), self.database.begin() as transaction:
            # The locks are taken in the order that `queries` requires: the user, the page, and the page's link.
            user = await person_queries.lock_user(transaction, app_id=found_link.app_id, openid=found_link.openid)
            page = await transaction.row(queries.LOCK, id=found_page.id, now=now)
            link = await transaction.row(queries.LOCK, id=found_link.id, now=now)
            if page is None or not page.is_page_open(now):
                raise NotFound(NO_SUCH_PAGE)
            if link is None or link.openid != found_link.openid or link.claimed_session_id is None:
                # The link was deleted, no phone has claimed it, or it has just changed, so that the locked user might
                # be the wrong user.
                return TryAgain(page, is_wrong=False)
            if link.stage == Stage.REFUSED:
                raise SentBack(page, REFUSED)
            expected = self._number_of(link, now=now) if _NUMBER.fullmatch(number) else None
            if expected is None:
                return TryAgain(page, is_wrong=False)
            if not hmac.compare_digest(expected, number.encode()):
                return await self._after_wrong_number(transaction, page, link, now=now)
            if user is None or not is_still_approved(link, link.granted_until, now=now):
                raise SentBack(page, MAY_NOT_LOG_IN)
            code = new_secret()
            proof_id = await self.codes.store(transaction, link, user, code, browser, now=now)
        return await self.codes.redirect(link, user, code, browser, proof_id=proof_id, now=now)

    def _number_of(self, link: LockedLogin, *, now: datetime) -> bytes | None:
        """Return the digits of a link's number; None if the user has not approved the login, or the number has expired.

        Raises: CannotOpen, if no secret key decrypts the number.
        """
        if link.number is None or link.granted_until is None or link.granted_until <= now:
            return None
        return self.sealer.open(link.number, context=link_number_context(link.id))

    async def _after_wrong_number(
        self, transaction: Transaction, page: LockedLogin, link: LockedLogin, *, now: datetime
    ) -> Onward | TryAgain:
        """Count a wrong number, and return TryAgain.

        After the last permitted wrong number, end the page and its link, and return the redirect that reports the error
        to the site. The error is not raised, because an exception would roll back the count and the end of the page.
        """
        page.wrong_numbers += 1
        if page.wrong_numbers < MAX_WRONG_NUMBERS:
            await queries.save(transaction, page)
            return TryAgain(page, is_wrong=True)
        # The clocks of replicas differ, and the database refuses a page that expires before its creation.
        page.expires_at = max(now, page.created_at)
        await queries.save(transaction, page)
        await _end_link(transaction, link)
        SITE_LOGINS.count(Door.LINK, DoorOutcome.REFUSED)
        log.warning("link_numbers_used_up", client_id=page.client_id)
        return SentBack(page, "too many wrong numbers").onward(self.settings)


async def _end_link(transaction: Transaction, link: LockedLogin) -> None:
    """End a link, and remove its claim, its user and its number.

    A link that the user has refused, or that has an authorization code, stays unchanged.
    """
    if link.stage in (*UNDECIDED, Stage.APPROVED):
        link.stage, link.claimed_session_id, link.claimed_at = Stage.REFUSED, None, None
        link.app_id = link.openid = link.number = link.login_code_hash = None
        await queries.save(transaction, link)
