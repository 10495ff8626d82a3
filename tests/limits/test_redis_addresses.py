"""If Redis's host name has several addresses, each address gets its share of the time limit.

The server's certificate is checked against the host name.
"""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.listening import Listening
from tests.world import until
from wxauth.limits.redis import RedisCounts

pytestmark = pytest.mark.no_database

NAME = "redis.test"


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the host name an address that doesn't answer, and then an address that does."""
    look_up = socket.getaddrinfo

    def found(host: Any, port: Any, *rest: Any, **hints: Any) -> list[Any]:
        if host != NAME:
            return look_up(host, port, *rest, **hints)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in ("127.0.0.2", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@asynccontextmanager
async def silent(port: int, accepted: list[StreamWriter]) -> AsyncIterator[None]:
    """Listen at the host name's other address, which accepts connections but sends nothing."""

    async def serve(_: StreamReader, writer: StreamWriter) -> None:
        accepted.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.2", port)
    yield
    server.close()
    for writer in accepted:
        writer.transport.abort()


async def answer_as_redis(reader: StreamReader, writer: StreamWriter) -> None:
    """Return 1 for every script, and OK for any other command."""
    while line := await reader.readline():
        parts = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            parts.append((await reader.readexactly(size + 2))[:-2])
        writer.write(b":1\r\n" if parts[0].upper() in (b"EVAL", b"TTL") else b"+OK\r\n")


@pytest.mark.parametrize("tls", [False, True])
async def test_each_address_of_redis_gets_its_share(tmp_path: Path, tls: bool) -> None:
    authority, accepted = Authority(tmp_path), list[StreamWriter]()
    for host in (NAME, "other.test") if tls else (NAME,):
        context = authority.server(host) if tls else None
        async with Listening(answer_as_redis, tls=context) as redis, silent(redis.port, accepted):
            scheme, more = ("rediss", f"?ssl_ca_certs={authority.file}") if tls else ("redis", "")
            url = f"{scheme}://{NAME}:{redis.port}/0{more}"
            async with asyncio.timeout(2), aclosing(RedisCounts(url, what="login", patience=1.0)) as counts:
                if host == NAME:
                    assert await counts.add("alice", seconds=60) == 1
                    assert await counts.seconds_left("alice") == 1
                else:
                    with pytest.raises(Exception, match="certificate"):
                        await counts.add("alice", seconds=60)
    await until(lambda: accepted)
