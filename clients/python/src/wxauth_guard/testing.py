"""Access tokens for the tests of a service with a guard: no wxauth running, no network, no waiting.

issuer = TestIssuer()
app.dependency_overrides[guard] = issuer.guard()  # `guard` is the one that the routes depend on
answer = await client.get("/orders", headers=issuer.headers(roles=["clerk"]))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid5

from jose.jwt import get_unverified_claims

from wxauth.guard import BearerGuard
from wxauth.texts import to_json
from wxauth.tokens.claims import is_document
from wxauth.tokens.keys import SigningKey, TokenIssuer, VerificationKey, sign

USER_ID: Final = UUID("01900000-0000-7000-8000-000000000001")
"""The default user of a token."""


class TestIssuer:
    """Issues access tokens as wxauth does, with a key of its own, and makes guards that accept them offline.

    Args:
        issuer: `iss` of the tokens. It is never contacted.
        audience: `aud` of the tokens.
        app_id: The default app of the tokens.
        clock: The time, in epoch seconds, for tokens and guards alike: a test that moves it makes a token expire.
    """

    __test__ = False  # or pytest would collect it, because its name starts with Test

    def __init__(
        self,
        issuer: str = "https://auth.test",
        audience: str = "wxauth",
        app_id: str = "wxtest",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.app_id = app_id
        self._clock = clock
        self._key = SigningKey.generate()
        self._tokens = TokenIssuer(issuer=issuer, audience=audience)

    def token(
        self,
        *,
        user_id: UUID | str = USER_ID,
        roles: Sequence[str] = (),
        app_id: str | None = None,
        openid: str | None = None,
        session_id: UUID | str | None = None,
        expires_in: int = 900,
        scope: str | Iterable[str] | None = None,
        client_id: str | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """An access token. Openid and session are derived from user and app unless given.

        Args:
            user_id: A UUID.
            roles: Without any, the token has no such claim.
            app_id: By default, that of this issuer.
            openid: The user's openid in the app.
            session_id: A UUID: the login that opened the session.
            expires_in: Seconds. Guards allow 30 s of clock skew: -31 has expired, -29 has not.
            scope: The scopes granted to a website or an agent, each or all of them separated by spaces.
            client_id: The website, or the URL of a client's metadata document, whose tokens have neither app nor
                openid. By default, that of a login in the app.
            claims: Claims to replace or add. A claim that is None is removed.
        """
        user_id, app_id = UUID(str(user_id)), app_id or self.app_id
        now = int(self._clock())
        if client_id is None and scope is not None:
            client_id = app_id
        token = self._tokens.issue(
            self._key,
            user_id=user_id,
            session_id=UUID(str(session_id or uuid5(user_id, app_id))),
            app_id=app_id,
            openid=openid or f"openid-{uuid5(user_id, app_id).hex[:21]}",
            roles=roles,
            now=now,
            expires_in=expires_in,
            client_id=client_id,
            scope=scope if isinstance(scope, str) else " ".join(scope or ()),
            auth_time=now if client_id is not None and is_document(client_id) else None,
        )
        if not claims:
            return token
        altered = {**get_unverified_claims(token), **claims}
        claims = {name: value for name, value in altered.items() if value is not None}
        return sign(self._key.signer, self._key.header, to_json(claims))

    def headers(self, **fields: Any) -> dict[str, str]:
        """The `Authorization` header with a token. It takes the arguments of `token`."""
        return {"Authorization": f"Bearer {self.token(**fields)}"}

    def guard(self, *, scopes: Iterable[str] = ()) -> BearerGuard:
        """A guard that accepts these tokens, for `app.dependency_overrides[...]` or an app made by the test.

        As an override of another guard, it also replaces that guard in its `require_role` and `requires`.
        """
        keys = _OneKey(self._key.verification_key)
        return BearerGuard(self.issuer, self.audience, scopes=scopes, keys=keys, clock=self._clock)

    @contextmanager
    def trusted_by(self, guard: BearerGuard) -> Iterator[None]:
        """Make an existing guard accept these tokens, and no others, within the block.

        For guards that `dependency_overrides` cannot replace: in ASGI middleware, or called by code directly. It counts
        for those made by `requires`, too.
        """
        base, trusting = guard._trusting, self.guard()
        own = base._verifier, base._clock
        base._verifier, base._clock = trusting._verifier, trusting._clock
        try:
            yield
        finally:
            base._verifier, base._clock = own

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key as a JWK set (RFC 7517), for services that check tokens without a guard."""
        return {"keys": [self._key.public_jwk]}

    @property
    def metadata(self) -> dict[str, str]:
        """The document at `/.well-known/oauth-authorization-server` (RFC 8414), which names the JWK set."""
        return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/.well-known/jwks.json"}


class _OneKey:
    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def find(self, kid: str) -> VerificationKey | None:
        return self.find_sync(kid)

    def find_sync(self, kid: str) -> VerificationKey | None:
        return self._key if kid == self._key.kid else None
