"""A shop in each framework, with every kind of view behind the guard.

Each shop answers with the user's openid, or with "guest". The path says what kind of view it is. Where a framework has
no such kind, the shop has no such path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import httpx

from wxauth_guard import BearerGuard
from wxauth_guard.testing import TestIssuer

ISSUER = TestIssuer(issuer="http://127.0.0.1:8000")
OTHER = TestIssuer(issuer="http://127.0.0.1:8001")
GUARD, OTHER_GUARD = BearerGuard(issuer=ISSUER.issuer), BearerGuard(issuer=OTHER.issuer)

SEEN: list[str] = []
"""What the views have been called with. A refused request must not add to it."""


def seen(user: Any) -> str:
    text = user.openid if user else "guest"
    SEEN.append(text)
    return str(text)


class Shop(NamedTuple):
    """A shop that is being served."""

    client: httpx.AsyncClient
    paths: list[str]


Serve = Callable[[], AbstractAsyncContextManager[Shop]]


def client_by_wsgi(app: Any) -> httpx.AsyncClient:
    transport = httpx.WSGITransport(app, raise_app_exceptions=False)

    class InThread(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await request.aread()
            answer = await asyncio.to_thread(transport.handle_request, request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())

    return httpx.AsyncClient(transport=InThread(), base_url="http://shop.test")


def client_by_asgi(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://shop.test")


def client_at(port: int) -> httpx.AsyncClient:
    # The oldest aiohttp can't read a host with a port in front of a sub-application.
    headers = {"Host": "shop.test"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, verify=False)


@asynccontextmanager
async def trusted(client: httpx.AsyncClient, paths: list[str]) -> AsyncIterator[Shop]:
    with ISSUER.trusted_by(GUARD), OTHER.trusted_by(OTHER_GUARD):
        yield Shop(client, paths)
