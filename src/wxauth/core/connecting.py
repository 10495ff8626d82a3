"""The connections to PostgreSQL, their time limits, and the pool that lends them.

wxauth tries each host in the URL until one accepts.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple

import asyncpg
from pydantic_core import from_json, to_json

from wxauth.core import libpq
from wxauth.core.outages import (
    NOT_USABLE,
    DatabaseUrlRefused,
    NotConnected,
    ParameterRefused,
    outage_log,
    raise_if_not_connected,
)
from wxauth.i18n import lazy_gettext as _

ISOLATION: Final = "READ COMMITTED"
"""Every transaction except snapshots has this isolation level.

A statement that has waited for a lock must see the changes that the holder of the lock committed. wxauth sets the level
itself, because an operator can give the database a different default. Only a single statement behind a pooler has the
database's default level.
"""
_PREPARED: Final = "prepared"  # the value of `pgbouncer` for a PgBouncer that supports prepared statements
MAX_IDLE_SECONDS: Final = 240.0  # firewalls and proxies often drop an idle connection after five minutes
CLOSE_TIMEOUT_SECONDS: Final = 3.0
# Each setting with which PostgreSQL ends long work. Before version 17, transaction_timeout doesn't exist.
LIMITS: Final = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)
_MAX_LAST_WORDS: Final = 8192  # bytes
_FATAL: Final = b"\0VFATAL\0"  # the second field of an error, after the severity in the server's language


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time limits of database access, in seconds."""

    # The time of a statement or transaction includes the wait for a connection. A transaction may be idle for as long.
    total: float = 8.0
    statement: float = 4.0  # after which the server cancels the statement, before wxauth closes the connection
    silence: float = 4.5  # of the server, after which wxauth closes the connection
    # wxauth usually holds its own locks only for milliseconds, so a long wait is probably for another program's lock.
    # Such a wait must end soon, because the waiting request occupies a connection that other requests need.
    lock: float = 2.0
    connect: float = 3.0  # to one host of the URL
    connect_to_any: float = 6.0  # to all hosts, each for an equal part
    batch_wait: float = 0.002  # of a batch for the previous one to end (see `Batches` in `core.statements`)

    @property
    def server_limits(self) -> dict[str, int]:
        """PostgreSQL's settings, in milliseconds.

        Behind a pooler, they apply only in transactions, because the pooler does not keep the settings of a session.
        """
        seconds_by_name = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.total,
        }
        return {name: round(seconds * 1000) for name, seconds in seconds_by_name.items()}


DEADLINES: Final = Deadlines()


def sql_to_lift_limits(*, is_local: bool = True, **milliseconds: int) -> str:
    """Return the statement that lifts all limits of the transaction, or of the session if it is not local.

    A limit in `milliseconds` is set to this value instead.
    """
    values = ", ".join(f"('{name}', '{milliseconds.get(name, 0)}')" for name in LIMITS)
    return (
        f"SELECT set_config(name, value, {is_local}) FROM (VALUES {values}) lifted (name, value)"
        " WHERE name IN (SELECT name FROM pg_settings)"
    )


class LastWords:
    """Receives a connection's bytes for asyncpg, and keeps the error with which the server ends the connection.

    asyncpg drops this error if no statement is running, and long work often computes while its connection is idle.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.error: asyncpg.PostgresError | None = None
        self._transport = connection._transport
        self._protocol = connection._protocol
        self.pause_writing = self._protocol.pause_writing
        self.resume_writing = self._protocol.resume_writing
        self.eof_received = self._protocol.eof_received
        self._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        self._keep(data)
        self._protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        # If a write has failed, the error can still be unread. This finds nothing if the connection uses TLS.
        if exc is not None and self.error is None and (opened := self._transport.get_extra_info("socket")) is not None:
            with suppress(OSError):
                self._keep(os.read(opened.fileno(), _MAX_LAST_WORDS))
        self._protocol.connection_lost(exc)

    def _keep(self, data: bytes) -> None:
        start = data.rfind(_FATAL)  # the error can follow the last rows
        if start >= 0:
            fields = data[start : start + _MAX_LAST_WORDS].decode(errors="replace").split("\0")
            self.error = asyncpg.PostgresError.new({field[:1]: field[1:] for field in fields if field}, query=None)


class Connector:
    """Opens connections to the database of a URL. It first tries the host that worked last."""

    def __init__(self, url: str, *, deadlines: Deadlines) -> None:
        libpq.hide_unreadable_home()
        parsed_url = libpq.read_url(url)
        self.is_pooled: Final = parsed_url.pooler in ("1", "true", _PREPARED)
        self._deadlines = deadlines
        self._dsns = parsed_url.dsns
        self._refusal = parsed_url.refusal
        self.lacks_channel_binding: Final = parsed_url.requires_channel_binding  # asyncpg does not support it
        self._options = _options_for(parsed_url, is_pooled=self.is_pooled, deadlines=deadlines)
        self._last_dsn = self._dsns[0]

    async def connect(self, **options: object) -> asyncpg.Connection:
        """Open a connection. `options` override the options for asyncpg that wxauth sets.

        Raises: NotConnected, DatabaseUrlRefused.
        """
        if self._refusal is not None:
            raise DatabaseUrlRefused(NOT_USABLE) from ParameterRefused(self._refusal)
        failures: list[NotConnected] = []
        started_at = monotonic()
        timeout = min(self._deadlines.connect, self._deadlines.connect_to_any / len(self._dsns))
        # The host that worked last comes first, because False sorts before True.
        for dsn in sorted(self._dsns, key=lambda dsn: dsn != self._last_dsn):
            try:
                connection = await self._connect_to(dsn, {"timeout": timeout, **options})
            except NotConnected as exc:
                failures.append(exc)
            else:
                self._last_dsn = dsn
                outage_log.end(started_at)
                return connection
        outage_log.begin()
        if len(failures) == 1:
            raise failures[0]
        raise NotConnected(_("; ").join(each.text for each in failures)) from failures[-1].__cause__

    async def _connect_to(self, dsn: str, options: Mapping[str, object]) -> asyncpg.Connection:
        all_options = {**self._options, **options}
        try:
            connection = await asyncpg.connect(dsn, password=libpq.password_in_file(dsn), **all_options)
        except Exception as exc:
            raise_if_not_connected(exc, dsn)
            raise
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=lambda value: to_json(value).decode(), decoder=from_json
        )
        return connection


def _options_for(parsed_url: libpq.DatabaseUrl, *, is_pooled: bool, deadlines: Deadlines) -> dict[str, object]:
    settings = {"application_name": "wxauth"}
    options: dict[str, object] = {"command_timeout": deadlines.silence}
    if is_pooled:  # PgBouncer refuses most settings when a client connects
        # The next statement may run on another server connection, which does not have the prepared statements in
        # asyncpg's cache.
        if parsed_url.pooler != _PREPARED:
            options["statement_cache_size"] = 0
    else:
        settings["default_transaction_isolation"] = ISOLATION
        # PostgreSQL overestimates the cost of many plans, so its JIT compiler would spend 16 ms on a statement that
        # runs for 0.3 ms.
        settings["jit"] = "off"
        settings |= {name: str(value) for name, value in deadlines.server_limits.items()}
    options["server_settings"] = {name: value for name, value in settings.items() if name not in parsed_url.parameters}
    return options


class _Idle(NamedTuple):
    connection: asyncpg.Connection
    since: float  # in the event loop's time


class Connections:
    """A small connection pool. It opens a connection if none is idle, and lends at most `size` at the same time.

    wxauth does not use asyncpg's own pool, because that pool creates a task for each release. Connections are not reset
    when they are returned, because statements and transactions leave no state. See
    docs/contribute/decisions/0004-connection-pool.md.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, size: int) -> None:
        self._connect = connect
        self._places = asyncio.Semaphore(size)
        self._idle: list[_Idle] = []  # in the order in which they were released
        self._lent: dict[asyncpg.Connection, int] = {}  # each with the `_generation` in which it was lent
        self._generation = 0  # `expire` and `aclose` begin another one

    async def acquire(self) -> asyncpg.Connection:
        """Lend the idle connection that was released last, or open one. The caller must `release` it."""
        await self._places.acquire()
        try:
            connection = self._take_idle() or await self._connect()
        except BaseException:
            self._places.release()
            raise
        self._lent[connection] = self._generation
        return connection

    def release(self, connection: asyncpg.Connection) -> None:
        """Take a connection back. If it was lent before the last `expire` or `aclose`, close it.

        Also close the connection that has been idle for longest, if its idle time has reached `MAX_IDLE_SECONDS`. The
        pool lends the connection that was released last, so the additional connections from a busy period would
        otherwise stay open unused.
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
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, since = self._idle.pop()
            if not connection.is_closed() and now - since < MAX_IDLE_SECONDS:
                return connection
            connection.terminate()
        return None
