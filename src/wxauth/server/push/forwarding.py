"""Hands messages on to the operator's own handler, as WeChat sent them, and its answer back."""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import httpx

from wxauth.errors import PushNotForwarded
from wxauth.server.core.metrics import Histogram
from wxauth.server.core.parts import part
from wxauth.server.core.receiver_transport import USER_AGENT
from wxauth.server.core.settings import App

AT_ONCE: Final = 64
"""How many messages of one app a process hands on at once."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer."""
FORWARDED: Final = "Wxauth-Forwarded"
"""The header of what is handed on, so that two services that hand on to each other make no circle."""
FORWARD_SECONDS: Final = Histogram(
    "wxauth_push_forward_seconds",
    "Duration of handing a message on to an app's push_forward.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4),
)

_OK: Final = 200


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """What WeChat is answered."""

    content: bytes = b"success"
    content_type: str | None = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class PushRequest:
    """A request as WeChat sent it."""

    query: bytes
    content_type: bytes | None
    is_forwarded: bool
    """Whether another wxauth has handed it on."""
    body: bytes


@part
class PushForwarding:
    """Hands messages on. The handler of one app delays no other one.

    Args:
        transport: Connects to allowed addresses only.
    """

    transport: httpx.AsyncBaseTransport
    _under_way: Counter[str] = field(init=False, default_factory=Counter)

    async def hand_on(self, app: App, request: PushRequest, *, deadline: float) -> PushAnswer:
        """The handler's answer to a message, before `deadline`, a time of the event loop. Raises: PushNotForwarded."""
        if request.is_forwarded:
            raise PushNotForwarded(f"it was handed on before: it has the header {FORWARDED}")
        if self._under_way[app.app_id] >= AT_ONCE:
            raise PushNotForwarded(f"{AT_ONCE} messages of this app are being handed on already")
        self._under_way[app.app_id] += 1
        try:
            with FORWARD_SECONDS.time():
                async with asyncio.timeout_at(deadline):
                    return await send_on(self.transport, app, request)
        except TimeoutError:
            raise PushNotForwarded("push_forward: no answer in time") from None
        finally:
            self._under_way[app.app_id] -= 1

    async def aclose(self) -> None:
        """Close the connections."""
        await self.transport.aclose()


async def send_on(
    transport: httpx.AsyncBaseTransport, app: App, request: PushRequest, *, method: str = "POST"
) -> PushAnswer:
    """Send this to an app's `push_forward`. Raises: PushNotForwarded, unless a short answer has the status 200."""
    assert app.push_forward is not None
    headers = [
        (FORWARDED.encode(), b"1"),
        (b"Accept", b"*/*"),
        (b"User-Agent", USER_AGENT.encode()),
        (b"Accept-Encoding", b"identity"),
        *([] if request.content_type is None else [(b"Content-Type", request.content_type)]),
    ]
    try:
        url = httpx.URL(app.push_forward)
        # Not as part of the URL, which httpx would write in its own way.
        target = url.raw_path + (b"&" if url.query else b"" if b"?" in url.raw_path else b"?") + request.query
        forwarded = httpx.Request(method, url, headers=headers, content=request.body, extensions={"target": target})
        async with aclosing(await transport.handle_async_request(forwarded)) as response:
            if response.status_code != _OK:
                raise PushNotForwarded(f"push_forward: its status was {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise PushNotForwarded("push_forward: its answer was compressed")
            content = await _whole_body(response)
            return PushAnswer(content, response.headers.get("content-type"))
    except httpx.TransportError as exc:
        raise PushNotForwarded(f"push_forward: {exc}") from None


async def _whole_body(response: httpx.Response) -> bytes:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    body = bytearray()
    async for chunk in response.stream:
        body += chunk
        if len(body) > MAX_ANSWER:
            raise PushNotForwarded(f"push_forward: its answer was longer than {MAX_ANSWER} bytes")
    return bytes(body)
