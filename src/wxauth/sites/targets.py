"""The resource of a site's request (RFC 8707), and the scopes that wxauth may grant, with the titles that users see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from pydantic import BaseModel, Field

from wxauth.clients.models import OFFLINE_ACCESS, Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.resources import SCOPES_BESIDE_RESOURCE, Resource, find_resource
from wxauth.settings.settings import Settings
from wxauth.settings.urls import as_compared, host_of
from wxauth_guard.claims import is_document_url

# Scopes without a title are not shown to the user.
_SCOPE_TITLES: Final[Mapping[str, Text]] = {
    "profile": _("your name and picture"),
    "phone": _("your phone number"),
    "email": _("your e-mail address"),
    "roles": _("your roles"),
}


class ScopeAnswer(BaseModel):
    """A scope, with a title for the user."""

    name: str = Field(examples=["orders:read"])
    title: str = Field(examples=["查看你的订单"])


class ResourceAnswer(BaseModel):
    """The resource that a client requests, as the user sees it."""

    title: str = Field(examples=["小店助手"])
    host: str = Field(examples=["mcp.example.com"])
    scopes: list[ScopeAnswer]

    @classmethod
    def of(cls, resource: Resource, scope: str, language: str) -> Self:
        """Return the resource with those scopes in `scope` that have a title, in the order of `scope`."""
        wxauth_titles = {name: title.translated(language) for name, title in _SCOPE_TITLES.items()}
        titles = {**wxauth_titles, **resource.scopes}
        shown = [ScopeAnswer(name=name, title=titles[name]) for name in scope.split() if name in titles]
        return cls(title=resource.title, host=host_of(resource.resource), scopes=shown)


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a client's token: either a resource, or all services of the operator."""

    client: Client
    resource: Resource | None = None

    @classmethod
    def requested(cls, settings: Settings, client: Client, parameters: Mapping[str, str]) -> Self:
        """Return the target that a client requests. An unregistered client must name a resource."""
        url = parameters.get("resource")
        if url is None:
            if is_document_url(client.name):
                raise OAuthError("invalid_target", "resource is missing")
            return cls(client)
        resource = find_resource(settings.resources, url)
        if resource is None or not _may_request(client, resource.resource):
            raise OAuthError(
                "invalid_target",
                "the resource isn't in WXAUTH_RESOURCES (slashes count), or isn't allowed for this client",
            )
        return cls(client, resource)

    @classmethod
    def granted(cls, settings: Settings, client: Client, url: str | None, parameters: Mapping[str, str]) -> Self:
        """Return the target with the granted resource `url`. `parameters` may repeat this resource.

        Raises: OAuthError, if they name another resource, or if the client may no longer use this one.
        """
        requested = parameters.get("resource")
        if requested is not None and as_compared(requested) != as_compared(url or ""):
            raise OAuthError("invalid_target", "resource isn't the resource that was granted")
        resource = resource_at(settings, url)
        if url is not None and (resource is None or not _may_request(client, url)):
            raise OAuthError("invalid_target", "this client no longer has this resource")
        return cls(client, resource)

    @property
    def url(self) -> str | None:
        """The URL of the resource, spelled as in the settings; None for all services of the operator."""
        return None if self.resource is None else self.resource.resource

    @property
    def scopes(self) -> list[str]:
        """The scopes that the client may have: first the client's scopes, then the scopes of the resource."""
        if self.resource is None:
            return self.client.site_scopes
        return [*self.client.site_scopes, *self.resource.scopes]

    def explicit_scopes(self, requested: str | None) -> Sequence[str]:
        """Return the scopes that a request or a refresh names; none, if it names only scopes that do not count."""
        names = (requested or "").split()
        # `offline_access` does not count, because wxauth issues refresh tokens without this scope, too. Clients that do
        # not know a resource's scopes request only `openid` and `profile`. Without a resource, these two count, because
        # a site that requests only `openid` must not get the phone number, e-mail address and roles.
        uncounted = {OFFLINE_ACCESS} if self.resource is None else set(SCOPES_BESIDE_RESOURCE)
        if uncounted.issuperset(names):
            return []
        return names

    def scope_for(self, requested: str | None) -> str:
        """Return the requested scopes that the client may have; by default, all of the client or of the resource."""
        default = self.client.site_scopes if self.resource is None else self.resource.scopes
        names = self.explicit_scopes(requested) or default
        scope = " ".join(name for name in self.scopes if name in names)
        if not scope:
            allowed = " ".join(self.scopes)
            raise OAuthError("invalid_scope", f"the client has none of these scopes, only {allowed}")
        return scope


def resource_at(settings: Settings, url: str | None) -> Resource | None:
    """Return the resource with exactly this URL; None if the settings contain no such resource."""
    return next((resource for resource in settings.resources if resource.resource == url), None)


def for_resource(client: Client) -> Client:
    """Return a copy of a client for a request that names a resource, so that a phone must approve the login.

    `_LOGIN_COLUMNS` in `sites/queries.py` clears the same options of a stored request.
    """
    return client.model_copy(update={"sso": False, "account_app_id": None, "website_app_id": None})


def _may_request(client: Client, url: str) -> bool:
    return is_document_url(client.name) or url in client.resources
