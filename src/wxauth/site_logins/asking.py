"""The start of logins to sites. wxauth stores a sign-in request, which then waits for the user's decision.

A page of wxauth or a device shows the request. A device uses RFC 8628, and polls for the outcome. If the page or device
shows a QR code, and a user code to type on the phone, the login is called a scan. This module also builds the rows of
logins that need no page, and of presses (uses of a page's button). The modules that complete these logins store them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.ids import new_id
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable
from wxauth.limits.rate_limits import RateLimiter
from wxauth.random_secrets import hash_of, new_secret
from wxauth.sessions.devices import Device
from wxauth.settings.settings import Settings
from wxauth.site_logins import doors, queries
from wxauth.site_logins.doors import Door
from wxauth.site_logins.models import RequestFields, SiteLoginFields
from wxauth.site_logins.requests import SiteRequest
from wxauth.site_logins.responses import Browser
from wxauth.site_logins.secrets import UserCodes, new_scene, page_id_of

_MAX_USER_CODES_TRIED: Final = 5
"""The largest number of random user codes that wxauth tries for one scan. A code fails if another scan has it."""


class ScanLimits:
    """The limits on new scans, links, visits and pages, and on pictures requested from WeChat.

    `make_limiter` returns a limiter for a rate and a name.
    """

    def __init__(self, settings: Settings, make_limiter: Callable[[str, str], RateLimiter]) -> None:
        self.browsers = make_limiter(settings.scan_rate_limit, "scan")
        """The limit, per IP address of the browser, on scans, links to WeChat, and visits to WeChat's page."""
        self.pages = make_limiter(settings.scan_rate_limit, "scan-page")
        """The limit on pages with a button.

        If the page shows a user, the limit applies per browser login. Otherwise, it applies per IP address of the
        browser.
        """
        self.clients = make_limiter(settings.scan_client_limit, "scan-client")
        """The limit, per client, on scans for devices."""
        self.pictures = make_limiter(settings.scan_picture_limit, "scan-picture")
        """The limit, per app, on pictures that WeChat makes."""


@dataclass(frozen=True, slots=True)
class StartedScan:
    """The secrets of a new scan."""

    scene: str = field(repr=False)
    """The secret in the QR code."""
    user_code: str = field(repr=False)
    """The user code, which the user can type on the phone instead of scanning the QR code."""
    polling_secret: str = field(repr=False)
    """The secret to poll with: the device code or, for a page, the id in the page's URLs."""


@part
class SiteLogins:
    """The part that starts the logins that sites request."""

    user_codes: UserCodes
    clock: Clock
    database: Database
    scan_limits: ScanLimits

    async def start_for_device(
        self, client: Client, request: RequestFields, *, ip: str | None, user_agent: str | None
    ) -> StartedScan:
        """Start a scan that a device shows. The device polls for the outcome.

        `ip` and `user_agent` are the address and the User-Agent of the user's browser, if the user has one.

        Raises: OAuthError, if the client was added with `--near` and `ip` is None; RateLimited; Unanswerable, if the
            client no longer exists; StorageUnavailable, if no user code is free.
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
            lifetime=doors.SCAN_LASTS,
            kept_for=doors.OUTCOME_KEPT,
            now=self.clock(),
            device_code_hash=hash_of(device_code),
        )
        return await self._add_scan(login, device_code)

    async def start_code_page(self, request: SiteRequest, browser: Browser, *, has_link: bool) -> StartedScan:
        """Start a scan that a page of wxauth shows in a browser. With `has_link`, the page also has a link to WeChat.

        Raises: RateLimited; Unanswerable, if the client no longer exists; StorageUnavailable, if no user code is free.
        """
        lifetime = doors.LINK_REQUEST_LASTS if has_link else doors.SCAN_LASTS
        await self.scan_limits.browsers.admit_address(browser.ip)
        login, page_id = _new_page(request, browser, lifetime=lifetime, now=self.clock())
        return await self._add_scan(login, page_id)

    async def start_account_page(self, request: SiteRequest, browser: Browser) -> str:
        """Store a sign-in request whose page has a button to WeChat's page. Return the id in the page's URLs.

        Raises: RateLimited; Unanswerable, if the client no longer exists.
        """
        await self.scan_limits.pages.admit_address(browser.ip)
        return await self._add_page_with_button(request, browser)

    async def start_person_page(
        self, request: SiteRequest, browser: Browser, *, browser_login_id: UUID, query: str
    ) -> str:
        """Store a sign-in request whose page shows the user of the browser's login. Return the id in the page's URLs.

        The page's button redirects to the site. `query` contains the request's parameters.

        Raises: RateLimited; Unanswerable, if the client no longer exists.
        """
        # By browser login, so that other browsers with the same address cannot use up the limit.
        await self.scan_limits.pages.admit(str(browser_login_id))
        return await self._add_page_with_button(request, browser, browser_login_id=browser_login_id, query=query)

    async def _add_page_with_button(
        self, request: SiteRequest, browser: Browser, *, browser_login_id: UUID | None = None, query: str | None = None
    ) -> str:
        """Store the login of a page without a code, and return the id in the page's URLs.

        Raises: Unanswerable, if the client no longer exists.
        """
        login, page_id = _new_page(request, browser, lifetime=doors.VISIT_LASTS, now=self.clock())
        login.browser_login_id, login.query = browser_login_id, query
        await queries.add(self.database, login)  # never False, because this login has no user code that might be taken
        return page_id

    async def _add_scan(self, login: SiteLoginFields, polling_secret: str) -> StartedScan:
        """Store a login with a new scene and a new user code, and return them with the `polling_secret`.

        Raises: Unanswerable, if the client no longer exists; StorageUnavailable, if no user code is free.
        """
        for _ in range(_MAX_USER_CODES_TRIED):
            scene = new_scene()
            user_code, login.user_code_hash = self.user_codes.new()
            login.scene_hash = hash_of(scene)
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
    """Return a login to store. `columns` are further columns of the login, with their values.

    The login can be used during its `lifetime`. wxauth still stores the login for the time `kept_for` after it has
    expired, or for longer if a later step, such as a claim, changes `kept_until`.
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
    """Return the login to store when a browser uses a button of a page.

    `door` is the way to log in that the button starts. The login can be used during its `lifetime`.
    """
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
    """Return the login to store for a new page, and the id in the page's URLs."""
    login = new_login(
        request, request.client.name, browser, lifetime=lifetime, now=now, browser_hash=hash_of(browser.cookie)
    )
    page_id = page_id_of(browser.cookie, login.id)
    login.page_hash = hash_of(page_id)
    return login, page_id
