"""Access to PostgreSQL: a pool of connections, and the mapping of PostgreSQL's errors to ours.

Statements are run by asyncpg directly. A short statement takes 25 µs of CPU this way, and 8 to 9 times as much through
SQLAlchemy's connections (`AUTOCOMMIT`, a `text()` made once; medians of nine rounds in turn, 1 and 10 at once). See
docs/contribute/decisions/0001-statements-are-text.md.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple, Self, TypeVar
from zlib import crc32

import asyncpg
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from wxauth.core import libpq, outages
from wxauth.core.batching import Batched, Batches
from wxauth.core.logs import get_logger
from wxauth.core.statements import Nothing, Statement, T_co
from wxauth.errors import StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.addresses import addresses_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


MAX_IDLE_SECONDS: Final = 240.0
"""The idle time in seconds after which a connection is closed.

Firewalls and proxies often forget it after five minutes.
"""
CLOSE_TIMEOUT_SECONDS: Final = 3.0
CONNECTIONS: Final = 15
TRANSACTIONS: Final = 5
"""The largest number of connections that transactions may hold at the same time.

Without this limit, transactions that wait for a lock would take the connections that logins need.
"""
SNAPSHOTS: Final = 4
"""The largest number of snapshots that may be open at the same time.

Each has its own connection outside of the pool.
"""
STATEMENT_CACHE: Final = "statement_cache_size"  # asyncpg's name for the option
_ENOUGH: Final = 100  # asyncpg's own default
ISOLATION: Final = "READ COMMITTED"
"""The isolation level, which is always set because the database's default may differ.

A statement that has waited for a lock must see what the lock's holder committed.
"""
_PATIENT: Final = ("statement_timeout", "idle_in_transaction_session_timeout")


class Connections:
    """A small connection pool. It opens a connection if none is idle, and lends at most `size` at the same time.

    asyncpg's own pool creates a task for each release. Connections are not reset when they are returned, because
    statements and transactions leave no state. See docs/contribute/decisions/0004-connection-pool.md.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, size: int) -> None:
        self._connect = connect
        self._free = asyncio.Semaphore(size)
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._lent: dict[asyncpg.Connection, int] = {}
        self._generation = 0

    async def acquire(self) -> asyncpg.Connection:
        """Lend the connection that was used last, or open one. The caller must `release` it."""
        await self._free.acquire()
        try:
            connection = self._take_idle() or await self._connect()
        except BaseException:
            self._free.release()
            raise
        self._lent[connection] = self._generation
        return connection

    def release(self, connection: asyncpg.Connection) -> None:
        """Take a connection back. If it is closed, or was opened before the last `expire`, drop it.

        The connection that has been idle for longest is also dropped, if that was too long. Otherwise the connections
        that a peak opened would stay open, because they are never lent again.
        """
        is_current = self._lent.pop(connection) == self._generation
        if is_current and not connection.is_closed():
            self._idle.append((connection, now := _now()))
            if now - self._idle[0][1] >= MAX_IDLE_SECONDS:
                self._idle.pop(0)[0].terminate()
        else:
            connection.terminate()
        self._free.release()

    def expire(self) -> None:
        """Drop all present connections: idle ones now, and lent ones when they are released."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time limits of database access, in seconds."""

    whole: float = 8.0
    """The time limit for a whole statement or transaction, including the wait for a connection."""
    statement: float = 4.0
    """The time limit after which the server cancels a statement and releases its locks."""
    silence: float = 4.5
    """The time limit for a sign of life from the server. After that, the connection is dropped."""
    lock: float = 2.0
    """The time limit for waiting for a lock.

    Our own locks last milliseconds. A longer wait for another program's lock would hold connections that other requests
    need.
    """
    connect: float = 3.0
    connect_to_any: float = 6.0
    batch_wait: float = 0.002
    """The time after which a running batch no longer delays the next one."""

    @property
    def limits(self) -> dict[str, int]:
        """The settings with which the server enforces the limits, in milliseconds."""
        limits = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.whole,
        }
        return {name: round(seconds * 1000) for name, seconds in limits.items()}


DEADLINES: Final = Deadlines()
# Each transaction sets the level, because a pooler keeps no settings.
_BEGIN: Final = f"BEGIN ISOLATION LEVEL {ISOLATION}"
_REPLAN: Final = "; SET LOCAL plan_cache_mode = force_custom_plan"
_BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TIME: Final = Statement[datetime]("SELECT clock_timestamp() AS now")

log = get_logger()

Row = TypeVar("Row", bound="Mapping[str, object] | BaseModel | DataclassInstance | tuple[Any, ...]")


class _Reader(ABC):
    """Runs statements, and reads the rows that they return."""

    __slots__ = ()

    @abstractmethod
    async def _answer(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]: ...

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """Return the first row, or None if there is none."""
        records = await self._answer(statement.text, statement.arguments(values))
        return statement.read(records)[0] if records else None

    async def one(self, statement: Statement[Row], /, **values: object) -> Row:
        """Return the only row of a statement that always returns one."""
        (row,) = await self.rows(statement, **values)
        return row

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        """Return all rows of the result."""
        return statement.read(await self._answer(statement.text, statement.arguments(values)))

    async def value(self, statement: Statement[T_co], /, **values: object) -> T_co | None:
        """Return the first value of the first row, or None if there is no row."""
        records = await self._answer(statement.text, statement.arguments(values))
        value: T_co | None = records[0][0] if records else None
        return value

    async def values(self, statement: Statement[T_co], /, **values: object) -> Sequence[T_co]:
        """Return the first value of each row."""
        return [row[0] for row in await self._answer(statement.text, statement.arguments(values))]


class Transaction(_Reader):
    """An open transaction. After any error the caller must leave the block, and everything is rolled back."""

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def run(self, statement: Statement[object], /, **values: object) -> int:
        """Run a statement that returns no rows, and return how many rows it has written."""
        # Without arguments, asyncpg uses the simple query protocol, which prepares no statement.
        status: str = await self._connection.execute(statement.text, *statement.arguments(values))
        number = status.rpartition(" ")[2]
        return int(number) if number.isdigit() else 0

    async def _answer(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        records: Sequence[asyncpg.Record] = await self._connection.fetch(text, *arguments)
        return records


class Snapshot(Transaction):
    """A read-only transaction that always sees the same state of the database."""

    __slots__ = ()

    async def pages(
        self, statement: Statement[Row], page_size: int, /, **values: object
    ) -> AsyncGenerator[Sequence[Row]]:
        """Yield all rows, `page_size` at a time. The rest stays in the server."""
        # The cursor is declared in SQL, because asyncpg's own cursors prepare named statements even if asyncpg is told
        # not to. Those would stay on the pooler's connection, where another process may use the same name. Each
        # statement has its own cursor name, because FETCH may be prepared, and then its columns must not change.
        cursor = f"pages_{crc32(statement.text.encode()):08x}"
        declaration = f"DECLARE {cursor} NO SCROLL CURSOR FOR {statement.text}"
        await self._connection.fetch(declaration, *statement.arguments(values))
        while records := await self._connection.fetch(f"FETCH {page_size} FROM {cursor}"):
            yield statement.read(records)
        await self._connection.execute(f"CLOSE {cursor}")


class Database(_Reader):
    """Runs statements on one PostgreSQL database. Connections are opened when first needed.

    A statement commits by itself. If the connection is lost, a pooler has forgotten the prepared statement, or
    concurrent changes conflict, the statement is sent once more. Therefore it must do no harm if it is executed twice.
    The caller must handle asyncpg.IntegrityConstraintViolationError.

    Every function that takes a `Database`, or an object that has one, may raise StorageUnavailable, or its subclass
    ChangesClashed if a statement conflicted twice. Therefore other docstrings do not always repeat it.

    Args:
        url: `postgresql://...`, with one host or several. Add `pgbouncer=true` to the query for a pooler in transaction
            mode: wxauth then prepares no statements, and sends no settings at the start of a connection. With
            `pgbouncer=prepared`, it prepares statements.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = DEADLINES) -> None:
        self.deadlines = deadlines
        read = libpq.read_url(url)
        self._dsns, self.is_pooled = read.dsns, read.pooler in ("1", "true", "prepared")
        self._options = _options_for(read, is_pooled=self.is_pooled, deadlines=deadlines)
        self._last = _Place(self._dsns[0], None)
        limits = [f"SET LOCAL {name} = {value}" for name, value in deadlines.limits.items()] if self.is_pooled else []
        self._begin = "; ".join([_BEGIN, *limits])
        self._connections = Connections(self.connect, size=CONNECTIONS)
        self._transactions = asyncio.Semaphore(TRANSACTIONS)
        self._snapshots = asyncio.Semaphore(SNAPSHOTS)
        self._batches: dict[Batched[Any], Batches] = {}

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """Return the first row, or None if there is none.

        A batched statement runs together with those of other callers who wait.
        """
        if not isinstance(statement, Batched):
            return await super().row(statement, **values)
        batches = self._batches.get(statement)
        if batches is None:
            of = {"whole": self.deadlines.whole, "batch_wait": self.deadlines.batch_wait}
            batches = Batches(statement, self._answer, self._wait, **of)
            self._batches[statement] = batches
        row: Row | None = await batches.row(statement.arguments(values))
        return row

    async def run(self, statement: Statement[object], /, **values: object) -> None:
        """Run a statement, and ignore its result."""
        await self._answer(statement.text, statement.arguments(values))

    async def time(self) -> datetime:
        """Return the database's own time. Raises: StorageUnavailable."""
        (now,) = await self.values(_TIME)
        return now

    def answering(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager in which all database access together has one time limit, `Deadlines.whole`.

        Raises: StorageUnavailable.
        """
        return _Answering(_now() + self.deadlines.whole)

    @asynccontextmanager
    async def begin(self, *, replan: bool = False) -> AsyncIterator[Transaction]:
        """Open a transaction, which is committed at the end of the block, and rolled back if the block raises.

        With `replan`, each statement is planned for the present sizes of its tables. Otherwise a prepared statement
        keeps the plan that suits an empty queue, and reads the whole table for minutes after the queue has filled.

        Raises: StorageUnavailable, or its subclasses ChangesClashed for a deadlock and NothingCommitted for a
        connection
            that was lost before the commit. The caller must handle asyncpg.IntegrityConstraintViolationError.
        """
        async with self.answering(), self._transactions:
            connection = await self._begun(self._begin + _REPLAN * replan)
            is_committing = False
            try:
                yield Transaction(connection)
                is_committing = True
                await connection.execute("COMMIT")
            except BaseException as exc:
                may_be_retried = self._drop_if_lost(connection, exc) and not is_committing
                # A failure of the block's own code is not a lost connection.
                if may_be_retried and isinstance(exc, (*outages.LOST, asyncpg.InterfaceError)):
                    raise outages.NothingCommitted(_("the database doesn't respond")) from exc
                if not connection.is_closed():
                    with suppress(Exception):  # so that the original failure is raised
                        await connection.execute("ROLLBACK")
                outages.raise_if_unavailable(exc, is_closed=connection.is_closed())
                raise
            finally:
                if not connection.is_closed() and connection.is_in_transaction():
                    connection.terminate()
                self._connections.release(connection)

    @asynccontextmanager
    async def snapshot(self, *, patience: float | None = None) -> AsyncIterator[Snapshot]:
        """Open a view of one state of the database, for long reads on a connection of its own, outside of the pool.

        `patience` limits each statement, and the time between two statements, in seconds. None means no limit.

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
                await connection.execute(f"{_BEGIN_SNAPSHOT}; {limits}", timeout=self.deadlines.silence)
                yield Snapshot(connection)
            except Exception as exc:
                outages.raise_if_unavailable(exc, is_closed=connection.is_closed())
                raise
            finally:
                if not connection.is_closed():
                    # Nothing was written. The rollback is for a pooler, which may lend its connection to another
                    # client.
                    with suppress(Exception):
                        await connection.execute("ROLLBACK", timeout=self.deadlines.silence)

    async def connect(self, **options: object) -> asyncpg.Connection:
        """Open a connection outside of the pool. `options` are asyncpg's.

        Raises: NotConnected, DatabaseUrlRefused.
        """
        # Each address of each host has its own time limit. asyncpg has one limit for all addresses together, which an
        # address that never responds would use up.
        failures: list[outages.NotConnected] = []
        begun = monotonic()
        places = [place for dsn in self._dsns for place in await _places_of(dsn, self.deadlines)]
        # The address that responded last is tried first.
        places.sort(key=lambda place: (place.dsn != self._last.dsn, place.address != self._last.address))
        timeout = min(self.deadlines.connect, self.deadlines.connect_to_any / len(places))
        for place in places:
            try:
                connection = await self._connect_to(place, {"timeout": timeout, **options})
            except outages.NotConnected as exc:
                failures.append(exc)
            else:
                self._last = place
                outages.outage_log.end(begun)
                return connection
        outages.outage_log.begin()
        if len(failures) == 1:
            raise failures[0]
        raise outages.NotConnected(_("; ").join(each.text for each in failures)) from failures[-1].__cause__

    async def aclose(self) -> None:
        """Close every connection."""
        for batches in self._batches.values():
            await batches.aclose()
        await self._connections.aclose()

    async def _begun(self, how: str) -> asyncpg.Connection:
        """Return a connection with a new transaction. If an idle connection turns out to be lost, try another one."""
        try:
            return await self._begin_on(await self._connections.acquire(), how)
        except outages.ConnectionLost:
            return await self._begin_on(await self._connections.acquire(), how)

    async def _begin_on(self, connection: asyncpg.Connection, how: str) -> asyncpg.Connection:
        try:
            await connection.execute(how)
        except BaseException as exc:
            may_be_retried = self._drop_if_lost(connection, exc)
            self._connections.release(connection)
            if may_be_retried:
                raise outages.ConnectionLost from exc
            raise
        return connection

    async def _answer(
        self, text: str, arguments: Sequence[object], until: float | None = None, *, tries: int = 2
    ) -> Sequence[asyncpg.Record]:
        """Return all rows, within a time limit in the event loop's time. Tracing wraps this method."""
        async with _Answering(until or _now() + self.deadlines.whole):
            while True:
                tries -= 1
                connection = await self._connections.acquire()
                try:
                    rows: Sequence[asyncpg.Record] = await connection.fetch(text, *arguments)
                    return rows
                except BaseException as exc:
                    is_lost = self._drop_if_lost(connection, exc)
                    if tries and (is_lost or isinstance(exc, (*outages.CLASHED, *outages.STATEMENT_LOST))):
                        continue
                    if is_lost:
                        raise outages.ConnectionLost from exc
                    raise
                finally:
                    self._connections.release(connection)

    async def _wait(self, row: asyncio.Future[object]) -> object:
        """Wait for a row of a batch. Tracing wraps this method, too."""
        return await row

    def _drop_if_lost(self, connection: asyncpg.Connection, exc: BaseException) -> bool:
        """Drop connections that this failure makes unusable, and return whether another one may be tried.

        After a timeout, no other connection is tried, because the second try would take as long. If the task was
        cancelled, none is tried either, however many connections are lost. Otherwise the task would never end, and the
        service could not stop.
        """
        is_lost = isinstance(exc, outages.LOST) or connection.is_closed()
        if is_lost or isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
            # The other connections are affected, too, because their server does not respond, is gone, or is a standby
            # now.
            self._connections.expire()
        if isinstance(exc, outages.STATEMENT_LOST):
            log.warning(
                "prepared_statement_forgotten",
                reason=outages.reason_of(exc),
                what_to_change=outages.WHERE_NOTHING_IS_KEPT,
            )
        if is_lost or isinstance(exc, (asyncio.CancelledError, *outages.STATEMENT_LOST)):
            # The connection is aborted, because an orderly close would wait for a server that does not respond.
            connection.terminate()
        return is_lost and isinstance(exc, Exception) and not isinstance(exc, TimeoutError)

    async def _connect_to(self, place: "_Place", options: Mapping[str, object]) -> asyncpg.Connection:
        wanted = {**self._options, **options}
        if place.address is not None:
            wanted["loop"] = _LoopTo(place.address)
        try:
            connection = await asyncpg.connect(place.dsn, password=libpq.password_in_file(place.dsn), **wanted)
        except Exception as exc:
            outages.raise_if_not_connected(exc, place.dsn, place.address)
            raise
        json = {"encoder": lambda value: to_json(value).decode(), "decoder": from_json}
        await connection.set_type_codec("jsonb", schema="pg_catalog", **json)
        return connection


class _Place(NamedTuple):
    """A host, and one of its addresses if its name has several."""

    dsn: str
    address: str | None


class _LoopTo:
    """The running event loop, except that it connects to the given address of a host.

    asyncpg itself connects to the first address of a name that works, and checks the certificate against the name that
    it is given. With this loop, a connection that cancels a statement also goes to the same address.
    """

    def __init__(self, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, host: str, port: int, **options: Any) -> Any:
        if options.get("ssl"):
            options.setdefault("server_hostname", host)
        return await self._loop.create_connection(factory, self._address, port, **options)


async def _places_of(dsn: str, deadlines: Deadlines) -> list[_Place]:
    host, _port = libpq.host_and_port(dsn)
    addresses = await addresses_of(host, seconds=deadlines.connect)
    return [_Place(dsn, address) for address in addresses] if len(addresses) > 1 else [_Place(dsn, None)]


class _Answering:
    """A time limit for database access. Failures that the database's state causes are raised as StorageUnavailable."""

    __slots__ = ("_timeout",)

    def __init__(self, until: float) -> None:
        self._timeout = asyncio.timeout_at(until)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, traceback)
        except TimeoutError as late:
            raise StorageUnavailable(_("the database doesn't respond")) from late
        if exc is not None:
            outages.raise_if_unavailable(exc)


def _options_for(url: libpq.DatabaseUrl, *, is_pooled: bool, deadlines: Deadlines) -> dict[str, object]:
    """Return asyncpg's options for a connection. A setting of the session in the URL replaces ours."""
    settings, options = {"application_name": "wxauth"}, dict[str, object](command_timeout=deadlines.silence)
    if is_pooled:
        options[STATEMENT_CACHE] = _ENOUGH if url.pooler == "prepared" else 0
    else:
        settings["default_transaction_isolation"] = ISOLATION
        # The JIT compiler takes 16 ms for a statement of 0.3 ms, because the cost of many plans is overestimated.
        settings["jit"] = "off"
        settings |= {name: str(value) for name, value in deadlines.limits.items()}
    options["server_settings"] = {name: value for name, value in settings.items() if name not in url.parameters}
    return options


@dataclass(frozen=True, slots=True)
class Sweep:
    """Deletes the rows of a table in which a column is before a given value."""

    statement: Statement[Nothing]

    @classmethod
    def of(cls, table: LiteralString, *, key: LiteralString, by: LiteralString) -> Self:
        """Build the deletion for a table with an indexed column `by`, and the primary key `key`."""
        return cls(
            Statement[Nothing](f"""
DELETE FROM {table} WHERE {key} = ANY (ARRAY(
    SELECT {key} FROM {table} WHERE {by} < :before ORDER BY {by} LIMIT :size FOR UPDATE SKIP LOCKED))
""")
        )

    async def __call__(self, database: Database, *, before: Any, size: int) -> int:
        """Delete at most `size` rows, the oldest first, and return how many were deleted."""
        async with database.begin(replan=True) as transaction:
            return await transaction.run(self.statement, before=before, size=size)


@dataclass(frozen=True, slots=True)
class Reseal:
    """Replaces the sealed values in some columns of a row, unless one of them has changed since it was read."""

    key: str
    columns: Sequence[str]
    statement: Statement[bool]

    @classmethod
    def of(cls, table: LiteralString, *columns: LiteralString, key: LiteralString) -> Self:
        """Build the replacement for some columns of a table with the primary key `key`."""
        resealed = ", ".join(f"{name} = :{name}_resealed" for name in columns)
        same = " AND ".join(f"{name} IS NOT DISTINCT FROM :{name}" for name in columns)
        return cls(
            key,
            columns,
            Statement[bool](
                f"UPDATE {table} SET {resealed} WHERE {key} = :{key} AND {same} RETURNING true AS is_replaced"
            ),
        )

    async def __call__(self, database: Database, row: object, *resealed: bytes | None) -> bool:
        """Replace the values of a row that was read, and return whether they were replaced."""
        read = {name: getattr(row, name) for name in (self.key, *self.columns)}
        values = {f"{name}_resealed": value for name, value in zip(self.columns, resealed, strict=True)}
        return await database.value(self.statement, **read, **values) is not None


def _now() -> float:
    return asyncio.get_running_loop().time()
