"""`/v1/authorize`: checks a site's request, and redirects back (OpenID Connect Core 3.1.2, RFC 7636, RFC 9207)."""

import re
from base64 import urlsafe_b64encode
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from wxauth.errors import NotFound
from wxauth.server.clients.clients import is_client_name
from wxauth.server.clients.models import Client
from wxauth.server.clients.rows import find_site
from wxauth.server.clients.uris import is_registered, loggable_uri
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import Settings
from wxauth.server.sessions.devices import Device
from wxauth.server.websites.browser_login_rows import Proof
from wxauth.server.websites.browser_logins import (
    BrowserCookies,
    Onward,
    WayBack,
    end_login_of_another,
    onward_to,
    proves_login,
    record_proof,
)
from wxauth.server.websites.doors import Door
from wxauth.server.websites.grant_rows import (
    AnotherPerson,
    lock_grant,
    name_browser_login,
    put_code,
    record_authorized,
)
from wxauth.server.websites.id_tokens import IdTokenHints
from wxauth.server.websites.models import SitePage
from wxauth.server.websites.oauth_errors import OAuthError
from wxauth.server.websites.redeeming import entitled_person
from wxauth.server.websites.requests import Parameters
from wxauth.server.websites.scan_rows import Verdict
from wxauth.server.websites.secrets import NO_SUCH_PAGE, SCENE, hash_of, new_secret, page_hashes
from wxauth.server.websites.site_request_rows import ShownPage, shown_page
from wxauth.server.websites.site_requests import SiteRequest, granted_scope
from wxauth.server.websites.visit_rows import page_to_press

AUTHORIZE_PATH: Final = "/v1/authorize"
RESPONSE_TYPE: Final = "code"
RESPONSE_MODES: Final = ("query", "form_post")
"""The first is the default (OAuth 2.0 Multiple Response Types, Form Post Response Mode)."""
CHALLENGE_METHOD: Final = "S256"
MAX_ECHOED: Final = {"state": 4096, "nonce": 512}
"""Characters of what is stored for anybody who opens a page, and sent back. Some products put a whole path into it."""
PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})

_COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_CHALLENGE: Final = _COOKIE
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
_NOT_SUPPORTED: Final = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}

log = get_logger()


class Mistake(StrEnum):
    """Mistakes after which the browser is not redirected, because the target cannot be trusted."""

    REQUEST = "request"
    CLIENT = "client_id"
    REDIRECT_URI = "redirect_uri"


class Unanswerable(Exception):
    """The browser is not redirected to the site: it gets a page that explains the mistake.

    Args:
        mistake: The mistake.
        site: The site that made the request, if there is one of this name.
        received: The redirect URI of the request, in a form that may be shown.
    """

    def __init__(self, mistake: Mistake, *, site: Client | None = None, received: str | None = None) -> None:
        super().__init__(mistake)
        self.mistake = mistake
        self.site = site
        self.received = received


class Asking(Protocol):
    """What knows where and how to answer a site's request."""

    @property
    def redirect_uri(self) -> str:
        """The site's URI."""

    @property
    def state(self) -> str | None:
        """The site's `state`."""

    @property
    def response_mode(self) -> str:
        """One of `RESPONSE_MODES`."""


class SentBack(Exception):
    """The browser is sent back to the site with an error."""

    def __init__(self, way_back: WayBack) -> None:
        super().__init__("sent back")
        self.way_back = way_back


class _Asked(NamedTuple):
    redirect_uri: str
    state: str | None
    response_mode: str


class PageState(StrEnum):
    """The state of a scan as its page shows it."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    APPROVED = "approved"
    DENIED = "denied"
    OVER = "over"


async def check_request(
    settings: Settings, database: Database, hints: IdTokenHints, parameters: Parameters
) -> SiteRequest:
    """Check a site's request. Raises: Unanswerable, SentBack."""
    client, redirect_uri = await requesting_site(database, parameters)
    asked = checked_request(settings, client, redirect_uri, parameters)
    return await bound_to_hint(settings, hints, asked, parameters)


async def bound_to_hint(
    settings: Settings, hints: IdTokenHints, asked: SiteRequest, parameters: Parameters
) -> SiteRequest:
    """The request of the person whom its `id_token_hint` names, if it has one. Raises: SentBack."""
    if "id_token_hint" not in parameters:
        return asked
    user_id = await hints.person(parameters["id_token_hint"], client_id=asked.client.name)
    if user_id is None:
        raise refusal(settings, asked, "login_required", "id_token_hint is no id_token of this client")
    return asked.model_copy(update={"hinted_user_id": user_id})


async def requesting_site(database: Database, parameters: Parameters) -> tuple[Client, str]:
    """The client and redirect URI of a request. Raises: Unanswerable."""
    name, redirect_uri = parameters.get("client_id", ""), parameters.get("redirect_uri", "")
    client = await find_site(database, name) if is_client_name(name) else None
    if client is None or "client_id" in parameters.repeated:
        known_form = name if is_client_name(name) else None
        log.warning("client_unknown", client_id=known_form, what_to_change="see 'wxauth clients list'")
        raise Unanswerable(Mistake.CLIENT)
    if "redirect_uri" in parameters.repeated or not is_registered(redirect_uri, client.redirect_uris):
        received = loggable_uri(redirect_uri)
        log.warning(
            "redirect_uri_not_registered",
            client_id=client.name,
            received=received,
            registered=client.redirect_uris,
            what_to_change="the site's own setting, or 'wxauth clients set NAME --redirect-uri URI'",
        )
        raise Unanswerable(Mistake.REDIRECT_URI, site=client, received=received)
    return client, redirect_uri


def checked_request(settings: Settings, client: Client, redirect_uri: str, parameters: Parameters) -> SiteRequest:
    """Check the rest of a request, of which a mistake may be reported to the site. Raises: SentBack."""
    state = parameters.get("state")
    if "state" in parameters.repeated or len(state or "") > MAX_ECHOED["state"]:
        state = None
    response_mode = parameters.get("response_mode")
    if "response_mode" in parameters.repeated or response_mode not in RESPONSE_MODES:
        response_mode = RESPONSE_MODES[0]
    try:
        scope, challenge = _check(client, parameters)
    except OAuthError as exc:
        log.info("authorization_refused", client_id=client.name, error=exc.error, detail=exc.description)
        asking = _Asked(redirect_uri, state, response_mode)
        raise SentBack(sent_back(settings, asking, error=exc.error, error_description=exc.description)) from None
    return SiteRequest(
        client=client,
        scope=scope,
        redirect_uri=redirect_uri,
        state=state,
        response_mode=response_mode,
        nonce=parameters.get("nonce"),
        code_challenge=challenge,
        prompts=frozenset(parameters.get("prompt", "").split()),
        max_age=int(parameters["max_age"]) if "max_age" in parameters else None,
    )


def _check(client: Client, parameters: Parameters) -> tuple[str, str | None]:
    """The scopes to grant, and the code challenge, if there is one. Raises: OAuthError."""
    if parameters.repeated:
        raise OAuthError("invalid_request", "a parameter occurs twice")
    for name, error in _NOT_SUPPORTED.items():
        if name in parameters:
            raise OAuthError(error, f"{name} is not supported")
    for name, longest in MAX_ECHOED.items():
        if len(parameters.get(name, "")) > longest:
            raise OAuthError("invalid_request", f"{name} must have at most {longest} characters")
    response_type = parameters.get("response_type")
    if response_type is None:
        raise OAuthError("invalid_request", "response_type is missing")
    if response_type != RESPONSE_TYPE:
        raise OAuthError("unsupported_response_type", "response_type is code")
    if parameters.get("response_mode", RESPONSE_MODES[0]) not in RESPONSE_MODES:
        raise OAuthError("invalid_request", "response_mode is query or form_post")
    scope = granted_scope(client, parameters.get("scope"))
    challenge = _challenge(client, parameters)
    if not parameters.get("max_age", "0").isdecimal():
        raise OAuthError("invalid_request", "max_age is a number of seconds")
    prompts = set(parameters.get("prompt", "").split())
    if not prompts <= PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthError("invalid_request", "prompt is none, or some of login, consent, select_account")
    return scope, challenge


def _challenge(client: Client, parameters: Parameters) -> str | None:
    """The code challenge; None if the client leaves PKCE out, and may. Raises: OAuthError."""
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if client.pkce == "optional" and challenge is None and method is None:
        return None
    if method != CHALLENGE_METHOD or not _CHALLENGE.fullmatch(challenge or ""):
        raise OAuthError("invalid_request", "PKCE is required: code_challenge, and code_challenge_method=S256")
    return challenge


def refusal(settings: Settings, asked: SiteRequest, error: str, description: str) -> SentBack:
    """The exception that reports an error to the site."""
    log.info("authorization_refused", client_id=asked.client.name, error=error, detail=description)
    return SentBack(sent_back(settings, asked, error=error, error_description=description))


def sent_back(settings: Settings, asking: Asking, **parameters: str) -> WayBack:
    """The way back to the site, with these parameters, the site's `state`, and the issuer (RFC 9207)."""
    state = {} if asking.state is None else {"state": asking.state}
    answer = {**parameters, **state, "iss": settings.issuer}
    return WayBack(asking.redirect_uri, answer, is_form=asking.response_mode == "form_post")


def cookie_for(given: str | None) -> str:
    """The cookie that identifies a browser: its current one, or a new one."""
    return given if given is not None and _COOKIE.fullmatch(given) else new_secret()


async def scan_state(database: Database, clock: Clock, page_id: str, cookie: str | None) -> PageState:
    """The state of the scan that this browser shows. Raises: NotFound."""
    return _state(await _page(database, page_id, cookie), now=clock())


async def go_on_after_decision(
    settings: Settings, database: Database, clock: Clock, page_id: str, cookies: BrowserCookies, *, device: Device
) -> Onward:
    """Take the browser back to the site after the person's decision, with a code or an error.

    Raises: NotFound, before a decision and once the scan is over.
    """
    page = await _page(database, page_id, cookies.browser)
    match _state(page, now=clock()):
        case PageState.DENIED:
            return refused(settings, page, "the person has refused")
        case PageState.APPROVED:
            return await onward_with_code(settings, database, clock, page, page.scan_id, cookies, device=device)
    raise NotFound("there is no decision to go on with")


async def cancel(settings: Settings, database: Database, clock: Clock, page_id: str, cookie: str | None) -> Onward:
    """Take the browser back to the site from a page on which the person does not log in.

    Raises: NotFound, if this browser has no such page.
    """
    page = await page_to_press(database, **page_hashes(page_id, cookie), now=clock())
    if page is None:
        raise NotFound(NO_SUCH_PAGE)
    return refused(settings, page, "the person has gone back")


def refused(settings: Settings, asking: Asking, description: str) -> Onward:
    """Take the browser back to the site, which is told why nobody has logged in."""
    error = {"error": "access_denied", "error_description": description}
    return Onward(sent_back(settings, asking, **error))


async def onward_with_code(
    settings: Settings,
    database: Database,
    clock: Clock,
    page: SitePage,
    grant_id: UUID,
    cookies: BrowserCookies,
    *,
    device: Device,
) -> Onward:
    """Take the browser back to the site with a code for a grant; with an error if it cannot be redeemed any more."""
    try:
        onward = await _put_code(settings, database, clock, page, grant_id, cookies, device=device)
    except AnotherPerson as exc:
        return Onward(sent_back(settings, page, **exc.answer))
    return onward or refused(settings, page, "the person may not log in any more")


async def _put_code(
    settings: Settings,
    database: Database,
    clock: Clock,
    page: SitePage,
    grant_id: UUID,
    cookies: BrowserCookies,
    *,
    device: Device,
) -> Onward | None:
    """Store a code for a grant, and the login of the browser that it proves. None if it cannot be redeemed any more.

    Raises: AnotherPerson.
    """
    now, code = clock(), new_secret()
    async with database.begin() as transaction:
        grant = await lock_grant(transaction, grant_id, now=now)
        person = None if grant is None else await entitled_person(transaction, grant, now=now)
        if grant is None or person is None:
            return None
        door = Door(grant.door)
        login = None
        if proves_login(settings, door, cookies, is_shared=page.sso):
            login = await record_proof(
                transaction,
                settings,
                Proof(
                    grant_id=grant.id,
                    client_id=page.client_id,
                    user_id=grant.user_id,
                    app_id=grant.app_id,
                    openid=grant.openid,
                    authenticated_at=grant.authenticated_at,
                    authenticated_by=grant.authenticated_by,
                ),
                cookies,
                now=now,
            )
            if login is None:
                return None
            await name_browser_login(transaction, grant.id, login.id)
        if await put_code(transaction, grant.id, hash_of(code), page, now=now):
            await record_authorized(transaction, person, client_id=page.client_id, door=door, ip=device.ip, now=now)
    if page.sso:
        await end_login_of_another(database, settings, cookies, grant.user_id, now=now)
    return onward_to(sent_back(settings, page, code=code), cookies, None if login is None else login.proof_id)


async def _page(database: Database, page_id: str, cookie: str | None) -> ShownPage:
    page = None
    if cookie is not None and SCENE.fullmatch(page_id):
        page = await shown_page(database, page_hash=hash_of(page_id), browser_hash=hash_of(cookie))
    if page is None:
        raise NotFound("this browser shows no such code")
    return page


def _state(page: ShownPage, *, now: datetime) -> PageState:
    if page.verdict == Verdict.DENIED:
        return PageState.DENIED
    if page.is_redeemed or page.expires_at <= now:
        return PageState.OVER
    if page.verdict == Verdict.APPROVED:
        return PageState.APPROVED
    return PageState.CLAIMED if page.is_claimed else PageState.WAITING


def challenge_of(verifier: str) -> str | None:
    """The challenge of a PKCE verifier (RFC 7636, section 4.2); None if the text cannot be a verifier."""
    if not _VERIFIER.fullmatch(verifier):
        return None
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
