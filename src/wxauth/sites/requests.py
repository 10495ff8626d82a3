"""The sign-in requests of sites, and their checks (OpenID Connect Core, section 3.1.2, and RFC 7636)."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json

from wxauth.clients.clients import find_site
from wxauth.clients.documents import ClientDocuments
from wxauth.clients.id_tokens import IdTokens
from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import Parameters, refuse_repeated
from wxauth.clients.redirect_uris import is_registered, loggable_uri, scheme_of_app
from wxauth.clients.rules import is_client_name
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import CannotOpen, Sealer, hinted_user_context
from wxauth.core.services import part
from wxauth.settings.settings import Settings
from wxauth.settings.urls import host_of
from wxauth.sites.models import RequestFields
from wxauth.sites.responses import Mistake, SentBack, Unanswerable
from wxauth.sites.targets import Target, for_resource
from wxauth_guard.claims import is_document_url

RESPONSE_TYPE: Final = "code"
_DEFAULT_MODE: Final = "query"
RESPONSE_MODES: Final = (_DEFAULT_MODE, "form_post")
CHALLENGE_METHOD: Final = "S256"
# The limits, in characters, exist because any visitor can send these values. Some products put a whole path into the
# state.
MAX_ECHOED: Final = {"state": 4096, "nonce": 512}
# An id_token can contain a name and a phone number, so wxauth never stores it or puts it into a link.
HINT_PARAMETER: Final = "id_token_hint"
HINTED_USER_PARAMETER: Final = "hinted_user"  # in place of the `id_token_hint` in the links of wxauth's pages; sealed
HINTS: Final = (HINT_PARAMETER, HINTED_USER_PARAMETER)
# `consent` and `select_account` change nothing: without `none`, wxauth's pages always ask the user, and in a web-view,
# the mini-program answers for its own user.
_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # a SHA-256 hash in base64url
_NOT_SUPPORTED: Final[Mapping[str, str]] = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}

log = get_logger()


class SiteRequest(RequestFields):
    """A site's sign-in request that has passed the checks."""

    client: Client
    prompts: frozenset[str]
    max_age: int | None  # in seconds

    @property
    def requires_new_login(self) -> bool:
        return "login" in self.prompts

    @property
    def is_silent(self) -> bool:
        """Whether wxauth must respond without showing a page."""
        return "none" in self.prompts


@part
class SiteRequests:
    settings: Settings
    database: Database
    id_tokens: IdTokens
    documents: ClientDocuments
    sealer: Sealer

    async def check(
        self, parameters: Parameters, *, ip: str | None, admits: Callable[[Client], bool] | None = None
    ) -> SiteRequest:
        """Return a sign-in request that has passed all checks.

        `admits` says whether a client may send this request.

        Raises: Unanswerable, if the client or the redirect URI is wrong, or if `admits` returns False; SentBack, if the
            request breaks another rule; RateLimited.
        """
        client = await self._requesting_client(parameters, ip)
        redirect_uri = self._check_redirect_uri(client, parameters)
        if admits is not None and not admits(client):
            raise Unanswerable(Mistake.CLIENT)
        request = _read_request(self.settings, client, redirect_uri, parameters)
        if request.resource is not None and request.is_silent:
            raise consent_required(request)
        if HINT_PARAMETER in parameters:
            request.hinted_user_id = await self.id_tokens.user_in(parameters[HINT_PARAMETER], client_id=client.name)
            if request.hinted_user_id is None:
                raise refusal(request, "login_required", "id_token_hint isn't an id_token of this client")
        elif HINTED_USER_PARAMETER in parameters:
            request.hinted_user_id = self._unsealed_user(parameters[HINTED_USER_PARAMETER], client)
            if request.hinted_user_id is None:
                raise refusal(request, "login_required", "the link of the page is no longer valid")
        return request

    def for_links(self, parameters: Parameters, request: SiteRequest) -> Parameters:
        """Return the parameters of a checked request, with the sealed user in place of the `id_token_hint`."""
        if HINT_PARAMETER not in parameters or request.hinted_user_id is None:
            return parameters
        context = hinted_user_context(request.client.name)
        sealed = urlsafe_b64encode(self.sealer.seal(request.hinted_user_id.bytes, context=context)).decode()
        others = [(name, value) for name, value in parameters.items() if name not in HINTS]
        return Parameters([*others, (HINTED_USER_PARAMETER, sealed)])

    def _unsealed_user(self, sealed: str, client: Client) -> UUID | None:
        try:
            plain = self.sealer.open(urlsafe_b64decode(sealed), context=hinted_user_context(client.name))
        except (ValueError, CannotOpen):  # ValueError for a text that is not base64
            return None
        return UUID(bytes=plain)

    async def _requesting_client(self, parameters: Parameters, ip: str | None) -> Client:
        name = parameters.get("client_id", "")
        if "client_id" in parameters.repeated:
            client = None
        elif self._allows_document(name):
            document = await self.documents.find(name, ip=ip)
            if document is None:
                raise Unanswerable(Mistake.DOCUMENT, received=loggable_uri(f"https://{host_of(name)}"))
            client = document.client
        else:
            client = await find_site(self.database, name)
        if client is None:
            loggable_name = name if is_client_name(name) else None
            change = "see 'wxauth clients list'; if it is a URL, add its host to WXAUTH_CLIENT_DOCUMENTS"
            log.warning("client_unknown", client_id=loggable_name, what_to_change=change)
            raise Unanswerable(Mistake.CLIENT)
        return client

    def _check_redirect_uri(self, client: Client, parameters: Parameters) -> str:
        redirect_uri = parameters.get("redirect_uri", "")
        # RFC 8252 advises against `localhost`, but many clients' documents name it, and an operator cannot change them.
        allows_localhost = self._allows_document(client.name)
        is_known = is_registered(redirect_uri, client.redirect_uris, allows_localhost=allows_localhost)
        if is_known and "redirect_uri" not in parameters.repeated:
            return redirect_uri
        received = loggable_uri(redirect_uri)
        log.warning(
            "redirect_uri_not_registered",
            client_id=client.name,
            received=received,
            registered=client.redirect_uris,
            what_to_change="the site's own setting, its document, or 'wxauth clients set NAME --redirect-uri URI'",
        )
        raise Unanswerable(Mistake.REDIRECT_URI, site=client, received=received)

    def _allows_document(self, client_id: str) -> bool:
        return bool(self.settings.client_documents) and is_document_url(client_id)


def _read_request(settings: Settings, client: Client, redirect_uri: str, parameters: Parameters) -> SiteRequest:
    """Read the parameters of a request whose client and redirect URI are right, so that errors go to the site."""
    way_back = _way_back(client, redirect_uri, parameters)
    try:
        return _complete_request(settings, way_back, parameters)
    except OAuthError as exc:
        raise refusal(way_back, exc.error, exc.description) from None


def _way_back(client: Client, redirect_uri: str, parameters: Parameters) -> SiteRequest:
    """Return a request with only the values that lead the browser back to the site.

    An invalid `state` or `response_mode` is left out, so that the site still learns of the error.
    """
    # wxauth refuses request objects, but reports the refusal as their `state` and `response_mode` require.
    request_object = _in_request_object(parameters)
    state = parameters.get("state", request_object.get("state"))
    if "state" in parameters.repeated or not isinstance(state, str) or len(state) > MAX_ECHOED["state"]:
        state = None
    response_mode = parameters.get("response_mode", request_object.get("response_mode"))
    modes = _response_modes(client, redirect_uri)
    if "response_mode" in parameters.repeated or not isinstance(response_mode, str) or response_mode not in modes:
        response_mode = _DEFAULT_MODE
    return SiteRequest(
        client=client,
        scope="",  # not read yet
        redirect_uri=redirect_uri,
        state=state,
        response_mode=response_mode,
        prompts=frozenset(),
        max_age=None,
    )


def _in_request_object(parameters: Parameters) -> Mapping[str, Any]:
    # A request object (OpenID Connect Core, section 6) is a JWT: header, payload and signature, separated by dots.
    _header, _, payload_and_signature = parameters.get("request", "").partition(".")
    payload = payload_and_signature.partition(".")[0]
    padding = "=" * (-len(payload) % 4)  # a JWT omits the padding of base64
    try:
        claims = from_json(urlsafe_b64decode(payload + padding))
    except ValueError:  # the payload is not base64, or not JSON
        return {}
    return claims if isinstance(claims, dict) else {}


def _response_modes(client: Client, redirect_uri: str) -> Sequence[str]:
    """Return the response modes that a client may request.

    Apps cannot receive forms. Anyone can publish a client's document, and could make browsers post forms from
    wxauth's page to any address.
    """
    if is_document_url(client.name) or scheme_of_app(redirect_uri) is not None:
        return (_DEFAULT_MODE,)
    return RESPONSE_MODES


def _complete_request(settings: Settings, way_back: SiteRequest, parameters: Parameters) -> SiteRequest:
    client, redirect_uri = way_back.client, way_back.redirect_uri
    _refuse_unsupported(client, parameters, redirect_uri)
    target = Target.requested(settings, client, parameters)
    scope = target.scope_for(parameters.get("scope"))
    challenge = _challenge(client, parameters, redirect_uri)
    max_age = parameters.get("max_age")
    if max_age is not None and not max_age.isdecimal():
        raise OAuthError("invalid_request", "max_age must be a number of seconds")
    prompts = frozenset(parameters.get("prompt", "").split())
    if not prompts <= _PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthError("invalid_request", "prompt must be none, or some of login, consent, select_account")
    return SiteRequest(
        # For a resource, a phone must approve the login.
        client=client if target.resource is None else for_resource(client),
        client_name=client.title if is_document_url(client.name) else None,
        resource=target.url,
        scope=scope,
        nonce=parameters.get("nonce"),
        code_challenge=challenge,
        prompts=prompts,
        # int() accepts up to 4300 digits, and `MAX_PARAMETER_LENGTH` in `clients/oauth_requests.py` is smaller.
        max_age=None if max_age is None else int(max_age),
        redirect_uri=redirect_uri,
        state=way_back.state,
        response_mode=way_back.response_mode,
    )


def _refuse_unsupported(client: Client, parameters: Parameters, redirect_uri: str) -> None:
    refuse_repeated(parameters)
    for name, error in _NOT_SUPPORTED.items():
        if name in parameters:
            raise OAuthError(error, f"{name} is not supported")
    for name, max_length in MAX_ECHOED.items():
        if len(parameters.get(name, "")) > max_length:
            raise OAuthError("invalid_request", f"{name} must have at most {max_length} characters")
    if parameters.required("response_type") != RESPONSE_TYPE:
        raise OAuthError("unsupported_response_type", "response_type must be code")
    modes = _response_modes(client, redirect_uri)
    if parameters.get("response_mode", _DEFAULT_MODE) not in modes:
        raise OAuthError("invalid_request", f"response_mode must be {' or '.join(modes)}")


def _challenge(client: Client, parameters: Parameters, redirect_uri: str) -> str | None:
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if challenge is None and method is None:
        # With the scheme of an app, PKCE is required, because another app on the device might have registered the same
        # scheme, and would receive the code.
        if client.pkce == "optional" and scheme_of_app(redirect_uri) is None:
            return None
        raise OAuthError("invalid_request", "PKCE is required: code_challenge, and code_challenge_method=S256")
    if method != CHALLENGE_METHOD:
        raise OAuthError("invalid_request", "code_challenge_method must be S256 (PKCE)")
    if challenge is None:
        raise OAuthError("invalid_request", "code_challenge is missing (PKCE)")
    if not _CHALLENGE.fullmatch(challenge):
        rule = "code_challenge must be 43 characters of A-Z a-z 0-9 - _, without = (PKCE)"
        raise OAuthError("invalid_request", rule)
    return challenge


def refusal(request: SiteRequest, error: str, description: str) -> SentBack:
    """Log that wxauth refuses a request, and return the exception that reports the error to the site."""
    log.info("authorization_refused", client_id=request.client.name, error=error, detail=description)
    return SentBack(request, description, error=error)


def consent_required(request: SiteRequest) -> SentBack:
    """Log that wxauth refuses a request for a resource that no phone would show, and return the exception."""
    description = "access to a resource can only be granted on the phone, which shows the resource"
    return refusal(request, "consent_required", description)
