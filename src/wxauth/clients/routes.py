"""The routes of `/v1/admin/clients`, through which administrators manage services and sites."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Self

from fastapi import Depends
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, create_model, model_validator
from pydantic.fields import FieldInfo

from wxauth.clients import clients, queries
from wxauth.clients.models import CLIENT_NAME_PATTERN, OPTIONS, SITE_SCOPE_NAMES, AddedClient, Scope
from wxauth.clients.redirect_uris import HOST_RULE
from wxauth.clients.rules import WrongClient, check_name
from wxauth.errors import NameTaken, NotFound
from wxauth.i18n import lazy_gettext as _
from wxauth.i_json import IS_I_JSON
from wxauth.outbound.urls import NameResolver
from wxauth.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.web.direct import Router
from wxauth.web.pages import Items, all_of
from wxauth.web.schemas import body_like
from wxauth_guard.errors import InvalidRequest

NameResolverDep = Annotated[NameResolver, Depends(provide(NameResolver))]
ClientName = Annotated[
    str, AfterValidator(check_name), Field(json_schema_extra={"pattern": f"^{CLIENT_NAME_PATTERN}$"})
]
_AnyScope = Annotated[str, Field(json_schema_extra={"enum": [*Scope, *SITE_SCOPE_NAMES]})]
router = Router("admin")
# These failures are examples in the API's documentation.
_NO_SUCH_CLIENT: Final = NotFound(clients.UNKNOWN_CLIENT)
_WRONG_URI: Final = WrongClient("redirect_uris", HOST_RULE)
_HAS_NO_SECRET: Final = InvalidRequest.of("name", clients.CLIENT_IS_PUBLIC)


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    # A plain bool would also accept strings and numbers, such as "yes" and 1.
    strict: Mapping[Any, Any] = {bool: StrictBool, int | None: StrictInt}
    kind: Any = strict.get(field.annotation, field.annotation)
    return kind | None, Field(default=None, description=field.description)


_FIELDS: Final[Mapping[str, Any]] = {name: _optional(field) for name, field in OPTIONS.items()} | {
    # `IS_I_JSON` also checks the digits of numbers as they were sent, which `build_client` doesn't see.
    "claims": (
        Annotated[dict[str, Any] | None, IS_I_JSON],
        Field(default=None, description=OPTIONS["claims"].description),
    )
}
# `build_client` validates the values, as it does for `wxauth clients add`.
_ClientOptions: Any = create_model("_ClientOptions", **_FIELDS)


class ClientRequest(_ClientOptions):
    """A service client to add. With redirect URIs, the device grant or id_tokens for phones, it is a site."""

    model_config = body_like({"name": "shop", "redirect_uris": ["https://shop.example.com/callback"]})

    name: ClientName
    scopes: list[_AnyScope] | None = Field(
        default=None,
        description="The client's scopes. Default: `introspect` for a service, `openid` and `profile` for a site.",
    )


class ClientChangeRequest(_ClientOptions):
    """The changes to a client. An absent field is unchanged. Null, false or an empty list clears an optional field."""

    model_config = body_like({"scopes": ["introspect", "events"]})

    scopes: Annotated[list[_AnyScope], Field(min_length=1)] = Field(
        # The route passes on only the fields that the request contains, so it never uses this default. A factory keeps
        # the default out of the schema.
        default_factory=list,
        description="The complete list of the client's scopes from now on.",
    )

    @model_validator(mode="after")
    def _check_names_a_field(self) -> Self:
        if not self.model_fields_set:  # a request with only a misspelled field must not look like a change
            raise ValueError("Must name a field to change")
        return self


class ClientAnswer(AddedClient):
    """A client, without its secret.

    For a service that is not a site, `pkce` is `required`, and the other fields of sites are null, false or empty.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)  # type: ignore[assignment]  # SQLModel adds keys


class NewClientAnswer(ClientAnswer):
    """A new client with its secret, which is shown only once."""

    client_id: Annotated[str, Field(description="The same value as `name`.", examples=["shop"])]
    client_secret: str | None = Field(repr=False, description="Null for a public client.", examples=["…"])


class ClientSecretRequest(BaseModel):
    """The options for rotating a client's secret."""

    model_config = body_like({"at_once": True})

    at_once: StrictBool = Field(default=False, description="Reject the previous secret from now on.")


class ClientSecretAnswer(BaseModel):
    """A client with its new secret, which is shown only once."""

    name: Annotated[str, Field(examples=["billing"])]
    client_id: Annotated[str, Field(description="The same value as `name`.", examples=["billing"])]
    client_secret: Annotated[str, Field(examples=["…"])]
    scopes: Annotated[list[str], Field(examples=[["introspect", "users"]])]


def client_answer(client: AddedClient, *, now: datetime) -> ClientAnswer:
    """Return the response about a client, without its secret. A `former_secret_until` in the past is shown as null."""
    values = client.model_dump()
    # The database may still contain the time at which a previous secret expired.
    if client.former_secret_until is not None and client.former_secret_until <= now:
        values["former_secret_until"] = None
    return ClientAnswer(**values)


async def _client_changes(
    database: DatabaseDep, resolver: NameResolverDep, settings: SettingsDep
) -> clients.ClientChanges:
    return clients.ClientChanges(database, resolver, settings)


ClientChangesDep = Annotated[clients.ClientChanges, Depends(_client_changes)]


@router.get("/v1/admin/clients", summary=_("List clients"))
async def list_clients(_administrator: AdministratorDep, database: DatabaseDep, clock: ClockDep) -> Items[ClientAnswer]:
    """Return every client (services and sites), without its secret."""
    stored, now = await database.rows(queries.ALL_CLIENTS), clock()
    return all_of(client_answer(client, now=now) for client in stored)


@router.post("/v1/admin/clients", summary=_("Add a client"), failures=[_WRONG_URI, NameTaken])
async def add_client(
    administrator: FreshAdministratorDep, changes: ClientChangesDep, clock: ClockDep, body: ClientRequest
) -> NewClientAnswer:
    """Add a service, a client that authenticates with HTTP Basic.

    With `redirect_uris`, `device` or `phone_id_token`, the client is a site that logs users in. Only this response
    contains the secret, because wxauth stores only its hash. A public client has no secret.
    """
    now = clock()
    client, credentials = await changes.add(body.name, body.model_dump(exclude={"name"}), by=administrator, now=now)
    secret = None if credentials is None else credentials.client_secret
    return NewClientAnswer(**client.model_dump(), created_at=now, client_id=client.name, client_secret=secret)


@router.patch(
    "/v1/admin/clients/{name}",
    summary=_("Change a client"),
    failures=[_WRONG_URI, _NO_SUCH_CLIENT],
)
async def change_client(
    administrator: FreshAdministratorDep,
    changes: ClientChangesDep,
    clock: ClockDep,
    name: ClientName,
    body: ClientChangeRequest,
) -> ClientAnswer:
    """Set the given fields, and leave the others unchanged.

    A given list replaces the stored list. `redirect_uris`, `device` or `phone_id_token` turn a service into a site, and
    a site always remains a site. A site's sessions continue, but their next tokens lack the scopes that the site has
    lost.
    """
    now = clock()
    changed = await changes.change(name, body.model_dump(exclude_unset=True), by=administrator, now=now)
    return client_answer(changed, now=now)


@router.delete("/v1/admin/clients/{name}", summary=_("Remove a client"), failures=[_NO_SUCH_CLIENT])
async def remove_client(
    administrator: FreshAdministratorDep, database: DatabaseDep, clock: ClockDep, name: ClientName
) -> None:
    """Remove a client.

    The requests of the client fail from now on. If the client is a site, wxauth also rejects its tokens and open scans,
    and ends its sessions within minutes.
    """
    await clients.remove_client(database, name, by=administrator, now=clock())


@router.post(
    "/v1/admin/clients/{name}/secret",
    summary=_("Rotate a client's secret"),
    failures=[_HAS_NO_SECRET, _NO_SUCH_CLIENT],
)
async def renew_client_secret(
    administrator: FreshAdministratorDep,
    database: DatabaseDep,
    clock: ClockDep,
    name: ClientName,
    body: ClientSecretRequest | None = None,
) -> ClientSecretAnswer:
    """Replace a client's secret. Only this response contains the new secret.

    The previous secret works for another 24 hours, unless `at_once` is true.
    """
    at_once = body is not None and body.at_once
    credentials, scopes = await clients.renew_secret(database, name, at_once=at_once, by=administrator, now=clock())
    return ClientSecretAnswer(name=name, client_id=name, client_secret=credentials.client_secret, scopes=list(scopes))
