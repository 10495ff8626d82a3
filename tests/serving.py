"""Serves an app with a real server while a test runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tests.clock import PATIENCE
from tests.listening import stop_listening


@contextmanager
def serving(
    app: ASGIApp, *, at: socket.socket | None = None, kind: type[uvicorn.Server] = uvicorn.Server, **options: Any
) -> Iterator[str]:
    """Serve an app while the block runs, on loopback or at this socket, and yield its URL on loopback."""
    with at or socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server = server_of(app, kind=kind, **options)
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.end()
            thread.join()


def server_of(app: ASGIApp, *, kind: type[uvicorn.Server] = uvicorn.Server, **options: Any) -> EndsAtOnce:
    config = uvicorn.Config(app, **{"log_config": None, "access_log": False, **options})
    return type(kind.__name__, (EndsAtOnce, kind), {})(config)


class EndsAtOnce(uvicorn.Server):
    """A uvicorn server that ends at once. uvicorn itself checks only every tenth of a second whether to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._is_running = Event()

    def end(self) -> None:
        self._is_running.wait(PATIENCE)
        self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._is_running.set()
        ticks = asyncio.create_task(super().main_loop())  # they update the date in responses and each request's time
        await self._ended.wait()
        ticks.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        del sockets  # `serving` closes its socket itself
        for server in self.servers:
            await stop_listening(server)
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()  # no client waits for its response any more
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self.server_state.connections):
            end = getattr(connection, "abort", None) or connection.transport.abort
            end()
        await self.lifespan.shutdown()
