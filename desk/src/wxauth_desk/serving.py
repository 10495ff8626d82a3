"""The servers of `wxauth-desk dev`: one for the service, and one in a thread for each other ASGI app."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
import uvicorn
from starlette.types import ASGIApp

# With httptools, uvicorn loses the body of a client that requests HTTP/2 (h2c), as Java's client does.
SERVER_OPTIONS: Final[Mapping[str, Any]] = {"http": "h11", "log_config": None, "access_log": False}
_GRACEFUL_SECONDS: Final = 1  # for requests under way when uvicorn stops
# A request that never ends must not keep the command from ending.
_STOP_TIMEOUT_SECONDS: Final = 5


@contextmanager
def in_thread(create_app: Callable[[], ASGIApp], listener: socket.socket, *, name: str) -> Iterator[None]:
    """Serve an app in a thread with this name during the block. The thread calls `create_app` to create the app."""
    config = uvicorn.Config(create_app, factory=True, timeout_graceful_shutdown=_GRACEFUL_SECONDS, **SERVER_OPTIONS)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=_STOP_TIMEOUT_SECONDS)


class Server(uvicorn.Server):
    """The server of the service. It prints `welcome` as soon as it accepts requests."""

    def __init__(self, config: uvicorn.Config, welcome: str) -> None:
        super().__init__(config)
        self._welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        click.echo(self._welcome)
