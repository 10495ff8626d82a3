"""A proxy that simulates a long distance to PostgreSQL, and passes everything on after half a delay in each direction.

It runs as a process: `python -m benchmarks.apart PORT SOCKET MILLISECONDS`.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import uvloop

from benchmarks.processes import environment, free_port, running


class Side(asyncio.Protocol):
    """One end of a connection. The bytes that it receives leave by the other end, later and in their order."""

    def __init__(self, delay: float, target: str | None = None) -> None:
        self._delay, self._target = delay, target
        self._other: Side | None = None
        self._early: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._target is not None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(self._target))

    async def _connect(self, target: str) -> None:
        loop = asyncio.get_running_loop()
        _, self._other = await loop.create_unix_connection(partial(Side, self._delay), target)
        self._other._other = self
        for data in self._early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            asyncio.get_running_loop().call_later(self._delay, self._other.write, data)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()


@contextmanager
def apart(url: str, milliseconds: float, folder: Path) -> Iterator[str]:
    """Yield the address of a PostgreSQL with a unix socket through the proxy. With 0 ms, it is its own address."""
    [directory], [port_of_socket] = map(parse_qs(urlsplit(url).query).__getitem__, ("host", "port"))
    port = free_port()
    if not milliseconds:
        yield url
        return
    command = ("-m", "benchmarks.apart", str(port), f"{directory}/.s.PGSQL.{port_of_socket}", str(milliseconds))
    with running("apart", *command, port=port, folder=folder, env=environment()):
        yield f"postgresql://postgres@127.0.0.1:{port}{urlsplit(url).path}"


async def main(port: int, target: str, milliseconds: float) -> None:
    side = partial(Side, milliseconds / 2000, target)
    server = await asyncio.get_running_loop().create_server(side, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
