"""The life of the service from start to stop.

At the start, the service checks the stored data if the database responds and has a schema. It runs the background tasks
as soon as both are true.
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from wxauth import __version__
from wxauth.apps.registry import Apps
from wxauth.checks.sealed import ensure_opens
from wxauth.clients.clients import clashing_clients
from wxauth.console.sessions import ConsoleSessions
from wxauth.core.chores import attempt
from wxauth.core.clock import DatabaseClock, correct_clock, keep_time
from wxauth.core.database_errors import DatabaseUrlRefused
from wxauth.core.logs import get_logger
from wxauth.core.outage_log import outage_log
from wxauth.core.outage_texts import reason_of
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.core.services import Services
from wxauth.core.tasks import cancel
from wxauth.errors import StorageUnavailable
from wxauth.events.placing import keep_placing
from wxauth.events.webhook_deliveries import Deliveries
from wxauth.housekeeping.housekeeping import keep_house
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.keyring import KeyRing
from wxauth.login.login_counts import LoginCounts
from wxauth.login.refusals import Refusals
from wxauth.service import probes
from wxauth.service.leaving import heed_signals
from wxauth.settings.settings import InvalidSettings
from wxauth.terminal import localized
from wxauth.users.staff_read_queries import StaffReads

_CHECK_PAUSE_SECONDS: Final = 1.0
"""The pause, in seconds, between two checks of whether the database responds and has a schema."""

log = get_logger()


@asynccontextmanager
async def lifespan(services: Services, _app: FastAPI) -> AsyncIterator[None]:
    """Start and stop the service. The background tasks run during the block. Afterwards, all parts are closed."""
    heed_signals(services[probes.Readiness])
    is_loaded = await _prepare(services)
    background_tasks = asyncio.create_task(_run_background_tasks(services, is_loaded=is_loaded), name="keeping")
    log.info("started", version=__version__, issuer=services.settings.issuer, apps=len(services[Apps].all()))
    if is_loaded and not services[Apps].all():
        log.warning("no_app", consequence="nobody can log in", what_to_do="'wxauth apps add APP_ID', or WXAUTH_APPS")
    services[probes.Readiness].is_serving = True
    try:
        yield
    finally:
        await cancel([background_tasks])
        await services.aclose()
        log.info("stopped")


async def _prepare(services: Services) -> bool:
    """Check and load the stored data. Return False, without loading it, if the database is not ready yet.

    If a check fails, print the reason. A worker then ends at once.

    Raises: InvalidSettings, if a check fails and this process is not a worker; any unexpected error, which is logged
        first.
    """
    try:
        is_checked = await check_stored_state(services)
        if is_checked:
            await _load_stored_data(services)
    except InvalidSettings as exc:
        sys.stderr.write(f"{localized(exc.text)}\n")
        if multiprocessing.parent_process() is not None:
            # The worker ends at once. An orderly exit would take so long that uvicorn's supervisor would treat the
            # worker as hung, and start another one.
            sys.stderr.flush()
            os._exit(STARTUP_FAILURE)
        raise
    except Exception:
        log.exception("not_started")
        raise
    return is_checked


async def _run_background_tasks(services: Services, *, is_loaded: bool) -> None:
    """Run the background tasks forever.

    The tasks would fail without the database and its schema, so they start when both are available. If the stored data
    was not loaded at the start, check and load it first.
    """
    if not is_loaded:
        while not await _has_our_schema(services):  # noqa: ASYNC110 - another process migrates
            await asyncio.sleep(_CHECK_PAUSE_SECONDS)
        await attempt(partial(_check_late, services), failure_event="stored_state_not_checked")
        await attempt(partial(_load_stored_data, services), failure_event="stored_data_not_loaded")
    # Each of these tasks logs its own outages and continues. If a bug ends one of them, nothing restarts it.
    tasks = [
        services[KeyRing].keep_fresh(),
        services[Apps].keep_fresh(),
        services[LoginCounts].keep_storing(),
        services[Refusals].keep_storing(),
        services[StaffReads].keep_storing(),
        keep_house(services),
        keep_placing(services),
        services[Deliveries].keep_delivering(),
    ]
    if isinstance(services.clock, DatabaseClock):
        tasks.append(keep_time(services.clock, services.database))
    await asyncio.gather(*tasks)


async def _check_late(services: Services) -> None:
    """Check the stored data while the service is already running.

    If a check fails, only log the reason. At the start, a failed check ends the service. However, if the database was
    unavailable at the start, the service must not end when the database is back.
    """
    try:
        await check_stored_state(services)
    except InvalidSettings as exc:
        log.error("stored_state_wrong", reason=exc.text, consequence="the service can't start again like this")


async def _has_our_schema(services: Services) -> bool:
    """Return whether the database responds and has a schema. If its URL is refused, return False, too."""
    try:
        return await probes.has_our_schema(services.database)
    except DatabaseUrlRefused:
        return False


async def check_stored_state(services: Services) -> bool:
    """Check that the secret key is right, and that no OAuth client has the name of the audience or an app.

    The secret key and the previous secret keys must decrypt all signing keys. If there are no signing keys, they must
    decrypt at least one of a sample of the other stored secrets, if there are any. Also create the first signing keys,
    and rotate the keys that are due. Return False if the checks cannot be completed because the database does not
    respond or has no usable schema.

    Raises: InvalidSettings, if a check fails, or if the URL of the database is invalid.
    """
    database, keys = services.database, services[KeyRing]
    try:
        if not await probes.has_our_schema(database):
            return False
        # The clock is corrected first, because `refresh` might create and date the first key.
        if isinstance(services.clock, DatabaseClock):
            await correct_clock(services.clock, database)
        await ensure_opens(database, services[Sealer], now=services.clock())
        await keys.refresh()
        if keys.unopened:
            raise InvalidSettings([WRONG_SECRET_KEY])
        await _check_names_of_clients(services)
    except CannotOpen:
        raise InvalidSettings([WRONG_SECRET_KEY]) from None
    except DatabaseUrlRefused as exc:
        text = _("WXAUTH_DATABASE_URL: must be a valid PostgreSQL URL: {reason}", reason=reason_of(exc))
        raise InvalidSettings([text]) from None
    except StorageUnavailable as exc:
        outage_log.note(exc)
        return False
    return True


async def _check_names_of_clients(services: Services) -> None:
    """Check that no OAuth client has the name of the audience or an app. Raises: InvalidSettings, if one does."""
    clashing = await clashing_clients(services.database, services.settings)
    if clashing:
        text = _(
            "WXAUTH_AUDIENCE, WXAUTH_APPS: must not be the name of an OAuth client ({name}), because "
            "services couldn't distinguish the tokens. Remove this client, and add it under another name",
            name=clashing[0],
        )
        raise InvalidSettings([text])


async def _load_stored_data(services: Services) -> None:
    """Read what requests need from the database: the time, the keys and the apps. Add the client of the console.

    The database must have a schema. If the database stops responding, the tasks of `_run_background_tasks` repeat
    the reads, and `add_as_site` continues in the background.
    """
    if isinstance(services.clock, DatabaseClock):
        await correct_clock(services.clock, services.database)
    await services[KeyRing].try_refresh()
    await services[Apps].try_refresh()
    await services[ConsoleSessions].add_as_site()
