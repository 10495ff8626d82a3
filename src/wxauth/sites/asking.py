"""The start of logins to sites: a sign-in request is stored, and waits for the user's decision.

A login whose page or device shows a QR code and a user code is called a scan. A press is a use of a page's button.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.core.clock import Clock, new_id
from wxauth.core.database import Database
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable
from wxauth.limits.rate_limits import RateLimiter
from wxauth.random_secrets import hash_of, new_secret
from wxauth.sessions.devices import Device
from wxauth.settings.settings import Settings
from wxauth.sites import queries
from wxauth.sites.door import LINKED_PAGE_LASTS, OUTCOME_KEPT, SCAN_LASTS, VISIT_LASTS, Door
from wxauth.sites.models import RequestFields, SiteLoginFields
from wxauth.sites.requests import SiteRequest
from wxauth.sites.responses import Browser
from wxauth.sites.secrets import UserCodes, page_id_of

_MAX_USER_CODES_TRIED: Final = 5  # for one scan, because another scan might have the random code


class ScanLimits:
    """The limits on new scans, links, visits and pages, and on pictures requested from WeChat."""

    def __init__(self, settings: Settings, make_limiter: Callable[[str, str], RateLimiter]) -> None:
        # This limit, per address, is on scans, links to WeChat, visits to WeChat's page, and user codes typed here.
        self.browsers = make_limiter(settings.scan_rate_limit, "scan")
        # This limit is on pages with a button, per browser login if the page shows a user, otherwise per address.
        self.pages = make_limiter(settings.scan_rate_limit, "scan-page")
        self.clients = make_limiter(settings.scan_client_limit, "scan-client")  # per client: scans for devices
        self.pictures = make_limiter(settings.scan_picture_limit, "scan-picture")  # per app


@dataclass(frozen=True, slots=True)
class StartedScan:
    scene: str = field(repr=False)
    user_code: str = field(repr=False)
    polling_secret: str = field(repr=False)  # the device code or, for a page, the id in the page's URLs


@part
class SiteLogins:
    user_codes: UserCodes
    clock: Clock
    database: Database
    scan_limits: ScanLimits

    async def start_for_device(
        self,
        client: Client,
        request: RequestFields,
        *,
        ip: str | None,
        user_agent: str | None,
        requested_ip: str | None,
    ) -> StartedScan:
        """Start a scan that a device shows. The device polls for the outcome.

        `ip` and `user_agent` are those of the user's browser, if the user has one.
        """
        if ip is None and client.near:
            raise OAuthError("invalid_request", "browser_ip is required, because this client was added with --near")
        # This limit is checked first, so that a single browser cannot use up the client's limit.
        await self.scan_limits.browsers.admit_address(ip)
        await self.scan_limits.clients.admit(client.name)
        device_code = new_secret()
        login = new_login(
            request,
            client.name,
            # The phone shows the browser only if its address is known, so the User-Agent alone is of no use.
            Device(ip, None if ip is None else user_agent),
            lifetime=SCAN_LASTS,
            kept_for=OUTCOME_KEPT,
            now=self.clock(),
            device_code_hash=hash_of(device_code),
            requested_ip=requested_ip,
        )
        return await self._add_scan(login, device_code)

    async def start_code_page(self, request: SiteRequest, browser: Browser, *, has_link: bool) -> StartedScan:
        """Start a scan that a page of wxauth shows. With `has_link`, the page also has a link to WeChat."""
        lifetime = LINKED_PAGE_LASTS if has_link else SCAN_LASTS
        await self.scan_limits.browsers.admit_address(browser.ip)
        login, page_id = _new_page(request, browser, lifetime=lifetime, now=self.clock())
        return await self._add_scan(login, page_id)

    async def start_account_page(self, request: SiteRequest, browser: Browser) -> str:
        """Store a request whose page has a button to WeChat's page. Return the id in the page's URLs."""
        await self.scan_limits.pages.admit_address(browser.ip)
        return await self._add_page_with_button(request, browser)

    async def start_person_page(
        self, request: SiteRequest, browser: Browser, *, browser_login_id: UUID, query: str
    ) -> str:
        """Store a request whose page shows the user of the browser's login. Return the id in the page's URLs.

        `query` contains the request's parameters, which are checked again after the press.
        """
        # The limit is per browser login, so that other browsers with the same address cannot use it up.
        await self.scan_limits.pages.admit(str(browser_login_id))
        return await self._add_page_with_button(request, browser, browser_login_id=browser_login_id, query=query)

    async def _add_page_with_button(
        self, request: SiteRequest, browser: Browser, *, browser_login_id: UUID | None = None, query: str | None = None
    ) -> str:
        login, page_id = _new_page(request, browser, lifetime=VISIT_LASTS, now=self.clock())
        login.browser_login_id, login.query = browser_login_id, query
        await queries.add(self.database, login)  # never False, because this login has no user code that might be taken
        return page_id

    async def _add_scan(self, login: SiteLoginFields, polling_secret: str) -> StartedScan:
        scene = self.user_codes.scenes(login.id)[0]
        login.scene_hash = hash_of(scene)
        for _ in range(_MAX_USER_CODES_TRIED):
            user_code, login.user_code_hash = self.user_codes.new()
            if await queries.add(self.database, login):
                return StartedScan(scene, user_code, polling_secret)
        raise StorageUnavailable("no user code is free")


def new_login(
    request: RequestFields,
    client_id: str,
    browser: Device,
    *,
    lifetime: timedelta,
    kept_for: timedelta = timedelta(0),
    now: datetime,
    **columns: Any,
) -> SiteLoginFields:
    """Return a login to store, with these further columns.

    wxauth keeps the row for the time `kept_for` after the login's `lifetime`. A later step may extend `kept_until`.
    """
    return SiteLoginFields(
        **request.request_values,
        **columns,
        id=new_id(now),
        client_id=client_id,
        browser_ip=browser.ip,
        browser_user_agent=browser.user_agent,
        created_at=now,
        expires_at=now + lifetime,
        kept_until=now + lifetime + kept_for,
    )


def new_press(
    page: SiteLoginFields, browser: Device, *, lifetime: timedelta, now: datetime, door: Door
) -> SiteLoginFields:
    """Return the login to store when a browser uses the button of a page."""
    return new_login(
        page,
        page.client_id,
        browser,
        lifetime=lifetime,
        now=now,
        door=door,
        browser_hash=page.browser_hash,
        pressed_on=page.id,
    )


def _new_page(
    request: SiteRequest, browser: Browser, *, lifetime: timedelta, now: datetime
) -> tuple[SiteLoginFields, str]:
    login = new_login(
        request, request.client.name, browser, lifetime=lifetime, now=now, browser_hash=hash_of(browser.cookie)
    )
    page_id = page_id_of(browser.cookie, login.id)
    login.page_hash = hash_of(page_id)
    return login, page_id
