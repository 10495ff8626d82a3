"""Access to PostgreSQL: one pool of connections, and the mapping of its errors to ours.

Statements are run by asyncpg directly: a short one takes 25 µs of CPU so, and 8 to 9 times as much through SQLAlchemy's
connections (`AUTOCOMMIT`, a `text()` made once; medians of nine rounds in turn, 1 and 10 at once). See
docs/decisions/0001-statements-are-text.md.
"""

import asyncio
import mmap
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from struct import pack_into, unpack_from
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit
from zlib import crc32

import asyncpg
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from wxauth.errors import StorageUnavailable, Title
from wxauth.server.core.logs import LogInterval, get_logger, message_of
from wxauth.server.core.statements import Nothing, Statement, T_co

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


MAX_IDLE_SECONDS: Final = 240.0
"""Firewalls and proxies forget a silent connection, often after five minutes."""
CLOSE_TIMEOUT_SECONDS: Final = 3.0


class Connections:
    """A small pool, which opens a connection if none is idle, and lends at most `size` at once.

    With asyncpg's own pool in its place, a login took 1.04 times as much CPU from 32 clients and 1.15 times from 200, a
    call of `GET /v1/me` 1.34 times, even with a `reset` that does nothing (medians of eight rounds in turn). That pool
    starts a task for each release and a timer for each connection; it would replace this one if it released without a
    task. Connections are not reset when they are returned, because statements and transactions leave no state. See
    docs/decisions/0004-connection-pool.md.
    """

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


CONNECTIONS: Final = 15
TRANSACTIONS: Final = 5
"""How many connections transactions may hold at once. Without this limit, transactions that wait for a lock would take
the connections that logins need."""
SNAPSHOTS: Final = 4
"""How many snapshots may be open at once. Each has a connection of its own, outside of the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Time limits of database access, in seconds."""

    whole: float = 8.0
    """For one statement or transaction, including the wait for a connection."""
    statement: float = 4.0
    """After this the server cancels a statement, and releases its locks."""
    silence: float = 4.5
    """After this the connection to a server that does not answer is given up."""
    lock: float = 2.0
    """For waiting for a lock. Our own locks last milliseconds; a longer wait for another client's lock would hold
    connections that other requests need."""
    connect: float = 3.0
    connect_to_any: float = 6.0

    @property
    def limits(self) -> dict[str, int]:
        """The settings by which the server enforces limits, in milliseconds."""
        limits = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.whole,
        }
        return {name: round(seconds * 1000) for name, seconds in limits.items()}


DEADLINES: Final = Deadlines()

WHERE_NOTHING_IS_KEPT: Final = "put ?pgbouncer=true into WXAUTH_DATABASE_URL; PgBouncer from 1.21 on keeps prepared \
statements with max_prepared_statements = 100, and then takes ?pgbouncer=prepared"

_PGBOUNCER: Final = "pgbouncer"
_CACHE: Final = "statement_cache_size"  # asyncpg's name for it, and its own default
_ENOUGH: Final = 100
_ECHO: Final = "SELECT $1::int"
_PROBE: Final = "wxauth_check"
"""The only name of a statement behind `?pgbouncer=true`. PostgreSQL logs it: see `Database.keeps_prepared`."""
ISOLATION: Final = "READ COMMITTED"
"""Always set, because the database's default may differ: a statement that has waited for a lock must see what the
lock's holder committed."""
_BEGIN: Final = f"BEGIN ISOLATION LEVEL {ISOLATION}"  # in each transaction, because a pooler keeps no settings
_BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PATIENT: Final = ("statement_timeout", "idle_in_transaction_session_timeout")
_UNLIMITED: Final = Statement[str]("""
SELECT format('ALTER ROLE %I SET %s = %L', current_user, name, milliseconds || 'ms') AS mend
  FROM unnest(:names::text[], :milliseconds::int[]) WITH ORDINALITY
       AS wanted (name, milliseconds, place) JOIN pg_settings USING (name)
 WHERE setting = '0' ORDER BY place
""")
_TIME: Final = Statement[datetime]("SELECT clock_timestamp() AS now")

# The database is unreachable, starting, stopping, full, closed or now a standby; or a lock was not released in time.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
# Our transaction conflicted with another one, and the server has rolled ours back.
_CLASHED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# The database does not fit this version: it is not migrated, or our role lacks privileges.
_UNFIT = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError)
# A pooler has moved us to another server connection, where our prepared statements are missing or clash.
_STATEMENT_LOST = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
# The URL has an option that is unknown or impossible.
_WRONG_URL = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    ValueError,
    OverflowError,
)
# The connection is lost. InternalClientError: the server has just ended it, and asyncpg has not noticed yet.
_LOST = (OSError, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)

_NO_ROOT_CERTIFICATE: Final = ("root certificate file", "cannot determine location of user PostgreSQL")
_REFUSED_TLS: Final = "rejected SSL upgrade"  # asyncpg's own words

log = get_logger()

Row = TypeVar("Row", bound="Mapping[str, object] | BaseModel | DataclassInstance")


class Troubles(LogInterval):
    """Logs that the database does not answer, at intervals in place of each use of it, and how long that lasted."""

    def share(self) -> None:
        """Start again with a state that this process shares with all processes forked from it."""
        super().share()
        self._outage = mmap.mmap(-1, 16)  # since when, and whether a line was written

    def note(self, exc: StorageUnavailable) -> None:
        """Log why the database cannot be used, if a line is due."""
        if self.is_due(monotonic()):
            pack_into("d", self._outage, 8, 1.0)
            reason = trouble_of(exc).en
            log.warning("database_does_not_answer", reason=reason, consequence="not ready until it does")

    def begin(self) -> None:
        """No connection can be made."""
        if not unpack_from("d", self._outage)[0]:
            pack_into("d", self._outage, 0, monotonic())

    def end(self) -> None:
        """A connection has been made."""
        since, is_logged = unpack_from("dd", self._outage)
        if since:
            pack_into("dd", self._outage, 0, 0.0, 0.0)
            if is_logged:
                log.info("database_answers_again", seconds=round(monotonic() - since, 1))


troubles: Final = Troubles(10.0)


class NotConnected(OSError):
    """No connection could be opened. `reason` contains host and port, and never the password."""

    def __init__(self, reason: Title) -> None:
        super().__init__(reason.en)
        self.reason = reason


class DatabaseUrlRefused(StorageUnavailable):
    """The driver or PostgreSQL rejects an option of the URL. Retrying does not help."""


class ChangesClashed(StorageUnavailable):
    """Others changed the same rows at the same time, and the server has rolled ours back. It may be tried again."""


CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError, ChangesClashed)
"""A concurrent transaction wrote first. If tried again, the statements see what it has written."""


class _ConnectionLost(Exception):
    """The connection was lost during a statement, which may have been executed."""


class Transaction:
    """An open transaction. After any error the caller must leave the block, and everything is rolled back."""

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        """All rows."""
        return statement.read(await self._connection.fetch(statement.text, *statement.arguments(values)))

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """The first row, or None."""
        record = await self._connection.fetchrow(statement.text, *statement.arguments(values))
        return None if record is None else statement.read([record])[0]

    async def value(self, statement: Statement[T_co], /, **values: object) -> T_co | None:
        """The first value of the first row, or None."""
        value: T_co | None = await self._connection.fetchval(statement.text, *statement.arguments(values))
        return value

    async def values(self, statement: Statement[T_co], /, **values: object) -> Sequence[T_co]:
        """The first value of each row."""
        return [row[0] for row in await self._connection.fetch(statement.text, *statement.arguments(values))]

    async def run(self, statement: Statement[object], /, **values: object) -> int:
        """Run a statement that returns no rows. Returns how many rows it has written."""
        # Without arguments, asyncpg uses the simple query protocol, which prepares no statement.
        status: str = await self._connection.execute(statement.text, *statement.arguments(values))
        number = status.rpartition(" ")[2]
        return int(number) if number.isdigit() else 0


class Snapshot(Transaction):
    """A read-only transaction that always sees the same state of the database."""

    __slots__ = ()

    async def pages(
        self, statement: Statement[Row], page_size: int, /, **values: object
    ) -> AsyncGenerator[Sequence[Row]]:
        """All rows, `page_size` at a time. The rest stays in the server."""
        # By SQL: asyncpg's own cursors name their statements even where it is to prepare none. They would stay on the
        # pooler's connection, where another process may use the same name.
        # Each statement's cursor has a name of its own: where FETCH is prepared, its columns must not change.
        cursor = f"pages_{crc32(statement.text.encode()):08x}"
        declaration = f"DECLARE {cursor} NO SCROLL CURSOR FOR {statement.text}"
        await self._connection.fetch(declaration, *statement.arguments(values))
        while records := await self._connection.fetch(f"FETCH {page_size} FROM {cursor}"):
            yield statement.read(records)
        await self._connection.execute(f"CLOSE {cursor}")


class Database:
    """Runs statements on one PostgreSQL database. Connections are opened when first needed.

    Whatever takes a `Database`, or a part that has one, may raise StorageUnavailable. Only this class repeats it.

    Args:
        url: `postgresql://...`, with one host or several. `pgbouncer=true` in the query is for poolers in transaction
            mode: no prepared statements, and no settings at the start of a connection. `pgbouncer=prepared` is the
            same, with prepared statements.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = DEADLINES) -> None:
        self._deadlines = deadlines
        self._dsns, self._options, self.is_pooled = _connect_options(url, deadlines)
        self._begin = _BEGIN + _set_limits(deadlines) if self.is_pooled else _BEGIN
        self._connections = Connections(self.connect, size=CONNECTIONS)
        self._transactions = asyncio.Semaphore(TRANSACTIONS)
        self._snapshots = asyncio.Semaphore(SNAPSHOTS)

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """Run one statement, which commits by itself. Returns its first row, or None if there is no row.

        If the connection is lost, a pooler has forgotten the prepared statement, or the changes of others conflict, the
        statement is sent once more. So it must do no harm if it is executed twice.

        Raises: StorageUnavailable; as ChangesClashed, if it conflicted twice. The caller must handle
            asyncpg.IntegrityConstraintViolationError.
        """
        records = await self._answer(statement.text, statement.arguments(values))
        return statement.read(records)[0] if records else None

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        """All rows of one statement. Otherwise as `row`."""
        return statement.read(await self._answer(statement.text, statement.arguments(values)))

    async def value(self, statement: Statement[T_co], /, **values: object) -> T_co | None:
        """The first value of the first row. Otherwise as `row`."""
        rows = await self._answer(statement.text, statement.arguments(values))
        value: T_co | None = rows[0][0] if rows else None
        return value

    async def values(self, statement: Statement[T_co], /, **values: object) -> Sequence[T_co]:
        """The first value of each row. Otherwise as `row`."""
        return [row[0] for row in await self._answer(statement.text, statement.arguments(values))]

    async def run(self, statement: Statement[object], /, **values: object) -> None:
        """Run a statement, and ignore its result. Otherwise as `row`."""
        await self._answer(statement.text, statement.arguments(values))

    async def time(self) -> datetime:
        """The database's own time. Raises: StorageUnavailable."""
        now = await self.value(_TIME)
        assert now is not None
        return now

    async def unlimited(self) -> Sequence[str]:
        """Statements with which an administrator sets missing time limits on our role.

        They are needed behind a pooler, where single statements run without limits of our own: one locked row could
        then block everybody.

        Raises: StorageUnavailable.
        """
        limits = self._deadlines.limits
        return await self.values(_UNLIMITED, names=list(limits), milliseconds=list(limits.values()))

    def answering(self) -> AbstractAsyncContextManager[object]:
        """A block in which all database access together has one time limit, `Deadlines.whole`.

        Raises: StorageUnavailable.
        """
        return _Answering(self._deadlines.whole)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """A transaction. It is committed at the end of the block, and rolled back if the block raises.

        Raises: StorageUnavailable; as ChangesClashed, for a deadlock. The caller must handle
            asyncpg.IntegrityConstraintViolationError.
        """
        async with self.answering(), self._transactions:
            connection = await self._begun()
            try:
                yield Transaction(connection)
                await connection.execute("COMMIT")
            except BaseException as exc:
                self._drop_if_lost(connection, exc)
                if not connection.is_closed():
                    with suppress(Exception):  # so that the original failure is raised
                        await connection.execute("ROLLBACK")
                raise_if_unavailable(exc, is_closed=connection.is_closed())
                raise
            finally:
                if not connection.is_closed() and connection.is_in_transaction():
                    connection.terminate()
                self._connections.release(connection)

    @asynccontextmanager
    async def snapshot(self, *, patience: float | None = None) -> AsyncIterator[Snapshot]:
        """One state of the database, for long reads on a connection of its own, outside of the pool.

        `patience` limits each statement, and the time between two statements, in seconds. None: no limit.

        Raises: StorageUnavailable.
        """
        async with AsyncExitStack() as stack:
            async with self.answering():
                await stack.enter_async_context(self._snapshots)
                connection = await self.connect(command_timeout=patience)
            stack.callback(connection.terminate)
            try:
                milliseconds = round(patience * 1000) if patience is not None else 0
                limits = "; ".join(f"SET LOCAL {name} = {milliseconds}" for name in _PATIENT)
                await connection.execute(f"{_BEGIN_SNAPSHOT}; {limits}", timeout=self._deadlines.silence)
                yield Snapshot(connection)
            except Exception as exc:
                raise_if_unavailable(exc, is_closed=connection.is_closed())
                raise
            finally:
                if not connection.is_closed():
                    with suppress(Exception):  # nothing was written; a pooler may lend its connection to the next one
                        await connection.execute("ROLLBACK", timeout=self._deadlines.silence)

    async def connect(self, **options: object) -> asyncpg.Connection:
        """Open a connection outside of the pool. `options` are asyncpg's.

        Raises: NotConnected, DatabaseUrlRefused.
        """
        # Each host gets a timeout of its own. asyncpg has one for all hosts, and a silent host would use it up.
        failures: list[NotConnected] = []
        for dsn in list(self._dsns):
            try:
                connection = await self._connect_to(dsn, options)
            except NotConnected as exc:
                failures.append(exc)
            else:
                troubles.end()
                return connection
        troubles.begin()
        if len(failures) == 1:
            raise failures[0]
        reason = Title("; ".join(each.reason.en for each in failures), "；".join(each.reason.zh for each in failures))
        raise NotConnected(reason) from failures[-1].__cause__

    @property
    def prepares(self) -> bool:
        """Whether statements are prepared."""
        return self._options.get(_CACHE) != 0

    async def certificate(self) -> bytes | None:
        """The certificate of the server, or of the pooler, as DER; None without TLS. Raises: StorageUnavailable."""
        try:
            connection = await self.connect()
        except NotConnected as exc:
            raise StorageUnavailable("the database does not answer") from exc
        try:
            tls = connection._transport.get_extra_info("ssl_object")  # asyncpg does not show it
            return None if tls is None else tls.getpeercert(binary_form=True)
        finally:
            connection.terminate()

    async def keeps_prepared(self) -> bool | None:
        """Whether a connection keeps its prepared statements. Behind some poolers it does not.

        None if this cannot be determined, because only one connection is available. Where they are not kept,
        PostgreSQL logs an error, because only the use of a statement shows it.

        Raises: StorageUnavailable.
        """
        connections: list[asyncpg.Connection] = []
        try:
            connections += [await self.connect(**{_CACHE: 0}) for _ in range(2)]
            first, second = connections
            echo = await first.prepare(_ECHO, name=_PROBE)
            await echo.fetchval(1)
            await second.execute("BEGIN")  # occupies the server connection that the pooler has just used for the first
            await echo.fetchval(2)
        except _STATEMENT_LOST:
            return False
        except Exception as exc:
            if isinstance(exc, TimeoutError) or isinstance(exc.__cause__, TimeoutError):
                return None
            raise_if_unavailable(exc)
            raise
        finally:
            for connection in connections:
                connection.terminate()
        return True

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()

    async def _begun(self) -> asyncpg.Connection:
        """A connection with a new transaction. If an idle connection turns out to be lost, another one is tried."""
        try:
            return await self._begin_on(await self._connections.acquire())
        except _ConnectionLost:
            return await self._begin_on(await self._connections.acquire())

    async def _begin_on(self, connection: asyncpg.Connection) -> asyncpg.Connection:
        try:
            await connection.execute(self._begin)
        except BaseException as exc:
            may_be_retried = self._drop_if_lost(connection, exc)
            self._connections.release(connection)
            if may_be_retried:
                raise _ConnectionLost from exc
            raise
        return connection

    async def _answer(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        """All rows. Tracing wraps this method."""
        async with _Answering(self._deadlines.whole):
            try:
                return await self._fetch(text, arguments)
            except (_ConnectionLost, *_CLASHED, *_STATEMENT_LOST):
                return await self._fetch(text, arguments)

    async def _fetch(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        connection = await self._connections.acquire()
        try:
            rows: Sequence[asyncpg.Record] = await connection.fetch(text, *arguments)
            return rows
        except BaseException as exc:
            if self._drop_if_lost(connection, exc):
                raise _ConnectionLost from exc
            raise
        finally:
            self._connections.release(connection)

    def _drop_if_lost(self, connection: asyncpg.Connection, exc: BaseException) -> bool:
        """Drop connections that this failure makes unusable. Returns whether another one may be tried.

        Not after a timeout, because the second try would take as long; nor if the task was cancelled, however many of
        its connections are lost: it would go on forever, and its service with it.
        """
        is_lost = isinstance(exc, _LOST) or connection.is_closed()
        if is_lost or isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
            # The other connections are affected, too: their server is silent, gone, or a standby now.
            self._connections.expire()
        if isinstance(exc, _STATEMENT_LOST):
            log.warning("prepared_statement_forgotten", reason=reason_of(exc), what_to_change=WHERE_NOTHING_IS_KEPT)
        if is_lost or isinstance(exc, (asyncio.CancelledError, *_STATEMENT_LOST)):
            # Aborted, because an orderly close would wait for a server that does not answer.
            connection.terminate()
        return is_lost and isinstance(exc, Exception) and not isinstance(exc, TimeoutError)

    async def _connect_to(self, dsn: str, options: Mapping[str, object]) -> asyncpg.Connection:
        try:
            connection = await asyncpg.connect(dsn, **{**self._options, **options})
        except _WRONG_URL as exc:
            if isinstance(exc, OSError):  # the error for an invalid certificate is an OSError and a ValueError
                raise NotConnected(_why_not(exc, dsn)) from exc
            raise DatabaseUrlRefused("the database's URL cannot be used") from exc
        except _AWAY as exc:
            raise NotConnected(_why_not(exc, dsn)) from exc
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_json_text, decoder=from_json)
        self._dsns.sort(key=lambda other: other != dsn)  # the host that answers is tried first next time
        return connection


class _Answering:
    """A time limit for database access. Failures by the database's state are raised as StorageUnavailable."""

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


def raise_if_unavailable(exc: BaseException, *, is_closed: bool = False) -> None:
    """Raise StorageUnavailable if the database's state has caused this failure. Otherwise do nothing.

    `is_closed`: whether the connection is. asyncpg then raises the same type as for a wrong use of it.

    Raises: StorageUnavailable.
    """
    if is_closed and isinstance(exc, asyncpg.InterfaceError):
        raise StorageUnavailable("the database does not answer") from exc
    if isinstance(exc, (*_AWAY, _ConnectionLost)):
        raise StorageUnavailable("the database does not answer") from exc
    if isinstance(exc, _CLASHED):
        raise ChangesClashed("others changed the same at this moment") from exc
    if isinstance(exc, _UNFIT):
        if troubles.is_due(monotonic()):
            log.error(
                "database_unfit", reason=reason_of(exc), what_to_change="run 'wxauth migrate'; see 'wxauth check'"
            )
        raise StorageUnavailable("the database is not as this version needs it: see 'wxauth check'") from exc
    if isinstance(exc, _STATEMENT_LOST):
        raise StorageUnavailable("the pooler in front of the database forgets statements: see 'wxauth check'") from exc


def is_refusal(exc: BaseException) -> bool:
    """Whether the database refused a statement for a reason that does not pass by itself, as a lock or a failover."""
    while isinstance(exc, StorageUnavailable) and exc.__cause__ is not None:
        exc = exc.__cause__
    passing = (*_AWAY, *_CLASHED, *_STATEMENT_LOST, _ConnectionLost)
    return isinstance(exc, asyncpg.PostgresError) and not isinstance(exc, passing)


def reason_of(exc: BaseException) -> str:
    """Why there is no connection, or else the database's own message, or else the type of the error.

    It contains nothing of the URL but host and port.
    """
    cause: BaseException = exc
    while cause.__cause__ is not None and not isinstance(cause, TimeoutError | NotConnected):
        cause = cause.__cause__
    if isinstance(cause, NotConnected):
        return cause.reason.en
    if isinstance(cause, asyncpg.ClientConfigurationError) and str(cause).startswith(_NO_ROOT_CERTIFICATE):
        return "sslmode=verify-ca and verify-full need an authority: name its file by sslrootcert, or by SSL_CERT_FILE"
    is_its_own = isinstance(cause, asyncpg.PostgresError) and cause.sqlstate is not None
    return message_of(cause).partition("\n")[0] if is_its_own else type(cause).__name__


def trouble_of(exc: StorageUnavailable) -> Title:
    """One line for the operator, in both languages."""
    if isinstance(cause := exc.__cause__, NotConnected):
        return cause.reason
    reason = reason_of(exc)
    return Title(f"{exc.detail}: {reason}", f"没有响应：{reason}")


def _why_not(exc: BaseException, dsn: str) -> Title:
    """Why there is no connection: host and port, and the problem."""
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query))
    host = parts.hostname or query.get("host") or os.environ.get("PGHOST", "the default socket")
    port = parts.port or query.get("port") or os.environ.get("PGPORT", "5432")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    message = message_of(exc).partition("\n")[0]
    match exc:
        case asyncpg.InvalidPasswordError():
            en, zh = f"refuses the password: {message}", f"密码不被接受：{message}"
        case asyncpg.InvalidAuthorizationSpecificationError():
            en, zh = f"refuses the role: {message}", f"拒绝该角色：{message}"
        case asyncpg.InvalidCatalogNameError():
            en, zh = f"has no such database: {message}", f"没有这个数据库：{message}"
        case asyncpg.PostgresError() if exc.sqlstate:
            en, zh = f"takes no connection: {message}", f"不接受连接：{message}"
        case socket.gaierror():
            en, zh = f"the host name does not resolve: {exc.strerror}", f"主机名无法解析：{exc.strerror}"
        case ssl.SSLCertVerificationError():
            en = f"its certificate is not trusted: {exc.verify_message} (see sslrootcert, SSL_CERT_FILE)"
            zh = f"证书不受信任：{exc.verify_message}（请检查 sslrootcert、SSL_CERT_FILE）"
        case ssl.SSLError():
            en, zh = f"the TLS handshake fails: {exc.reason}", f"TLS 握手失败：{exc.reason}"
        case ConnectionError() if _REFUSED_TLS in str(exc):
            en, zh = "refuses TLS, which sslmode requires", "不支持 TLS，而 sslmode 要求 TLS"
        case ConnectionRefusedError():
            en, zh = "refuses connections: does PostgreSQL listen there?", "拒绝连接：PostgreSQL 是否在此监听？"
        case TimeoutError():
            en, zh = "does not answer in time", "未在规定时间内响应"
        case asyncpg.TargetServerAttributeNotMatched():
            en, zh = "is a standby, or takes no writes", "是备库，或不能写入"
        case OSError() if exc.strerror:
            en, zh = f"cannot be connected to: {exc.strerror}", f"无法连接：{exc.strerror}"
        case _:
            en, zh = f"cannot be connected to: {type(exc).__name__}", f"无法连接：{type(exc).__name__}"
    return Title(f"{place}: {en}", f"{place}：{zh}")


def _json_text(value: object) -> str:
    return to_json(value).decode()


def _set_limits(deadlines: Deadlines) -> str:
    return "".join(f"; SET LOCAL {name} = {value}" for name, value in deadlines.limits.items())


def _connect_options(url: str, deadlines: Deadlines) -> tuple[list[str], dict[str, object], bool]:
    """A DSN for each host, further options for asyncpg, and whether there is a pooler."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = {
        "application_name": "wxauth",
        "default_transaction_isolation": ISOLATION,
        "jit": "off",  # compiles for 16 ms what takes 0.3, because many plans look dearer than they are
        **{name: str(value) for name, value in deadlines.limits.items()},
    }
    options: dict[str, object] = {"command_timeout": deadlines.silence}
    # libpq's own parameter. asyncpg would send it to the server as a setting of the session.
    query.pop("connect_timeout", None)
    if query.get("channel_binding") in ("prefer", "disable"):
        del query["channel_binding"]
    pooler = query.pop(_PGBOUNCER, "")
    is_pooled = pooler in ("1", "true", "prepared")
    if is_pooled:
        options[_CACHE] = _ENOUGH if pooler == "prepared" else 0
        settings = {"application_name": settings["application_name"]}
    options["server_settings"] = {name: value for name, value in settings.items() if name not in query}
    authority = os.environ.get("SSL_CERT_FILE")
    if authority and "PGSSLROOTCERT" not in os.environ and query.get("sslmode") in ("verify-ca", "verify-full"):
        query.setdefault("sslrootcert", authority)
    dsns = _dsn_of_each_host(parts, query)
    options["timeout"] = min(deadlines.connect, deadlines.connect_to_any / len(dsns))
    return dsns, options, is_pooled


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


@dataclass(frozen=True, slots=True)
class Sweep:
    """Deletes the rows of a table in which a column is before a value."""

    statement: Statement[Nothing]

    @classmethod
    def of(cls, table: str, *, key: str, by: str) -> Self:
        """The sweep of a table by an indexed column."""
        return cls(
            Statement[Nothing](f"""
DELETE FROM {table} WHERE {key} = ANY (ARRAY(
    SELECT {key} FROM {table} WHERE {by} < :before ORDER BY {by} LIMIT :size FOR UPDATE SKIP LOCKED))
""")  # noqa: S608 - put together from constants
        )

    async def __call__(self, database: Database, *, before: Any, size: int) -> int:
        """Delete at most `size` rows, the oldest first. Returns how many."""
        async with database.begin() as transaction:
            return await transaction.run(self.statement, before=before, size=size)
