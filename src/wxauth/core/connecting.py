"""The opening of connections to PostgreSQL. wxauth tries each address of each host in the URL until one accepts."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

import asyncpg
from pydantic_core import from_json, to_json

from wxauth.core import libpq
from wxauth.core.database_errors import NotConnected
from wxauth.core.deadlines import Deadlines
from wxauth.core.outage_log import outage_log
from wxauth.core.outages import raise_if_not_connected
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.addresses import addresses_of

ISOLATION: Final = "READ COMMITTED"
"""The isolation level of every transaction except snapshots.

A statement that has waited for a lock must see the changes that the holder of the lock committed. wxauth sets the level
itself, because an operator can give the database a different default. Only a single statement behind a pooler has the
database's default level.
"""
_PREPARED: Final = "prepared"
"""The value of `pgbouncer` in the URL for a PgBouncer that supports prepared statements."""


class _Place(NamedTuple):
    """A place to connect to: a host or, if the host's name has several addresses, one of these addresses."""

    dsn: str
    """The DSN of the host."""
    address: str | None
    """The address; None if the host is not a name with several addresses."""


class Connector:
    """An object that opens connections to the database of a URL. It first tries the address that worked last."""

    def __init__(self, url: str, *, deadlines: Deadlines) -> None:
        libpq.hide_unreadable_home()
        parsed_url = libpq.read_url(url)
        self.is_pooled: Final = parsed_url.pooler in ("1", "true", _PREPARED)
        """Whether there is a pooler between wxauth and the database."""
        self._deadlines = deadlines
        self._dsns = parsed_url.dsns
        self._options = _options_for(parsed_url, is_pooled=self.is_pooled, deadlines=deadlines)
        self._last_place = _Place(self._dsns[0], None)
        """The place to which the last connection was opened. Before the first connection, it is the first host."""

    async def connect(self, **options: object) -> asyncpg.Connection:
        """Open a connection. `options` are passed to asyncpg, and override the options that wxauth sets.

        Raises: NotConnected, DatabaseUrlRefused.
        """
        failures: list[NotConnected] = []
        started_at = monotonic()
        places: list[_Place] = []
        for dsn in self._dsns:
            places += await _places_of(dsn, seconds=self._deadlines.connect)
        # The place that worked last comes first, and then the other addresses of its host, because False sorts before
        # True.
        places.sort(key=lambda place: (place.dsn != self._last_place.dsn, place.address != self._last_place.address))
        # Each address of each host has a separate time limit. asyncpg has one limit for all addresses together, which
        # an address that never responds would use up.
        timeout = min(self._deadlines.connect, self._deadlines.connect_to_any / len(places))
        for place in places:
            try:
                connection = await self._connect_to(place, {"timeout": timeout, **options})
            except NotConnected as exc:
                failures.append(exc)
            else:
                self._last_place = place
                outage_log.end(started_at)
                return connection
        outage_log.begin()
        if len(failures) == 1:
            raise failures[0]
        raise NotConnected(_("; ").join(each.text for each in failures)) from failures[-1].__cause__

    async def _connect_to(self, place: _Place, options: Mapping[str, object]) -> asyncpg.Connection:
        """Open a connection to this host and address. Raises: NotConnected, DatabaseUrlRefused."""
        all_options = {**self._options, **options}
        if place.address is not None:
            all_options["loop"] = _LoopTo(place.address)
        try:
            connection = await asyncpg.connect(place.dsn, password=libpq.password_in_file(place.dsn), **all_options)
        except Exception as exc:
            raise_if_not_connected(exc, place.dsn, place.address)
            raise
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=lambda value: to_json(value).decode(), decoder=from_json
        )
        return connection


def _options_for(parsed_url: libpq.DatabaseUrl, *, is_pooled: bool, deadlines: Deadlines) -> dict[str, object]:
    """Return asyncpg's options for a connection.

    A value in the URL takes precedence over wxauth's own setting of the session. Behind a pooler, wxauth sets only the
    application's name, because PgBouncer refuses most settings when a client connects.
    """
    settings = {"application_name": "wxauth"}
    options: dict[str, object] = {"command_timeout": deadlines.silence}
    if is_pooled:
        # Behind a pooler, the next statement may run on another server connection, which does not have the
        # prepared statements in asyncpg's cache.
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


class _LoopTo:
    """The running event loop, except that it connects to the given address of a host.

    Without this loop, asyncpg connects to the first address of a host name that accepts the connection. With this loop,
    it connects to the given address, and still checks the certificate against the host name. The connection on which
    asyncpg cancels a statement also goes to this address.
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


async def _places_of(dsn: str, *, seconds: float) -> list[_Place]:
    """Return a place for each address of a DSN's host. Without several addresses, return one place without an address.

    The function waits at most `seconds` for the addresses.
    """
    host, _port = libpq.host_and_port(dsn)
    addresses = await addresses_of(host, seconds=seconds)
    if len(addresses) > 1:
        return [_Place(dsn, address) for address in addresses]
    return [_Place(dsn, None)]
