"""The way to Postgres: asyncpg itself for single statements, a SQLAlchemy engine for transactions.

A statement by way of SQLAlchemy costs several times what asyncpg itself costs; the hot path is made of
single statements, which are transactions by themselves and leave nothing to reset.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from wxauth.errors import StorageUnavailable
from wxauth.logs import get_logger
from wxauth.store.connections import Connections

DEADLINE: Final = 8.0
"""Seconds for one use of the database, waiting for a connection included."""
STATEMENT_TIMEOUT: Final = 4.0
"""Seconds after which the server itself gives a statement up, and frees what it had locked."""
SILENCE_TIMEOUT: Final = 4.5
"""Seconds after which a server that says nothing is given up."""
LOCK_TIMEOUT: Final = 2.0
"""Seconds that a statement waits for what another one has locked. A lock of ours lasts milliseconds; those who wait
for somebody else's soon leave the few connections to others, who wait for one as long as they have."""
CONNECT_TIMEOUT: Final = 3.0
CONNECT_TIMEOUT_OF_ALL_HOSTS: Final = 6.0
CONNECTIONS: Final = 10
TRANSACTION_CONNECTIONS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds for each part of a use of the database, as told above."""

    whole: float = DEADLINE
    statement: float = STATEMENT_TIMEOUT
    silence: float = SILENCE_TIMEOUT
    lock: float = LOCK_TIMEOUT
    connect: float = CONNECT_TIMEOUT
    connect_to_any: float = CONNECT_TIMEOUT_OF_ALL_HOSTS


DEADLINES: Final = Deadlines()

_PGBOUNCER = "pgbouncer"
_ISOLATION: Final = "READ COMMITTED"
"""Whatever the database's own default: whoever has waited for a lock must see what the one before left."""
_WITHOUT_DEADLINE = text("""
    SELECT set_config(name, '0', true)
      FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout']) name
""")

# The database is away, going, coming, full, or has become a standby.
_AWAY = (
    OSError,
    TimeoutError,
    PoolTimeoutError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
# It answers, and is not what this version needs: not migrated, or without the rights.
_UNFIT = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError)
# What the URL asks for is unknown, or cannot be.
_WRONG_URL = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    ValueError,
    OverflowError,
)
# A connection that its server has just ended fails with the last one, if it is used before asyncpg has seen the end.
_LOST = (OSError, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)

log = get_logger()


class DatabaseUrlRefused(StorageUnavailable):
    """The driver, or PostgreSQL, does not know what the URL asks for; waiting will not help."""


class _ConnectionLost(Exception):
    """The connection broke under a statement, which may have been carried out."""


class Database:
    """Connections to one Postgres, opened when first needed.

    Args:
        url: `postgresql://...`, several hosts allowed. `pgbouncer=true` in its query suits a pooler in
            transaction mode: no prepared statements, no settings at the start of a connection.
        deadlines: How long it may take.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = DEADLINES) -> None:
        self._deadlines = deadlines
        self._dsns, self._options = _connect_options(url, deadlines)
        self._connections = Connections(self._connect, size=CONNECTIONS)
        self._engine: AsyncEngine | None = None

    async def fetchrow(self, statement: str, *arguments: object) -> Mapping[str, Any] | None:
        """The first row of one statement, which commits by itself.

        A statement whose connection is lost on the way is sent once more, on another one: it must be one
        that does no harm when it runs twice.

        Raises: StorageUnavailable, and asyncpg.IntegrityConstraintViolationError for the caller to settle.
        """
        rows = await self.fetch(statement, *arguments)
        return rows[0] if rows else None

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        """All rows of one statement; else as `fetchrow`."""
        async with self.answering():
            try:
                return await self._fetch(statement, arguments)
            except _ConnectionLost:
                return await self._fetch(statement, arguments)

    def answering(self) -> AbstractAsyncContextManager[object]:
        """A block that the database has its whole deadline for, all that is in it counted.

        Raises: StorageUnavailable.
        """
        return _Answering(self._deadlines.whole)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, rolled back when it raises.

        Raises: StorageUnavailable.
        """
        async with self.answering(), self._transactions().begin() as connection:
            yield connection

    @asynccontextmanager
    async def begin_migration(self) -> AsyncIterator[AsyncConnection]:
        """A transaction without a deadline, on a connection of its own.

        Raises: StorageUnavailable, where there is no connection.
        """
        engine = self._make_engine({"command_timeout": None}, poolclass=NullPool)
        try:
            async with engine.begin() as connection:
                await connection.execute(_WITHOUT_DEADLINE)
                yield connection
        except Exception as exc:
            raise_if_unavailable(exc)
            raise
        finally:
            await engine.dispose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()
        if self._engine is not None:
            await self._engine.dispose()

    async def _fetch(self, statement: str, arguments: tuple[object, ...]) -> Sequence[Mapping[str, Any]]:
        connection = await self._connections.acquire()
        try:
            rows: Sequence[Mapping[str, Any]] = await connection.fetch(statement, *arguments)
            return rows
        except BaseException as exc:
            is_lost = isinstance(exc, _LOST) or connection.is_closed()
            if is_lost or isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
                # What befell this connection befell the others: their server is silent, gone, or a standby now.
                self._connections.expire()
            if is_lost or isinstance(exc, asyncio.CancelledError):
                # Not asked to stop politely: that takes the very server that does not answer.
                connection.terminate()
            if is_lost and not isinstance(exc, TimeoutError):  # silence is no loss: a second try would wait as long
                raise _ConnectionLost from exc
            raise
        finally:
            self._connections.release(connection)

    def _transactions(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = self._make_engine(
                {},
                pool_size=TRANSACTION_CONNECTIONS,
                max_overflow=0,
                pool_timeout=self._deadlines.whole,
                pool_pre_ping=True,
            )
        return self._engine

    def _make_engine(self, options: Mapping[str, Any], **engine_options: Any) -> AsyncEngine:
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda **_: self._connect(options),
            connect_args={"prepared_statement_cache_size": 0},
            hide_parameters=True,
            isolation_level=_ISOLATION,  # said in each BEGIN, for a pooler keeps no settings
            **engine_options,
        )

    async def _connect(self, options: Mapping[str, Any] = MappingProxyType({})) -> asyncpg.Connection:
        # Each host has a time of its own, which asyncpg would not give it: a silent one uses up no other's.
        *others, last = self._dsns
        for dsn in others:
            with suppress(*_AWAY):
                return await self._connect_to(dsn, options)
        return await self._connect_to(last, options)

    async def _connect_to(self, dsn: str, options: Mapping[str, Any]) -> asyncpg.Connection:
        try:
            connection = await asyncpg.connect(dsn, **{**self._options, **options})
        except _WRONG_URL as exc:
            if isinstance(exc, OSError):  # a certificate that does not hold is a ValueError too
                raise
            raise DatabaseUrlRefused("the database's URL cannot be used") from exc
        self._dsns.sort(key=lambda other: other != dsn)  # the one that answers is asked first next time
        return connection


class _Answering:
    """A deadline for the database, and one name for all the ways in which it can be away."""

    __slots__ = ("_seconds", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        self._timeout = asyncio.timeout(self._seconds)
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, traceback)
        except TimeoutError as late:
            raise StorageUnavailable("the database does not answer") from late
        if exc is not None:
            raise_if_unavailable(exc)


def raise_if_unavailable(exc: BaseException) -> None:
    """Give a failure that is the database's own state its name; leave one that is our mistake as it is.

    Raises: StorageUnavailable.
    """
    if is_away(exc):
        raise StorageUnavailable("the database does not answer") from exc
    if isinstance(driver_error(exc), _UNFIT):
        log.error("database_unfit", reason=reason_of(exc), what_to_change="run 'wxauth migrate'; see 'wxauth check'")
        raise StorageUnavailable("the database is not as this version needs it: see 'wxauth check'") from exc


def is_away(exc: BaseException) -> bool:
    """Whether this failure says that the database is not there, rather than that we asked it wrongly."""
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    return isinstance(driver_error(exc), (*_AWAY, _ConnectionLost))


def reason_of(exc: BaseException) -> str:
    """What the database itself said, else what kind of silence it was; nothing of the URL's."""
    cause: BaseException = exc
    while cause.__cause__ is not None and not isinstance(cause, TimeoutError):
        cause = cause.__cause__
    is_its_own = isinstance(cause, asyncpg.PostgresError) and cause.sqlstate is not None
    return str(cause).partition("\n")[0] if is_its_own else type(cause).__name__


def driver_error(exc: BaseException) -> BaseException:
    """What asyncpg raised, where SQLAlchemy has wrapped it."""
    return exc.driver_exception if isinstance(exc, DBAPIError) else exc


def _connect_options(url: str, deadlines: Deadlines) -> tuple[list[str], dict[str, Any]]:
    """A DSN for each host, and what asyncpg takes beside them."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = {
        "application_name": "wxauth",
        "default_transaction_isolation": _ISOLATION,
        "statement_timeout": f"{deadlines.statement * 1000:.0f}",
        "lock_timeout": f"{deadlines.lock * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{deadlines.whole * 1000:.0f}",
    }
    options: dict[str, Any] = {"command_timeout": deadlines.silence}
    # libpq's own, which asyncpg would hand to the server as a setting of the session.
    query.pop("connect_timeout", None)
    if query.get("channel_binding") in ("prefer", "disable"):
        del query["channel_binding"]
    if query.pop(_PGBOUNCER, "") in ("1", "true"):
        options["statement_cache_size"] = 0
        settings = {"application_name": settings["application_name"]}
    options["server_settings"] = {name: value for name, value in settings.items() if name not in query}
    dsns = _dsn_of_each_host(parts, query)
    options["timeout"] = min(deadlines.connect, deadlines.connect_to_any / len(dsns))
    return dsns, options


def _dsn_of_each_host(parts: SplitResult, query: dict[str, str]) -> list[str]:
    user, at, netloc = parts.netloc.rpartition("@")
    hosts = netloc.split(",") if netloc else query.get("host", "").split(",")
    if len(hosts) > 1:
        query.setdefault("target_session_attrs", "read-write")
    if netloc:
        return [urlunsplit(parts._replace(netloc=user + at + host, query=urlencode(query))) for host in hosts]
    ports = query.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return [
        urlunsplit(parts._replace(query=urlencode({**query, "host": host, "port": port})))
        for host, port in zip(hosts, ports, strict=True)
    ]
