"""Access to PostgreSQL: statements, transactions with their retries, and snapshots.

wxauth runs statements with asyncpg directly. A short statement takes 25 µs of CPU time this way, and 8 to 9 times as
much through SQLAlchemy's connections. See docs/contribute/decisions/0001-statements-are-text.md.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from copy import copy
from datetime import datetime
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar
from zlib import crc32

import asyncpg
from pydantic import BaseModel

from wxauth.core.connecting import (
    DEADLINES,
    ISOLATION,
    Connections,
    Connector,
    Deadlines,
    LastWords,
    sql_to_lift_limits,
)
from wxauth.core.logs import get_logger
from wxauth.core.outages import (
    CLASHED,
    CONNECTION_LOST,
    NO_RESPONSE,
    POOLER_REMEDY,
    STATEMENT_LOST,
    ChangesClashed,
    ConnectionLost,
    DatabaseHeld,
    NothingCommitted,
    raise_if_unavailable,
    reason_of,
)
from wxauth.core.statements import Batched, Batches, Statement, T_co
from wxauth.errors import BUSY_TITLE, StorageUnavailable
from wxauth.i18n import Text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


# docs/run/operations.md computes `max_connections` from the sum of this number and MAX_SNAPSHOTS.
MAX_CONNECTIONS: Final = 15
# Without this limit, transactions that wait for a lock would take the connections that logins need. The limits in
# `limits/concurrency.py` let one user occupy only four.
MAX_TRANSACTIONS: Final = 5
MAX_SNAPSHOTS: Final = 4  # each has its own connection, outside the pool
# Each transaction sets the isolation level, because a pooler does not keep a session's settings.
_BEGIN: Final = f"BEGIN ISOLATION LEVEL {ISOLATION}"
_REPLAN: Final = "; SET LOCAL plan_cache_mode = force_custom_plan"
_BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TIME: Final = Statement[datetime]("SELECT clock_timestamp() AS now")

DEFAULT_ATTEMPTS: Final = 5
# If fifty merges and splits of one user run at the same time, only one succeeds in each round, so the last one needs
# fifty attempts.
ATTEMPTS_OF_OPERATORS: Final = 50
_TOO_MANY_CHANGES: Final = "too many concurrent changes to this user"

log = get_logger()

P = ParamSpec("P")
T = TypeVar("T")
Row = TypeVar("Row", bound="Mapping[str, object] | BaseModel | DataclassInstance | tuple[Any, ...]")


class _Reader(ABC):
    __slots__ = ()

    @abstractmethod
    async def _fetch(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        """Run a statement with these values for `$1`, `$2` and so on, and return all rows."""

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        records = await self._fetch(statement.text, statement.arguments(values))
        return statement.make(records[0]) if records else None

    async def one(self, statement: Statement[Row], /, **values: object) -> Row:
        (row,) = await self.rows(statement, **values)
        return row

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        return statement.read(await self._fetch(statement.text, statement.arguments(values)))

    async def value(self, statement: Statement[T_co], /, **values: object) -> T_co | None:
        """Return the first value of the first row. Return None if there is no row, or if the value is null."""
        records = await self._fetch(statement.text, statement.arguments(values))
        value: T_co | None = records[0][0] if records else None
        return value

    async def values(self, statement: Statement[T_co], /, **values: object) -> Sequence[T_co]:
        return [row[0] for row in await self._fetch(statement.text, statement.arguments(values))]


class Transaction(_Reader):
    """An open transaction. After any error, the caller must leave the block that opened it, which rolls it back."""

    __slots__ = ("_connection", "failure")

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        # The error of the statement that failed last. Any other error that leaves the block is not the database's.
        self.failure: BaseException | None = None

    async def run(self, statement: Statement[object], /, **values: object) -> int:
        """Return the number of rows that the statement inserted, updated or deleted."""
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
    """Runs statements on a PostgreSQL database, and opens connections when they are first needed.

    Outside of a transaction, each statement commits by itself. If the connection is lost, if a pooler has forgotten the
    prepared statement, or if concurrent changes conflict, the statement is sent once more. Therefore a second execution
    of the statement must do no harm. The caller must handle asyncpg.IntegrityConstraintViolationError.

    Every function that takes a `Database`, or an object that has one, may raise StorageUnavailable or one of its
    subclasses, for example ChangesClashed if a statement conflicted twice. Docstrings do not name these errors.

    `url` has one host or several. With `pgbouncer=true`, for a pooler in transaction mode, wxauth prepares no
    statements, and sends no settings except the application's name. With `pgbouncer=prepared`, it prepares statements.
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
        self.held_because: Text | None = None  # why no statement may run now

    def unheld(self) -> Self:
        """Return a view of this database, with the same connections, on which statements always run."""
        view = copy(self)
        view.held_because = None
        view._batches = {}  # because `Batches` run their statements on the database that created them
        return view

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """A batched statement can run once for several waiting callers."""
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
        (now,) = await self.values(_TIME)
        return now

    def time_limit(self) -> AbstractAsyncContextManager[object]:
        """Limit all database access in a block together to `Deadlines.total`, and translate its failures."""
        return _Limit(_now() + self.deadlines.total, translates=True)

    @asynccontextmanager
    async def begin(self, *, replan: bool = False) -> AsyncIterator[Transaction]:
        """Open a transaction, which is committed at the end of the block, and rolled back if the block raises.

        With `replan`, PostgreSQL plans each statement for the present sizes of its tables. Otherwise PostgreSQL may
        reuse a plan from a time when a table was empty. After the table has filled, such a plan would read the whole
        table, which can take minutes. The whole block has one time limit, `Deadlines.total`.

        Raises: StorageUnavailable, or its subclasses ChangesClashed for conflicting changes (for example, a deadlock)
            and NothingCommitted for a connection that was lost before the commit;
            asyncpg.IntegrityConstraintViolationError.
        """
        if self.held_because is not None:
            raise DatabaseHeld(self.held_because)
        async with _Limit(_now() + self.deadlines.total, translates=False), self._transactions:
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
        """Open a snapshot of the database for long reads.

        `patience` limits the seconds for each statement, and between two statements. None means no limit.
        """
        if self.held_because is not None:
            raise DatabaseHeld(self.held_because)
        async with AsyncExitStack() as stack:
            async with self.time_limit():
                await stack.enter_async_context(self._snapshots)
                connection = await self.connector.connect(command_timeout=patience)
            stack.callback(connection.terminate)
            last_words = LastWords(connection)
            snapshot: Snapshot | None = None
            try:
                milliseconds = round(patience * 1000) if patience is not None else 0
                limits = sql_to_lift_limits(
                    statement_timeout=milliseconds, idle_in_transaction_session_timeout=milliseconds
                )
                await connection.execute(f"{_BEGIN_SNAPSHOT}; {limits}", timeout=self.deadlines.silence)
                snapshot = Snapshot(connection)
                yield snapshot
            except Exception as exc:
                if snapshot is None or exc is snapshot.failure:
                    raise_if_unavailable(last_words.error or exc, is_closed=connection.is_closed())
                raise
            finally:
                if snapshot is not None:
                    snapshot.failure = None  # otherwise, its traceback and the snapshot would be a reference cycle
                if not connection.is_closed():
                    # The snapshot wrote nothing. The rollback frees the connection of a pooler for other clients.
                    with suppress(Exception):
                        await connection.execute("ROLLBACK", timeout=self.deadlines.silence)

    async def aclose(self) -> None:
        """Cancel the running batches, and close the pool."""
        for batches in self._batches.values():
            await batches.aclose()
        await self._connections.aclose()

    async def _open_transaction(self, begin_sql: str) -> asyncpg.Connection:
        try:
            try:
                return await self._begin_on(await self._connections.acquire(), begin_sql)
            except ConnectionLost:  # perhaps while it was idle in the pool
                return await self._begin_on(await self._connections.acquire(), begin_sql)
        except Exception as exc:
            raise_if_unavailable(exc)
            raise

    async def _begin_on(self, connection: asyncpg.Connection, begin_sql: str) -> asyncpg.Connection:
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
        """Raise StorageUnavailable after the rollback if the database's state has caused the failure."""
        may_retry = self._close_unusable(connection, exc, is_from_database=is_from_database)
        if not connection.is_closed():
            with suppress(Exception):  # so that the original failure is raised
                await connection.execute("ROLLBACK")
        if not is_from_database:
            return
        # If the connection is lost during the commit, wxauth cannot know whether PostgreSQL has committed. The type of
        # the error is tested, too, because on a closed connection `may_retry` is also true for other errors, such as a
        # violated constraint, which must reach the caller.
        is_lost = isinstance(exc, (*CONNECTION_LOST, asyncpg.InterfaceError))
        if may_retry and is_lost and not is_committing:
            raise NothingCommitted(NO_RESPONSE) from exc
        raise_if_unavailable(exc, is_closed=connection.is_closed())

    # `until` is the end of the time limit, in the event loop's time.
    async def _fetch(
        self, text: str, arguments: Sequence[object], until: float | None = None, *, tries: int = 2
    ) -> Sequence[asyncpg.Record]:
        if self.held_because is not None:
            raise DatabaseHeld(self.held_because)
        if until is None:
            until = _now() + self.deadlines.total
        async with _Limit(until, translates=True):
            while True:
                tries -= 1
                connection = await self._connections.acquire()
                try:
                    records: Sequence[asyncpg.Record] = await connection.fetch(text, *arguments)
                    return records
                except BaseException as exc:
                    may_retry = self._close_unusable(connection, exc)
                    if tries and (may_retry or isinstance(exc, (*CLASHED, *STATEMENT_LOST))):
                        continue
                    if may_retry:
                        raise ConnectionLost from exc
                    raise
                finally:
                    self._connections.release(connection)

    # Tracing wraps this method, which gets the statement's name.
    async def _wait(self, row: asyncio.Future[object], statement: str) -> object:
        return await row

    def _close_unusable(
        self, connection: asyncpg.Connection, exc: BaseException, *, is_from_database: bool = True
    ) -> bool:
        """Close the connections that this failure makes unusable. Return whether to try another connection."""
        # An OSError of a transaction's block may concern, for example, a file.
        is_lost = (is_from_database and isinstance(exc, CONNECTION_LOST)) or connection.is_closed()
        if is_lost or isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
            # The other connections are affected, too, because their server does not respond, is gone, or is a standby
            # now.
            self._connections.expire()
        if isinstance(exc, STATEMENT_LOST):
            log.warning(
                "prepared_statement_forgotten",
                reason=reason_of(exc),
                what_to_change=POOLER_REMEDY,
            )
        if is_lost or isinstance(exc, (asyncio.CancelledError, *STATEMENT_LOST)):
            # wxauth aborts the connection, because an orderly close would wait for a server that does not respond.
            connection.terminate()
        # After a timeout, a second try might take as long. A cancelled task that tries again might never end.
        return is_lost and isinstance(exc, Exception) and not isinstance(exc, TimeoutError)


class _Limit:
    """A time limit. With `translates`, an error that the database's state causes becomes StorageUnavailable."""

    __slots__ = ("_timeout", "_translates")

    def __init__(self, until: float, *, translates: bool) -> None:
        self._timeout = asyncio.timeout_at(until)
        self._translates = translates

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, traceback)
        except TimeoutError as late:
            raise StorageUnavailable(NO_RESPONSE) from late
        if exc is not None and self._translates:
            raise_if_unavailable(exc)


def _now() -> float:
    return asyncio.get_running_loop().time()


class ChangedMeanwhile(Exception):
    """The data that an attempt has read has changed, so the attempt must be repeated.

    A transaction reads some data before it locks the user. While it waits for the lock, another transaction may merge
    the user, erase the user, or make the user an administrator. Then the waiting transaction changes nothing and raises
    this error, and its function runs again with the data that is stored now.
    """


class TooManyChanges(StorageUnavailable):
    """At each attempt, another transaction has changed the data first."""

    title = BUSY_TITLE


# Such a failure concerns only the rows of this write, so the writes of other rows can go on.
PREVENTED_BY_OTHERS: Final = (ChangesClashed, TooManyChanges)


def retrying(
    attempts: int = DEFAULT_ATTEMPTS, *, detail: str = _TOO_MANY_CHANGES, conflicts: tuple[type[Exception], ...] = ()
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Repeat a function while it raises ChangedMeanwhile or one of `conflicts`, and then raise TooManyChanges."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(function)
        async def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
            cause: Exception | None = None
            for _ in range(attempts):
                try:
                    return await function(*args, **kwargs)
                except ChangedMeanwhile:
                    continue
                except conflicts as exc:
                    cause = exc
            raise TooManyChanges(detail) from cause

        return repeated

    return decorate


@asynccontextmanager
async def begin_locked(
    database: Database, lock: Callable[[Transaction], Awaitable[T]], *, attempts: int = DEFAULT_ATTEMPTS
) -> AsyncIterator[tuple[Transaction, T]]:
    """Open a transaction, call `lock` in it, and yield the transaction and the value that `lock` returns.

    If `lock` raises ChangedMeanwhile, call it again in a new transaction. The caller's block runs only once. Before
    `lock` raises ChangedMeanwhile, it must not change anything, because the transaction is committed.
    """
    for _ in range(attempts):
        async with database.begin() as transaction:
            try:
                locked = await lock(transaction)
            except ChangedMeanwhile:
                continue
            yield transaction, locked
            return
    raise TooManyChanges(_TOO_MANY_CHANGES)
