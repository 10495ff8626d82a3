"""A small pool of asyncpg connections, each lent to one statement or transaction at a time.

With asyncpg's own pool in its place, a login took 1.04 times as much CPU from 32 clients and 1.15 times from 200, a
call of `GET /v1/me` 1.34 times, even with a `reset` that does nothing (medians of eight rounds in turn). That pool
starts a task for each release and a timer for each connection; it would replace this one if it released without a task.
Connections are not reset when they are returned, because statements and transactions leave no state. See
docs/decisions/0004-connection-pool.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg

MAX_IDLE_SECONDS: Final = 240.0
"""Firewalls and proxies forget a silent connection, often after five minutes."""
CLOSE_TIMEOUT_SECONDS: Final = 3.0


class Connections:
    """The pool. It opens a connection if none is idle, and lends at most `size` at once."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, size: int) -> None:
        self._connect = connect
        self._free = asyncio.Semaphore(size)
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._lent: dict[asyncpg.Connection, int] = {}
        self._generation = 0

    async def acquire(self) -> asyncpg.Connection:
        """Lend a connection, which the caller must `release`. The one used last is lent first."""
        await self._free.acquire()
        try:
            connection = self._take_idle() or await self._connect()
        except BaseException:
            self._free.release()
            raise
        self._lent[connection] = self._generation
        return connection

    def release(self, connection: asyncpg.Connection) -> None:
        """Take a connection back. It is dropped if it is closed, or was opened before the last `expire`."""
        is_current = self._lent.pop(connection) == self._generation
        if is_current and not connection.is_closed():
            self._idle.append((connection, _now()))
        else:
            connection.terminate()
        self._free.release()

    def expire(self) -> None:
        """Drop all present connections: idle ones now, lent ones when they are released."""
        self._generation += 1
        while self._idle:
            self._idle.pop()[0].terminate()

    async def aclose(self) -> None:
        """Close the idle connections now, and drop lent ones when they are released."""
        self._generation += 1
        idle, self._idle = self._idle, []
        closing = (connection.close(timeout=CLOSE_TIMEOUT_SECONDS) for connection, _ in idle)
        await asyncio.gather(*closing, return_exceptions=True)

    def _take_idle(self) -> asyncpg.Connection | None:
        while self._idle:
            connection, since = self._idle.pop()
            if not connection.is_closed() and _now() - since < MAX_IDLE_SECONDS:
                return connection
            connection.terminate()
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
