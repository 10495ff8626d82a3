"""The sign-in requests that sites send to `/v1/authorize`, and the checks of these requests.

The checks follow OpenID Connect Core (section 3.1.2), RFC 7636 and RFC 9207.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

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
from wxauth.core.services import part
from wxauth.settings.http_urls import host_of
from wxauth.settings.settings import Settings
from wxauth.site_logins.models import RequestFields
from wxauth.site_logins.responses import Mistake, SentBack, Unanswerable
from wxauth.site_logins.targets import Target, for_resource
from wxauth_guard.claims import is_document_url

RESPONSE_TYPE: Final = "code"
_DEFAULT_MODE: Final = "query"
RESPONSE_MODES: Final = (_DEFAULT_MODE, "form_post")
"""The supported response modes (OAuth 2.0 Multiple Response Types, Form Post Response Mode)."""
CHALLENGE_METHOD: Final = "S256"
"""The only supported method of PKCE (RFC 7636, section 4.2)."""
MAX_ECHOED: Final = {"state": 4096, "nonce": 512}
"""The maximum number of characters of each value that wxauth stores, and sends back to the site.

The values are limited because any visitor can send them. The state may be long because some products put a whole path
into it.
"""
PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
"""The values of `prompt` that a request may contain.

`consent` and `select_account` change nothing, because without `none`, wxauth always asks the user on a page.
"""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
"""The form of a code challenge, which is a SHA-256 hash in base64url."""
_NOT_SUPPORTED: Final[Mapping[str, str]] = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}
"""The error for each parameter of OpenID Connect that wxauth does not support."""

log = get_logger()


class SiteRequest(RequestFields):
    """A site's sign-in request that has passed the checks."""

    client: Client
    prompts: frozenset[str]
    """The values of `prompt` in the request."""
    max_age: int | None
    """The maximum age of the user's login in seconds; None if the site accepts any age."""

    @property
    def requires_new_login(self) -> bool:
        """Whether the site accepts only a new login."""
        return "login" in self.prompts

    @property
    def is_silent(self) -> bool:
        """Whether wxauth must respond without showing a page (`prompt=none`)."""
        return "none" in self.prompts


@part
class SiteRequests:
    """The part that checks the sign-in requests of sites."""

    settings: Settings
    database: Database
    id_tokens: IdTokens
    documents: ClientDocuments

    async def check(
        self, parameters: Parameters, *, ip: str | None, admits: Callable[[Client], bool] | None = None
    ) -> SiteRequest:
        """Return a sign-in request that has passed all checks.

        `ip` is the address of the browser, for the limits on fetching metadata documents. `admits` says whether a
        client may send this request. Without `admits`, any client may send it.

        Raises: Unanswerable, if the client or the redirect URI is wrong, or if `admits` returns False; SentBack, if the
            request breaks another rule; RateLimited.
        """
        client = await self._requesting_client(parameters, ip)
        redirect_uri = self._check_redirect_uri(client, parameters)
        if admits is not None and not admits(client):
            raise Unanswerable(Mistake.CLIENT)
        request = _checked_request(self.settings, client, redirect_uri, parameters)
        if request.resource is not None and request.is_silent:
            raise consent_required(request)
        if "id_token_hint" in parameters:
            request.hinted_user_id = await self.id_tokens.user_in(parameters["id_token_hint"], client_id=client.name)
            if request.hinted_user_id is None:
                raise refusal(request, "login_required", "id_token_hint isn't an id_token of this client")
        return request

    async def _requesting_client(self, parameters: Parameters, ip: str | None) -> Client:
        """Return the client that a request names.

        Raises: Unanswerable, if there is no such client, if the request names several, or if the client's metadata
            document cannot be used; RateLimited.
        """
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
        """Return the redirect URI of a request.

        Raises: Unanswerable, if the client has not registered this URI, or if the request contains several.
        """
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
        """Return whether a client id is the URL of a metadata document, and the settings allow such clients."""
        return bool(self.settings.client_documents) and is_document_url(client_id)


def _checked_request(settings: Settings, client: Client, redirect_uri: str, parameters: Parameters) -> SiteRequest:
    """Check the parameters of a request whose client and redirect URI are right, and return the request.

    The client has registered `redirect_uri`, so wxauth reports an error in any other parameter to the site.

    Raises: SentBack, which reports an error to the site, if the request breaks a rule.
    """
    way_back = _way_back(client, redirect_uri, parameters)
    try:
        return _check_parameters(settings, client, parameters, **way_back)
    except OAuthError as exc:
        request = SiteRequest.model_construct(client=client, **way_back)  # without validation: most fields are missing
        raise refusal(request, exc.error, exc.description) from None


def _way_back(client: Client, redirect_uri: str, parameters: Parameters) -> dict[str, Any]:
    """Return the fields of a request that lead the browser back to the site, so that the site learns of any error.

    An invalid `state` is left out, and an invalid `response_mode` is replaced by the default.
    """
    request_object = _in_request_object(parameters)
    state = parameters.get("state", request_object.get("state"))
    if "state" in parameters.repeated or not isinstance(state, str) or len(state) > MAX_ECHOED["state"]:
        state = None
    response_mode = parameters.get("response_mode", request_object.get("response_mode"))
    if "response_mode" in parameters.repeated or response_mode not in _response_modes(client, redirect_uri):
        response_mode = _DEFAULT_MODE
    return {"redirect_uri": redirect_uri, "state": state, "response_mode": response_mode}


def _in_request_object(parameters: Parameters) -> Mapping[str, Any]:
    """Return the claims of a request object (OpenID Connect Core, section 6), or no claims if there is no readable one.

    wxauth refuses request objects, but reads `state` and `response_mode` from them to report the refusal to the site.
    """
    # A request object is a JWT: the header, the payload and the signature, separated by dots.
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

    Apps cannot receive forms. Unregistered clients may not receive forms either, because anyone can publish their
    documents, and could make browsers post forms from wxauth's page to any address.
    """
    if is_document_url(client.name) or scheme_of_app(redirect_uri) is not None:
        return (_DEFAULT_MODE,)
    return RESPONSE_MODES


def _check_parameters(settings: Settings, client: Client, parameters: Parameters, **way_back: Any) -> SiteRequest:
    """Check all parameters, and return the sign-in request. `way_back` is the result of `_way_back`.

    Raises: OAuthError, if the request breaks a rule.
    """
    _check_supported(client, parameters, way_back["redirect_uri"])
    target = Target.requested(settings, client, parameters)
    scope = target.scope_for(parameters.get("scope"))
    challenge = _challenge(client, parameters, way_back["redirect_uri"])
    max_age = parameters.get("max_age")
    if max_age is not None and not max_age.isdecimal():
        raise OAuthError("invalid_request", "max_age must be a number of seconds")
    prompts = frozenset(parameters.get("prompt", "").split())
    if not prompts <= PROMPTS or ("none" in prompts and len(prompts) > 1):
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
        **way_back,
    )


def _check_supported(client: Client, parameters: Parameters, redirect_uri: str) -> None:
    """Check that a request repeats no parameter, uses only what wxauth supports, and has no value that is too long.

    Raises: OAuthError, otherwise.
    """
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
    """Return the code challenge; None if the client may omit PKCE and does so.

    Raises: OAuthError, if the challenge is missing or malformed, or if its method is not S256.
    """
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
    """Log that wxauth refuses a request for a resource, because no phone would show the resource. Return the error."""
    description = "access to a resource can only be granted on the phone, which shows the resource"
    return refusal(request, "consent_required", description)
