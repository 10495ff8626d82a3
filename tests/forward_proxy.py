"""A forward proxy on loopback that forwards requests, or misbehaves as configured."""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.listening import Listening, join
from tests.upstream import Behaviour

USER, PASSWORD = "wxauth", "p@ss/word:of-the-proxy"
CREDENTIALS = f"{USER}:p%40ss%2Fword%3Aof-the-proxy"
"""The credentials, encoded for a URL."""


class ForwardProxy(Listening):
    """A proxy that requires its user and password. `instead` replaces the response to CONNECT.

    `hosts` maps the names that this proxy alone can resolve to the addresses to connect to.
    """

    def __init__(
        self,
        *,
        instead: Behaviour | None = None,
        on_connect: Behaviour | None = None,
        tls: ssl.SSLContext | None = None,
        hosts: Mapping[str, str] | None = None,
        forbids: str | None = None,
    ) -> None:
        super().__init__(self._pass, tls=tls)
        self._hosts = hosts or {}
        self._forbids = forbids
        self._instead = instead
        self._on_connect = on_connect
        self.heads: list[str] = []

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{CREDENTIALS}@127.0.0.1:{self.port}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._on_connect is not None:
            await self._on_connect(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self._instead is not None:
            await self._instead(writer)
            await reader.read()
        elif f"Proxy-Authorization: Basic {expected}\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith("CONNECT "):
            host, _, port = head.split(" ")[1].rpartition(":")
            if host == self._forbids:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with_server = await asyncio.open_connection(self._hosts.get(host, host.strip("[]")), int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: a proxy\r\n\r\n")
            await join(reader, writer, *with_server)
        else:
            method, url, rest = head.split(" ", 2)
            parts = urlsplit(url)
            assert parts.hostname is not None
            from_server, to_server = await asyncio.open_connection(parts.hostname, parts.port)
            fields = [line for line in rest.split("\r\n") if not line.startswith("Proxy-Authorization")]
            target = f"{parts.path}?{parts.query}"
            to_server.write(" ".join([method, target, "\r\n".join(fields)]).encode())
            await join(reader, writer, from_server, to_server)
