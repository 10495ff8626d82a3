"""Requests and answers about clients."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator
from typing_extensions import TypedDict

from wxauth.server.clients.clients import Credentials, check_name
from wxauth.server.clients.models import CLIENT_NAME, AddedClient, IdTokenAlg, Pkce, Scope
from wxauth.server.clients.site_scopes import SITE_SCOPE_NAMES

ClientName = Annotated[str, AfterValidator(check_name), Field(json_schema_extra={"pattern": f"^{CLIENT_NAME}$"})]
_AnyScope = Annotated[str, Field(json_schema_extra={"enum": [*Scope, *SITE_SCOPE_NAMES]})]


class _ClientOptions(BaseModel):
    # `asked_for` validates them, as it does for the command.
    title: str | None = Field(default=None, description="The site's name on the phone; null: `name`.")
    is_public: StrictBool | None = Field(default=None, description="The site has no secret. Cannot be changed later.")
    device: StrictBool | None = Field(default=None, description="The site shows a code itself (RFC 8628).")
    redirect_uris: list[str] | None = Field(default=None, description="URIs to which browsers return with a code.")
    logout_uris: list[str] | None = Field(
        default=None, description="URIs to which browsers may return after signing out."
    )
    app_id: str | None = Field(default=None, description="The mini-program whose code is shown; null: the default app.")
    account_app_id: str | None = Field(
        default=None, description="The service account for logins on pages in WeChat's browser; null: none."
    )
    website_app_id: str | None = Field(
        default=None, description="The website app for logins on a computer with WeChat; null: none."
    )
    backchannel_logout_uri: str | None = Field(
        default=None, description="Where a logout token is sent when one of the site's sessions ends; null: nowhere."
    )
    near: StrictBool | None = Field(default=None, description="Phone and browser must be in the same network.")
    user_code: StrictBool | None = Field(default=None, description="Users may type this site's codes.")
    email_domain: str | None = Field(default=None, description="Users get a made-up e-mail address in this domain.")
    link: StrictBool | None = Field(
        default=None, description="A phone's browser outside WeChat may log in by a link to WeChat and a number."
    )
    sso: StrictBool | None = Field(
        default=None, description="The site shares the browser's login with other such sites."
    )
    phone_id_token: StrictBool | None = Field(
        default=None, description="A mini-program or mobile app gets the site's id_tokens, for another back end."
    )
    pkce: Pkce | None = Field(
        default=None, description="`optional`: a site with a secret may leave PKCE out; null: `required`."
    )
    id_token_alg: IdTokenAlg | None = Field(
        default=None, description="The algorithm that signs a site's id_tokens; null: `RS256`."
    )
    claims: dict[str, Any] | None = Field(
        default=None, description="What is added to the site's tokens, by the rules of `WXAUTH_CLAIMS`; null: nothing."
    )


class ClientRequest(_ClientOptions):
    """A service client to add; with redirect URIs or the device grant, a site."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "shop", "redirect_uris": ["https://shop.example.com/callback"]}]},
        hide_input_in_errors=True,
    )

    name: ClientName
    scopes: list[_AnyScope] | None = Field(
        default=None, description="What the client may do. Absent: `introspect`; for a site `openid`, `profile`."
    )


def _without_default(schema: dict[str, Any]) -> None:
    # The default only marks an absent field, and would be refused if it were sent.
    del schema["default"]


def _without_defaults(schema: dict[str, Any]) -> None:
    # An answer always has all fields.
    for field in schema["properties"].values():
        field.pop("default", None)


class ClientChangeRequest(_ClientOptions):
    """Changes of a client. An absent field is unchanged; null, false or empty clears it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scopes": ["introspect", "events"]}]}, hide_input_in_errors=True
    )

    scopes: Annotated[list[_AnyScope], Field(min_length=1)] = Field(
        default=[],
        description="The complete list of the client's scopes from now on.",
        json_schema_extra=_without_default,
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("must name a field to change")
        return self


class ClientAnswer(AddedClient):
    """A client, without its secret. For a service that is not a site, the fields of sites are null, false or empty."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True, json_schema_extra=_without_defaults)  # type: ignore[assignment]  # SQLModel adds keys


class NewClientAnswer(ClientAnswer):
    """A new client with its secret, which is shown only once."""

    client_id: Annotated[str, Field(examples=["shop"])]
    client_secret: str | None = Field(repr=False, description="Null for a public client.", examples=["…"])


class ClientSecretAnswer(TypedDict):
    """A client with its new secret, which is shown only once."""

    name: Annotated[str, Field(examples=["billing"])]
    client_id: Annotated[str, Field(examples=["billing"])]
    client_secret: Annotated[str, Field(examples=["…"])]
    scopes: Annotated[list[str], Field(examples=[["introspect", "users"]])]


def client_answer(client: AddedClient, *, now: datetime) -> ClientAnswer:
    """A client, without its secret."""
    return ClientAnswer(**_answered(client, now=now))


def new_client_answer(client: AddedClient, credentials: Credentials | None, *, now: datetime) -> NewClientAnswer:
    """A client with its secret, if it has one."""
    secret = None if credentials is None else credentials.client_secret
    return NewClientAnswer(**_answered(client, now=now), client_id=client.name, client_secret=secret)


def _answered(client: AddedClient, *, now: datetime) -> dict[str, Any]:
    until = client.former_secret_until
    return {**client.model_dump(), "former_secret_until": until if until is not None and until > now else None}
