"""The sign-in requests of sites to `/v1/authorize`. This module checks them, stores them, and limits them.

They follow OpenID Connect Core 3.1.2, RFC 7636 and RFC 9207. A device's request (RFC 8628) is stored here, too.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from pydantic_core import from_json

from wxauth.clients.clients import find_site
from wxauth.clients.documents import ClientDocuments
from wxauth.clients.id_tokens import IdTokens
from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import Parameters, refuse_repeated
from wxauth.clients.redirect_uris import is_registered, loggable_uri, scheme_of_app, with_query
from wxauth.clients.rules import is_client_name
from wxauth.core.clock import Clock, new_id
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import RateLimited, StorageUnavailable
from wxauth.limits.rate_limits import RateLimiter
from wxauth.sessions.devices import Device
from wxauth.settings.http_urls import host_of
from wxauth.settings.settings import Settings
from wxauth.site_logins import doors, queries
from wxauth.site_logins.doors import Door
from wxauth.site_logins.models import RequestFields, SiteLoginFields
from wxauth.site_logins.queries import Mistake, Unanswerable
from wxauth.site_logins.secrets import UserCodes, login_of, new_scene, page_id_of
from wxauth.site_logins.targets import Access, for_resource
from wxauth.texts import hash_of, new_secret
from wxauth_guard.claims import is_document

INTERVAL: Final = 2
"""The number of seconds between two polls."""
_ATTEMPTS: Final = 5
AUTHORIZE_PATH: Final = "/v1/authorize"
RESPONSE_TYPE: Final = "code"
RESPONSE_MODES: Final = ("query", "form_post")
"""The response modes, the default first (OAuth 2.0 Multiple Response Types, Form Post Response Mode)."""
CHALLENGE_METHOD: Final = "S256"
MAX_ECHOED: Final = {"state": 4096, "nonce": 512}
"""The maximum numbers of characters of values that are stored for any visitor of a page, and sent back.

Some products put a whole path into the state.
"""
PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
CONSENT_REQUIRED: Final = ("consent_required", "a resource is granted on the phone alone, which shows what it is")
_NOT_SUPPORTED: Final = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}

log = get_logger()


@dataclass(frozen=True, slots=True)
class Browser(Device):
    """The browser that sent a request. A cookie is empty if it was not sent."""

    cookie: str = field(repr=False)
    """The cookie that identifies the browser."""
    login: str = field(repr=False)
    """The cookie of the browser's login, which a web-view of a mini-program does not have."""
    is_web_view: bool


def is_web_view(user_agent: str) -> bool:
    """Return whether the browser is a mini-program's web-view."""
    return "miniProgram" in user_agent


@dataclass(frozen=True, slots=True)
class Onward:
    """The redirect of a browser to its next URL."""

    url: str = field(repr=False)
    form: dict[str, str] | None = field(default=None, repr=False)
    """The fields that the browser posts there; None for a redirect."""
    login: str | None = field(default=None, repr=False)
    """The value of the login's cookie, if a proof has created or renewed the login."""

    def with_login(self, cookie: str, proof_id: UUID | None) -> Self:
        """Return this redirect with the cookie that a proof has made for the browser with this cookie.

        Without a proof, the redirect is unchanged.
        """
        return self if proof_id is None else replace(self, login=login_of(cookie, proof_id))


class PressesUsedUp(RateLimited):
    """The button of a page was used as often as it may be, so waiting does not help."""


class ScanLimits:
    """Counts new scans, and the pictures requested from WeChat. `make` returns a limiter for a rate and a name."""

    def __init__(self, settings: Settings, make: Callable[[str, str], RateLimiter]) -> None:
        self.browsers = make(settings.scan_rate_limit, "scan")
        """The limit of scans and of visits to WeChat's page, per browser address."""
        self.pages = make(settings.scan_rate_limit, "scan-page")
        """The limit of pages with a button, per address in WeChat's browser, otherwise per login of the browser.
        """
        self.clients = make(settings.scan_client_limit, "scan-client")
        """The limit of scans that one confidential client starts."""
        self.pictures = make(settings.scan_picture_limit, "scan-picture")
        """The limit of pictures per app."""


class SiteRequest(RequestFields):
    """A site's sign-in request, after its checks."""

    client: Client
    prompts: frozenset[str]
    max_age: int | None
    """The maximum number of seconds since the login."""

    @property
    def requires_new_login(self) -> bool:
        """Whether only a new proof is accepted."""
        return "login" in self.prompts

    @property
    def is_silent(self) -> bool:
        """Whether no page may be shown."""
        return "none" in self.prompts


@dataclass(frozen=True, slots=True)
class StartedScan:
    """The secrets of a new scan."""

    scene: str = field(repr=False)
    user_code: str = field(repr=False)
    secret: str = field(repr=False)
    """The device code or, for a page, the id in its URLs."""


@part
class SiteRequests:
    """Starts the logins that sites request."""

    settings: Settings
    user_codes: UserCodes
    clock: Clock
    database: Database
    scan_limits: ScanLimits
    id_tokens: IdTokens
    documents: ClientDocuments

    async def check(
        self, parameters: Parameters, *, ip: str | None, admits: Callable[[Client], bool] = lambda _: True
    ) -> SiteRequest:
        """Check a sign-in request, whose client must pass `admits`. Raises: Unanswerable, SentBack, RateLimited."""
        client, redirect_uri = await self._requesting_site(parameters, ip)
        if not admits(client):
            raise Unanswerable(Mistake.CLIENT)
        asked = _checked(self.settings, client, redirect_uri, parameters)
        if asked.resource is not None and asked.is_silent:
            raise refusal(asked, *CONSENT_REQUIRED)
        if "id_token_hint" in parameters:
            asked.hinted_user_id = await self.id_tokens.person_in(parameters["id_token_hint"], client_id=client.name)
            if asked.hinted_user_id is None:
                raise refusal(asked, "login_required", "id_token_hint is no id_token of this client")
        return asked

    async def _requesting_site(self, parameters: Parameters, ip: str | None) -> tuple[Client, str]:
        """Return the client and redirect URI of a request. Raises: Unanswerable, RateLimited."""
        name, redirect_uri = parameters.get("client_id", ""), parameters.get("redirect_uri", "")
        by_document = bool(self.settings.client_documents) and is_document(name)
        if "client_id" in parameters.repeated:
            client = None
        elif by_document:
            client = await self.documents.client(name, ip=ip)
            if client is None:
                raise Unanswerable(Mistake.DOCUMENT, received=loggable_uri(f"https://{host_of(name)}"))
        else:
            client = await find_site(self.database, name)
        if client is None:
            known_form = name if is_client_name(name) else None
            change = "see 'wxauth clients list'; if it is a URL, add its host to WXAUTH_CLIENT_DOCUMENTS"
            log.warning("client_unknown", client_id=known_form, what_to_change=change)
            raise Unanswerable(Mistake.CLIENT)
        is_known = is_registered(redirect_uri, client.redirect_uris, allows_localhost=by_document)
        if "redirect_uri" in parameters.repeated or not is_known:
            received = loggable_uri(redirect_uri)
            log.warning(
                "redirect_uri_not_registered",
                client_id=client.name,
                received=received,
                registered=client.redirect_uris,
                what_to_change="the site's own setting, its document, or 'wxauth clients set NAME --redirect-uri URI'",
            )
            raise Unanswerable(Mistake.REDIRECT_URI, site=client, received=received)
        return client, redirect_uri

    async def start_for_device(
        self, client: Client, asked: RequestFields, *, ip: str | None, user_agent: str | None
    ) -> StartedScan:
        """Start a scan that a device shows and polls. `ip` and `user_agent` belong to the user's browser.

        Raises: OAuthError, RateLimited, Unanswerable.
        """
        if ip is None and client.near:
            raise OAuthError("invalid_request", "this client was added with --near: browser_ip is required")
        # This limit is checked first, so that a single browser cannot use up the client's limit.
        await self.scan_limits.browsers.admit_address(ip)
        await self.scan_limits.clients.admit(client.name)
        browser, now, device_code = Device(ip, None if ip is None else user_agent), self.clock(), new_secret()
        login = new_login(
            asked,
            client.name,
            browser,
            lasts=doors.SCAN_LASTS,
            kept=doors.OUTCOME_KEPT,
            now=now,
            device_code_hash=hash_of(device_code),
        )
        return await self._add_with_code(login, device_code)

    async def start_for_page(self, asked: SiteRequest, browser: Browser, *, has_link: bool) -> StartedScan:
        """Start a scan that wxauth's own page shows in a browser. With `has_link`, the page also has a link to WeChat.

        Raises: RateLimited, Unanswerable.
        """
        lasts = doors.LINK_REQUEST_LASTS if has_link else doors.SCAN_LASTS
        await self.scan_limits.browsers.admit_address(browser.ip)
        login, page_id = _page(asked, browser, lasts=lasts, now=self.clock())
        return await self._add_with_code(login, page_id)

    async def start_page_with_button(
        self, asked: SiteRequest, browser: Browser, *, browser_login_id: UUID | None = None, query: str | None = None
    ) -> str:
        """Store a sign-in request whose page has a button. Return the id in the page's URLs.

        The button opens WeChat's page. On a page with `browser_login_id`, it redirects to the site, whose request had
        the parameters `query`.

        Raises: RateLimited, Unanswerable.
        """
        if browser_login_id is None:
            await self.scan_limits.pages.admit_address(browser.ip)
        else:  # browsers behind the same address must not use up the pages of a browser with a login
            await self.scan_limits.pages.admit(str(browser_login_id))
        login, page_id = _page(asked, browser, lasts=doors.VISIT_LASTS, now=self.clock())
        login.browser_login_id, login.query = browser_login_id, query
        await queries.add(self.database, login)
        return page_id

    async def _add_with_code(self, login: SiteLoginFields, secret: str) -> StartedScan:
        """Store a login with a code to scan. Raises: Unanswerable."""
        for _ in range(_ATTEMPTS):
            scene = new_scene()
            user_code, login.user_code_hash = self.user_codes.new()
            login.scene_hash = hash_of(scene)
            if await queries.add(self.database, login):
                return StartedScan(scene, user_code, secret)
        raise StorageUnavailable("no user code is free")


def new_login(
    asked: RequestFields,
    client_id: str,
    browser: Device,
    *,
    lasts: timedelta,
    kept: timedelta = timedelta(0),
    now: datetime,
    **more: Any,
) -> SiteLoginFields:
    """Return a login to store, and the time for which it is stored after its end if no user completes it."""
    return SiteLoginFields(
        **asked.asked,
        **more,
        id=new_id(now),
        client_id=client_id,
        browser_ip=browser.ip,
        browser_user_agent=browser.user_agent,
        created_at=now,
        expires_at=now + lasts,
        kept_until=now + lasts + kept,
    )


def new_press(
    page: SiteLoginFields, browser: Device, *, lasts: timedelta, now: datetime, door: Door
) -> SiteLoginFields:
    """Return the login for one use of a page's button, which opens this door."""
    return new_login(
        page,
        page.client_id,
        browser,
        lasts=lasts,
        now=now,
        door=door,
        browser_hash=page.browser_hash,
        pressed_on=page.id,
    )


def _page(asked: SiteRequest, browser: Browser, *, lasts: timedelta, now: datetime) -> tuple[SiteLoginFields, str]:
    """Return a login that a page shows, and the id in the page's URLs."""
    login = new_login(asked, asked.client.name, browser, lasts=lasts, now=now, browser_hash=hash_of(browser.cookie))
    page_id = page_id_of(browser.cookie, login.id)
    login.page_hash = hash_of(page_id)
    return login, page_id


class SentBack(Exception):
    """The browser is sent back to the site with an error, by default because the user does not log in."""

    def __init__(self, asking: RequestFields, description: str, error: str = "access_denied") -> None:
        super().__init__(error, description)
        self._asking = asking
        self._answer = {"error": error, "error_description": description}

    def onward(self, settings: Settings) -> Onward:
        """Return the redirect to the site."""
        return sent_back(settings, self._asking, **self._answer)


def _checked(settings: Settings, client: Client, redirect_uri: str, parameters: Parameters) -> SiteRequest:
    """Check the parameters whose errors can be reported to the site. Raises: SentBack."""
    inside = _in_request_object(parameters)
    state = parameters.get("state", inside.get("state"))
    if "state" in parameters.repeated or not isinstance(state, str) or len(state) > MAX_ECHOED["state"]:
        state = None
    response_mode = parameters.get("response_mode", inside.get("response_mode", RESPONSE_MODES[0]))
    if "response_mode" in parameters.repeated or response_mode not in _response_modes(client, redirect_uri):
        response_mode = RESPONSE_MODES[0]
    way_back = {"redirect_uri": redirect_uri, "state": state, "response_mode": response_mode}
    try:
        return _check(settings, client, parameters, **way_back)
    except OAuthError as exc:
        log.info("authorization_refused", client_id=client.name, error=exc.error, detail=exc.description)
        raise SentBack(RequestFields.model_construct(**way_back), exc.description, exc.error) from None


def _in_request_object(parameters: Parameters) -> Mapping[str, Any]:
    """Return the claims of a request object (OpenID Connect Core, section 6).

    wxauth refuses request objects, and reports that in the way in which the object asks.
    """
    payload = parameters.get("request", "").partition(".")[2].partition(".")[0]
    try:
        claims = from_json(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def _response_modes(client: Client, redirect_uri: str) -> Sequence[str]:
    return RESPONSE_MODES[:1] if is_document(client.name) or scheme_of_app(redirect_uri) else RESPONSE_MODES


def _check(settings: Settings, client: Client, parameters: Parameters, **way_back: Any) -> SiteRequest:
    """Return the sign-in request of a client, with this way back. Raises: OAuthError."""
    refuse_repeated(parameters)
    for name, error in _NOT_SUPPORTED.items():
        if name in parameters:
            raise OAuthError(error, f"{name} is not supported")
    for name, longest in MAX_ECHOED.items():
        if len(parameters.get(name, "")) > longest:
            raise OAuthError("invalid_request", f"{name} must have at most {longest} characters")
    if parameters.required("response_type") != RESPONSE_TYPE:
        raise OAuthError("unsupported_response_type", "response_type is code")
    modes = _response_modes(client, way_back["redirect_uri"])
    if parameters.get("response_mode", RESPONSE_MODES[0]) not in modes:
        raise OAuthError("invalid_request", f"response_mode is {' or '.join(modes)}")
    access = Access.asked(settings, client, parameters)
    scope = access.scope(parameters.get("scope"))
    challenge, max_age = _challenge(client, parameters, way_back["redirect_uri"]), parameters.get("max_age")
    if not (max_age or "0").isdecimal():
        raise OAuthError("invalid_request", "max_age is a number of seconds")
    prompts = frozenset(parameters.get("prompt", "").split())
    if not prompts <= PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthError("invalid_request", "prompt is none, or some of login, consent, select_account")
    return SiteRequest(
        client=client if access.resource is None else for_resource(client),
        client_name=client.title if is_document(client.name) else None,
        resource=access.url,
        scope=scope,
        nonce=parameters.get("nonce"),
        code_challenge=challenge,
        prompts=prompts,
        max_age=None if max_age is None else int(max_age),
        **way_back,
    )


def _challenge(client: Client, parameters: Parameters, redirect_uri: str) -> str | None:
    """Return the code challenge; None if the client is allowed to omit PKCE and does so. Raises: OAuthError."""
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if challenge is None and method is None:
        # Another app on the device might have registered this scheme, and would receive the code.
        if client.pkce == "optional" and scheme_of_app(redirect_uri) is None:
            return None
        raise OAuthError("invalid_request", "PKCE is required: code_challenge, and code_challenge_method=S256")
    if method != CHALLENGE_METHOD:
        raise OAuthError("invalid_request", "code_challenge_method must be S256 (PKCE)")
    if challenge is None:
        raise OAuthError("invalid_request", "code_challenge is missing (PKCE)")
    if not _CHALLENGE.fullmatch(challenge):
        rule = "must be 43 characters of A-Z a-z 0-9 - _, without ="
        raise OAuthError("invalid_request", f"code_challenge {rule} (PKCE)")
    return challenge


def refusal(asked: SiteRequest, error: str, description: str) -> SentBack:
    """Return the exception that reports an error to the site."""
    log.info("authorization_refused", client_id=asked.client.name, error=error, detail=description)
    return SentBack(asked, description, error)


def sent_back(settings: Settings, asking: RequestFields, **parameters: str) -> Onward:
    """Return the redirect to the site, with these parameters, the site's `state`, and the issuer (RFC 9207)."""
    uri, state = asking.redirect_uri, {} if asking.state is None else {"state": asking.state}
    answer = {**parameters, **state, "iss": settings.issuer}
    if asking.response_mode == "form_post":
        return Onward(uri, answer)
    return Onward(with_query(uri, answer))
