"""The servers of `wxauth-desk dev`: one for the service, and one in a thread for each other ASGI app."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
import uvicorn
from starlette.types import ASGIApp

SERVER_OPTIONS: Final[Mapping[str, Any]] = {"http": "h11", "log_config": None, "access_log": False}
"""The options of uvicorn for every part except the service.

The parts use h11, because with httptools, uvicorn loses the body of a client that requests HTTP/2 (h2c), as Java's
client does.
"""
_GRACEFUL_SECONDS: Final = 1
"""The longest time, in seconds, for which uvicorn waits for requests under way when it stops."""
_STOP_TIMEOUT_SECONDS: Final = 5
"""The longest time, in seconds, to wait for the end of a server's thread.

The time is limited, so that a request that never ends does not keep the command from ending.
"""


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
        """Start as uvicorn does, and print the welcome."""
        await super().startup(sockets)
        click.echo(self._welcome)
