"""A site's request to log a person in: a page or a device shows it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from wxauth.errors import StorageUnavailable
from wxauth.server.clients.models import Client
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.ids import new_id
from wxauth.server.core.parts import part
from wxauth.server.sessions.devices import Device
from wxauth.server.websites import site_request_rows
from wxauth.server.websites.durations import LINK_REQUEST_LASTS, OUTCOME_KEPT, SCAN_LASTS, VISIT_LASTS
from wxauth.server.websites.models import LoginPageFields, RequestBinding, SiteRequestFields
from wxauth.server.websites.oauth_errors import OAuthError, invalid_client, invalid_oauth_request
from wxauth.server.websites.scan_limits import ScanLimits
from wxauth.server.websites.scan_rows import SCANS, ScanOutcome
from wxauth.server.websites.secrets import UserCodes, hash_of, new_scene, new_secret, page_id_of
from wxauth.server.websites.site_request_rows import Adding, NewScan

INTERVAL: Final = 2
"""Seconds between two polls."""

_ATTEMPTS: Final = 5


class SiteRequest(RequestBinding):
    """A site's checked request to log a person in."""

    client: Client
    scope: str
    """The scopes to grant, separated by spaces."""
    state: str | None
    response_mode: str
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
    """A new scan and its secrets."""

    id: UUID
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
        browser = Device(ip, None if ip is None else user_agent)
        for _ in range(_ATTEMPTS):
            now, device_code = self.clock(), new_secret()
            request = _request(client, scope, browser, lasts=SCAN_LASTS, kept=OUTCOME_KEPT, now=now)
            started, scan = _scan(self.user_codes, device_code, now=now)
            added = await site_request_rows.add_device(
                self.database, request, scan, device_code_hash=hash_of(device_code)
            )
            if _is_added(added):
                return started
        raise StorageUnavailable("no user code is free")

    async def start_for_page(
        self, asked: SiteRequest, *, browser: Device, cookie: str, has_link: bool = False
    ) -> StartedScan:
        """Start a scan that our own page shows in a browser. With `has_link`, the page also has a link to WeChat.

        Raises: RateLimited, OAuthError.
        """
        lasts = LINK_REQUEST_LASTS if has_link else SCAN_LASTS
        await self.scan_limits.browsers.admit_address(browser.ip)
        for _ in range(_ATTEMPTS):
            now = self.clock()
            request = _request(asked.client, asked.scope, browser, lasts=lasts, now=now)
            page_id = page_id_of(cookie, request.id)
            started, scan = _scan(self.user_codes, page_id, now=now)
            page = _page(asked, request.id, page_id, cookie)
            added = await site_request_rows.add_page(self.database, request, page, scan)
            if _is_added(added):
                return started
        raise StorageUnavailable("no user code is free")

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
        request = _request(asked.client, asked.scope, browser, lasts=VISIT_LASTS, now=self.clock())
        page_id = page_id_of(cookie, request.id)
        page = _page(asked, request.id, page_id, cookie)
        added = await site_request_rows.add_page_without_scan(
            self.database, request, page, browser_login_id=browser_login_id, query=query
        )
        if added is Adding.CLIENT_REMOVED:
            raise invalid_client("the client has just been removed")
        return page_id


def _request(
    client: Client, scope: str, browser: Device, *, lasts: timedelta, kept: timedelta = timedelta(0), now: datetime
) -> SiteRequestFields:
    """A request to be stored, and how long it is kept after its end if nobody answers it."""
    return SiteRequestFields(
        id=new_id(now),
        client_id=client.name,
        scope=scope,
        browser_ip=browser.ip,
        browser_user_agent=browser.user_agent,
        created_at=now,
        expires_at=now + lasts,
        kept_until=now + lasts + kept,
    )


def _page(asked: SiteRequest, request_id: UUID, page_id: str, cookie: str) -> LoginPageFields:
    return LoginPageFields(
        request_id=request_id,
        page_hash=hash_of(page_id),
        browser_hash=hash_of(cookie),
        redirect_uri=asked.redirect_uri,
        state=asked.state,
        response_mode=asked.response_mode,
        nonce=asked.nonce,
        code_challenge=asked.code_challenge,
        hinted_user_id=asked.hinted_user_id,
    )


def _scan(user_codes: UserCodes, secret: str, *, now: datetime) -> tuple[StartedScan, NewScan]:
    """A new scan with its secrets, and as it is stored."""
    scan_id, scene = new_id(now), new_scene()
    user_code, user_code_hash = user_codes.new()
    stored = NewScan(
        scan_id=scan_id,
        scene_hash=hash_of(scene),
        user_code_hash=user_code_hash,
        scan_expires_at=now + SCAN_LASTS,
    )
    return StartedScan(scan_id, scene, user_code, secret), stored


def _is_added(added: Adding) -> bool:
    """Whether a scan was stored; false if its user code is taken. Raises: OAuthError, if its client was removed."""
    if added is Adding.CLIENT_REMOVED:
        raise invalid_client("the client has just been removed")
    if added is Adding.ADDED:
        SCANS.count(ScanOutcome.STARTED)
    return added is Adding.ADDED
