"""The pool from which statements and transactions borrow connections to PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import asyncpg

MAX_IDLE_SECONDS: Final = 240.0
"""The idle time, in seconds, after which wxauth closes a connection instead of lending it again.

Firewalls and proxies often drop an idle connection after five minutes.
"""
CLOSE_TIMEOUT_SECONDS: Final = 3.0
"""The time limit, in seconds, for closing a connection in an orderly way."""


class _Idle(NamedTuple):
    """An idle connection, and the time at which it was released, in the event loop's time."""

    connection: asyncpg.Connection
    since: float


class Connections:
    """A small connection pool. It opens a connection if none is idle, and lends at most `size` at the same time.

    wxauth does not use asyncpg's own pool, because that pool creates a task for each release. Connections are not reset
    when they are returned, because statements and transactions leave no state. See
    docs/contribute/decisions/0004-connection-pool.md.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, size: int) -> None:
        self._connect = connect
        self._places = asyncio.Semaphore(size)
        """A place for each connection that can be lent at the same time."""
        self._idle: list[_Idle] = []
        """The idle connections. The connection that was released last is the last in the list."""
        self._lent: dict[asyncpg.Connection, int] = {}
        """The lent connections, each with the value that `_generation` had when the connection was lent."""
        self._generation = 0
        """A number that increases when all connections expire, and when the pool is closed."""

    async def acquire(self) -> asyncpg.Connection:
        """Lend the idle connection that was released last, or open one. The caller must `release` it.

        If the largest number of connections is lent, wait until one is released.

        Raises: any error of the function that opens connections.
        """
        await self._places.acquire()
        try:
            connection = self._take_idle() or await self._connect()
        except BaseException:
            self._places.release()
            raise
        self._lent[connection] = self._generation
        return connection

    def release(self, connection: asyncpg.Connection) -> None:
        """Take a connection back, and keep it for the next caller if it is open.

        If it was lent before the last `expire` or `aclose`, close it instead.

        If the connection is kept, also close the connection that has been idle for longest, if its idle time has
        reached `MAX_IDLE_SECONDS`. The pool lends the connection that was released last, so the additional connections
        from a busy period would otherwise stay open unused.
        """
        is_current = self._lent.pop(connection) == self._generation
        if is_current and not connection.is_closed():
            now = asyncio.get_running_loop().time()
            self._idle.append(_Idle(connection, now))
            if now - self._idle[0].since >= MAX_IDLE_SECONDS:
                self._idle.pop(0).connection.terminate()
        else:
            connection.terminate()
        self._places.release()

    def expire(self) -> None:
        """Close all connections that exist now: idle ones immediately, and lent ones when they are released."""
        self._generation += 1
        while self._idle:
            self._idle.pop().connection.terminate()

    async def aclose(self) -> None:
        """Close the idle connections now. Lent ones are closed when they are released."""
        self._generation += 1
        idle, self._idle = self._idle, []
        closing = (each.connection.close(timeout=CLOSE_TIMEOUT_SECONDS) for each in idle)
        await asyncio.gather(*closing, return_exceptions=True)

    def _take_idle(self) -> asyncpg.Connection | None:
        """Return the usable idle connection that was released last; None if there is none.

        A connection is unusable if it is closed, or has been idle for `MAX_IDLE_SECONDS`. Close the unusable
        connections that were released after the returned connection.
        """
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, since = self._idle.pop()
            if not connection.is_closed() and now - since < MAX_IDLE_SECONDS:
                return connection
            connection.terminate()
        return None
