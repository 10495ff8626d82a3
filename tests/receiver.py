"""A webhook receiver of a sibling service that misbehaves as a test requires."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.listening import stop_listening
from tests.processes import free_port


@dataclass
class Receiver:
    """Records requests. Its response is a status, `hang`, or the result of a function that gets the request."""

    url: str
    requests: list[web.Request] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """The responses to return one after the other. After the last one, the receiver returns `usual`."""
    usual: Any = 204
    under_way: int = 0
    most_under_way: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append((dict(request.headers), await request.read()))
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else self.usual
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if answer == "hang":
                await self.released.wait()
                return web.Response(status=204)
            if isinstance(answer, Callable):  # type: ignore[arg-type]  # any function
                return await answer(request)
            return web.Response(status=answer)
        finally:
            self.under_way -= 1

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.got]

    @property
    def ids(self) -> list[str]:
        """Return the `webhook-id` of each message."""
        return [headers["webhook-id"] for headers, _ in self.got]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    port = free_port()
    receiver = Receiver(f"http://127.0.0.1:{port}/hook")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", port)
    try:
        yield receiver
    finally:
        receiver.released.set()
        await stop_listening(server)
        await runner.cleanup()
