"""The authentication of service clients, their scopes and their limits, as dependencies of routes."""

from base64 import b64decode
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from fastapi import Depends
from starlette.requests import Request

from wxauth.clients.clients import Credentials
from wxauth.clients.models import SITE_SCOPE_NAMES, ClientWithSecrets, Scope
from wxauth.clients.queries import FIND_SERVICE, ServiceClient
from wxauth.clients.rules import is_client_name, service_scopes_in
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import ClientLacksScope, InvalidClient, RateLimited, StorageUnavailable
from wxauth.limits.rate_limits import RateLimiter
from wxauth.random_secrets import hash_of
from wxauth.web.answers import Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, provide
from wxauth_guard.bearer import single_authorization
from wxauth_guard.errors import FieldError, InvalidRequest

_NO_HASH: Final = bytes(sha256().digest_size)  # compared with a sent secret if no hash is stored; no secret has it
FORM_TYPE: Final = "application/x-www-form-urlencoded"
# Decoding 64 KiB of percent signs would take 35 ms, in which the process handles no other request.
MAX_ESCAPES: Final = 8192
_MAX_FORM_FIELDS: Final = 128  # because the process handles no other request while it parses a form
_SECRET_CHARACTERS: Final = 43  # 256 bits in base64url

SERVICE_CLIENT_SCHEME: Final = {
    "service_client": {
        "type": "http",
        "scheme": "basic",
        "description": "A service client's name and secret: `wxauth clients add NAME --scope ...`.",
    }
}
FOR_CLIENT: Final = Entails(
    failures=(
        InvalidRequest("there are two Authorization headers", status=400),
        InvalidClient,
        ClientLacksScope,
        StorageUnavailable,
    ),
    security=({"service_client": ()},),
)
FOR_LIMITED_CLIENT: Final = Entails(failures=(*FOR_CLIENT.failures, RateLimited), security=FOR_CLIENT.security)

log = get_logger()
AnyStored = TypeVar("AnyStored", ServiceClient, ClientWithSecrets)


class ClientOperation(StrEnum):
    """The kind of an operation that a service client requests. Each kind has a separate limit."""

    SIGN = "sign"  # with a session_key
    SIGN_CHECK = "sign_check"  # after asking WeChat whether the session_key is still valid
    MODERATE = "moderate"
    JS_SIGN = "js_sign"


OPERATIONS_PER_SECOND: Final = {  # per client and process
    ClientOperation.SIGN: 100,
    ClientOperation.SIGN_CHECK: 10,
    ClientOperation.MODERATE: 100,
    ClientOperation.JS_SIGN: 100,
}


@part
class ClientLimits:
    """The limits on each client's operations in this process."""

    clock: Clock

    def __post_init__(self) -> None:
        self._limiters = {
            kind: RateLimiter(f"{number}/second", what=f"client-{kind}", clock=self.clock)
            for kind, number in OPERATIONS_PER_SECOND.items()
        }

    async def admit(self, client_name: str, operation: ClientOperation) -> None:
        """Count an operation of an authenticated client. Raises: RateLimited, if the client exceeds its limit."""
        try:
            await self._limiters[operation].admit(client_name)
        except RateLimited:
            log.info("rate_limited", what=f"client-{operation}", client=client_name)
            raise


ClientLimitsDep = Annotated[ClientLimits, Depends(provide(ClientLimits))]


def _client_with(
    scope: Scope, operation: ClientOperation | None = None, *, may_use_form: bool = False
) -> tuple[Any, Entails]:
    async def authenticate(
        request: Request, database: DatabaseDep, clock: ClockDep, limits: ClientLimitsDep
    ) -> ServiceClient:
        credentials = await _credentials_of_form(request) if may_use_form else None
        credentials = credentials or basic_credentials(request)
        name = credentials.client_id
        # A name that no client can have causes no query.
        stored = await database.row(FIND_SERVICE, name=name) if is_client_name(name) else None
        caller = check_secret(credentials, stored, now=clock())
        if operation is not None:  # before the check of the scope, so that refused requests count, too
            await limits.admit(caller.name, operation)
        check_scope(caller, scope)
        return caller

    return Depends(authenticate), FOR_LIMITED_CLIENT if operation is not None else FOR_CLIENT


IntrospectingClientDep = Annotated[ServiceClient, *_client_with(Scope.INTROSPECT, may_use_form=True)]
WeChatTokenClientDep = Annotated[ServiceClient, *_client_with(Scope.WECHAT_TOKEN)]
UsersClientDep = Annotated[ServiceClient, *_client_with(Scope.USERS)]
AttributesClientDep = Annotated[ServiceClient, *_client_with(Scope.ATTRIBUTES)]
ModeratingClientDep = Annotated[ServiceClient, *_client_with(Scope.MODERATE, ClientOperation.MODERATE)]
JsSigningClientDep = Annotated[ServiceClient, *_client_with(Scope.JS_SIGN, ClientOperation.JS_SIGN)]
EventsClientDep = Annotated[ServiceClient, *_client_with(Scope.EVENTS)]


def basic_credentials(request: Request) -> Credentials:
    """Return the name and the secret from HTTP Basic (RFC 7617), percent-decoded (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = single_authorization(*request.headers.getlist("authorization")).partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("send the service client's name and secret with HTTP Basic")
    try:
        name, colon, secret = b64decode(encoded.strip(" "), validate=True).decode().partition(":")
    except ValueError:
        raise InvalidClient("the credentials after 'Basic' aren't base64-encoded UTF-8") from None
    if not colon:
        raise InvalidClient("there is no colon between the name and the secret")
    return Credentials(unquote(name), unquote(secret))


async def _credentials_of_form(request: Request) -> Credentials | None:
    has_header = "authorization" in request.headers
    if not has_header and media_type_of(request, default="") != FORM_TYPE:
        return None  # so that wxauth does not read the body of a caller without credentials
    # With a header, the body is parsed whatever its media type is, because a secret in it must be refused.
    secrets = await form_values(request, "client_secret")
    if not secrets:
        return None
    names = await form_values(request, "client_id")
    if has_header:
        raise InvalidRequest("send the credentials either in the header or in the form", status=400)
    if len(names) != 1 or len(secrets) != 1:
        raise InvalidRequest("client_id and client_secret must each occur exactly once", status=400)
    return Credentials(names[0], secrets[0])


def media_type_of(request: Request, *, default: str) -> str:
    """Return the media type of a request's body, in lower case; `default` if the request has no `Content-Type`."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower()


async def form_values(request: Request, name: str) -> list[str]:
    """Return the non-empty values of a field in a form.

    Raises: InvalidRequest, if the form is not UTF-8, contains too many fields or percent signs, or arrives too late;
        PayloadTooLarge.
    """
    # Each call parses the whole form, which is quick because of the two limits.
    form = await request.body()
    if form.count(b"&") >= _MAX_FORM_FIELDS:
        raise InvalidRequest.of("body", f"Must have at most {_MAX_FORM_FIELDS} fields")
    if form.count(b"%") > MAX_ESCAPES:
        raise InvalidRequest.of("body", f"Must have at most {MAX_ESCAPES} percent-encoded characters")
    try:
        return [value for field, value in parse_qsl(form.decode()) if field == name]
    except ValueError:
        raise InvalidRequest("the body isn't UTF-8", errors=[FieldError("body", "Not UTF-8")]) from None


def check_scope(client: ServiceClient, needed: Scope) -> None:
    """Check that an authenticated client has the needed scope. Raises: ClientLacksScope."""
    if needed in client.scopes:
        return
    # The command replaces all scopes, so it must repeat the client's current scopes. A client that is also a site has
    # scopes of both kinds, and `service_scopes_in` returns only those of services.
    service_scopes = service_scopes_in([*client.scopes, needed])
    site_scopes = [scope for scope in client.scopes if scope in SITE_SCOPE_NAMES]
    scopes = [*service_scopes, *site_scopes]
    command = " ".join([f"wxauth clients set {client.name}", *(f"--scope {scope}" for scope in scopes)])
    raise ClientLacksScope(f"this request requires the scope {needed}: {command}")


def check_secret(credentials: Credentials, stored: AnyStored | None, *, now: datetime) -> AnyStored:
    """Return `stored` if the credentials contain its current secret, or its previous secret if that still works.

    For an unknown name, and for a client without a secret, it takes the same steps as for a wrong secret. Otherwise,
    its duration would reveal which names exist, and which clients have a secret.

    Raises: InvalidClient, if the name or the secret is wrong.
    """
    current_hash = None if stored is None else stored.secret_hash
    former_hash = None if stored is None else stored.former_secret_hash
    former_until = None if stored is None else stored.former_secret_until
    sent_hash = hash_of(credentials.client_secret)
    is_current = compare_digest(sent_hash, current_hash or _NO_HASH)
    is_former = compare_digest(sent_hash, former_hash or _NO_HASH)
    former_works = is_former and former_until is not None and now < former_until
    if stored is None or not (is_current or former_works):
        log.warning(
            "client_refused",
            client_id=credentials.client_id if is_client_name(credentials.client_id) else None,
            received=f"a secret of {len(credentials.client_secret)} characters",
            registered=_describe_registered_secret(stored, is_former=is_former),
            what_to_change="the client's own setting; 'wxauth clients secret NAME' prints a new secret",
        )
        raise InvalidClient("the service client's name or secret is wrong")
    return stored


def _describe_registered_secret(stored: ServiceClient | ClientWithSecrets | None, *, is_former: bool) -> str:
    if stored is None:
        return "no client has this name"
    if stored.secret_hash is None:
        return "a public client, which has no secret"
    if is_former:
        return "a newer secret; this one has ended"
    return f"another secret, of {_SECRET_CHARACTERS} characters"
