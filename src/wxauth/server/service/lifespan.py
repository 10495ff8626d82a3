"""What the service does from its start to its stop: background tasks, once the database is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from fastapi import FastAPI

from wxauth import __version__
from wxauth.errors import StorageUnavailable
from wxauth.server.apps.registry import Apps
from wxauth.server.checks.queries import missing_limits
from wxauth.server.console.sessions import ConsoleSessions
from wxauth.server.core.background import cancel
from wxauth.server.core.clock import DatabaseClock, correct_clock, keep_time
from wxauth.server.core.logs import get_logger
from wxauth.server.core.outages import DatabaseUrlRefused
from wxauth.server.core.services import Services
from wxauth.server.events.webhook_deliveries import Deliveries, keep_placing
from wxauth.server.housekeeping.housekeeping import keep_house
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.login.records import Numbers, Refusals
from wxauth.server.service import probes
from wxauth.server.users.staff_queries import StaffReads

_CHECK_PAUSE_SECONDS: Final = 1.0
"""Seconds between two checks whether the database is there."""

log = get_logger()


@asynccontextmanager
async def lifespan(services: Services, _: FastAPI) -> AsyncIterator[None]:
    """Start and stop the service: background tasks run in the block, and everything is closed after it."""
    if is_there := await _is_migrated(services):
        await _read_what_is_stored(services)
    keeping = asyncio.create_task(_run_background_tasks(services, is_read=is_there), name="keeping")
    log.info("started", version=__version__, issuer=services.settings.issuer, apps=len(services[Apps].all()))
    if is_there and not services[Apps].all():
        log.warning("no_app", consequence="nobody can log in", what_to_do="'wxauth apps add APP_ID', or WXAUTH_APPS")
    try:
        yield
    finally:
        await cancel([keeping])
        await services.aclose()
        log.info("stopped")


async def _run_background_tasks(services: Services, *, is_read: bool) -> None:
    """Run the background tasks forever. They would fail without the database and its schema, so they wait for both."""
    if not is_read:
        while not await _is_migrated(services):  # noqa: ASYNC110 - another process migrates
            await asyncio.sleep(_CHECK_PAUSE_SECONDS)
        await _read_what_is_stored(services)
    tasks = [
        services[KeyRing].keep_fresh(),
        services[Apps].keep_fresh(),
        services[Numbers].keep_storing(),
        services[Refusals].keep_storing(),
        services[StaffReads].keep_storing(),
        keep_house(services),
        keep_placing(services),
        services[Deliveries].keep_delivering(),
    ]
    if isinstance(services.clock, DatabaseClock):
        tasks.append(keep_time(services.clock, services.database))
    await asyncio.gather(*tasks)


async def _is_migrated(services: Services) -> bool:
    with suppress(DatabaseUrlRefused):  # `serve` has already refused it
        return await probes.is_migrated(services.database)
    return False


async def _read_what_is_stored(services: Services) -> None:
    if isinstance(services.clock, DatabaseClock):
        await correct_clock(services.clock, services.database)
    await services[KeyRing].try_refresh()
    await services[Apps].try_refresh()
    await services[ConsoleSessions].add_as_site()
    with suppress(StorageUnavailable):
        if limits := await missing_limits(services.database):
            text = "one locked row can hold up every login"
            log.error("database_without_limits", consequence=text, what_to_change="; ".join(limits))
