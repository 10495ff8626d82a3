"""Servers on loopback: a WeChat that misbehaves as a test requires, and a Redis."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

from tests.listening import Listening

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""A function that handles a connection after a request has been read from it."""


def answer(body: object, *, status: str = "200 OK", headers: str = "") -> Behaviour:
    """Send a response with these bytes, or with any other body as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content)
        await writer.drain()

    return behave


def raw(content: bytes) -> Behaviour:
    """Send these bytes, and close the connection."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        writer.close()

    return behave


def endless(head: bytes, chunk: bytes, *, pause: float = 0) -> Behaviour:
    """Send a response that never ends."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


def in_pieces(*pieces: bytes, then: Behaviour | None = None) -> Behaviour:
    """Send each of these pieces in its own packet."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            for _ in range(4):  # the other side, in the same loop, gets time to read the piece
                await asyncio.sleep(0)
        if then is not None:
            await then(writer)

    return behave


def after(gate: asyncio.Event, then: Behaviour) -> Behaviour:
    """Behave like this after the test has opened the gate."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await then(writer)

    return behave


async def hang(_: asyncio.StreamWriter) -> None:
    """Send no response, but keep the connection open."""
    await asyncio.Event().wait()


async def abort(writer: asyncio.StreamWriter) -> None:
    """Close the connection properly."""
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Upstream(Listening):
    """A server that applies one behaviour to each request, and repeats the last behaviour."""

    def __init__(
        self, *behaviours: Behaviour, on_connect: Behaviour | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(self._behave, tls=tls)
        self._behaviours = list(behaviours)
        self._on_connect = on_connect
        self.requests: list[str] = []
        """The request targets that have arrived."""
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    @property
    def codes(self) -> list[str]:
        """Return the `wx.login` codes that have arrived."""
        return [parse_qs(urlsplit(target).query)["js_code"][0] for target in self.requests]

    @property
    def connections(self) -> int:
        """Return how many connections clients have opened."""
        return len(self._writers)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def _behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._on_connect is not None:
            await self._on_connect(writer)
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
            self.heads.append(head)
            self.requests.append(head.split(b" ", 2)[1].decode())
            behave = self._behaviours[0] if len(self._behaviours) == 1 else self._behaviours.pop(0)
            await behave(writer)


class FakeRedis(Listening):
    """A Redis that accepts the greeting, then gives every command the same response.

    If the response is None, it ends the connection.
    """

    def __init__(self, answer: bytes | None = b"") -> None:
        super().__init__(self._converse)
        self.answer = answer
        self.commands = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if greetings := data.count(b"SETINFO"):
                writer.write(b"+OK\r\n" * greetings)
                continue
            self.commands += 1
            if self.answer is None:
                break
            writer.write(self.answer)


def know_no_name(*_: object, **_options: object) -> NoReturn:
    """Replace `socket.getaddrinfo`, and fail at once on any machine, as a name server fails with an unknown name."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
