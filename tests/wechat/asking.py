"""Helpers that send requests over the real transport, and check that its failures reveal no secrets."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.clock import PATIENCE
from tests.upstream import answer
from tests.world import Client, Stage
from wxauth.outbound.transport import HttpTransport

SECRET = "s3cr3t-of-the-app"
IDENTITY = {"openid": "openid-alice", "session_key": "c2Vzc2lvbi1rZXktMTIzNA=="}
OK = answer(IDENTITY)
BODY = b'{"openid": "openid-alice"}'
"""The body of a response, for tests that don't interpret it."""
CODE = "code-of-alice-0123456789"


@dataclass(slots=True)
class ServiceAsking:
    """Makes a service with the real transport to WeChat at a URL: `client = await service_asking(url)`."""

    stage: Stage
    """The stage of the last client."""

    async def __call__(self, url: str, **settings: object) -> Client:
        self.stage = await self.stage.replica(wechat_transport=None, wechat_base_url=url, **settings)
        return self.stage.client


async def log_in(client: Client, code: str = CODE) -> httpx.Response:
    return await client.post("/v1/login", json={"code": code})


@asynccontextmanager
async def transport(*, connect_timeout: float = PATIENCE, **arguments: Any) -> AsyncIterator[HttpTransport]:
    made = HttpTransport(connect_timeout=connect_timeout, **arguments)
    try:
        yield made
    finally:
        await made.aclose()


async def ask(way: HttpTransport, url: str, name: str = "alice", **extensions: object) -> httpx.Response:
    """Send a request that the upstream can recognise by this name."""
    target = f"/sns?secret={SECRET}&js_code={name}".encode()
    response = await way.handle_async_request(httpx.Request("GET", url, extensions={"target": target, **extensions}))
    await response.aread()
    return response


async def ask_and_fail(
    way: HttpTransport, url: str, expected: type[httpx.RequestError], **extensions: Any
) -> httpx.RequestError:
    """Send a request that fails, check that its error reveals no secrets, and return the error."""
    with pytest.raises(httpx.RequestError) as caught:
        await ask(way, url, **extensions)
    assert type(caught.value) is expected, repr(caught.value)
    assert caught.value.__context__ is None  # error trackers also show the context
    assert caught.value.__cause__ is None
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.args)
    assert SECRET not in shown
    assert "js_code" not in shown
    return caught.value


def deadline_in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
