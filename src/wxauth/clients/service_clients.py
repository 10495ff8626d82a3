"""The authentication of service clients, their scopes and their limits, as dependencies of routes."""

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends
from starlette.requests import Request

from wxauth.clients.clients import Credentials
from wxauth.clients.credentials import basic_credentials, check_secret
from wxauth.clients.models import SITE_SCOPE_NAMES, Scope
from wxauth.clients.oauth_requests import FORM_TYPE, form_values, media_type_of
from wxauth.clients.queries import FIND_SERVICE, ServiceClient
from wxauth.clients.rules import is_client_name, service_scopes_in
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import ClientLacksScope, InvalidClient, RateLimited, StorageUnavailable
from wxauth.limits.rate_limits import RateLimiter
from wxauth.web.answers import Entails
from wxauth.web.dependencies import ClockDep, DatabaseDep, provide
from wxauth_guard.errors import InvalidRequest

SERVICE_CLIENT_SCHEME: Final = {
    "service_client": {
        "type": "http",
        "scheme": "basic",
        "description": "A service client's name and secret: `wxauth clients add NAME --scope ...`.",
    }
}
FOR_CLIENT: Final = Entails(
    failures=(
        InvalidRequest("there are two Authorization headers", status=HTTPStatus.BAD_REQUEST),
        InvalidClient,
        ClientLacksScope,
        StorageUnavailable,
    ),
    security=({"service_client": ()},),
)
FOR_LIMITED_CLIENT: Final = Entails(failures=(*FOR_CLIENT.failures, RateLimited), security=FOR_CLIENT.security)

log = get_logger()


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
        client = check_secret(credentials, stored, now=clock())
        if operation is not None:  # before the check of the scope, so that refused requests count, too
            await limits.admit(client.name, operation)
        check_scope(client, scope)
        return client

    return Depends(authenticate), FOR_LIMITED_CLIENT if operation is not None else FOR_CLIENT


IntrospectingClientDep = Annotated[ServiceClient, *_client_with(Scope.INTROSPECT, may_use_form=True)]
WeChatTokenClientDep = Annotated[ServiceClient, *_client_with(Scope.WECHAT_TOKEN)]
UsersClientDep = Annotated[ServiceClient, *_client_with(Scope.USERS)]
AttributesClientDep = Annotated[ServiceClient, *_client_with(Scope.ATTRIBUTES)]
ModeratingClientDep = Annotated[ServiceClient, *_client_with(Scope.MODERATE, ClientOperation.MODERATE)]
JsSigningClientDep = Annotated[ServiceClient, *_client_with(Scope.JS_SIGN, ClientOperation.JS_SIGN)]
EventsClientDep = Annotated[ServiceClient, *_client_with(Scope.EVENTS)]


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
        raise InvalidRequest("send the credentials either in the header or in the form", status=HTTPStatus.BAD_REQUEST)
    if len(names) != 1 or len(secrets) != 1:
        raise InvalidRequest("client_id and client_secret must each occur exactly once", status=HTTPStatus.BAD_REQUEST)
    return Credentials(names[0], secrets[0])


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
