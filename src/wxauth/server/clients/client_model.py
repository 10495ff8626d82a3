"""The model of a client: a service or a site of the operator's own."""

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, Field

CLIENT_NAME = "[a-z0-9][a-z0-9_-]{0,63}"


class Scope(StrEnum):
    """What a service may do."""

    INTROSPECT = "introspect"
    """Check whether an access token is valid."""
    WECHAT_TOKEN = "access_token"  # noqa: S105 - the name of a scope
    """Get an app's WeChat token."""
    USERS = "users"
    """Look users up."""
    PHONES = "phones"
    """See their phone numbers, too."""
    EVENTS = "events"
    """Read the feed of events."""


IdTokenAlg = Literal["RS256", "ES256"]
"""The algorithm of a site's id_tokens: RS256 with keys of their own, or ES256 with those of access tokens."""


class Client(BaseModel):
    """A service or a site of the operator's own, as administrators describe it. A site logs people in.

    Only a site has a title. A service has null, false or an empty list in all columns that describe a site.
    """

    name: str = Field(examples=["shop"])
    title: str | None = Field(None, examples=["小店"])
    """The name that the phone shows."""
    scopes: list[str] = Field(examples=[["openid", "profile"]])
    """Its scopes as a service, then those that it may request as a site."""
    is_public: bool = False
    """Whether it is a page or a program that cannot keep a secret."""
    device: bool = False
    """Whether it may use the device grant."""
    redirect_uris: list[str] = Field([], examples=[["https://shop.example.com/callback"]])
    logout_uris: list[str] = Field([], examples=[["https://shop.example.com/"]])
    app_id: str | None = None
    """The app whose mini-program code is shown; null: the default app."""
    account_app_id: str | None = None
    """The service account with which people log in on its pages in WeChat's browser; null: with a scanned code."""
    website_app_id: str | None = None
    """The website app with which people may log in on a computer that has WeChat, besides the code; null: none."""
    near: bool = False
    """Whether phone and browser must be in the same network."""
    user_code: bool = False
    """Whether the user codes of its devices may be typed."""
    email_domain: str | None = None
    id_token_alg: IdTokenAlg | None = Field(None, examples=["RS256"])

    @property
    def is_site(self) -> bool:
        """Whether it may log people in."""
        return self.title is not None

    @property
    def site_scopes(self) -> list[str]:
        """The scopes that its sessions may have."""
        return [scope for scope in self.scopes if scope not in _SERVICE_SCOPES]


_SERVICE_SCOPES: Final = frozenset(map(str, Scope))


class AddedClient(Client):
    """A stored client, without its secrets."""

    created_at: datetime
    former_secret_until: datetime | None = Field(None, description="Until when the former secret works.")
