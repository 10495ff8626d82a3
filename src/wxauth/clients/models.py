"""The model of a client (a service or a site of the operator), its table, and its scopes with the claims they grant."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, get_args
from uuid import UUID

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.token_claims import filled_claims
from wxauth.core.users import ROLES_SCOPE, UserInSession

CLIENT_NAME_PATTERN: Final = "[a-z0-9][a-z0-9_-]{0,63}"  # `is_client_name` checks further rules.
IdTokenAlg = Literal["RS256", "ES256"]  # RS256 has separate keys, and ES256 uses the keys of access tokens.
ID_TOKEN_ALGS: Final[tuple[str, ...]] = get_args(IdTokenAlg)
DEFAULT_ID_TOKEN_ALG: Final[IdTokenAlg] = "RS256"  # noqa: S105 - an algorithm
Pkce = Literal["required", "optional"]  # A site without PKCE must check the `nonce` instead (RFC 9700, section 2.1.1).
OFFLINE_ACCESS: Final = "offline_access"  # changes nothing, because wxauth issues refresh tokens even without it
OPENID_SCOPE: Final = "openid"


class Scope(StrEnum):
    """A right of a service. A new one needs a revision, because a CHECK constraint of `clients` lists all rights."""

    INTROSPECT = "introspect"  # check whether an access token is valid
    WECHAT_TOKEN = "access_token"  # get an app's WeChat token  # noqa: S105 - the name of a scope
    USERS = "users"  # look users up
    PHONES = "phones"  # see the phone numbers of the users that the service looks up
    UNIONIDS = "unionids"  # look users up by unionid, and see their unionids
    EVENTS = "events"  # read the feed of events
    ATTRIBUTES = "attributes"  # change the attributes of users
    SIGN = "sign"  # get data signed with the session_keys of users
    MODERATE = "moderate"  # ban, unban and sign out users who are not staff, and clear their profiles
    JS_SIGN = "js_sign"  # get pages signed for WeChat's JS-SDK


def _flag(description: str) -> Any:
    return Field(default=False, description=description)


def _text(description: str) -> Any:
    return Field(default=None, sa_type=Text, description=description)


def _uris(description: str, example: str) -> Any:
    return Field(default=[], sa_type=ARRAY(Text), description=description, schema_extra={"examples": [[example]]})


class Client(SQLModel):
    """A service or a site of the operator, as administrators describe it. A site logs users in, and has a title.

    The fields of requests, and the options of `wxauth clients`, are made from these fields, so the descriptions say
    what null means in a request. This class also represents wxauth's own console, and unregistered clients
    (`clients/documents.py`), whose name is the URL of their document.
    """

    name: str = Field(sa_type=Text, primary_key=True, schema_extra={"examples": ["shop"]})
    title: str | None = Field(
        default=None,
        sa_type=Text,
        description="The site's title on the phone. Null: `name`.",
        schema_extra={"examples": ["小店"]},
    )
    logo: str | None = _text(
        "The site's picture on the login pages and the phone, as a `data:` URL of a PNG, JPEG or WebP of up to 32 KiB "
        "and 1024 × 1024 pixels. Null: none."
    )
    # These are its scopes as a service, then those that it may request as a site.
    scopes: list[str] = Field(sa_type=ARRAY(Text), schema_extra={"examples": [["openid", "profile"]]})
    is_public: bool = _flag("The site has no secret. You can't change this later.")
    device: bool = _flag(
        "Let the site show the QR code itself (RFC 8628). Most ready-made tools show none, so also let users enter "
        "login codes."
    )
    redirect_uris: list[str] = _uris(
        "URIs that browsers return to with an authorization code.", "https://shop.example.com/callback"
    )
    logout_uris: list[str] = _uris("URIs that browsers may return to after logging out.", "https://shop.example.com/")
    app_id: str | None = _text("The mini-program that the QR code opens. Null: the default app.")
    account_app_id: str | None = _text("The service account for logins on pages in WeChat's browser. Null: none.")
    website_app_id: str | None = _text("The website app for logins with WeChat on a computer. Null: none.")
    backchannel_logout_uri: str | None = _text(
        "The URL that receives a logout token when one of the site's sessions ends. Null: none."
    )
    near: bool = _flag("Require the phone and the browser to be on the same network.")
    user_code: bool = _flag("Let users enter this site's login codes by hand.")
    email_domain: str | None = _text("Give each user a made-up e-mail address in this domain.")
    omit_email_verified: bool = _flag(
        "Leave the claim `email_verified` out, for products that refuse false, but not an absent value."
    )
    i_verify_this_address: bool = _flag(
        "Confirm that you have verified each address in the claim `email`, which `email_verified` as true requires. "
        "Whoever can write this address can take over accounts in the product."
    )
    link: bool = _flag(
        "Allow logins from phone browsers outside WeChat. The user opens WeChat with a link, and then enters the "
        "number from WeChat in the browser."
    )
    sso: bool = _flag("Share the browser's login with other sites that have this option.")
    phone_id_token: bool = _flag("Let mini-programs and mobile apps get the site's id_tokens for another back end.")
    pkce: Pkce = Field(
        default="required",
        sa_type=Text,
        description="If `optional`, a site with a secret can omit PKCE. Null: `required`.",
    )
    id_token_alg: IdTokenAlg | None = Field(
        default=None,
        sa_type=Text,
        description="The algorithm that signs the site's id_tokens. Null: `RS256`.",
        schema_extra={"examples": ["RS256"]},
    )
    id_token_ttl: int | None = Field(
        default=None,
        sa_type=BigInteger,
        description="The lifetime of the site's id_tokens in seconds, 60 to `WXAUTH_WEB_SESSION_MAX_AGE`, but never "
        "beyond the end of the session. Null: that of an access token.",
        schema_extra={"examples": [86400]},
    )
    resources: list[str] = _uris(
        "Resources from `WXAUTH_RESOURCES`. A site may request tokens for these resources. A service can introspect "
        "tokens only for these resources.",
        "https://mcp.example.com/mcp",
    )
    claims: dict[str, Any] | None = Field(
        default=None,
        sa_type=JSONB,
        description="The claims that are added to the site's tokens, by the rules of `WXAUTH_CLAIMS`. Null: none.",
    )

    @property
    def is_site(self) -> bool:
        """Whether the client may log users in."""
        return self.title is not None

    @property
    def site_scopes(self) -> list[str]:
        """The scopes that the client may request as a site, and that its sessions can have."""
        return [scope for scope in self.scopes if scope not in _SERVICE_SCOPES]


_SERVICE_SCOPES: Final = frozenset(Scope)

# The fields that have a default, from which the bodies of requests are made.
OPTIONS: Final = {name: field for name, field in Client.model_fields.items() if name not in ("name", "scopes")}


class AddedClient(Client):
    """A client that has been added, without its secrets."""

    created_at: datetime = Field(sa_type=TIME)
    former_secret_until: datetime | None = Field(
        default=None, sa_type=TIME, description="When the previous secret expires. Null: no previous secret works."
    )


class ClientWithSecrets(AddedClient):
    secret_hash: bytes | None = Field(sa_type=BYTEA, repr=False)  # SHA-256; null for a public client
    former_secret_hash: bytes | None = Field(sa_type=BYTEA, repr=False)  # works until `former_secret_until`


class StoredClient(ClientWithSecrets, table=True):
    """The table of the clients, including removed clients whose sessions or other rows are not yet deleted."""

    __tablename__ = "clients"

    # This reserves the name until the rows are deleted, so that a new client does not get them.
    removed_by: str | None = Field(sa_type=Text)
    id: UUID  # for the table `deliveries`, because a later client may have the same name


# Each scope has the claims that it grants. Tokens do not contain a claim whose value is None.
SITE_SCOPES: Final[Mapping[str, Mapping[str, Callable[[UserInSession, Client], object]]]] = {
    OPENID_SCOPE: {},
    "profile": {
        "name": lambda user, _: user.nickname,
        "picture": lambda user, _: user.avatar_url,
        "updated_at": lambda user, _: int((user.last_login_at or user.created_at).timestamp()),
    },
    "phone": {
        "phone_number": lambda user, _: user.phone,
        "phone_number_verified": lambda user, _: user.phone_verified,
    },
    "email": {
        "email": lambda user, client: f"{user.id}@{client.email_domain}" if client.email_domain else None,
        # Nobody can receive e-mail at the made-up address.
        "email_verified": lambda _, client: False if client.email_domain and not client.omit_email_verified else None,
    },
    ROLES_SCOPE: {"roles": lambda user, _: user.roles or None},
    OFFLINE_ACCESS: {},
}
SITE_SCOPE_NAMES: Final = tuple(SITE_SCOPES)
DEFAULT_SCOPES: Final = (Scope.INTROSPECT,)
DEFAULT_SITE_SCOPES: Final = (OPENID_SCOPE, "profile")
CLAIMS: Final = tuple(claim for claims in SITE_SCOPES.values() for claim in claims)


def claims_of(user: UserInSession, client: Client, scopes: Collection[str]) -> dict[str, Any]:
    """Return the claims about a user that these scopes grant, and the operator's own claims for the client."""
    return granted_claims(user, client, scopes) | added_claims(user, client, scopes)


def granted_claims(user: UserInSession, client: Client, scopes: Collection[str]) -> dict[str, Any]:
    values = {
        claim: value(user, client)
        for scope, claims in SITE_SCOPES.items()
        if scope in scopes
        for claim, value in claims.items()
    }
    return {claim: value for claim, value in values.items() if value is not None}


def added_claims(user: UserInSession, client: Client, scopes: Collection[str]) -> dict[str, Any]:
    return filled_claims(client.claims, user, may_contain_roles=ROLES_SCOPE in scopes)
