"""What commands use: settings, the database, the parts of the service."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import TypeVar

from wxauth.server.apps.registry import Apps
from wxauth.server.cli.failures import failures_printed
from wxauth.server.core.clock import DatabaseClock, correct_clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import configure_logging
from wxauth.server.core.services import Services
from wxauth.server.core.settings import AnySettings, DatabaseSettings, Settings, load_settings

T = TypeVar("T")
DatabaseOrServices = TypeVar("DatabaseOrServices", Database, Services)


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """Load settings of this kind. Raises: Failed."""
    with failures_printed():
        return load_settings(kind)


def with_database(use: Callable[[Database, datetime], Awaitable[T]]) -> T:
    """Return the result of `use`, called with the database of WXAUTH_DATABASE_URL and its time. Raises: Failed."""
    settings = read_settings(DatabaseSettings)
    # No log lines: `Failed` prints the error.
    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)

    async def with_time(database: Database) -> T:
        return await use(database, await database.time())

    return _run(lambda: Database(settings.database_url.get_secret_value()), with_time)


def with_services(use: Callable[[Services], Awaitable[T]]) -> T:
    """Return the result of `use`, called with the service's parts. Requires all settings. Raises: Failed."""
    from wxauth.server.service.build import build_services  # half a second, and most commands need the database alone

    settings = read_settings(Settings)
    # Log errors: WeChat's say what to change.
    configure_logging(level="error", log_format="console", stream=sys.stderr.buffer)
    clock = DatabaseClock()

    async def with_clock_and_apps(services: Services) -> T:
        await correct_clock(clock, services.database)
        await services[Apps].refresh()
        return await use(services)

    return _run(lambda: build_services(settings, clock=clock), with_clock_and_apps)


def _run(make: Callable[[], DatabaseOrServices], use: Callable[[DatabaseOrServices], Awaitable[T]]) -> T:
    async def run() -> T:
        async with aclosing(make()) as part:
            return await use(part)

    with failures_printed():
        return asyncio.run(run())
