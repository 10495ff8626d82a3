"""Access to PostgreSQL: statements, transactions and snapshots.

wxauth runs statements with asyncpg directly. A short statement takes 25 µs of CPU time this way, and 8 to 9 times as
much through SQLAlchemy's connections. See docs/contribute/decisions/0001-statements-are-text.md.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from zlib import crc32

import asyncpg
from pydantic import BaseModel

from wxauth.core import outages
from wxauth.core.batching import Batched, Batches
from wxauth.core.connecting import ISOLATION, Connector
from wxauth.core.connection_pool import Connections
from wxauth.core.database_errors import ConnectionLost, NothingCommitted
from wxauth.core.deadlines import DEADLINES, Deadlines
from wxauth.core.logs import get_logger
from wxauth.core.outage_texts import POOLER_REMEDY, reason_of
from wxauth.core.statements import Statement, T_co
from wxauth.errors import StorageUnavailable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


MAX_CONNECTIONS: Final = 15
"""The largest number of connections in the pool of one process.

In docs/run/operations.md, the formula for `max_connections` uses the sum of this number and `MAX_SNAPSHOTS`.
"""
MAX_TRANSACTIONS: Final = 5
"""The largest number of connections that the transactions of one process may hold at the same time.

Without this limit, transactions that wait for a lock would take the connections that logins need. The limits in
`limits/concurrency.py` let one user occupy only four of these connections.
"""
MAX_SNAPSHOTS: Final = 4
"""The largest number of snapshots that may be open in one process at the same time.

Each snapshot has its own connection, outside the pool.
"""
_SNAPSHOT_LIMITS: Final = ("statement_timeout", "idle_in_transaction_session_timeout")
"""The settings that a snapshot's `patience` replaces.

They limit the time of a statement, and the time between two statements.
"""
# Each transaction sets the isolation level, because a pooler does not keep a session's settings.
_BEGIN: Final = f"BEGIN ISOLATION LEVEL {ISOLATION}"
_REPLAN: Final = "; SET LOCAL plan_cache_mode = force_custom_plan"
_BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TIME: Final = Statement[datetime]("SELECT clock_timestamp() AS now")

log = get_logger()

Row = TypeVar("Row", bound="Mapping[str, object] | BaseModel | DataclassInstance | tuple[Any, ...]")


class _Reader(ABC):
    """An object that runs statements, and reads the rows that they return."""

    __slots__ = ()

    @abstractmethod
    async def _fetch(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        """Run a statement with these values for `$1`, `$2` and so on, and return all rows."""

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """Return the first row, or None if there is none."""
        records = await self._fetch(statement.text, statement.arguments(values))
        return statement.read(records)[0] if records else None

    async def one(self, statement: Statement[Row], /, **values: object) -> Row:
        """Return the row of a statement that always returns exactly one row."""
        (row,) = await self.rows(statement, **values)
        return row

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        """Return all rows of the result."""
        return statement.read(await self._fetch(statement.text, statement.arguments(values)))

    async def value(self, statement: Statement[T_co], /, **values: object) -> T_co | None:
        """Return the first value of the first row. Return None if there is no row, or if the value is null."""
        records = await self._fetch(statement.text, statement.arguments(values))
        value: T_co | None = records[0][0] if records else None
        return value

    async def values(self, statement: Statement[T_co], /, **values: object) -> Sequence[T_co]:
        """Return the first value of each row."""
        return [row[0] for row in await self._fetch(statement.text, statement.arguments(values))]


class Transaction(_Reader):
    """An open transaction.

    After any error, the caller must leave the `async with` block that opened the transaction. The transaction is then
    rolled back.
    """

    __slots__ = ("_connection", "failure")

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.failure: BaseException | None = None
        """The error of the statement that failed last; None if no statement has failed.

        Any other error that leaves the block did not come from the database.
        """

    async def run(self, statement: Statement[object], /, **values: object) -> int:
        """Run a statement that returns no rows. Return the number of rows that it inserted, updated or deleted."""
        arguments = statement.arguments(values)
        try:
            status: str = await self._connection.execute(statement.text, *arguments)
        except BaseException as exc:
            self.failure = exc
            raise
        number = status.rpartition(" ")[2]  # the status is, for example, "INSERT 0 3"
        return int(number) if number.isdigit() else 0

    async def _fetch(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        try:
            records: Sequence[asyncpg.Record] = await self._connection.fetch(text, *arguments)
        except BaseException as exc:
            self.failure = exc
            raise
        return records


class Snapshot(Transaction):
    """A read-only transaction that always sees the same state of the database."""

    __slots__ = ()

    async def pages(
        self, statement: Statement[Row], page_size: int, /, **values: object
    ) -> AsyncGenerator[Sequence[Row]]:
        """Yield all rows, `page_size` at a time. The remaining rows stay on the server.

        A caller that stops before the last page must not read the pages of the same statement again in this snapshot,
        because the cursor stays open until the snapshot ends. The cursor cannot be closed together with the generator,
        because Python may close an abandoned generator while the connection runs another statement.
        """
        # The cursor is declared in SQL, because asyncpg's own cursors prepare named statements even if its statement
        # cache is disabled. Such a statement would stay on the pooler's connection, where another process may use the
        # same name. Each statement has its own cursor name, because asyncpg may prepare the FETCH, and the columns of a
        # prepared FETCH must not change.
        cursor = f"pages_{crc32(statement.text.encode()):08x}"
        declaration = f"DECLARE {cursor} NO SCROLL CURSOR FOR {statement.text}"
        await self._fetch(declaration, statement.arguments(values))
        while records := await self._fetch(f"FETCH {page_size} FROM {cursor}", ()):
            yield statement.read(records)
        await self._fetch(f"CLOSE {cursor}", ())


class Database(_Reader):
    """The part that runs statements on a PostgreSQL database. It opens connections when they are first needed.

    Outside of a transaction, each statement commits by itself. If the connection is lost, if a pooler has forgotten the
    prepared statement, or if concurrent changes conflict, the statement is sent once more. Therefore a second execution
    of the statement must do no harm. If the statement violates a constraint, the caller gets
    asyncpg.IntegrityConstraintViolationError, and must handle it.

    Every function that takes a `Database`, or an object that has one, may raise StorageUnavailable or one of its
    subclasses, for example ChangesClashed if a statement conflicted twice. The docstrings of such functions do not
    always name these errors.

    Args:
        url: `postgresql://...`, with one host or several. Add `pgbouncer=true` to the query for a pooler in transaction
            mode: wxauth then prepares no statements, and sends no settings except the application's name at the start
            of a connection. `pgbouncer=prepared` has the same effect, except that wxauth prepares statements.
        deadlines: The time limits of database access.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = DEADLINES) -> None:
        self.deadlines = deadlines
        self.connector: Final = Connector(url, deadlines=deadlines)
        self.is_pooled: Final = self.connector.is_pooled
        # A pooler does not keep a session's settings, so each transaction sets the limits. Without a pooler, the
        # connector sets the limits once for each connection.
        server_limits = deadlines.server_limits if self.is_pooled else {}
        self._begin_sql = "; ".join([_BEGIN, *(f"SET LOCAL {name} = {value}" for name, value in server_limits.items())])
        self._connections = Connections(self.connector.connect, size=MAX_CONNECTIONS)
        self._transactions = asyncio.Semaphore(MAX_TRANSACTIONS)
        self._snapshots = asyncio.Semaphore(MAX_SNAPSHOTS)
        self._batches: dict[Batched[Any], Batches] = {}

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """Return the first row, or None if there is none.

        A batched statement can run once for several waiting callers.
        """
        if not isinstance(statement, Batched):
            return await super().row(statement, **values)
        batches = self._batches.get(statement)
        if batches is None:
            batches = Batches(
                statement,
                self._fetch,
                self._wait,
                time_limit=self.deadlines.total,
                batch_wait=self.deadlines.batch_wait,
            )
            self._batches[statement] = batches
        row: Row | None = await batches.row(statement.arguments(values))
        return row

    async def run(self, statement: Statement[object], /, **values: object) -> None:
        """Run a statement, and ignore its result."""
        await self._fetch(statement.text, statement.arguments(values))

    async def time(self) -> datetime:
        """Return the database's time. Raises: StorageUnavailable."""
        (now,) = await self.values(_TIME)
        return now

    def time_limit(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager in which all database access together has one time limit, `Deadlines.total`.

        The context manager raises StorageUnavailable if the limit is exceeded, or if the database's state causes a
        failure.
        """
        return _TranslatingLimit(_now() + self.deadlines.total)

    @asynccontextmanager
    async def begin(self, *, replan: bool = False) -> AsyncIterator[Transaction]:
        """Open a transaction, which is committed at the end of the block, and rolled back if the block raises.

        With `replan`, PostgreSQL plans each statement for the present sizes of its tables. Otherwise PostgreSQL may
        reuse a plan from a time when a table was empty. After the table has filled, such a plan would read the whole
        table, which can take minutes.

        The whole block, with the wait for a connection and the commit, has one time limit, `Deadlines.total`.

        Raises: StorageUnavailable, or its subclasses ChangesClashed for conflicting changes (for example, a deadlock)
            and NothingCommitted for a connection that was lost before the commit;
            asyncpg.IntegrityConstraintViolationError, if a statement violates a constraint.
        """
        async with _Limit(_now() + self.deadlines.total), self._transactions:
            connection = await self._open_transaction((self._begin_sql + _REPLAN) if replan else self._begin_sql)
            transaction = Transaction(connection)
            is_committing = False
            try:
                yield transaction
                is_committing = True
                await connection.execute("COMMIT")
            except BaseException as exc:
                is_from_database = is_committing or exc is transaction.failure
                await self._roll_back(connection, exc, is_from_database=is_from_database, is_committing=is_committing)
                raise
            finally:
                transaction.failure = None  # otherwise, its traceback and the transaction would be a reference cycle
                # If the rollback has failed, the connection must not be lent again.
                if not connection.is_closed() and connection.is_in_transaction():
                    connection.terminate()
                self._connections.release(connection)

    @asynccontextmanager
    async def snapshot(self, *, patience: float | None = None) -> AsyncIterator[Snapshot]:
        """Open a snapshot of the database for long reads. The snapshot has its own connection, outside the pool.

        `patience` is the time limit, in seconds, for each statement, and for the time between two statements. None
        means no limit.

        Raises: StorageUnavailable.
        """
        async with AsyncExitStack() as stack:
            async with self.time_limit():
                await stack.enter_async_context(self._snapshots)
                connection = await self.connector.connect(command_timeout=patience)
            stack.callback(connection.terminate)
            snapshot: Snapshot | None = None
            try:
                milliseconds = round(patience * 1000) if patience is not None else 0
                limits = "; ".join(f"SET LOCAL {name} = {milliseconds}" for name in _SNAPSHOT_LIMITS)
                await connection.execute(f"{_BEGIN_SNAPSHOT}; {limits}", timeout=self.deadlines.silence)
                snapshot = Snapshot(connection)
                yield snapshot
            except Exception as exc:
                if snapshot is None or exc is snapshot.failure:
                    outages.raise_if_unavailable(exc, is_closed=connection.is_closed())
                raise
            finally:
                if snapshot is not None:
                    snapshot.failure = None  # otherwise, its traceback and the snapshot would be a reference cycle
                if not connection.is_closed():
                    # The snapshot wrote nothing. The rollback frees the connection of a pooler for other clients.
                    with suppress(Exception):
                        await connection.execute("ROLLBACK", timeout=self.deadlines.silence)

    async def aclose(self) -> None:
        """Cancel the running batches, and close the pool. Connections that are still lent are closed when released."""
        for batches in self._batches.values():
            await batches.aclose()
        await self._connections.aclose()

    async def _open_transaction(self, begin_sql: str) -> asyncpg.Connection:
        """Run `begin_sql` on a connection, and return the connection. If the connection is lost, try another one.

        Raises: StorageUnavailable.
        """
        try:
            try:
                return await self._begin_on(await self._connections.acquire(), begin_sql)
            except ConnectionLost:
                return await self._begin_on(await self._connections.acquire(), begin_sql)
        except Exception as exc:
            outages.raise_if_unavailable(exc)
            raise

    async def _begin_on(self, connection: asyncpg.Connection, begin_sql: str) -> asyncpg.Connection:
        """Run `begin_sql` on this connection, and return the connection.

        Raises: ConnectionLost, if another connection may work. If any error occurs, the connection is released first.
        """
        try:
            await connection.execute(begin_sql)
        except BaseException as exc:
            may_retry = self._close_unusable(connection, exc)
            self._connections.release(connection)
            if may_retry:
                raise ConnectionLost from exc
            raise
        return connection

    async def _roll_back(
        self, connection: asyncpg.Connection, exc: BaseException, *, is_from_database: bool, is_committing: bool
    ) -> None:
        """Roll back a transaction whose block or commit has raised this error.

        If `is_from_database` is false, the error comes from the code in the block.

        Raises: StorageUnavailable, or its subclasses ChangesClashed and NothingCommitted, if the state of the database
            has caused the error. Otherwise the caller must raise the error again.
        """
        may_retry = self._close_unusable(connection, exc, is_from_database=is_from_database)
        if not connection.is_closed():
            with suppress(Exception):  # so that the original failure is raised
                await connection.execute("ROLLBACK")
        if not is_from_database:
            return
        # If the connection is lost during the commit, wxauth cannot know whether PostgreSQL has committed. The type of
        # the error is tested, too, because on a closed connection `may_retry` is also true for other errors, such as a
        # violated constraint, which must reach the caller.
        is_lost = isinstance(exc, (*outages.CONNECTION_LOST, asyncpg.InterfaceError))
        if may_retry and is_lost and not is_committing:
            raise NothingCommitted(outages.NO_RESPONSE) from exc
        outages.raise_if_unavailable(exc, is_closed=connection.is_closed())

    async def _fetch(
        self, text: str, arguments: Sequence[object], until: float | None = None, *, tries: int = 2
    ) -> Sequence[asyncpg.Record]:
        """Run a statement, and return all rows. Tracing wraps this method.

        If the connection is lost, if a pooler has forgotten the prepared statement, or if changes conflict, the
        statement is sent again, at most `tries` times in total. `until` is the end of the time limit, in the event
        loop's time. By default, the time limit is `Deadlines.total`.

        Raises: StorageUnavailable.
        """
        if until is None:
            until = _now() + self.deadlines.total
        async with _TranslatingLimit(until):
            while True:
                tries -= 1
                connection = await self._connections.acquire()
                try:
                    records: Sequence[asyncpg.Record] = await connection.fetch(text, *arguments)
                    return records
                except BaseException as exc:
                    may_retry = self._close_unusable(connection, exc)
                    if tries and (may_retry or isinstance(exc, (*outages.CLASHED, *outages.STATEMENT_LOST))):
                        continue
                    if may_retry:
                        raise ConnectionLost from exc
                    raise
                finally:
                    self._connections.release(connection)

    async def _wait(self, row: asyncio.Future[object]) -> object:
        """Wait for a row of a batch. Tracing wraps this method."""
        return await row

    def _close_unusable(
        self, connection: asyncpg.Connection, exc: BaseException, *, is_from_database: bool = True
    ) -> bool:
        """Close the connections that this failure makes unusable, and return whether the caller may try another one.

        If `is_from_database` is false, the failure comes from a transaction's block. An OSError then says nothing about
        the connection, because it may concern, for example, a file.

        After a timeout, the caller must not try another connection, because the second try might take as long. If the
        task was cancelled, the caller must not try another connection either, because the task might then never end,
        and the service could not stop.
        """
        is_lost = (is_from_database and isinstance(exc, outages.CONNECTION_LOST)) or connection.is_closed()
        if is_lost or isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
            # The other connections are affected, too, because their server does not respond, is gone, or is a standby
            # now.
            self._connections.expire()
        if isinstance(exc, outages.STATEMENT_LOST):
            log.warning(
                "prepared_statement_forgotten",
                reason=reason_of(exc),
                what_to_change=POOLER_REMEDY,
            )
        if is_lost or isinstance(exc, (asyncio.CancelledError, *outages.STATEMENT_LOST)):
            # wxauth aborts the connection, because an orderly close would wait for a server that does not respond.
            connection.terminate()
        return is_lost and isinstance(exc, Exception) and not isinstance(exc, TimeoutError)


class _Limit:
    """A time limit for database access, which raises StorageUnavailable when the time is over."""

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
            raise StorageUnavailable(outages.NO_RESPONSE) from late


class _TranslatingLimit(_Limit):
    """A time limit that also replaces an error with StorageUnavailable if the database's state causes the error."""

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, exc, traceback)
        if exc is not None:
            outages.raise_if_unavailable(exc)


def _now() -> float:
    """Return the present time of the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
