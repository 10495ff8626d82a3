"""The way to Postgres: one pool of connections, one map of errors.

A `Statement` is run by asyncpg. By way of SQLAlchemy's own connections it would cost several times as much.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from pydantic_core import from_json, to_json

from wxauth.errors import StorageUnavailable, Title
from wxauth.server.core.connections import Connections
from wxauth.server.core.logs import Seldom, get_logger, message_of
from wxauth.server.core.statements import Answer, Statement

CONNECTIONS: Final = 15
TRANSACTIONS: Final = 5
"""How many connections transactions may hold at once. Without it, those waiting for a lock would starve logins."""
SNAPSHOTS: Final = 4
"""How many connections of their own snapshots may hold at once, beside those that are lent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds for each part of a use of the database."""

    whole: float = 8.0
    """One use, waiting for a connection included."""
    statement: float = 4.0
    """The server cancels a statement after this, and frees its locks."""
    silence: float = 4.5
    """A silent server is given up after this."""
    lock: float = 2.0
    """A statement waits this long for a lock. Our own locks last milliseconds. Waiting longer for somebody else's
    would keep the few connections from requests that need one."""
    connect: float = 3.0
    connect_to_any: float = 6.0

    @property
    def limits(self) -> dict[str, int]:
        """The limits that the server itself is to keep, in milliseconds."""
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
ISOLATION: Final = "READ COMMITTED"
"""Set whatever the database's default: a statement that waited for a lock must see what its holder committed."""
_BEGIN: Final = f"BEGIN ISOLATION LEVEL {ISOLATION}"  # said each time, because a pooler keeps no settings
_PATIENT: Final = ("statement_timeout", "idle_in_transaction_session_timeout")
_UNLIMITED: Final = Statement[str]("""
SELECT format('ALTER ROLE %I SET %s = %L', current_user, name, milliseconds || 'ms') AS mend
  FROM unnest(:names::text[], :milliseconds::int[]) WITH ORDINALITY
       AS wanted (name, milliseconds, place) JOIN pg_settings USING (name)
 WHERE setting = '0' ORDER BY place
""")
_TIME: Final = Statement[datetime]("SELECT clock_timestamp() AS now")

# The database cannot be reached, is starting or stopping, is full or closed, or has become a standby; a lock is held.
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
# Another transaction stood in the way, and the server has undone ours whole.
_CLASHED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# The database answers, but does not suit this version: it is not migrated, or our role lacks rights.
_UNFIT = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError)
# A pooler has moved us to another server connection, where our prepared statements are missing or clash.
_FORGOTTEN = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
# The URL asks for something that is unknown, or impossible.
_WRONG_URL = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    ValueError,
    OverflowError,
)
# The last of these comes if the server has just ended a connection, and it is used before asyncpg has noticed.
_LOST = (OSError, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)

_NO_ROOT_CERTIFICATE: Final = ("root certificate file", "cannot determine location of user PostgreSQL")
_REFUSED_TLS: Final = "rejected SSL upgrade"  # asyncpg's own words

log = get_logger()
troubles: Final = Seldom(10.0)
"""What each use of a database that is not there, or has no schema, would say again."""


Row = TypeVar("Row", bound=Mapping[str, object])


class NotConnected(OSError):
    """No connection could be had. `said` names host and port, and never the password."""

    def __init__(self, said: Title) -> None:
        super().__init__(said.en)
        self.said = said


class DatabaseUrlRefused(StorageUnavailable):
    """The driver, or PostgreSQL, does not know what the URL asks for; waiting will not help."""


class ChangesClashed(StorageUnavailable):
    """Others changed the same rows at this moment, and the server has undone what was ours: it may be tried again."""


CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError, ChangesClashed)
"""Somebody else wrote first. Tried again, the statements find what that one has written."""


class _ConnectionLost(Exception):
    """The connection broke under a statement, which may have been carried out."""


class Transaction:
    """A transaction under way. Any error ends it: the caller must leave the block, and everything is rolled back."""

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        """All rows."""
        rows: Sequence[Row] = await self._connection.fetch(statement.text, *statement.arguments(values))
        return rows

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """The first row, or None."""
        row: Row | None = await self._connection.fetchrow(statement.text, *statement.arguments(values))
        return row

    async def value(self, statement: Statement[Answer], /, **values: object) -> Answer | None:
        """The first value of the first row, or None."""
        value: Answer | None = await self._connection.fetchval(statement.text, *statement.arguments(values))
        return value

    async def values(self, statement: Statement[Answer], /, **values: object) -> Sequence[Answer]:
        """The first value of each row."""
        return [row[0] for row in await self._connection.fetch(statement.text, *statement.arguments(values))]

    async def run(self, statement: Statement[object], /, **values: object) -> int:
        """How many rows were written."""
        # asyncpg sends a statement without arguments in another way, which takes no prepared one.
        status: str = await self._connection.execute(statement.text, *statement.arguments(values))
        number = status.rpartition(" ")[2]
        return int(number) if number.isdigit() else 0


class Snapshot(Transaction):
    """One state of the database, whatever changes meanwhile."""

    __slots__ = ()

    async def pages(
        self, statement: Statement[Row], page_size: int, /, **values: object
    ) -> AsyncGenerator[Sequence[Row]]:
        """All rows, so many at a time: the rest stays in the server."""
        cursor = await self._connection.cursor(statement.text, *statement.arguments(values))
        while rows := await cursor.fetch(page_size):
            yield rows


class Database:
    """Connections to one Postgres, opened when first needed.

    Args:
        url: `postgresql://...`, several hosts allowed. `pgbouncer=true` in its query suits a pooler in
            transaction mode: no prepared statements, no settings at the start of a connection. With
            `pgbouncer=prepared` statements are prepared all the same.
        deadlines: How long it may take.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = DEADLINES) -> None:
        self._deadlines = deadlines
        self._dsns, self._options, self.is_pooled = _connect_options(url, deadlines)
        self._begin = _BEGIN + _set_limits(deadlines) if self.is_pooled else _BEGIN
        self._connections = Connections(self.connect, size=CONNECTIONS)
        self._transactions = asyncio.Semaphore(TRANSACTIONS)
        self._snapshots = asyncio.Semaphore(SNAPSHOTS)

    async def row(self, statement: Statement[Row], /, **values: object) -> Row | None:
        """The first row of one statement, which commits by itself; None if there is no row.

        If the connection is lost on the way, the statement is sent once more on another connection. So it must be one
        that does no harm when it runs twice. It is also sent once more if it clashed with somebody else's changes.

        Raises: StorageUnavailable, of which ChangesClashed says that it clashed twice; and
            asyncpg.IntegrityConstraintViolationError for the caller to settle.
        """
        rows = await self._answer(statement.text, statement.arguments(values))
        return rows[0] if rows else None

    async def rows(self, statement: Statement[Row], /, **values: object) -> Sequence[Row]:
        """All rows of one statement; else as `row`."""
        return await self._answer(statement.text, statement.arguments(values))

    async def value(self, statement: Statement[Answer], /, **values: object) -> Answer | None:
        """The first value of the first row; else as `row`."""
        rows = await self._answer(statement.text, statement.arguments(values))
        value: Answer | None = rows[0][0] if rows else None
        return value

    async def values(self, statement: Statement[Answer], /, **values: object) -> Sequence[Answer]:
        """The first value of each row; else as `row`."""
        return [row[0] for row in await self._answer(statement.text, statement.arguments(values))]

    async def run(self, statement: Statement[object], /, **values: object) -> None:
        """A statement whose answer does not matter; else as `row`."""
        await self._answer(statement.text, statement.arguments(values))

    async def time(self) -> datetime:
        """The database's own time. Raises: StorageUnavailable."""
        now = await self.value(_TIME)
        assert now is not None
        return now

    async def unlimited(self) -> Sequence[str]:
        """Statements with which an administrator sets limits in the database, if it has none, as behind a pooler.

        Without limits, one locked row would hold up everybody: single statements bring no limits along.

        Raises: StorageUnavailable.
        """
        limits = self._deadlines.limits
        return await self.values(_UNLIMITED, names=list(limits), milliseconds=list(limits.values()))

    def answering(self) -> AbstractAsyncContextManager[object]:
        """A block in which all uses of the database together have one whole deadline.

        Raises: StorageUnavailable.
        """
        return _Answering(self._deadlines.whole)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """A transaction. It is committed at the end of the block, and rolled back if the block raises.

        Raises: StorageUnavailable, of which ChangesClashed tells of a deadlock; and
            asyncpg.IntegrityConstraintViolationError for the caller to settle.
        """
        async with self.answering(), self._transactions:
            connection = await self._begun()
            try:
                yield Transaction(connection)
                await connection.execute("COMMIT")
            except BaseException as exc:
                self._look_at(connection, exc)
                if not connection.is_closed():
                    with suppress(Exception):  # the failure that ended the transaction is the one to raise
                        await connection.execute("ROLLBACK")
                raise
            finally:
                if not connection.is_closed() and connection.is_in_transaction():
                    connection.terminate()
                self._connections.release(connection)

    @asynccontextmanager
    async def snapshot(self, *, patience: float | None = None) -> AsyncIterator[Snapshot]:
        """One state of the database, to read at leisure on a connection of its own, which nobody else waits for.

        Args:
            patience: Seconds that a statement may take, and that the reader may wait between two of them. None: for
                ever.

        Raises: StorageUnavailable.
        """
        async with AsyncExitStack() as held:
            async with self.answering():
                await held.enter_async_context(self._snapshots)
                connection = await self.connect(command_timeout=patience)
            held.callback(connection.terminate)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    milliseconds = round(patience * 1000) if patience is not None else 0
                    await connection.execute("; ".join(f"SET LOCAL {name} = {milliseconds}" for name in _PATIENT))
                    yield Snapshot(connection)
            except Exception as exc:
                raise_if_unavailable(exc)
                raise

    async def connect(self, **options: object) -> asyncpg.Connection:
        """A connection for the caller alone. `options` are asyncpg's. Raises: asyncpg's errors."""
        # Each host is tried with its own timeout. asyncpg has one for all hosts: a silent host would use it up.
        failures: list[NotConnected] = []
        for dsn in list(self._dsns):
            try:
                return await self._connect_to(dsn, options)
            except NotConnected as exc:
                failures.append(exc)
        if len(failures) == 1:
            raise failures[0]
        said = Title("; ".join(each.said.en for each in failures), "；".join(each.said.zh for each in failures))
        raise NotConnected(said) from failures[-1].__cause__

    @property
    def prepares(self) -> bool:
        """Whether statements are prepared."""
        return self._options.get(_CACHE) != 0

    async def keeps_prepared(self) -> bool | None:
        """Whether prepared statements survive from one statement to the next, which some poolers prevent.

        None if that cannot be found out, because only one connection can be had.

        Raises: StorageUnavailable.
        """
        connections: list[asyncpg.Connection] = []
        try:
            connections += [await self.connect(**{_CACHE: _ENOUGH}) for _ in range(2)]
            first, second = connections
            await first.fetchval(_ECHO, 1)
            await second.execute("BEGIN")  # has the server's process that a pooler has just taken from the first one
            await first.fetchval(_ECHO, 2)
        except _FORGOTTEN:
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
        """A connection on which a transaction has begun. If an idle connection has died meanwhile, another is tried."""
        try:
            return await self._begin_on(await self._connections.acquire())
        except _ConnectionLost:
            return await self._begin_on(await self._connections.acquire())

    async def _begin_on(self, connection: asyncpg.Connection) -> asyncpg.Connection:
        try:
            await connection.execute(self._begin)
        except BaseException as exc:
            is_lost = self._look_at(connection, exc)
            self._connections.release(connection)
            if is_lost and not isinstance(exc, TimeoutError):
                raise _ConnectionLost from exc
            raise
        return connection

    async def _answer(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        """All rows. Tracing looks on here."""
        async with _Answering(self._deadlines.whole):
            try:
                return await self._fetch(text, arguments)
            except (_ConnectionLost, *_CLASHED):
                return await self._fetch(text, arguments)

    async def _fetch(self, text: str, arguments: Sequence[object]) -> Sequence[asyncpg.Record]:
        connection = await self._connections.acquire()
        try:
            rows: Sequence[asyncpg.Record] = await connection.fetch(text, *arguments)
            return rows
        except BaseException as exc:
            if self._look_at(connection, exc) and not isinstance(exc, TimeoutError):
                # A timeout is not retried: a second try would wait as long.
                raise _ConnectionLost from exc
            raise
        finally:
            self._connections.release(connection)

    def _look_at(self, connection: asyncpg.Connection, exc: BaseException) -> bool:
        """Whether this failure means that the connection is lost. Connections that must not be reused are dropped."""
        is_lost = isinstance(exc, _LOST) or connection.is_closed()
        if is_lost or isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
            # The other connections have the same fault: their server is silent, gone, or a standby now.
            self._connections.expire()
        if is_lost or isinstance(exc, asyncio.CancelledError):
            # Aborted, not closed in order: that would wait for the server that does not answer.
            connection.terminate()
        return is_lost

    async def _connect_to(self, dsn: str, options: Mapping[str, object]) -> asyncpg.Connection:
        try:
            connection = await asyncpg.connect(dsn, **{**self._options, **options})
        except _WRONG_URL as exc:
            if isinstance(exc, OSError):  # an invalid certificate's error is an OSError, and a ValueError too
                raise NotConnected(_why_not(exc, dsn)) from exc
            raise DatabaseUrlRefused("the database's URL cannot be used") from exc
        except _AWAY as exc:
            raise NotConnected(_why_not(exc, dsn)) from exc
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_json_text, decoder=from_json)
        self._dsns.sort(key=lambda other: other != dsn)  # the host that answers is tried first next time
        return connection


class _Answering:
    """A deadline for the database. All the ways in which it can be away become StorageUnavailable."""

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
    """Raise StorageUnavailable for a failure by the database's state. A failure by our own mistake is left as it is.

    Raises: StorageUnavailable.
    """
    if isinstance(exc, (*_AWAY, _ConnectionLost)):
        raise StorageUnavailable("the database does not answer") from exc
    if isinstance(exc, _CLASHED):
        raise ChangesClashed("others changed the same at this moment") from exc
    if isinstance(exc, _UNFIT):
        if troubles.lets_through(monotonic()):
            log.error(
                "database_unfit", reason=reason_of(exc), what_to_change="run 'wxauth migrate'; see 'wxauth check'"
            )
        raise StorageUnavailable("the database is not as this version needs it: see 'wxauth check'") from exc
    if isinstance(exc, _FORGOTTEN):
        log.error("prepared_statement_forgotten", reason=reason_of(exc), what_to_change=WHERE_NOTHING_IS_KEPT)
        raise StorageUnavailable("the pooler in front of the database forgets statements: see 'wxauth check'") from exc


def reason_of(exc: BaseException) -> str:
    """Why there is no connection; else the database's own message; without one, the type of the error.

    Of the URL, only host and port are in it.
    """
    cause: BaseException = exc
    while cause.__cause__ is not None and not isinstance(cause, TimeoutError | NotConnected):
        cause = cause.__cause__
    if isinstance(cause, NotConnected):
        return cause.said.en
    if isinstance(cause, asyncpg.ClientConfigurationError) and str(cause).startswith(_NO_ROOT_CERTIFICATE):
        return "sslmode=verify-ca and verify-full need an authority: name its file by sslrootcert, or by SSL_CERT_FILE"
    is_its_own = isinstance(cause, asyncpg.PostgresError) and cause.sqlstate is not None
    return message_of(cause).partition("\n")[0] if is_its_own else type(cause).__name__


def trouble_of(exc: StorageUnavailable) -> Title:
    """One line for the operator, in both languages."""
    if isinstance(cause := exc.__cause__, NotConnected):
        return cause.said
    reason = reason_of(exc)
    return Title(f"{exc.detail}: {reason}", f"没有响应：{reason}")


def _why_not(exc: BaseException, dsn: str) -> Title:
    """Why a connection was not had: the place, and what is wrong there."""
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
    """A DSN for each host, further options for asyncpg, and whether there is a pooler in between."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = {
        "application_name": "wxauth",
        "default_transaction_isolation": ISOLATION,
        **{name: str(value) for name, value in deadlines.limits.items()},
    }
    options: dict[str, object] = {"command_timeout": deadlines.silence}
    # A parameter of libpq's, which asyncpg would send to the server as a setting of the session.
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
