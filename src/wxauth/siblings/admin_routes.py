"""`/v1/admin/clients`: administrators say which services may ask, and what."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.core.services import ServicesDep
from wxauth.core.tables import CLIENT_NAME, ServiceClient
from wxauth.errors import InvalidRequest, LoginTooOld, NameTaken, NotFound, PayloadTooLarge
from wxauth.people.admin_routes import GUARDED_FOR_ADMINISTRATORS
from wxauth.people.callers import AdministratorDep, FreshAdministratorDep
from wxauth.siblings import clients
from wxauth.siblings.clients import DEFAULT_SCOPES, Scope, in_order
from wxauth.web.answers import BEARER_SECURITY, answers, failures
from wxauth.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, tags=["admin"], generate_unique_id_function=operation_id)

_EXAMPLE: Final[dict[str, Any]] = {
    "name": "billing",
    "scopes": ["introspect", "users"],
    "created_at": "2026-11-20T08:00:00Z",
    "former_secret_until": None,
}
_EXAMPLE_LIST: Final[dict[str, Any]] = {"items": [_EXAMPLE], "next_cursor": None}
_EXAMPLE_SECRET: Final = {
    "name": "billing",
    "client_id": "billing",
    "client_secret": "…",
    "scopes": ["introspect", "users"],
}
_NO_SUCH_CLIENT: Final = NotFound("there is no such service client")
_WRONG_NAME: Final = InvalidRequest.of("name", "wants a-z, 0-9, _ and -, the first a letter or digit, at most 64")
_GUARDED_FRESH: Final = (LoginTooOld, *GUARDED_FOR_ADMINISTRATORS)


def _is_name(name: str) -> str:
    if not clients.is_name(name):
        raise ValueError("wants a-z, 0-9, _ and -, the first a letter or digit, at most 64, and no name of the trail's")
    if clients.is_own_name(name):
        raise ValueError("names that begin with wxauth are of wxauth's own pages")
    return name


ClientName = Annotated[str, AfterValidator(_is_name), Field(json_schema_extra={"pattern": f"^{CLIENT_NAME}$"})]


_OF_SITES: Final = ("redirect_uris", "logout_uris", "device", "is_public", "near", "user_code", "email_domain")


class ClientRequest(BaseModel):
    """A service client to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "billing", "scopes": ["introspect", "users"]}]})

    name: ClientName
    scopes: list[Scope] | None = Field(default=None, description="What the client may do. Absent: `introspect`.")

    @model_validator(mode="before")
    @classmethod
    def _is_no_site(cls, body: Any) -> Any:
        # Pydantic ignores unknown fields: a request for a site would make a service with a secret.
        if isinstance(body, dict) and any(body.get(name) for name in _OF_SITES):
            raise ValueError("A site that logs people in is added by the command: wxauth clients add")
        return body


class ClientChangeRequest(BaseModel):
    """What a service client may do from now on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scopes": ["introspect", "events"]}]})

    scopes: Annotated[list[Scope], Field(min_length=1)]


class ClientAnswer(TypedDict):
    """A service client, without its secret."""

    name: str
    scopes: list[Scope]
    created_at: datetime
    former_secret_until: Annotated[datetime | None, Field(description="Until when the secret before this one works.")]


class ClientsAnswer(TypedDict):
    """Every service client, by name."""

    items: list[ClientAnswer]
    next_cursor: None


class ClientSecretAnswer(TypedDict):
    """A service client with its secret, which is told this once."""

    name: str
    client_id: str
    client_secret: str
    scopes: list[Scope]


@router.get(
    "/v1/admin/clients",
    summary="List the service clients",
    responses=answers(_EXAMPLE_LIST, *GUARDED_FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def list_clients(_: AdministratorDep, services: ServicesDep) -> ClientsAnswer:
    """Every service client, without its secret."""
    found, now = await clients.list_clients(services.database), services.clock()
    return {"items": [_answer(client, now=now) for client in found], "next_cursor": None}


@router.post(
    "/v1/admin/clients",
    summary="Add a service client",
    responses=answers(_EXAMPLE_SECRET, _WRONG_NAME, PayloadTooLarge, NameTaken, *_GUARDED_FRESH),
    openapi_extra=BEARER_SECURITY,
)
async def add_client(
    administrator: FreshAdministratorDep, services: ServicesDep, body: ClientRequest
) -> ClientSecretAnswer:
    """Let a service in, by HTTP Basic. Its secret is in the answer, this once, and kept nowhere."""
    scopes = in_order(body.scopes or DEFAULT_SCOPES)
    try:
        credentials = await clients.add_client(
            services.database, body.name, scopes=scopes, by=administrator, now=services.clock()
        )
    except clients.NameTaken:
        raise NameTaken("there is a service client of this name already") from None
    return {"name": body.name, **_told(credentials), "scopes": scopes}


@router.patch(
    "/v1/admin/clients/{name}",
    summary="Change what a service client may do",
    responses=answers(_EXAMPLE, _WRONG_NAME, _NO_SUCH_CLIENT, PayloadTooLarge, *_GUARDED_FRESH),
    openapi_extra=BEARER_SECURITY,
)
async def change_client(
    administrator: FreshAdministratorDep, services: ServicesDep, name: ClientName, body: ClientChangeRequest
) -> ClientAnswer:
    """The client may do this from now on, and nothing else."""
    try:
        await clients.change_client(services.database, name, scopes=body.scopes, by=administrator, now=services.clock())
    except clients.NoSuchClient:
        raise NotFound(_NO_SUCH_CLIENT.detail) from None
    found = {client.name: client for client in await clients.list_clients(services.database)}
    if name not in found:
        raise NotFound(_NO_SUCH_CLIENT.detail)  # somebody has removed the client in between
    return _answer(found[name], now=services.clock())


@router.delete(
    "/v1/admin/clients/{name}",
    summary="Remove a service client",
    status_code=204,
    responses=failures(_WRONG_NAME, _NO_SUCH_CLIENT, *_GUARDED_FRESH),
    openapi_extra=BEARER_SECURITY,
)
async def remove_client(administrator: FreshAdministratorDep, services: ServicesDep, name: ClientName) -> None:
    """The client is refused from now on."""
    try:
        await clients.remove_client(services.database, name, by=administrator, now=services.clock())
    except clients.NoSuchClient:
        raise NotFound(_NO_SUCH_CLIENT.detail) from None


@router.post(
    "/v1/admin/clients/{name}/secret",
    summary="Give a service client another secret",
    responses=answers(_EXAMPLE_SECRET, _WRONG_NAME, _NO_SUCH_CLIENT, *_GUARDED_FRESH),
    openapi_extra=BEARER_SECURITY,
)
async def renew_client_secret(
    administrator: FreshAdministratorDep, services: ServicesDep, name: ClientName
) -> ClientSecretAnswer:
    """The new secret is in the answer, this once. The former one works for 24 hours more."""
    try:
        credentials, scopes = await clients.renew_secret(
            services.database, name, by=administrator, now=services.clock()
        )
    except clients.NoSuchClient:
        raise NotFound(_NO_SUCH_CLIENT.detail) from None
    return {"name": name, **_told(credentials), "scopes": list(scopes)}


class _Told(TypedDict):
    client_id: str
    client_secret: str


def _told(credentials: clients.Credentials) -> _Told:
    return {"client_id": credentials.client_id, "client_secret": credentials.client_secret}


def _answer(client: ServiceClient, *, now: datetime) -> ClientAnswer:
    until = client.former_secret_until
    return {
        "name": client.name,
        "scopes": in_order(client.scopes),
        "created_at": client.created_at,
        "former_secret_until": until if until is not None and until > now else None,
    }
