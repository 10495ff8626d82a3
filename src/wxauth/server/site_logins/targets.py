"""The resource of a site's request, and the scopes that may be granted for it (RFC 8707)."""

from collections.abc import Mapping
from typing import Final, Self

from pydantic import BaseModel, Field

from wxauth.errors import Title
from wxauth.problems import Language
from wxauth.server.clients.models import Client
from wxauth.server.clients.oauth_errors import OAuthError
from wxauth.server.core.resources import Resource, as_compared, find_resource, host_of
from wxauth.server.core.settings import Settings
from wxauth.tokens.claims import is_document

_OF_OURS: Final[Mapping[str, Title]] = {
    "profile": Title("your name and picture", "昵称和头像"),
    "phone": Title("your phone number", "手机号"),
    "email": Title("your e-mail address", "邮箱地址"),
    "roles": Title("your roles", "角色"),
}
"""The scopes of ours that are shown, with their titles."""


class ScopeAnswer(BaseModel):
    """What a client may do, in words."""

    name: str = Field(examples=["orders:read"])
    title: str = Field(examples=["查看您的订单"])


class ResourceAnswer(BaseModel):
    """What a client asks for, to be shown to the person."""

    title: str = Field(examples=["小店助手"])
    host: str = Field(examples=["mcp.example.com"])
    scopes: list[ScopeAnswer]

    @classmethod
    def of(cls, resource: Resource, scope: str, language: Language) -> Self:
        """The resource, with the titles of these scopes in the order in which they are granted."""
        ours = {name: getattr(title, language) for name, title in _OF_OURS.items()}
        titles = {**ours, **resource.scopes}
        shown = [ScopeAnswer(name=name, title=titles[name]) for name in scope.split() if name in titles]
        return cls(title=resource.title, host=host_of(resource.resource), scopes=shown)


def resource_at(settings: Settings, url: str | None) -> Resource | None:
    """The resource with exactly this URL; None if there is none, or it was removed."""
    return next((each for each in settings.resources if each.resource == url), None)


def asked_resource(settings: Settings, client: Client, parameters: Mapping[str, str]) -> Resource | None:
    """The resource for which a client asks; None if it asks for none. Raises: OAuthError."""
    url = parameters.get("resource")
    if url is None:
        if is_document(client.name):
            raise OAuthError("invalid_target", "resource is missing")
        return None
    found = find_resource(settings.resources, url)
    if found is None or not _may_ask(client, found.resource):
        raise OAuthError("invalid_target", "resource not in WXAUTH_RESOURCES (slashes count), or not this client's")
    return found


def granted_resource(
    settings: Settings, client: Client, granted: str | None, parameters: Mapping[str, str]
) -> Resource | None:
    """The resource of what was granted, if the request names no other, and the client may still have it.

    Raises: OAuthError.
    """
    asked = parameters.get("resource")
    if asked is not None and as_compared(asked) != as_compared(granted or ""):
        raise OAuthError("invalid_target", "resource is not the one that was granted")
    if granted is None:
        return None
    found = resource_at(settings, granted)
    if found is None or not _may_ask(client, granted):
        raise OAuthError("invalid_target", "there is no such resource for this client any more")
    return found


def scopes_for(client: Client, resource: Resource | None) -> list[str]:
    """The scopes that a client may have: its own, then those of the resource."""
    return [*client.site_scopes, *(() if resource is None else resource.scopes)]


def granted_scope(client: Client, resource: Resource | None, asked_for: str | None) -> str:
    """The requested scopes that the client may have; without a request all, or those of the resource.

    Raises: OAuthError.
    """
    allowed = scopes_for(client, resource)
    unasked = client.site_scopes if resource is None else resource.scopes
    requested = unasked if asked_for is None else asked_for.split()
    scope = [name for name in allowed if name in requested]
    if not scope:
        raise OAuthError("invalid_scope", f"the client may have none of these scopes, only {' '.join(allowed)}")
    return " ".join(scope)


def for_resource(client: Client) -> Client:
    """A client in a request for a resource: only doors at which the person approves on the phone."""
    return client.model_copy(update={"sso": False, "account_app_id": None, "website_app_id": None})


def _may_ask(client: Client, url: str) -> bool:
    return is_document(client.name) or url in client.resources
