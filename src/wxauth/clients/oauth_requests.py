"""The parameters and credentials of OAuth requests (RFC 6749, sections 2.3, 3.1, 3.2), and their documentation."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from wxauth.clients.assertions import ASSERTION_TYPE, PRIVATE_KEY_JWT, Assertion, InvalidAssertion
from wxauth.clients.clients import Credentials, find_site
from wxauth.clients.credentials import basic_credentials, check_secret
from wxauth.clients.documents import ClientDocument, ClientDocuments, client_at, is_allowed_url
from wxauth.clients.fetched import PAUSE
from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError, invalid_client
from wxauth.clients.queries import FIND_WITH_SECRETS
from wxauth.clients.rules import is_client_name
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.settings.settings import Settings
from wxauth_guard.errors import FieldError, InvalidRequest

FORM_TYPE: Final = "application/x-www-form-urlencoded"
# Decoding 64 KiB of percent signs would take 35 ms, in which the process handles no other request.
_MAX_ESCAPES: Final = 8192
MAX_PARAMETER_LENGTH: Final = 4096
# The limit is for the parameters in `_LONG`. A picture URL or many roles make an `id_token_hint` longer.
MAX_TOKEN_LENGTH: Final = 8192
# An earlier version issued longer id_tokens, with which users could not log out.
MAX_POSTED_HINT_LENGTH: Final = 16384

BROWSER_USER_AGENT: Final = "browser_user_agent"

# A User-Agent can be any text, any token can be revoked (RFC 7009, section 2.2), and spaces in a typed number are
# ignored.
_UNCHECKED: Final = (BROWSER_USER_AGENT, "token", "number")
# These parameters change nothing, so a value that breaks a rule is ignored instead of refused.
_CHANGE_NOTHING: Final = ("acr_values", "claims", "claims_locales", "display", "login_hint", "logout_hint")
# Errors do not echo other names, which callers can choose.
_NAMES_IN_ERRORS: Final = frozenset(
    """
    access_token browser_ip browser_user_agent client_assertion client_assertion_type client_id client_secret code
    code_challenge code_challenge_method code_verifier device_code grant_type id_token_hint max_age nonce number
    post_logout_redirect_uri prompt redirect_uri refresh_token request resource response_mode response_type scope state
    token token_type_hint ui_locales
    """.split()  # noqa: SIM905 - a list would need a line for each name
)
# `state` is among these, so that `sites.requests`, which has a lower limit, can tell the site that it is too long.
_LONG: Final = ("id_token_hint", "access_token", "client_assertion", "state")
_MAX_PARAMETERS: Final = 100
_MAX_FORM_FIELDS: Final = 128  # because the process handles no other request while it parses a form
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
        self.repeated = {name for name in names if names.count(name) > 1}  # forbidden (RFC 6749, 3.1 and 3.2)

    def required(self, name: str) -> str:
        """Return the value of a parameter. Raises: OAuthError, if the parameter is absent."""
        if name not in self:
            raise OAuthError("invalid_request", f"{name} is missing")
        return self[name]

    def __repr__(self) -> str:
        return "Parameters()"  # without the values, some of which are secrets


class Unreadable(OAuthError):
    """The error for a parameter that is too long, or contains a character that cannot be printed.

    The message names only parameters that wxauth reads, because a caller may have chosen any other name.
    """

    def __init__(self, name: str, others: Parameters) -> None:
        self.others = others  # which may be unreadable, too
        self.parameter = name if name in _NAMES_IN_ERRORS else None
        subject = self.parameter or "a parameter"
        super().__init__("invalid_request", f"{subject} is too long, or contains a character that can't be printed")


def parse_parameters(text: str, *, longest_hint: int = MAX_TOKEN_LENGTH) -> Parameters:
    """Return the parameters in a percent-encoded query or form, as `check_parameters` does."""
    if text.count("%") > _MAX_ESCAPES:
        raise OAuthError("invalid_request", "there are too many percent-encoded characters")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise OAuthError("invalid_request", "there are too many parameters") from None
    return check_parameters(pairs, longest_hint=longest_hint)


def check_parameters(pairs: list[tuple[str, str]], *, longest_hint: int = MAX_TOKEN_LENGTH) -> Parameters:
    """Return decoded parameters, without unreadable ones that change nothing. Raises: OAuthError."""
    if len(pairs) > _MAX_PARAMETERS:
        raise OAuthError("invalid_request", "there are too many parameters")
    pairs = [(name, value) for name, value in pairs if name not in _CHANGE_NOTHING or _is_readable(name, value)]
    for name, value in pairs:
        if name not in _UNCHECKED and not _is_readable(name, value, longest_hint):
            refusal = Unreadable(name, Parameters([pair for pair in pairs if pair[0] != name]))
            client_id = refusal.others.get("client_id", "")
            loggable_id = client_id if is_client_name(client_id) else None
            log.info("parameter_refused", client_id=loggable_id, detail=refusal.description)
            raise refusal
    return Parameters(pairs)


def _is_readable(name: str, value: str, longest_hint: int = MAX_TOKEN_LENGTH) -> bool:
    longest = MAX_TOKEN_LENGTH if name in _LONG else MAX_PARAMETER_LENGTH
    return len(value) <= (longest_hint if name == "id_token_hint" else longest) and value.isprintable()


def form_parameters(*names: str, required: Sequence[str] = (), **example: str) -> dict[str, Any]:
    """Return the `openapi_extra` of an endpoint that parses these parameters of a form itself.

    `example` contains further parameters, with the values that the documentation shows.
    """
    properties = {name: {"type": "string"} for name in (*example, *names)}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    body: dict[str, Any] = {"content": {FORM_TYPE: {"schema": schema, "example": example}}}
    if required:
        schema["required"] = required
        body["required"] = True
    return {"requestBody": body}


def media_type_of(request: Request, *, default: str) -> str:
    """Return the media type of a request's body, in lower case; `default` if the request has no `Content-Type`."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower()


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
    """Return the parameters of the form in a request's body. Raises: OAuthError, if it is not a form."""
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


async def form_values(request: Request, name: str) -> list[str]:
    """Return the non-empty values of a field in the form of a service, whose errors are not those of OAuth.

    Raises: InvalidRequest, if the form is not UTF-8, contains too many fields or percent signs, or arrives too late;
        PayloadTooLarge.
    """
    # Each call parses the whole form, which is quick because of the two limits.
    form = await request.body()
    if form.count(b"&") >= _MAX_FORM_FIELDS:
        raise InvalidRequest.of("body", f"Must have at most {_MAX_FORM_FIELDS} fields")
    if form.count(b"%") > _MAX_ESCAPES:
        raise InvalidRequest.of("body", f"Must have at most {_MAX_ESCAPES} percent-encoded characters")
    try:
        return [value for field, value in parse_qsl(form.decode()) if field == name]
    except ValueError:
        raise InvalidRequest("the body isn't UTF-8", errors=[FieldError("body", "Not UTF-8")]) from None


@part
class SiteCredentials:
    settings: Settings
    database: Database
    clock: Clock
    documents: ClientDocuments

    async def client_of(
        self, request: Request, *, ip: str | None, endpoints: Collection[str] = ()
    ) -> tuple[Client, Parameters]:
        """Check the credentials of the site or unregistered client that has sent a form. Return the client and form.

        `ip` is the address for which fetches of unknown documents are limited. The URLs of `endpoints` may be the
        audience of an assertion, like the issuer. Without them, the route accepts no assertions.

        Raises: OAuthError, InvalidClient or InvalidRequest, if the form or the credentials are not accepted, or if the
            client's document cannot be fetched; PayloadTooLarge; RateLimited; StorageUnavailable.
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
        """Return the public client whose id a form contains, without redirect URIs if its document was rejected."""
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
                # (sites/tokens.py) accepts no codes of a client without redirect URIs. /v1/token responds with
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
        if document is not None:
            return document
        if self.documents.is_invalid(name):
            raise invalid_client("the client's document was rejected")
        raise OAuthError(
            "temporarily_unavailable",
            "the client's document can't be fetched",
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            retry_after=int(PAUSE.total_seconds()),
        )


def _has_assertion(form: Parameters) -> bool:
    # `_client_by_assertion` refuses one without the other.
    return _ASSERTION in form or _ASSERTION_TYPE in form


def _credentials_in(request: Request, form: Parameters) -> Credentials | None:
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
