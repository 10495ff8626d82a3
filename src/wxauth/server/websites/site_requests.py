"""A site's request to log a person in, which a page or a device shows, and the limits on how many."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from wxauth.errors import RateLimited, StorageUnavailable
from wxauth.server.clients.models import Client
from wxauth.server.core.clock import Clock, new_id
from wxauth.server.core.database import Database
from wxauth.server.core.services import part
from wxauth.server.core.settings import Settings
from wxauth.server.limits.rate_limits import RateLimiter
from wxauth.server.sessions.devices import Device
from wxauth.server.websites import rows
from wxauth.server.websites.doors import LINK_REQUEST_LASTS, OUTCOME_KEPT, SCAN_LASTS, SCANS, VISIT_LASTS, ScanOutcome
from wxauth.server.websites.models import RequestFields, SiteLoginFields
from wxauth.server.websites.oauth_requests import OAuthError, invalid_client, invalid_oauth_request
from wxauth.server.websites.rows import Adding
from wxauth.server.websites.secrets import UserCodes, hash_of, new_scene, new_secret, page_id_of


class PressesUsedUp(RateLimited):
    """The button of a page was pressed as often as it may be: waiting does not help."""


@part
class ScanLimits:
    """Counts new scans, and the pictures requested from WeChat.

    Args:
        browsers: Limits the scans and visits to WeChat's page per browser address.
        pages: Limits the pages with a button: in WeChat's browser per address, of a browser with a login per login.
        clients: Limits the scans that one confidential client starts.
        pictures: Limits the pictures per app.
    """

    browsers: RateLimiter
    pages: RateLimiter
    clients: RateLimiter
    pictures: RateLimiter

    @classmethod
    def of(cls, settings: Settings, make: Callable[[str, str], RateLimiter]) -> Self:
        """The limits of the settings. `make` returns a limiter for a rate and a name."""
        return cls(
            browsers=make(settings.scan_rate_limit, "scan"),
            pages=make(settings.scan_rate_limit, "scan-page"),
            clients=make(settings.scan_client_limit, "scan-client"),
            pictures=make(settings.scan_picture_limit, "scan-picture"),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for limiter in (self.browsers, self.pages, self.clients, self.pictures):
            await limiter.aclose()


INTERVAL: Final = 2
"""Seconds between two polls."""

_ATTEMPTS: Final = 5


class SiteRequest(RequestFields):
    """A site's checked request to log a person in."""

    client: Client
    prompts: frozenset[str]
    max_age: int | None
    """Seconds."""

    @property
    def requires_new_login(self) -> bool:
        """Whether only a new proof will do."""
        return "login" in self.prompts

    @property
    def is_silent(self) -> bool:
        """Whether no page may be shown."""
        return "none" in self.prompts


@dataclass(frozen=True, slots=True)
class StartedScan:
    """A new scan's secrets."""

    scene: str = field(repr=False)
    user_code: str = field(repr=False)
    secret: str = field(repr=False)
    """The device code; for a page, the id in its URLs."""


def granted_scope(client: Client, asked_for: str | None) -> str:
    """The requested scopes that the client may have; all its scopes without a request. Raises: OAuthError."""
    allowed = client.site_scopes
    requested = allowed if asked_for is None else asked_for.split()
    scope = [name for name in allowed if name in requested]
    if not scope:
        raise OAuthError("invalid_scope", "the client was added with none of these scopes")
    return " ".join(scope)


@part
class SiteRequests:
    """Starts the logins that sites request."""

    user_codes: UserCodes
    clock: Clock
    database: Database
    scan_limits: ScanLimits

    async def start_for_device(
        self, client: Client, *, scope: str, ip: str | None, user_agent: str | None
    ) -> StartedScan:
        """Start a scan that a device shows and polls. `ip` and `user_agent` are those of the person's browser.

        Raises: OAuthError, RateLimited.
        """
        if ip is None and client.near:
            raise invalid_oauth_request("this client was added with --near: browser_ip is required")
        # Checked first, so that a single browser cannot use up the client's limit.
        await self.scan_limits.browsers.admit_address(ip)
        await self.scan_limits.clients.admit(client.name)
        browser, now, device_code = Device(ip, None if ip is None else user_agent), self.clock(), new_secret()
        login = _login(RequestFields(scope=scope), client, browser, lasts=SCAN_LASTS, kept=OUTCOME_KEPT, now=now)
        login.device_code_hash = hash_of(device_code)
        return await self._add_with_code(login, device_code)

    async def start_for_page(
        self, asked: SiteRequest, *, browser: Device, cookie: str, has_link: bool = False
    ) -> StartedScan:
        """Start a scan that our own page shows in a browser. With `has_link`, the page also has a link to WeChat.

        Raises: RateLimited, OAuthError.
        """
        lasts = LINK_REQUEST_LASTS if has_link else SCAN_LASTS
        await self.scan_limits.browsers.admit_address(browser.ip)
        login, page_id = _page(asked, browser, cookie, lasts=lasts, now=self.clock())
        return await self._add_with_code(login, page_id)

    async def start_page_with_button(
        self,
        asked: SiteRequest,
        *,
        browser: Device,
        cookie: str,
        browser_login_id: UUID | None = None,
        query: str | None = None,
    ) -> str:
        """Store a request whose page has a button. Returns the id in the page's URLs.

        The button leads to WeChat's page; on a page with `browser_login_id`, on to the site, which has asked by the
        parameters `query`.

        Raises: RateLimited, OAuthError.
        """
        if browser_login_id is None:
            await self.scan_limits.pages.admit_address(browser.ip)
        else:  # whose neighbours behind one address must not use up its pages
            await self.scan_limits.pages.admit(str(browser_login_id))
        login, page_id = _page(asked, browser, cookie, lasts=VISIT_LASTS, now=self.clock())
        login.browser_login_id, login.query = browser_login_id, query
        _check_client(await rows.add(self.database, login))
        return page_id

    async def _add_with_code(self, login: SiteLoginFields, secret: str) -> StartedScan:
        """Store a login with a code to scan. Raises: OAuthError."""
        for _ in range(_ATTEMPTS):
            scene = new_scene()
            user_code, login.user_code_hash = self.user_codes.new()
            login.scene_hash = hash_of(scene)
            added = await rows.add(self.database, login)
            _check_client(added)
            if added is Adding.ADDED:
                SCANS.count(ScanOutcome.STARTED)
                return StartedScan(scene, user_code, secret)
        raise StorageUnavailable("no user code is free")


def _login(
    asked: RequestFields,
    client: Client,
    browser: Device,
    *,
    lasts: timedelta,
    kept: timedelta = timedelta(0),
    now: datetime,
) -> SiteLoginFields:
    """A login to be stored, and how long it is kept after its end if nobody answers it."""
    return SiteLoginFields(
        **asked.asked,
        id=new_id(now),
        client_id=client.name,
        browser_ip=browser.ip,
        browser_user_agent=browser.user_agent,
        created_at=now,
        expires_at=now + lasts,
        kept_until=now + lasts + kept,
    )


def _page(
    asked: SiteRequest, browser: Device, cookie: str, *, lasts: timedelta, now: datetime
) -> tuple[SiteLoginFields, str]:
    """A login that a page shows, and the id in the page's URLs."""
    login = _login(asked, asked.client, browser, lasts=lasts, now=now)
    page_id = page_id_of(cookie, login.id)
    login.page_hash, login.browser_hash = hash_of(page_id), hash_of(cookie)
    return login, page_id


def _check_client(added: Adding) -> None:
    """Check that a login was not refused because its client was removed. Raises: OAuthError."""
    if added is Adding.CLIENT_REMOVED:
        raise invalid_client("the client has just been removed")
