"""The issuer of access tokens, with the operator's own claims, and the verifier of tokens for resources."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic_core import to_json

from wxauth.core.token_claims import filled_claims
from wxauth.core.users import ROLES_SCOPE, UserInSession
from wxauth.keys.keyring import KeyRing
from wxauth.settings.claims import Template
from wxauth.settings.settings import Settings
from wxauth.tokens import AccessClaims, TokenIssuer
from wxauth.web.dependencies import provide
from wxauth_guard.verifier import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSession:
    id: UUID
    seconds_left: int  # until the session expires
    client_id: str | None = None  # of the website or the console; None for a session in an app
    scope: str = ""
    claims: Template | None = None  # the operator's own
    resource: str | None = None  # its URL becomes the audience, in place of the one in the settings
    authenticated_at: datetime | None = None  # when the user proved who they are, for a resource


@dataclass(frozen=True, slots=True)
class AccessToken:
    value: str = field(repr=False)
    expires_in: int  # seconds


class AccessTokens:
    """A token expires after `ACCESS_TOKEN_TTL`, or when its session expires if that is earlier."""

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys
        self._issuer = TokenIssuer(issuer=settings.issuer, audience=settings.audience, encode=to_json)

    def issue(self, user: UserInSession, session: TokenSession, *, now: datetime) -> AccessToken:
        """Issue an access token. One for a website or the console contains the roles only with the scope `roles`."""
        # `seconds_left` can be 0, but a token must not expire at the time at which it was issued.
        expires_in = max(1, min(self._settings.access_token_ttl, session.seconds_left))
        may_contain_roles = session.client_id is None or ROLES_SCOPE in session.scope.split()
        value = self._issuer.issue(
            self._keys.signing_key(now),
            AccessClaims(
                user_id=user.id,
                session_id=session.id,
                app_id=user.app_id,
                openid=user.openid,
                roles=user.roles if may_contain_roles else (),
                issued_at=int(now.timestamp()),
                expires_in=expires_in,
                external_id=user.external_id,
                client_id=session.client_id,
                scope=session.scope,
                added=filled_claims(session.claims, user, may_contain_roles=may_contain_roles),
                audience=session.resource,
                auth_time=None if session.authenticated_at is None else int(session.authenticated_at.timestamp()),
            ),
        )
        return AccessToken(value, expires_in)


class ResourceVerifier(Verifier):
    """The verifier of access tokens for the resources in the settings, which clients and proxies ask about or revoke.

    wxauth's own API does not use it, because a token for a resource must not give access to this API.
    """

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        # The audience must not be empty, but `_accepts_audience` does not use it.
        super().__init__(issuer=settings.issuer, audience=settings.audience, keys=keys)
        self._resource_urls = frozenset(resource.resource for resource in settings.resources)

    def _accepts_audience(self, audience: object) -> bool:
        return isinstance(audience, str) and audience in self._resource_urls


ResourceVerifierDep = Annotated[ResourceVerifier, Depends(provide(ResourceVerifier))]
