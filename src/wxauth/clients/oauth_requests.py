"""The parameters and credentials of OAuth requests (RFC 6749, sections 2.3, 3.1, 3.2), and their documentation."""

from collections.abc import Collection, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from wxauth.clients.assertions import ASSERTION_TYPE, PRIVATE_KEY_JWT, Assertion, InvalidAssertion
from wxauth.clients.clients import Credentials, find_site
from wxauth.clients.documents import ClientDocument, ClientDocuments, client_at, is_allowed_url
from wxauth.clients.fetched import PAUSE
from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError, invalid_client
from wxauth.clients.queries import FIND_WITH_SECRETS
from wxauth.clients.rules import is_client_name
from wxauth.clients.service_clients import FORM_TYPE, MAX_ESCAPES, basic_credentials, check_secret, media_type_of
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.settings.settings import Settings

MAX_PARAMETER_LENGTH: Final = 4096
"""The maximum number of characters of most parameters."""
MAX_TOKEN_LENGTH: Final = 8192
"""The maximum number of characters of the parameters in `_LONG`.

The limit is higher because, for example, a long picture URL or many roles make an `id_token_hint` longer than other
parameters.
"""

BROWSER_USER_AGENT: Final = "browser_user_agent"
"""The parameter in which a site passes on the browser's user agent, which can be any text."""

_UNCHECKED: Final = (BROWSER_USER_AGENT, "token", "number")
"""The parameters whose values `check_parameters` does not check.

A revocation request may contain any token (RFC 7009, section 2.2), and wxauth ignores spaces of any kind in a typed
number.
"""
_CHANGE_NOTHING: Final = ("acr_values", "claims", "claims_locales", "display", "login_hint", "logout_hint")
"""The standard parameters that change nothing in wxauth.

If the value of such a parameter breaks a rule, wxauth ignores the parameter instead of refusing the request.
"""
_NAMES_IN_ERRORS: Final = frozenset(
    """
    client_assertion client_assertion_type client_id client_secret code code_challenge code_challenge_method
    code_verifier device_code grant_type id_token_hint max_age nonce post_logout_redirect_uri prompt redirect_uri
    refresh_token request resource response_mode response_type scope state token_type_hint ui_locales
    """.split()  # noqa: SIM905 - a list would need a line for each name
)
"""The parameters whose names errors may contain. Errors do not echo other names, which callers can choose."""
_LONG: Final = ("id_token_hint", "access_token", "client_assertion", "state")
"""The parameters that can have up to `MAX_TOKEN_LENGTH` characters.

They include `state`, so that `site_logins.requests`, which has a lower limit, can report to the site that the `state`
is too long.
"""
_MAX_PARAMETERS: Final = 100
"""The largest number of parameters in a request."""
_ASSERTION: Final = "client_assertion"
_ASSERTION_TYPE: Final = "client_assertion_type"

log = get_logger()


class Parameters(dict[str, str]):
    """The parameters of a request by name. If a parameter occurs more than once, its first non-empty value counts.

    A parameter without a value counts as absent (RFC 6749, section 3.1).
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        for name, value in pairs:
            if value:
                self.setdefault(name, value)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1}
        """The names of the parameters that occur more than once, which OAuth does not allow."""

    def required(self, name: str) -> str:
        """Return the value of a parameter. Raises: OAuthError, if the parameter is absent."""
        if name not in self:
            raise OAuthError("invalid_request", f"{name} is missing")
        return self[name]

    def __repr__(self) -> str:
        return "Parameters()"  # without the values, some of which are secrets


class Unreadable(OAuthError):
    """The error for a parameter that is too long, or contains a character that cannot be printed.

    The message names only parameters of OAuth, because a caller may have chosen any other name.
    """

    def __init__(self, name: str) -> None:
        self.parameter = name if name in _NAMES_IN_ERRORS else None
        subject = self.parameter or "a parameter"
        super().__init__("invalid_request", f"{subject} is too long, or contains a character that can't be printed")


def parse_parameters(text: str) -> Parameters:
    """Return the parameters in a percent-encoded query or form. Leave out unreadable parameters that change nothing.

    Raises: OAuthError, if there are too many parameters or percent signs, or if any other parameter is unreadable.
    """
    # While the process decodes percent signs, it handles no other request.
    if text.count("%") > MAX_ESCAPES:
        raise OAuthError("invalid_request", "there are too many percent-encoded characters")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise OAuthError("invalid_request", "there are too many parameters") from None
    return check_parameters(pairs)


def check_parameters(pairs: list[tuple[str, str]]) -> Parameters:
    """Check decoded parameters, and return them. Leave out unreadable parameters that change nothing.

    The values of the parameters in `_UNCHECKED` are not checked.

    Raises: OAuthError, if there are too many parameters, or if any other parameter is unreadable.
    """
    if len(pairs) > _MAX_PARAMETERS:
        raise OAuthError("invalid_request", "there are too many parameters")
    pairs = [(name, value) for name, value in pairs if name not in _CHANGE_NOTHING or _is_readable(name, value)]
    for name, value in pairs:
        if name not in _UNCHECKED and not _is_readable(name, value):
            refusal = Unreadable(name)
            client_id = dict(pairs).get("client_id", "")
            loggable_id = client_id if is_client_name(client_id) else None
            log.info("parameter_refused", client_id=loggable_id, detail=refusal.description)
            raise refusal
    return Parameters(pairs)


def _is_readable(name: str, value: str) -> bool:
    """Return whether the value of a parameter is short enough, and contains only printable characters."""
    longest = MAX_TOKEN_LENGTH if name in _LONG else MAX_PARAMETER_LENGTH
    return len(value) <= longest and value.isprintable()


def form_parameters(*names: str, required: Sequence[str] = (), **example: str) -> dict[str, Any]:
    """Return the `openapi_extra` of an endpoint that parses these parameters of a form itself.

    `example` contains further parameters, with the values that the documentation shows. `required` names the parameters
    that a request must contain.
    """
    properties = {name: {"type": "string"} for name in (*example, *names)}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    body: dict[str, Any] = {"content": {FORM_TYPE: {"schema": schema, "example": example}}}
    if required:
        schema["required"] = required
        body["required"] = True
    return {"requestBody": body}


def is_form(request: Request) -> bool:
    """Return whether the request is a POST with a form. Without a `Content-Type`, the body counts as a form."""
    return request.method == "POST" and media_type_of(request, default=FORM_TYPE) == FORM_TYPE


def refuse_repeated(parameters: Parameters) -> None:
    """Refuse a request in which a parameter occurs more than once. Raises: OAuthError."""
    if "resource" in parameters.repeated:
        raise OAuthError("invalid_target", "resource occurs twice: a token is valid for only one resource")
    if parameters.repeated:
        description = "a parameter occurs twice"
        names = parameters.repeated & _NAMES_IN_ERRORS
        if names:
            description += f": {', '.join(sorted(names))}"
        raise OAuthError("invalid_request", description)


async def form_of(request: Request) -> Parameters:
    """Return the parameters of the form in a request's body.

    Raises: OAuthError, if the body is not a form, or if the form breaks a rule; InvalidRequest, if the body arrives too
        late; PayloadTooLarge.
    """
    body = await request.body()
    # A JSON body would look like a form without `scope`, for which wxauth grants all scopes.
    if body and media_type_of(request, default=FORM_TYPE) != FORM_TYPE:
        raise OAuthError("invalid_request", f"send a form: Content-Type: {FORM_TYPE}")
    try:
        form = parse_parameters(body.decode())
    except UnicodeDecodeError:
        raise OAuthError("invalid_request", "the body isn't UTF-8") from None
    refuse_repeated(form)
    return form


@part
class SiteCredentials:
    """The part that finds the client that has sent a form, and checks its credentials.

    The client must be a site, or have a metadata document.
    """

    settings: Settings
    database: Database
    clock: Clock
    documents: ClientDocuments

    async def client_of(
        self, request: Request, *, ip: str | None, endpoints: Collection[str] = ()
    ) -> tuple[Client, Parameters]:
        """Check the credentials of the site or unregistered client that has sent a form. Return the client and form.

        A registered client with a secret authenticates with HTTP Basic, or with `client_id` and `client_secret`. A
        registered public client sends only its `client_id`. A client that is not registered must have a document at an
        allowed host. It sends an assertion or, if its document allows this, only its `client_id`.

        Args:
            request: The request with the form.
            ip: The caller's address, for which fetches of unknown documents are limited; None if it is unknown.
            endpoints: The paths whose URLs may be the audience of an assertion, like the issuer; empty if the route
                accepts no assertions.

        Raises: OAuthError, InvalidClient or InvalidRequest, if the form or the credentials are not accepted, if they
        belong to a service, or if the client's document cannot be fetched; PayloadTooLarge; RateLimited;
        StorageUnavailable.
        """
        form = await form_of(request)
        credentials = _credentials_in(request, form)
        if _has_assertion(form):
            return await self._client_by_assertion(form, ip, endpoints), form
        if credentials is None:
            return await self._client_without_secret(form, ip), form
        name = credentials.client_id
        stored = await self.database.row(FIND_WITH_SECRETS, name=name) if is_client_name(name) else None
        client = check_secret(credentials, stored, now=self.clock())
        if not client.is_site:
            raise OAuthError(
                "unauthorized_client", "this service client isn't a site: it has neither a redirect URI nor --device"
            )
        return client, form

    async def _client_without_secret(self, form: Parameters, ip: str | None) -> Client:
        """Return the public client whose id a form contains. The client is registered, or has a document.

        If the document was rejected, and the client has no sessions, the returned client has no redirect URIs.

        Raises: OAuthError, if there is no such client, if the client must sign an assertion, or if wxauth cannot use
        the client's document in any other case; RateLimited; StorageUnavailable.
        """
        name = form.get("client_id")
        if name is None:
            raise invalid_client(
                "send the client's name and secret with HTTP Basic, or send client_id and client_secret"
            )
        if is_allowed_url(self.settings, name):
            document = await self.documents.find(name, ip=ip)
            if document is None and self.documents.is_invalid(name) and not await self.documents.has_sessions(name):
                # No usable document says how the client would have to authenticate, so wxauth lets it through without
                # authentication. That is safe, because a client without sessions has no tokens, and `SiteTokens`
                # (oauth/site_tokens.py) accepts no codes of a client without redirect URIs. /v1/token responds with
                # `invalid_grant`, as it does to another client's code or token.
                return client_at(name)
            document = self._require_document(name, document)
            if not document.may_be_public:
                raise invalid_client(f"the client's document requires {PRIVATE_KEY_JWT}: send client_assertion")
            return document.client
        site = await find_site(self.database, name)
        if site is None or not site.is_public:
            raise invalid_client("no public client has this name")
        return site

    async def _client_by_assertion(self, form: Parameters, ip: str | None, endpoints: Collection[str]) -> Client:
        """Return the client that has signed the assertion in a form. Only a client with a document can sign assertions.

        Raises: OAuthError, if the assertion is not accepted, or if wxauth cannot use the client's document;
        RateLimited; StorageUnavailable.
        """
        if form.get(_ASSERTION_TYPE) != ASSERTION_TYPE:
            raise invalid_client(f"client_assertion_type must be {ASSERTION_TYPE}")
        if not endpoints:
            raise invalid_client(
                f"{PRIVATE_KEY_JWT} is only for clients with a metadata document, at /v1/token and /v1/revoke"
            )
        issuer = self.settings.issuer
        urls = [f"{issuer}{endpoint}" for endpoint in endpoints]
        try:
            assertion = Assertion.read(form.get(_ASSERTION, ""), issuer=issuer, endpoints=urls, now=self.clock())
            name = assertion.client_id
            if form.get("client_id", name) != name:
                raise invalid_client("client_id doesn't match the assertion's sub")
            if not is_allowed_url(self.settings, name):
                raise invalid_client("the client's host isn't in WXAUTH_CLIENT_DOCUMENTS")
            document = await self.documents.authenticate(assertion, ip=ip)
            return self._require_document(name, document).client
        except InvalidAssertion as exc:
            raise invalid_client(str(exc)) from None

    def _require_document(self, name: str, document: ClientDocument | None) -> ClientDocument:
        """Return the document of the client `name`.

        Raises: OAuthError, if `document` is None, which means that wxauth cannot use the client's document.
        """
        if document is not None:
            return document
        if self.documents.is_invalid(name):
            raise invalid_client("the client's document was rejected")
        raise OAuthError(
            "temporarily_unavailable",
            "the client's document can't be fetched",
            status=503,
            retry_after=int(PAUSE.total_seconds()),
        )


def _has_assertion(form: Parameters) -> bool:
    """Return whether a form contains an assertion or its type. `_client_by_assertion` refuses one without the other."""
    return _ASSERTION in form or _ASSERTION_TYPE in form


def _credentials_in(request: Request, form: Parameters) -> Credentials | None:
    """Return the name and the secret in the header or in the form of a request; None if the request contains no secret.

    Raises: OAuthError, if the request authenticates in several ways, or contains two different names; InvalidClient or
    InvalidRequest, if the header is malformed.
    """
    name, secret = form.get("client_id"), form.get("client_secret")
    if _has_assertion(form) and (secret is not None or "authorization" in request.headers):
        raise OAuthError("invalid_request", "authenticate either with client_assertion or with a secret")
    if "authorization" not in request.headers:
        return None if secret is None else Credentials(name or "", secret)
    credentials = basic_credentials(request)
    if secret is not None:
        raise OAuthError("invalid_request", "send the credentials either in the header or in the form")
    if name not in (None, credentials.client_id):
        raise OAuthError("invalid_request", "client_id doesn't match the name in the Authorization header")
    return credentials
