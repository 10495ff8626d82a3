"""The resources that access tokens can be limited to (RFC 8707).

A resource is a service that accepts only access tokens for this resource.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.types import Title, json_like
from wxauth.settings.urls import as_compared, plain_url
from wxauth_guard.urls import is_secure

# The first line is for sites, and the second for services. A test compares this list with the scopes in other packages,
# which this package cannot import.
OWN_SCOPES: Final = frozenset(
    """
    openid profile phone email roles offline_access wxauth:admin
    introspect access_token users phones unionids events attributes sign moderate js_sign
    """.split()  # noqa: SIM905 - a list would need a line for each name
)
SCOPES_BESIDE_RESOURCE: Final = ("openid", "profile", "offline_access")
"""A client without registration may request these together with a resource's scopes.

For every client, a request for a resource that names only these scopes counts as a request without scopes.
"""
_MAX_RESOURCE: Final = 512  # characters
_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,64}")  # RFC 6749, section 3.3, except for the limit of 64


def _check_url(value: str) -> str:
    parts = plain_url(value)
    if len(value) > _MAX_RESOURCE or parts is None or parts["query"] or not is_secure(value):
        raise WrongValue(
            _(
                "must be a URL of up to {n} characters such as https://host/path, with a lower-case host and "
                "without a user name, query or fragment. Only loopback addresses can use http",
                n=_MAX_RESOURCE,
            )
        )
    return value


def _check_scope(name: str) -> str:
    if not _SCOPE.fullmatch(name):
        raise WrongValue(_("must be 1 to 64 printable ASCII characters, without spaces, double quotes or backslashes"))
    if name in OWN_SCOPES:
        raise WrongValue(_("must not be one of wxauth's own scopes"))
    return name


_ScopeName = Annotated[str, AfterValidator(_check_scope)]


class Resource(BaseModel):
    """A service that accepts only tokens for this service, and its scopes with the titles that the phone shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    resource: Annotated[str, AfterValidator(_check_url)]  # the audience of its tokens
    title: Title
    scopes: Annotated[dict[_ScopeName, Title], Field(min_length=1, max_length=50)]


def find_resource(resources: Iterable[Resource], url: str) -> Resource | None:
    """Return the resource with this URL, even if the URL is spelled differently."""
    wanted_url = as_compared(url)
    return next((resource for resource in resources if as_compared(resource.resource) == wanted_url), None)


def _check_distinct(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    used_urls: set[str] = set()
    for index, resource in enumerate(resources):
        url = as_compared(resource.resource)
        if url in used_urls:
            raise WrongValue(_("WXAUTH_RESOURCES[{n}].resource: must differ from the other resources", n=index))
        used_urls.add(url)
    return resources


Resources = Annotated[
    tuple[Resource, ...],
    json_like('[{"resource": "https://mcp.example.com/mcp", "title": "…", "scopes": {"orders:read": "…"}}]'),
    AfterValidator(_check_distinct),
]
