"""What a sibling sees of wxauth: an issuer, by respx."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import respx

from wxauth.guard import BearerGuard
from wxauth.guard.jwks import METADATA_PATH, RemoteKeys
from wxauth.tokens.issuer import TokenIssuer
from wxauth.tokens.keys import SigningKey

ISSUER = "https://auth.test"
NOW = 1795161600
USER_ID = UUID("0192f0c1-2b3c-7d4e-8f50-123456789abc")
SESSION_ID = UUID("0192f0c1-2b3c-7d4e-8f50-cba987654321")


class Timer:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FakeIssuer:
    """Publishes its metadata and keys at `ISSUER`; a test changes what it says, or the route that says it."""

    def __init__(self, router: respx.MockRouter) -> None:
        self.key = SigningKey.generate()
        self.keys: list[Any] = [self.key.public_jwk]
        self.document: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks.json"}
        self.headers = {"Cache-Control": "public, max-age=300"}
        self.metadata = router.get(ISSUER + METADATA_PATH)
        self.jwks = router.get(f"{ISSUER}/.well-known/jwks.json")
        self.works()

    def works(self) -> None:
        self.metadata.mock(side_effect=lambda _: httpx.Response(200, json=self.document))
        self.jwks.mock(side_effect=lambda _: httpx.Response(200, json={"keys": self.keys}, headers=self.headers))

    def fails(self) -> None:
        self.metadata.mock(side_effect=httpx.ConnectError("no"))

    @property
    def fetches(self) -> tuple[int, int]:
        """How often metadata and keys were asked for."""
        return self.metadata.call_count, self.jwks.call_count

    def guard(self, timer: Callable[[], float]) -> BearerGuard:
        return BearerGuard(ISSUER, keys=RemoteKeys(ISSUER, timer=timer), clock=lambda: NOW)

    def token(self, *roles: str, key: SigningKey | None = None) -> str:
        return TokenIssuer(issuer=ISSUER, audience="wxauth").issue(
            key or self.key,
            user_id=USER_ID,
            session_id=SESSION_ID,
            app_id="wxtest",
            openid="openid-alice",
            roles=roles,
            now=NOW,
            expires_in=900,
        )


def bearer(token: str) -> dict[str, bytes]:
    return {"Authorization": b"Bearer " + token.encode()}
