"""The login in a phone's browser outside WeChat.

A phone cannot scan its own screen, and a mini-program cannot return to such a browser. A link opens the mini-program,
which shows a number to type in the browser. Anyone can send the link to another person, so only the number shows that
the browser and the phone belong to one person.
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
from wxauth.sites import queries, user_queries
from wxauth.sites.asking import ScanLimits, new_press
from wxauth.sites.authorization_codes import AuthorizationCodes, is_still_approved
from wxauth.sites.door import DOOR_LOGINS, MAX_WRONG_NUMBERS, SCAN_LASTS, Door, DoorOutcome
from wxauth.sites.doors.mini_program_urls import MiniProgramUrls
from wxauth.sites.doors.scans import NUMBER_DIGITS
from wxauth.sites.models import UNDECIDED, Stage
from wxauth.sites.queries import LockedLogin, SiteLogin
from wxauth.sites.responses import MAY_NOT_LOG_IN, REFUSED, Browser, Onward, SentBack
from wxauth.sites.secrets import UNKNOWN_PAGE, new_scene
from wxauth.sites.waiting import find_open_page, lock_open_page, next_press

_NUMBER: Final = re.compile(rf"[0-9]{{{NUMBER_DIGITS}}}")

log = get_logger()


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The outcome if the typed number is wrong, or was not compared. The browser then shows the page again."""

    page: SiteLogin
    is_wrong: bool  # False if the number was not compared, for example because the user has not approved the login yet


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

    async def open_mini_program(self, page_id: str, browser: Browser) -> Onward:
        """End the page's previous link, store a new link, and return the redirect that opens the mini-program with it.

        Raises: NotFound, if the page has ended, or its site has no link now; PressesUsedUp; RateLimited.
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
        """Return the redirect to the site, with a code or after too many wrong numbers, or TryAgain.

        Raises: NotFound, if the page is not open; SentBack, if the user has refused, can no longer log in, or is
            not the user of the site's `id_token_hint`; RateLimited.
        """
        now = self.clock()
        number = "".join(typed.split())  # users type spaces between the digits
        found_page = await find_open_page(self.database, page_id, browser, now=now)
        found_link = await self.database.row(queries.LAST_LINK, page_id=found_page.id)
        if found_link is None:
            return TryAgain(found_page, is_wrong=False)
        async with self.codes.queue(found_link), self.database.begin() as transaction:
            # The locks are taken in the order that `queries` requires: the user, the page, and the page's link. The
            # page's lock also limits how many wrong numbers simultaneous requests can compare.
            user = await user_queries.lock_user(transaction, app_id=found_link.app_id, openid=found_link.openid)
            page = await transaction.row(queries.LOCK, id=found_page.id, now=now)
            link = await transaction.row(queries.LOCK, id=found_link.id, now=now)
            if page is None or not page.is_page_open(now):
                raise NotFound(UNKNOWN_PAGE)
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
        if link.number is None or link.granted_until is None or link.granted_until <= now:
            return None
        return self.sealer.open(link.number, context=link_number_context(link.id))

    async def _after_wrong_number(
        self, transaction: Transaction, page: LockedLogin, link: LockedLogin, *, now: datetime
    ) -> Onward | TryAgain:
        page.wrong_numbers += 1
        if page.wrong_numbers < MAX_WRONG_NUMBERS:
            await queries.save(transaction, page)
            return TryAgain(page, is_wrong=True)
        # The clocks of replicas differ, and the database refuses a page that expires before its creation.
        page.expires_at = max(now, page.created_at)
        await queries.save(transaction, page)
        await _end_link(transaction, link)
        DOOR_LOGINS.count(Door.LINK, DoorOutcome.REFUSED)
        log.warning("link_numbers_used_up", client_id=page.client_id)
        # The error is returned, because an exception would roll back the count and the end of the page.
        return SentBack(page, "too many wrong numbers").onward(self.settings)


async def _end_link(transaction: Transaction, link: LockedLogin) -> None:
    if link.stage in (*UNDECIDED, Stage.APPROVED):
        link.stage, link.claimed_session_id, link.claimed_at = Stage.REFUSED, None, None
        link.app_id = link.openid = link.number = link.login_code_hash = None
        await queries.save(transaction, link)
