"""A proxy to PostgreSQL that simulates failures of a network."""

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import asdict, replace
from ssl import SSLContext
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.listening import Serve, join, stop_listening
from wxauth.core.connecting import DEADLINES, Deadlines

HASTE: Final = 4
HURRIED: Final = replace(
    Deadlines(**{name: seconds / HASTE for name, seconds in asdict(DEADLINES).items()}),
    connect=DEADLINES.connect,
    connect_to_any=DEADLINES.connect_to_any,
)
"""The production deadlines, shortened: one second in the tests stands for `HASTE` seconds in production.

Connecting keeps its deadline, because a busy machine must meet it. If connecting hangs, `total` ends it.
"""
PATIENT: Final = Deadlines(**{name: 10 * seconds for name, seconds in asdict(DEADLINES).items()})
"""Long deadlines for hundreds of concurrent calls on a busy machine."""


class Proxy:
    """A TCP port in front of a PostgreSQL server on a unix socket."""

    def __init__(self, url: str) -> None:
        self.go_to(url)
        self._server: asyncio.Server | None = None
        self._lets_in = False
        self._port = 0
        self._connections: set[_Connection] = set()
        self._is_silent = False
        self._loses_answer_with: bytes | None = None
        self.round_trips = 0
        """The number of times that a client has sent something after a response."""

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.address}{self._path}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def go_to(self, url: str) -> None:
        """Connect to another server from now on. A restarted server has another socket."""
        self._path, self._socket = urlsplit(url).path, socket_of(url)

    async def accept(self) -> None:
        self._lets_in = True
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections. Existing connections end first, before this method waits for anything."""
        assert self._server is not None
        self.shut()
        await stop_listening(self._server)

    def shut(self, *, again: bool = False) -> None:
        """End all connections, and end each new one at once. With `again`, let new connections in."""
        self._lets_in = again
        self.drop()

    def drop(self) -> None:
        """End all connections."""
        for connection in self._connections:
            connection.end()

    def fall_silent(self) -> None:
        """Accept connections, but pass nothing on."""
        self._is_silent = True
        for connection in self._connections:
            connection.is_silent = True

    def speak(self) -> None:
        """Pass data on again.

        Connections that were open during the silence stay dead, as they do after a firewall has forgotten them.
        """
        self._is_silent = False

    def lose_next_answer(self, *, containing: bytes = b"") -> None:
        """End the connection instead of passing on the server's next response that contains these bytes."""
        self._loses_answer_with = containing

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        if not self._lets_in:
            writer.close()
            return
        connection = _Connection(writer, is_silent=self._is_silent)
        self._connections.add(connection)
        with suppress(OSError):
            answers, server = await asyncio.open_unix_connection(self._socket)
            connection.writers.append(server)
            if writer.is_closing():
                connection.end()  # `drop` ran before the connection to the server was open
            await asyncio.gather(
                self._pass_on(connection, reader, server), self._pass_on(connection, answers, writer, are_answers=True)
            )
        connection.end()
        self._connections.discard(connection)

    async def _pass_on(
        self, connection: "_Connection", reader: StreamReader, writer: StreamWriter, *, are_answers: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.round_trips += not are_answers and connection.was_answered
                connection.was_answered = are_answers
                if are_answers and self._loses_answer_with is not None and self._loses_answer_with in data:
                    self._loses_answer_with = None
                    break
                if not connection.is_silent:
                    writer.write(data)
        if not connection.is_silent:
            connection.end()


class _Connection:
    def __init__(self, client: StreamWriter, *, is_silent: bool) -> None:
        self.writers = [client]
        self.is_silent = is_silent
        self.was_answered = False
        """Whether the most recent data passed on was a response."""

    def end(self) -> None:
        for writer in self.writers:
            writer.close()


def with_tls(context: SSLContext, database_url: str) -> Serve:
    """Return a handler that adds TLS in front of this test's database."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except OSError:  # the client does not trust this certificate
            return
        await join(reader, writer, *await asyncio.open_unix_connection(socket_of(database_url)))

    return serve


def socket_of(url: str) -> str:
    """Return the path of the unix socket in a PostgreSQL URL."""
    [folder], [port] = map(parse_qs(urlsplit(url).query).__getitem__, ("host", "port"))
    return f"{folder}/.s.PGSQL.{port}"
