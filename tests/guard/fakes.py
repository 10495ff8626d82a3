"""The guard's counterparts in tests, which are an issuer simulated with respx, and callers."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import respx

from tests.clock import PATIENCE
from tests.upstream import Behaviour, answer
from wxauth_guard import BearerGuard
from wxauth_guard.issuer import METADATA_PATH
from wxauth_guard.jwks import RemoteKeys
from wxauth_guard.testing import TestIssuer, TestKey

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

BELIEVES_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""An empty TLS context for servers without TLS, because reading the system's certificates takes 20 ms."""
ISSUER = "https://auth.test"
NOW = 1795161600
USER_ID = UUID("0192f0c1-2b3c-7d4e-8f50-123456789abc")
SESSION_ID = UUID("0192f0c1-2b3c-7d4e-8f50-cba987654321")


def in_one_document(key: TestKey, issuer: str = ISSUER, *, headers: str = "") -> Behaviour:
    """Return the issuer's metadata and keys in one document, whatever URL is requested."""
    return answer({"issuer": issuer, "jwks_uri": f"{issuer}/keys", "keys": [key.public_jwk]}, headers=headers)


class Timer:
    """A timer that tests advance."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Gate:
    """A response that is held back until the test opens the gate."""

    def __init__(self, answer: Callable[[], httpx.Response]) -> None:
        self._answer = answer
        self._reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _: httpx.Request) -> httpx.Response:
        self._reached.set()
        assert self.opened.wait(PATIENCE)
        return self._answer()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)


class FakeIssuer:
    """An issuer that publishes metadata and keys. Tests can change these documents and their routes."""

    def __init__(self, router: respx.MockRouter, at: str = ISSUER) -> None:
        self.key = TestKey()
        self.keys: list[Any] = [self.key.public_jwk]
        self.document: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks.json"}
        self.headers = {"Cache-Control": "public, max-age=300"}
        self.metadata = router.get(at + METADATA_PATH)
        self.jwks = router.get(f"{at}/.well-known/jwks.json")
        self.works()

    def works(self) -> None:
        self.metadata.mock(side_effect=lambda _: httpx.Response(200, json=self.document))
        self.jwks.mock(side_effect=lambda _: httpx.Response(200, json={"keys": self.keys}, headers=self.headers))

    def fails(self) -> None:
        self.metadata.mock(side_effect=httpx.ConnectError("no"))

    def add_key(self) -> TestKey:
        """Publish another key."""
        key = TestKey()
        self.keys.append(key.public_jwk)
        return key

    def gated(self) -> Gate:
        """Hold back the next response with keys."""
        gate = Gate(lambda: httpx.Response(200, json={"keys": self.keys}, headers=self.headers))
        self.jwks.mock(side_effect=gate)
        return gate

    @property
    def fetches(self) -> tuple[int, int]:
        """Return how often the metadata and the keys were requested."""
        return self.metadata.call_count, self.jwks.call_count

    def guard(self, timer: Callable[[], float]) -> BearerGuard:
        keys = RemoteKeys(ISSUER, timer=timer, ssl_context=BELIEVES_NOBODY)
        return BearerGuard(ISSUER, websites=True, keys=keys, clock=lambda: NOW)

    def token(self, *roles: str, key: TestKey | None = None) -> str:
        return token_of(key or self.key, *roles)


def token_of(key: TestKey, *roles: str) -> str:
    issuer = TestIssuer(ISSUER, clock=lambda: NOW)
    issuer.key = key
    return issuer.token(user_id=USER_ID, session_id=SESSION_ID, openid="openid-alice", roles=roles)


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="https://orders.test")


async def messages_sent(app: ASGIApp, scope: Scope) -> list[Message]:
    """Call an app with this scope, and return the messages that it sends."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message: Message) -> None:
        messages.append(message)

    common = {"asgi": {"version": "3.0"}, "query_string": b"", "root_path": "", "server": ("orders.test", 443)}
    await app({**common, **scope}, receive, send)
    return messages


async def opening(app: ASGIApp, path: str, *, token: str | None) -> list[Message]:
    """Open a WebSocket, and return the messages that the app sends during and after the handshake."""
    scope = {"type": "websocket", "scheme": "wss", "path": path, "raw_path": path.encode(), "subprotocols": []}
    headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    return await messages_sent(app, {**scope, "headers": headers, "extensions": {}})
