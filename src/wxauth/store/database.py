"""The way to Postgres: an asyncpg pool for single statements, a SQLAlchemy engine for transactions.

A statement by way of SQLAlchemy costs several times what asyncpg itself costs; the hot path is made of
single statements, which are transactions by themselves and leave nothing to reset.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from wxauth.errors import StorageUnavailable

DEADLINE: Final = 8.0
"""Seconds for one use of the database, waiting for a connection included."""
STATEMENT_TIMEOUT: Final = 5.0
CONNECT_TIMEOUT: Final = 3.0
POOL_SIZE: Final = 10
TRANSACTION_POOL_SIZE: Final = 5

_PGBOUNCER = "pgbouncer"

# The database is away, going, coming, full, or has become a standby.
_AWAY = (
    OSError,
    TimeoutError,
    PoolTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    asyncpg.OutOfMemoryError,
    asyncpg.DiskFullError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.UndefinedTableError,  # not migrated yet
)


class Database:
    """Connections to one Postgres, opened when first needed.

    Args:
        url: `postgresql://...`, several hosts allowed. `pgbouncer=true` in its query turns prepared
            statements off, as a pooler in transaction mode demands.
    """

    def __init__(self, url: str) -> None:
        self._dsn, self._options = _connect_options(url)
        self._pool: asyncpg.Pool | None = None
        self._pool_lock = asyncio.Lock()
        self._engine: AsyncEngine | None = None

    async def fetchrow(self, statement: str, *arguments: object) -> Mapping[str, Any] | None:
        """The first row of one statement, which commits by itself.

        Raises: StorageUnavailable, and asyncpg.IntegrityConstraintViolationError for the caller to settle.
        """
        pool = self._pool or await self._open_pool()
        async with _Answering():
            connection = await pool.acquire()
            try:
                row: Mapping[str, Any] | None = await connection.fetchrow(statement, *arguments)
                return row
            except (TimeoutError, asyncio.CancelledError):
                # Not asked to stop politely: that takes the very server that does not answer.
                connection.terminate()
                raise
            finally:
                await pool.release(connection)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, rolled back when it raises.

        Raises: StorageUnavailable.
        """
        async with _Answering(), self._transactions().begin() as connection:
            yield connection

    @asynccontextmanager
    async def begin_migration(self) -> AsyncIterator[AsyncConnection]:
        """A transaction without a deadline, on a connection of its own.

        Raises: StorageUnavailable, where there is no connection.
        """
        options = {**self._options, "command_timeout": None}
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda **_: asyncpg.connect(self._dsn, **options),
            poolclass=NullPool,
        )
        try:
            async with engine.begin() as connection:
                yield connection
        except Exception as exc:
            if is_away(exc):
                raise StorageUnavailable("the database does not answer") from exc
            raise
        finally:
            await engine.dispose()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()
        if self._engine is not None:
            await self._engine.dispose()

    async def _open_pool(self) -> asyncpg.Pool:
        async with self._pool_lock:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn, min_size=0, max_size=POOL_SIZE, reset=_leave_as_it_is, **self._options
                )
            return self._pool

    def _transactions(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = create_async_engine(
                "postgresql+asyncpg://",
                async_creator=self._connect,
                connect_args={"prepared_statement_cache_size": 0},
                pool_size=TRANSACTION_POOL_SIZE,
                max_overflow=0,
                pool_timeout=CONNECT_TIMEOUT,
                pool_pre_ping=True,
                hide_parameters=True,
            )
        return self._engine

    async def _connect(self, **_: Any) -> asyncpg.Connection:
        return await asyncpg.connect(self._dsn, **self._options)


class _Answering:
    """A deadline for the database, and one name for all the ways in which it can be away."""

    __slots__ = ("_timeout",)

    async def __aenter__(self) -> Self:
        self._timeout = asyncio.timeout(DEADLINE)
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, traceback)
        except TimeoutError as late:
            raise StorageUnavailable("the database does not answer") from late
        if exc is not None and is_away(exc):
            raise StorageUnavailable("the database does not answer") from exc


def is_away(exc: BaseException) -> bool:
    """Whether this failure says that the database is not there, rather than that we asked it wrongly."""
    if isinstance(exc, DBAPIError):
        exc = exc.orig.__cause__ or exc if exc.orig is not None else exc
    return isinstance(exc, _AWAY)


async def _leave_as_it_is(_: object) -> None:
    # Single statements leave nothing behind; the stock reset would be a second round trip for each.
    return


def _connect_options(url: str) -> tuple[str, dict[str, Any]]:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    options: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT,
        "command_timeout": STATEMENT_TIMEOUT,
        "server_settings": {"application_name": "wxauth"},
    }
    if query.pop(_PGBOUNCER, "") in ("1", "true"):
        options["statement_cache_size"] = 0
    if "," in parts.netloc and "target_session_attrs" not in query:
        query["target_session_attrs"] = "read-write"
    return urlunsplit(parts._replace(query=urlencode(query))), options
