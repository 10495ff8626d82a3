"""`/v1/authorize`: checks a site's request, and redirects back (OpenID Connect Core 3.1.2, RFC 7636, RFC 9207)."""

import re
from base64 import urlsafe_b64encode
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from wxauth.errors import NotFound
from wxauth.server.clients.clients import is_client_name, is_registered, loggable_uri
from wxauth.server.clients.models import Client
from wxauth.server.clients.rows import find_site
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import Settings
from wxauth.server.core.users import UserInSession
from wxauth.server.sessions.devices import Device
from wxauth.server.websites.browser_logins import BrowserCookies, Onward, WayBack, end_login_of_another, onward_to
from wxauth.server.websites.granting import AnotherPerson, give_code, is_good, lock_with_person
from wxauth.server.websites.id_tokens import IdTokenHints
from wxauth.server.websites.models import Stage
from wxauth.server.websites.oauth_requests import OAuthError, Parameters
from wxauth.server.websites.rows import SiteLogin, login_on_page
from wxauth.server.websites.secrets import NO_SUCH_PAGE, SCENE, hash_of, new_secret, page_hashes
from wxauth.server.websites.site_requests import SiteRequest, granted_scope

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
    page, now = await _page(database, page_id, cookies.browser), clock()
    match _state(page, now=now):
        case PageState.DENIED:
            return refused(settings, page, "the person has refused")
        case PageState.APPROVED:
            code, proof_id = new_secret(), None
            async with database.begin() as transaction:
                login, person = await lock_with_person(transaction, page, now=now)
                if login is None or person is None or not is_good(login, login.granted_until, now=now):
                    return refused(settings, page, "the person may not log in any more")
                try:
                    proof_id = await give_code(
                        transaction, settings, login, person, code, cookies, ip=device.ip, now=now
                    )
                except AnotherPerson as exc:
                    return Onward(sent_back(settings, page, **exc.answer))
            return await gone_on(settings, database, login, person, code, cookies, proof_id, now=now)
    raise NotFound("there is no decision to go on with")


async def gone_on(
    settings: Settings,
    database: Database,
    login: SiteLogin,
    person: UserInSession,
    code: str,
    cookies: BrowserCookies,
    proof_id: UUID | None,
    *,
    now: datetime,
) -> Onward:
    """Take the browser back to the site with a code, after its person has proved to use it.

    `proof_id` is the proof of which the value of its login is made, if there is one.
    """
    if login.sso:
        await end_login_of_another(database, settings, cookies, person.id, now=now)
    return onward_to(sent_back(settings, login, code=code), cookies, proof_id)


async def cancel(settings: Settings, database: Database, clock: Clock, page_id: str, cookie: str | None) -> Onward:
    """Take the browser back to the site from a page on which the person does not log in.

    Raises: NotFound, if this browser has no such page.
    """
    return refused(settings, await open_page(database, clock, page_id, cookie), "the person has gone back")


async def open_page(database: Database, clock: Clock, page_id: str, cookie: str | None) -> SiteLogin:
    """The login that this browser shows, until it is over. Raises: NotFound."""
    page = await login_on_page(database, **page_hashes(page_id, cookie))
    if page is None or page.expires_at <= clock():
        raise NotFound(NO_SUCH_PAGE)
    return page


def refused(settings: Settings, asking: Asking, description: str) -> Onward:
    """Take the browser back to the site, which is told why nobody has logged in."""
    error = {"error": "access_denied", "error_description": description}
    return Onward(sent_back(settings, asking, **error))


async def _page(database: Database, page_id: str, cookie: str | None) -> SiteLogin:
    page = None
    if cookie is not None and SCENE.fullmatch(page_id):
        page = await login_on_page(database, page_hash=hash_of(page_id), browser_hash=hash_of(cookie))
    if page is None or page.scene_hash is None:
        raise NotFound("this browser shows no such code")
    return page


def _state(page: SiteLogin, *, now: datetime) -> PageState:
    if page.stage == Stage.REFUSED:
        return PageState.DENIED
    if page.stage == Stage.REDEEMED or page.scan_ends_at <= now:
        return PageState.OVER
    if page.stage in (Stage.APPROVED, Stage.CODED):
        return PageState.APPROVED
    return PageState.CLAIMED if page.stage == Stage.CLAIMED else PageState.WAITING


def challenge_of(verifier: str) -> str | None:
    """The challenge of a PKCE verifier (RFC 7636, section 4.2); None if the text cannot be a verifier."""
    if not _VERIFIER.fullmatch(verifier):
        return None
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
