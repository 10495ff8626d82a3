"""uvicorn's server with `HttpProtocol`: it enforces time limits, and stops gracefully."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Final, cast

import uvicorn

from wxauth.server.core.logs import get_logger
from wxauth.server.web.http_protocol import HttpProtocol, ServerConnections

_TICKS_BETWEEN_LOOKS: Final = 5
"""Ticks of uvicorn, of which there are ten a second, between two checks of time limits."""
_TICK_SECONDS: Final = 0.05
"""Seconds between two checks while the server stops."""

log = get_logger()


class Server(uvicorn.Server):
    """Serves until it is stopped, and stops so that a reverse proxy loses no request.

    From the signal on, answers have `Connection: close`. For `learning` seconds the server still accepts connections
    and answers every request, because the proxy must first learn that it stops. Then requests in progress get uvicorn's
    `timeout_graceful_shutdown`.

    Args:
        learning: Seconds that a proxy needs to learn that this server stops. After SIGINT, which a person sends, none.
        on_leaving: Called in the signal handler.
    """

    def __init__(
        self, config: uvicorn.Config, *, learning: float = 0.0, on_leaving: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(config)
        self.server_state: ServerConnections = ServerConnections()
        self._learning = learning
        self._on_leaving = on_leaving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn around all. Signals stop only what serves gracefully, because its startup may wait."""
        with ExitStack() as self._until_stopped:
            yield
            self._captured_signals.clear()  # uvicorn would raise them again: the caller knows why this has ended

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        self._until_stopped.enter_context(super().capture_signals())

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second. Checking time limits here is cheaper than a timer for each request."""
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            self._check_deadlines()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn for SIGTERM and SIGINT."""
        if sig == signal.SIGINT:
            self._learning = 0.0
        self.server_state.is_leaving = True
        self._on_leaving()
        super().handle_exit(sig, frame)

    def hand_over(self) -> None:
        """Stop, because another process has taken over the port. `on_leaving` is not called: the service continues."""
        self.server_state.is_leaving = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop gracefully."""
        self.server_state.is_leaving = True
        self.server_state.learning = self._learning
        loop = asyncio.get_running_loop()
        learnt_at = loop.time() + self._learning
        log.info("leaving", connections=len(self._connections()), requests=len(self.server_state.tasks))
        while not self.force_exit and loop.time() < learnt_at:
            self._check_deadlines()
            await asyncio.sleep(_TICK_SECONDS)
        await self._stop_listening(sockets or [])
        closing = asyncio.create_task(self._close_quiet_connections())
        try:
            await super().shutdown()
            await asyncio.sleep(_TICK_SECONDS)  # for the answers to cancelled requests
        finally:
            closing.cancel()
            for connection in self._connections():
                connection.abort()

    async def _close_quiet_connections(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._check_deadlines()
            for connection in self._connections():
                connection.shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Stop listening. Connections that wait in the backlog are still served: the kernel would reset them."""
        waiting = [connection for listener in sockets for connection in _accepted(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.BaseProtocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn constructs it
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _check_deadlines(self) -> None:
        for connection in self._connections():
            connection.check_deadline()

    def _connections(self) -> list[HttpProtocol]:
        return cast("list[HttpProtocol]", list(self.server_state.connections))


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    with suppress(OSError):  # the backlog is empty, or the listener has been closed
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection
