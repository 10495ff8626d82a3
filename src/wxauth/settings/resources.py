"""The resources that access tokens can be limited to (RFC 8707).

A resource is a service that accepts only access tokens for this resource.
"""

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wxauth.i18n import lazy_gettext as _
from wxauth.settings.http_urls import as_compared, plain_url
from wxauth.settings.types import Title, json_like
from wxauth.terminal import WrongValue
from wxauth_guard.urls import is_secure

OWN_SCOPES: Final = frozenset(
    """
    openid profile phone email roles offline_access wxauth:admin
    introspect access_token users phones unionids events attributes sign moderate js_sign
    """.split()  # noqa: SIM905 - a list would need a line for each name
)
"""wxauth's own scopes. The first line is for sites, and the second for services. No resource may define such a scope.

A test compares this list with the scopes in other packages, which this package cannot import.
"""
SCOPES_BESIDE_RESOURCE: Final = ("openid", "profile", "offline_access")
"""The scopes of wxauth that a client without registration may request together with a resource's scopes.

For every client, a request for a resource that names only these scopes counts as a request without scopes.
"""
MAX_RESOURCE: Final = 512
"""The maximum number of characters in a resource's URL."""
_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,64}")
"""The pattern of a scope's name (RFC 6749, section 3.3). The limit of 64 characters is wxauth's own."""


def _check_url(value: str) -> str:
    parts = plain_url(value)
    if len(value) > MAX_RESOURCE or parts is None or parts["query"] or not is_secure(value):
        raise WrongValue(
            _(
                "must be a URL of up to {n} characters such as https://host/path, with a lower-case host and "
                "without a user name, query or fragment. Only loopback addresses can use http",
                n=MAX_RESOURCE,
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

    resource: Annotated[str, AfterValidator(_check_url)]
    """The URL of the service, which is the audience of its tokens."""
    title: Title
    scopes: Annotated[dict[_ScopeName, Title], Field(min_length=1, max_length=50)]
    """The title of each scope, by the name of the scope."""


def find_resource(resources: Iterable[Resource], url: str) -> Resource | None:
    """Return the resource with this URL, even if the URL is spelled differently; None if there is none."""
    wanted_url = as_compared(url)
    return next((resource for resource in resources if as_compared(resource.resource) == wanted_url), None)


def check_distinct(resources: tuple[Resource, ...], other_urls: Collection[str] = ()) -> tuple[Resource, ...]:
    """Check that no resource's URL occurs twice, or is among `other_urls`. Return the resources.

    Raises: WrongValue, which names the first resource with such a URL.
    """
    used_urls = {as_compared(url) for url in other_urls}
    for index, resource in enumerate(resources):
        url = as_compared(resource.resource)
        if url in used_urls:
            raise WrongValue(
                _(
                    "WXAUTH_RESOURCES[{n}].resource: must differ from the other resources and from WXAUTH_AUDIENCE",
                    n=index,
                )
            )
        used_urls.add(url)
    return resources


Resources = Annotated[
    tuple[Resource, ...],
    json_like('[{"resource": "https://mcp.example.com/mcp", "title": "…", "scopes": {"orders:read": "…"}}]'),
    AfterValidator(check_distinct),
]
