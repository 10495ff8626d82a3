"""Dependencies of routes for other services: they authenticate the service client, and check its scope."""

from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import unquote

from fastapi import Depends
from starlette.requests import Request

from wxauth.errors import ClientLacksScope, InvalidClient, InvalidRequest, RateLimited, StorageUnavailable
from wxauth.guard.bearer import single_authorization
from wxauth.server.clients.client_limits import ClientLimits, ClientOperation
from wxauth.server.clients.clients import Credentials, ProvedClient, authenticate
from wxauth.server.clients.models import Scope
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.receivers import NameResolver
from wxauth.server.web.answers import Entails
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, provide

NameResolverDep = Annotated[NameResolver, Depends(provide(NameResolver))]
ClientLimitsDep = Annotated[ClientLimits, Depends(provide(ClientLimits))]


SERVICE_CLIENT_SCHEME: Final = {
    "service_client": {
        "type": "http",
        "scheme": "basic",
        "description": "A service client's name and secret: `wxauth clients add NAME --scope ...`.",
    }
}
"""An entry of the OpenAPI document's `securitySchemes`."""

FOR_CLIENT: Final = Entails(
    failures=(
        InvalidRequest("there are two Authorization headers", status=400),
        InvalidClient,
        ClientLacksScope,
        StorageUnavailable,
    ),
    security=({"service_client": ()},),
)
"""The documentation of a parameter with the calling service client."""


def _asking_for(scope: Scope) -> Callable[[Request, Database, Clock], Awaitable[ProvedClient]]:
    async def client(request: Request, database: DatabaseDep, clock: ClockDep) -> ProvedClient:
        return await authenticate(database, basic_credentials(request), scope, now=clock())

    return client


def _counted(
    scope: Scope, operation: ClientOperation
) -> Callable[[Request, Database, Clock, ClientLimits], Awaitable[ProvedClient]]:
    authenticated = _asking_for(scope)

    async def client(request: Request, database: DatabaseDep, clock: ClockDep, limits: ClientLimitsDep) -> ProvedClient:
        proved = await authenticated(request, database, clock)
        await limits.admit(proved.name, operation)
        return proved

    return client


FOR_COUNTED_CLIENT: Final = Entails(failures=(*FOR_CLIENT.failures, RateLimited), security=FOR_CLIENT.security)

IntrospectingClientDep = Annotated[
    ProvedClient, Depends(_counted(Scope.INTROSPECT, ClientOperation.INTROSPECT)), FOR_COUNTED_CLIENT
]
WeChatTokenClientDep = Annotated[ProvedClient, Depends(_asking_for(Scope.WECHAT_TOKEN)), FOR_CLIENT]
UsersClientDep = Annotated[ProvedClient, Depends(_counted(Scope.USERS, ClientOperation.USERS)), FOR_COUNTED_CLIENT]
AttributesClientDep = Annotated[ProvedClient, Depends(_asking_for(Scope.ATTRIBUTES)), FOR_CLIENT]
ModeratingClientDep = Annotated[
    ProvedClient, Depends(_counted(Scope.MODERATE, ClientOperation.MODERATE)), FOR_COUNTED_CLIENT
]
EventsClientDep = Annotated[ProvedClient, Depends(_asking_for(Scope.EVENTS)), FOR_CLIENT]


def basic_credentials(request: Request) -> Credentials:
    """The credentials of HTTP Basic (RFC 7617), both percent-decoded (RFC 6749, section 2.3.1).

    Raises: InvalidClient, InvalidRequest.
    """
    scheme, _, encoded = single_authorization(*request.headers.getlist("authorization")).partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("send the service client's name and secret by HTTP Basic")
    try:
        name, colon, secret = b64decode(encoded.strip(" "), validate=True).decode().partition(":")
    except ValueError:
        raise InvalidClient("what stands after 'Basic' is not base64 of UTF-8") from None
    if not colon:
        raise InvalidClient("there is no colon between name and secret")
    return Credentials(unquote(name), unquote(secret))
