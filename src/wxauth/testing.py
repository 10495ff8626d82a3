"""Access tokens for the tests of a sibling service: no wxauth running, no network, no waiting.

issuer = TestIssuer()
app.dependency_overrides[guard] = issuer.guard()  # `guard` being the one that the routes depend on
answer = await client.get("/orders", headers=issuer.headers(roles=["clerk"]))
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid5

from jose.jwt import get_unverified_claims

from wxauth.guard import BearerGuard
from wxauth.tokens.issuer import TokenIssuer, sign
from wxauth.tokens.keys import SigningKey, VerificationKey

USER_ID: Final = UUID("01900000-0000-7000-8000-000000000001")
"""The user of a token for which no `user_id` was given."""


class TestIssuer:
    """Issues access tokens as wxauth does, with a key of its own, and makes guards that accept them off-line.

    Args:
        issuer: `iss` of the tokens. Nothing is ever asked there.
        audience: `aud` of the tokens.
        app_id: The app of the tokens for which no `app_id` was given.
        clock: The time, in epoch seconds, for tokens and guards alike: a test that moves it makes a token expire.
    """

    __test__ = False  # pytest takes classes whose names start with Test for tests

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
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """An access token. Unless they are given, openid and session are derived from user and app.

        Args:
            user_id: A UUID, as is `session_id`.
            roles: Without any, the token has no such claim.
            app_id: Unless given, that of this issuer.
            openid: The user's openid in the app.
            session_id: The login that the token comes from.
            expires_in: Seconds. Guards allow 30 s of clock skew: -31 has expired, -29 has not.
            claims: These replace claims of the token, or are added to them. A claim that is None is removed.
        """
        user_id, app_id = UUID(str(user_id)), app_id or self.app_id
        token = self._tokens.issue(
            self._key,
            user_id=user_id,
            session_id=UUID(str(session_id or uuid5(user_id, app_id))),
            app_id=app_id,
            openid=openid or f"openid-{uuid5(user_id, app_id).hex[:21]}",
            roles=roles,
            now=int(self._clock()),
            expires_in=expires_in,
        )
        if not claims:
            return token
        altered = {**get_unverified_claims(token), **claims}
        claims = {name: value for name, value in altered.items() if value is not None}
        return sign(self._key.signer, self._key.header, claims)

    def headers(self, **fields: Any) -> dict[str, str]:
        """The header that carries a token; takes what `token` takes."""
        return {"Authorization": f"Bearer {self.token(**fields)}"}

    def guard(self) -> BearerGuard:
        """A guard that accepts these tokens, for `app.dependency_overrides[...]` or an app made by the test.

        Put in place of another guard, it also takes the place of that guard's `require_role`.
        """
        keys = _OneKey(self._key.verification_key)
        return BearerGuard(self.issuer, self.audience, keys=keys, clock=self._clock)

    @contextmanager
    def trusted_by(self, guard: BearerGuard) -> Iterator[None]:
        """Within the block this very guard accepts these tokens, and no others.

        For what `dependency_overrides` does not reach: ASGI middleware, and code that calls the guard itself.
        """
        own, trusting = (guard._verifier, guard._clock), self.guard()
        guard._verifier, guard._clock = trusting._verifier, trusting._clock
        try:
            yield
        finally:
            guard._verifier, guard._clock = own

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key as a JWK set (RFC 7517), for siblings that check tokens by other means."""
        return {"keys": [self._key.public_jwk]}

    @property
    def metadata(self) -> dict[str, str]:
        """What `/.well-known/oauth-authorization-server` answers (RFC 8414): it names the JWK set."""
        return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/.well-known/jwks.json"}


class _OneKey:
    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def find(self, kid: str) -> VerificationKey | None:
        return self.find_sync(kid)

    def find_sync(self, kid: str) -> VerificationKey | None:
        return self._key if kid == self._key.kid else None
