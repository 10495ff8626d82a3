"""A phone's browser outside WeChat: a link opens the mini-program there, which shows a number to type in the browser.

Such a browser cannot be scanned by its own phone, and a mini-program cannot go back to it. Anybody may open such a
link, so it may have been sent to somebody: only the number shows that the browser and the phone are one person's.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Final
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

from wxauth.errors import CodeUsed, InvalidCode, NotFound, ScanOver, WxAuthError
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import new_id
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part
from wxauth.server.core.sealing import Sealer, link_number_context
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.users import UserInSession
from wxauth.server.login.proof import Proofs
from wxauth.server.sessions.devices import Device
from wxauth.server.users.account import Caller
from wxauth.server.websites import link_rows
from wxauth.server.websites.authorize import onward_with_code, refused
from wxauth.server.websites.browser_logins import BrowserCookies, Onward
from wxauth.server.websites.doors import AMR, DOORS, Door, DoorOutcome
from wxauth.server.websites.durations import LINK_LASTS, NUMBER_LASTS
from wxauth.server.websites.grant_rows import add_grant, lock_person, record_approval
from wxauth.server.websites.link_rows import HeldLink, LinkPage, TypedNumber
from wxauth.server.websites.models import GrantFields
from wxauth.server.websites.scan_limits import PressesUsedUp, ScanLimits
from wxauth.server.websites.scan_rows import Verdict
from wxauth.server.websites.secrets import NO_SUCH_PAGE, hash_of, new_scene, page_hashes
from wxauth.server.websites.url_links import UrlLinks

DIGITS: Final = 6
_PLAINTEXT_SCHEME: Final = "weixin://dl/business/"
_NOT_HELD: Final = "this session has no such scan to decide upon"

log = get_logger()


@dataclass(frozen=True, slots=True)
class ShownNumber:
    """The number that the phone shows after an approval."""

    number: str = field(repr=False)
    expires_in: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """A number was typed that cannot be right: the page is shown again."""

    page: LinkPage
    is_wrong: bool
    """Whether it was compared and counted. Otherwise nothing has been approved, or it has not six digits."""


@part
class Links:
    """Leads a phone's browser to the mini-program, and lets it go on by the number that the phone shows."""

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    sealer: Sealer
    scan_limits: ScanLimits
    proofs: Proofs
    url_links: UrlLinks

    async def target(self, app_id: str | None, *, link: bool) -> str | None:
        """Where links of a site with this app, added with `--link` or not, lead, as a source of a page's policy.

        None: its pages have no link now.
        """
        url = await self._base(app_id) if link else None
        if url is None:
            return None
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme == "https" else f"{parts.scheme}:"

    async def url_after_press(self, page_id: str, cookies: BrowserCookies, *, device: Device) -> str:
        """The URL that opens the mini-program, with a scene of its own. It ends the link before.

        Raises: NotFound, PressesUsedUp, RateLimited.
        """
        now, scene = self.clock(), new_scene()
        page = await self._page(page_id, cookies, now=now)
        base = await self._base(page.app_id) if page.link else None
        if base is None:
            raise NotFound("this site has no such link")
        await self.scan_limits.browsers.admit_address(device.ip)
        if not await link_rows.put_link(
            self.database,
            new_id(now),
            request_id=page.request_id,
            scene_hash=hash_of(scene),
            expires_at=now + LINK_LASTS,
        ):
            raise PressesUsedUp("the button of one page was pressed too often")
        return self._url(base, scene)

    async def approve(self, caller: Caller, link_id: UUID, login_code: str, *, ip: str | None) -> ShownNumber | None:
        """Approve a link that this session has claimed, and return the number to show; None if there is no such link.

        The same `login_code` gets the same number again. Another one does not: a stolen access token must not read it.

        Raises: ScanOver, RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        held = await link_rows.held_link(self.database, link_id, session_id=caller.session_id, now=self.clock())
        if held is None:
            return None
        if held.verdict is not None:
            return self._shown_again(held, login_code)
        if held.expires_at <= self.clock():
            raise ScanOver(_NOT_HELD)
        try:
            await self.proofs.prove(caller, login_code, ip=ip)
        except (CodeUsed, InvalidCode):
            # The same request may have been sent twice, and the other one has spent the code.
            held = await link_rows.held_link(self.database, link_id, session_id=caller.session_id, now=self.clock())
            if held is not None and held.verdict is not None:
                return self._shown_again(held, login_code)
            raise
        number, now = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}", self.clock()
        async with self.database.begin() as transaction:
            person = await lock_person(transaction, caller.session_id, now=now)
            held = await link_rows.lock_held_link(transaction, link_id, session_id=caller.session_id, now=now)
            is_ours = person is not None and held is not None and held.verdict is None and held.expires_at > now
            if is_ours and person is not None and held is not None:
                sealed = self.sealer.seal(number.encode(), context=link_number_context(link_id))
                await link_rows.decide_link(
                    transaction,
                    link_id,
                    Verdict.APPROVED,
                    login_code_hash=hash_of(login_code),
                    number=sealed,
                    now=now,
                )
                await record_approval(
                    transaction,
                    person,
                    scan_id=held.id,
                    client_id=held.client_id,
                    browser_ip=held.browser_ip,
                    ip=ip,
                    now=now,
                )
        if person is None or held is None or (held.verdict is None and not is_ours):
            raise ScanOver(_NOT_HELD)
        if not is_ours:  # the same request, sent twice, was faster
            return self._shown_again(held, login_code)
        log.info("link_approved", scan_id=link_id, client_id=held.client_id, user_id=person.id)
        return ShownNumber(number, int(NUMBER_LASTS.total_seconds()))

    async def deny(self, caller: Caller, link_id: UUID) -> bool:
        """Deny a link that this session has claimed. False if there is no such link. Idempotent.

        Raises: ScanOver.
        """
        now = self.clock()
        async with self.database.begin() as transaction:
            person = await lock_person(transaction, caller.session_id, now=now)
            held = await link_rows.lock_held_link(transaction, link_id, session_id=caller.session_id, now=now)
            can_deny = person is not None and held is not None and held.verdict is None and held.expires_at > now
            if can_deny:
                await link_rows.decide_link(transaction, link_id, Verdict.DENIED, now=now)
        if held is None:
            return False
        if not can_deny and held.verdict != Verdict.DENIED:
            raise ScanOver(_NOT_HELD)
        if can_deny:
            DOORS.count(Door.LINK, DoorOutcome.REFUSED)
            log.info("link_denied", scan_id=link_id, client_id=held.client_id)
        return True

    async def go_on(self, page_id: str, cookies: BrowserCookies, typed: str, *, device: Device) -> Onward | TryAgain:
        """Take the browser back to the site, if the number is right, or the person has refused, or the third is wrong.

        A number is counted before it is compared, so that of many at once three are compared.

        Raises: NotFound.
        """
        now, number = self.clock(), "".join(typed.split())
        hashes = page_hashes(page_id, cookies.browser)
        is_number = len(number) == DIGITS and number.isascii() and number.isdigit()
        async with self.database.begin() as transaction:
            session_id = await link_rows.approving_session(transaction, **hashes, now=now)
            person = None if session_id is None else await lock_person(transaction, session_id, now=now)
            page = await link_rows.lock_typed_number(transaction, **hashes, now=now)
            if page is None:
                raise NotFound(NO_SUCH_PAGE)
            can_be_right = page.number is not None and page.decided_at is not None and is_number
            if page.decided_at is not None and page.decided_at + NUMBER_LASTS <= now:
                can_be_right = False
            if session_id is None or page.claimed_session_id != session_id:
                can_be_right = False  # approved a moment ago: the next attempt sees it
            is_right = can_be_right and await self._is_right(transaction, page, number)
            is_last = can_be_right and not is_right and page.wrong_numbers + 1 >= link_rows.MAX_WRONG_NUMBERS
            if is_last:
                await link_rows.end_request(transaction, page.request_id, now=now)
            if is_right and person is not None and not page.is_granted:
                await _grant(transaction, person, page, now=now)
        if page.verdict == Verdict.DENIED:
            return refused(self.settings, page, "the person has refused")
        if is_last:
            DOORS.count(Door.LINK, DoorOutcome.REFUSED)
            log.warning("link_numbers_used_up", client_id=page.client_id)
            return refused(self.settings, page, "too many wrong numbers")
        if not is_right:
            return TryAgain(page, is_wrong=can_be_right)
        if person is None:
            return refused(self.settings, page, "the person may not log in any more")
        assert page.link_id is not None  # of a right number
        return await onward_with_code(
            self.settings, self.database, self.clock, page, page.link_id, cookies, device=device
        )

    async def _is_right(self, transaction: Transaction, page: TypedNumber, number: str) -> bool:
        await link_rows.count_number(transaction, page.request_id)
        assert page.link_id is not None
        assert page.number is not None
        expected = self.sealer.open(page.number, context=link_number_context(page.link_id))
        is_right = hmac.compare_digest(expected, number.encode())
        if is_right:
            await link_rows.count_number(transaction, page.request_id, -1)
        return is_right

    def _shown_again(self, held: HeldLink, login_code: str) -> ShownNumber:
        """The number of an approved link, for who repeats the request. Raises: ScanOver."""
        ends_at = None if held.decided_at is None else held.decided_at + NUMBER_LASTS
        left = 0.0 if ends_at is None else (ends_at - self.clock()).total_seconds()
        if held.number is None or held.login_code_hash != hash_of(login_code) or left <= 0:
            raise ScanOver(_NOT_HELD)
        number = self.sealer.open(held.number, context=link_number_context(held.id)).decode()
        return ShownNumber(number, ceil(left))

    def _app(self, app_id: str | None) -> App | None:
        try:
            app = self.apps.for_login(app_id)
        except WxAuthError:  # unknown, disabled, or not read yet
            return None
        return app if app.is_mini_program else None

    async def _base(self, app_id: str | None) -> str | None:
        """What opens the app, without the scene; None if nothing does."""
        app = None if self.settings.scan_link == "off" else self._app(app_id)
        if app is None:
            return None
        if self.settings.scan_link == "url":
            return await self.url_links.of(app)
        parameters = {"appid": app.app_id, "path": self.settings.scan_page}
        return f"{_PLAINTEXT_SCHEME}?{urlencode(parameters, quote_via=quote, safe='/')}"

    def _url(self, base: str, scene: str) -> str:
        if self.settings.scan_link == "url":
            return f"{base}?cq={scene}"
        parameters = {"query": f"s={scene}"}  # encoded once more
        if self.settings.scan_env != "release":
            parameters["env_version"] = self.settings.scan_env
        return f"{base}&{urlencode(parameters, quote_via=quote)}"

    async def _page(self, page_id: str, cookies: BrowserCookies, *, now: datetime) -> LinkPage:
        page = await link_rows.link_page(self.database, **page_hashes(page_id, cookies.browser), now=now)
        if page is None:
            raise NotFound(NO_SUCH_PAGE)
        return page


async def _grant(transaction: Transaction, person: UserInSession, page: TypedNumber, *, now: datetime) -> None:
    """Store what the person has granted: they have been proved in both places only now."""
    assert page.link_id is not None
    assert page.decided_at is not None
    grant = GrantFields(
        id=page.link_id,
        client_id=page.client_id,
        scope=page.scope,
        door=Door.LINK,
        app_id=person.app_id,
        openid=person.openid,
        approving_session_id=page.claimed_session_id,
        authenticated_at=page.decided_at,
        authenticated_by=AMR[Door.LINK],
        browser_ip=page.browser_ip,
        browser_user_agent=page.browser_user_agent,
        expires_at=page.decided_at + NUMBER_LASTS,
    )
    await add_grant(transaction, grant)
