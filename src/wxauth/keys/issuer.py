"""The issuer of access tokens, and the verifier of access tokens for the operator's resources."""

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
from wxauth.tokens import TokenIssuer
from wxauth.web.dependencies import provide
from wxauth_guard.verifier import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSession:
    """The session to which an access token belongs."""

    id: UUID
    seconds_left: int
    """The time, in seconds, until the session expires."""
    client_id: str | None = None
    """The client_id of the website or the console that gets the token; None for a session in an app."""
    scope: str = ""
    """The scopes of the token, separated by spaces; empty for a session in an app."""
    claims: Template | None = None
    """The template of the operator's own claims in the token; None if there are no such claims."""
    resource: str | None = None
    """The URL of the resource that accepts the token. The URL becomes the token's audience.

    If the token is for no resource, the URL is None, and the audience is the one in the settings.
    """
    authenticated_at: datetime | None = None
    """The time at which the user proved who they are, if the token is for a resource; None for any other token."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed access token."""

    value: str = field(repr=False)
    expires_in: int
    """The lifetime, in seconds, of the token."""


class Issuer:
    """The part that issues access tokens.

    A token is signed with the current signing key. It expires after `ACCESS_TOKEN_TTL`, or when its session expires if
    that is earlier, but it is valid for at least a second.
    """

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys
        self._tokens = TokenIssuer(issuer=settings.issuer, audience=settings.audience, encode=to_json)

    def ensure_ready(self) -> None:
        """Check that there is a signing key.

        Callers do this before they use up a code from WeChat, an authorization code, a device code or a refresh token.
        Otherwise, if `issue` failed, the code or the refresh token would be lost.

        Raises: StorageUnavailable, if no key has been read yet.
        """
        self._keys.ensure_ready()

    def issue(self, user: UserInSession, session: TokenSession, *, now: datetime) -> AccessToken:
        """Sign an access token for a user's session.

        A token for a website or the console contains the roles only with the scope `roles`.

        Raises: StorageUnavailable, if no key has been read yet.
        """
        # `seconds_left` can be 0, but a token must not expire at the time at which it was issued.
        expires_in = max(1, min(self._settings.access_token_ttl, session.seconds_left))
        may_contain_roles = session.client_id is None or ROLES_SCOPE in session.scope.split()
        value = self._tokens.issue(
            self._keys.signing_key(now),
            user_id=user.id,
            session_id=session.id,
            app_id=user.app_id,
            openid=user.openid,
            roles=user.roles if may_contain_roles else (),
            now=int(now.timestamp()),
            expires_in=expires_in,
            external_id=user.external_id,
            client_id=session.client_id,
            scope=session.scope,
            added=filled_claims(session.claims, user, may_contain_roles=may_contain_roles),
            audience=session.resource,
            auth_time=None if session.authenticated_at is None else int(session.authenticated_at.timestamp()),
        )
        return AccessToken(value, expires_in)


class ResourceVerifier(Verifier):
    """The verifier of access tokens for the resources in the settings.

    wxauth uses this verifier for tokens that a client or a proxy asks about, or that a client revokes. It does not use
    the verifier for wxauth's own API, because a token for a resource must not give access to this API.
    """

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        super().__init__(issuer=settings.issuer, audience=settings.audience, keys=keys)
        self._resource_urls = frozenset(resource.resource for resource in settings.resources)

    def _accepts_audience(self, audience: object) -> bool:
        """Return whether the claim `aud` is the URL of a resource.

        This method is overridden because the base class accepts only one audience.
        """
        return isinstance(audience, str) and audience in self._resource_urls


ResourceVerifierDep = Annotated[ResourceVerifier, Depends(provide(ResourceVerifier))]
