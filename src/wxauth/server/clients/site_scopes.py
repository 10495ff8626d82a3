"""The scopes that a site may have, one row each, with the claims about a person that they grant."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wxauth.server.clients.models import Client
from wxauth.server.core.users import ROLES_SCOPE, UserInSession


@dataclass(frozen=True, slots=True)
class SiteScope:
    """A scope of OpenID Connect, or one of ours."""

    name: str
    claims: Mapping[str, Callable[[UserInSession, Client], object]] = field(default_factory=dict)
    """The value of each claim; None leaves it out."""
    is_default: bool = False
    """Whether a site that is added without scopes has it."""


OPENID_SCOPE: Final = "openid"
"""The scope that requests an id_token and access to /v1/userinfo."""
SITE_SCOPES: Final = (
    SiteScope(OPENID_SCOPE, is_default=True),
    SiteScope(
        "profile",
        {
            "name": lambda user, _: user.nickname,
            "picture": lambda user, _: user.avatar_url,
            "updated_at": lambda user, _: int((user.last_login_at or user.created_at).timestamp()),
        },
        is_default=True,
    ),
    SiteScope(
        "phone",
        {
            "phone_number": lambda user, _: user.phone,
            "phone_number_verified": lambda user, _: user.phone_verified,
        },
    ),
    SiteScope(
        "email",
        {
            "email": lambda user, client: client.email_domain and f"{user.id}@{client.email_domain}",
            "email_verified": lambda _, client: None if client.email_domain is None else False,
        },
    ),
    SiteScope("roles", {"roles": lambda user, _: user.roles or None}),
    SiteScope("offline_access"),  # a refresh token comes without it, too
)
SITE_SCOPE_NAMES: Final = tuple(scope.name for scope in SITE_SCOPES)
DEFAULT_SITE_SCOPES: Final = tuple(scope.name for scope in SITE_SCOPES if scope.is_default)
CLAIMS: Final = tuple(claim for scope in SITE_SCOPES for claim in scope.claims)


def claims_of(user: UserInSession, client: Client, scopes: Collection[str]) -> dict[str, Any]:
    """The claims about a user that these scopes grant, and those that the site was added with."""
    values = {
        claim: value(user, client)
        for scope in SITE_SCOPES
        if scope.name in scopes
        for claim, value in scope.claims.items()
    }
    granted = {claim: value for claim, value in values.items() if value is not None}
    template = client.claims_template
    return granted if template is None else granted | template.filled(user, sees_roles=ROLES_SCOPE in scopes)
