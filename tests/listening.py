"""A server on loopback in the test's own event loop, which closes everything when it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

Serve = Callable[[StreamReader, StreamWriter], Awaitable[None]]

STEPS_OF_AN_ACCEPT: Final = 4
"""The steps of the event loop: notice the connection, accept it, create its transport and notify its protocol."""


class Listening:
    """A server that handles each connection in a task of its own.

    The task doesn't have to handle a client that disconnects. When the task ends, the connection ends. When the server
    ends, it cancels the tasks.
    """

    def __init__(self, serve: Serve, *, tls: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._tls = tls
        self._serving: dict[StreamWriter, asyncio.Task[None]] = {}
        self._writers: list[StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_listening(self._server)
        tasks = list(self._serving.values())
        for writer, task in self._serving.items():
            task.cancel()
            writer.transport.abort()  # a task that is cancelled before its first step doesn't end its connection
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Return the number of connections that the client hasn't closed."""
        return sum(not _has_gone(writer) for writer in self._writers)

    # This method is not a coroutine. A coroutine could be cancelled between the connection and the task's first step,
    # and would then leave the connection open.
    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.append(writer)
        self._serving[writer] = asyncio.get_running_loop().create_task(self._serve_whole(reader, writer))

    async def _serve_whole(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has disconnected
        finally:
            writer.transport.abort()
            del self._serving[writer]


async def stop_listening(server: asyncio.Server) -> None:
    """Close a server after it has registered all connections that it has accepted. It accepts no more from now on.

    If a server is closed between accepting a connection and creating its transport, asyncio drops the connection
    without closing it.
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    for _ in range(STEPS_OF_AN_ACCEPT):
        await asyncio.sleep(0)
    server.close()


async def join(reader: StreamReader, writer: StreamWriter, from_server: StreamReader, to_server: StreamWriter) -> None:
    """Pass bytes on in both directions until one side ends."""
    ways = [asyncio.create_task(_pass_on(reader, to_server)), asyncio.create_task(_pass_on(from_server, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        to_server.transport.abort()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)


def _has_gone(writer: StreamWriter) -> bool:
    """Return whether the other side has closed this connection, even if no code here reads from it."""
    if writer.is_closing():
        return True
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as here:
        try:
            return here.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
