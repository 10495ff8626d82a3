"""If a host name has several addresses, each address gets its share of the time limit.

The server's certificate is checked against the host name.
"""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.database_proxy import Proxy, socket_of, with_tls
from tests.listening import Listening, join
from tests.world import until
from wxauth.core.database import Database
from wxauth.core.deadlines import Deadlines
from wxauth.core.outage_texts import outage_text
from wxauth.core.statements import Statement
from wxauth.errors import StorageUnavailable
from wxauth.limits.redis import RedisCounts

NAME = "db.test"
ONE = Statement[int]("SELECT 1 AS one")
HURRIED = Deadlines(connect=2.0, connect_to_any=1.0)


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


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(proxy: Proxy) -> None:
    accepted: list[StreamWriter] = []
    port = proxy.address.rpartition(":")[2]
    async with (
        silent(int(port), accepted),
        aclosing(Database(proxy.url.replace("127.0.0.1", NAME), deadlines=HURRIED)) as database,
    ):
        assert await database.value(ONE) == 1
        await (await database.connector.connect()).close()
        assert len(accepted) == 1, "the address that answered is tried first from then on"
        await proxy.refuse()
        with pytest.raises(StorageUnavailable) as refusal:
            await database.value(ONE)
        text = outage_text(refusal.value)
        assert f"{NAME}:{port} (127.0.0.1): refuses connections" in text
        assert f"{NAME}:{port} (127.0.0.2): doesn't respond in time" in text


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require", "verify-full&sslnegotiation=direct"])
async def test_a_certificate_is_checked_against_the_name(database_url: str, tmp_path: Path, mode: str) -> None:
    authority, accepted = Authority(tmp_path), list[StreamWriter]()
    parameters = f"sslmode={mode}&sslrootcert={authority.file}"
    for host, is_good in (NAME, True), ("other.test", not mode.startswith("verify-full")):
        context = authority.server(host)
        if is_direct := mode.endswith("direct"):
            context.set_alpn_protocols(["postgresql"])

        async def after_tls(reader: StreamReader, writer: StreamWriter) -> None:
            await join(reader, writer, *await asyncio.open_unix_connection(socket_of(database_url)))

        listening = Listening(after_tls, tls=context) if is_direct else Listening(with_tls(context, database_url))
        async with listening as tls, silent(tls.port, accepted):
            url = f"postgresql://postgres@{NAME}:{tls.port}{urlsplit(database_url).path}?{parameters}"
            async with aclosing(Database(url, deadlines=HURRIED)) as database:
                if is_good:
                    assert await database.value(ONE) == 1
                else:
                    with pytest.raises(StorageUnavailable) as refusal:
                        await database.value(ONE)
                    assert "has a certificate that isn't trusted" in outage_text(refusal.value)
    assert accepted


async def answer_as_redis(reader: StreamReader, writer: StreamWriter) -> None:
    """Return 1 for every script, and OK for any other command."""
    while line := await reader.readline():
        parts = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            parts.append((await reader.readexactly(size + 2))[:-2])
        writer.write(b":1\r\n" if parts[0].upper() in (b"EVAL", b"TTL") else b"+OK\r\n")


@pytest.mark.no_database
@pytest.mark.parametrize("tls", [False, True])
async def test_each_address_of_redis_gets_its_share_too(tmp_path: Path, tls: bool) -> None:
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
