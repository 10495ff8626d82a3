"""The life of the service from start to stop.

The service uses the database only after it has checked the stored data. If the database does not respond or has no
schema at the start, the check is repeated until it succeeds. Then the background tasks start.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from fastapi import FastAPI

from wxauth import __version__
from wxauth.apps.registry import Apps
from wxauth.checks.sealed import SEALED_SIGNING_KEYS, ensure_opens
from wxauth.clients.clients import clashing_clients
from wxauth.console.sessions import ConsoleSessions
from wxauth.core.background import attempt, cancel
from wxauth.core.clock import DatabaseClock, correct_clock, keep_time
from wxauth.core.database import Database
from wxauth.core.libpq import CHANNEL_BINDING_LACKING
from wxauth.core.logs import get_logger, message_of
from wxauth.core.outages import DatabaseUrlRefused, outage_log, reason_of
from wxauth.core.pooler_queries import statements_for_role
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.core.services import Services
from wxauth.errors import StorageUnavailable
from wxauth.events.placing import keep_placing
from wxauth.events.webhook_deliveries import Deliveries
from wxauth.housekeeping.housekeeping import keep_house
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.keyring import KeyRing
from wxauth.keys.queries import PUBLISHED
from wxauth.login.count_queries import LoginCounts
from wxauth.login.refusals import Refusals
from wxauth.service import probes
from wxauth.service.leaving import install_signal_handlers
from wxauth.service.starting import report_failed_start
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth.users.last_seen_queries import LastSeen
from wxauth.users.staff_read_queries import StaffReads

_CHECK_PAUSE_SECONDS: Final = 1.0
_NOT_CHECKED: Final = _("not checked yet")
_HELD: Final = _("the stored data hasn't been checked yet, or doesn't match the settings")

log = get_logger()


@asynccontextmanager
async def lifespan(services: Services, _app: FastAPI) -> AsyncIterator[None]:
    """Start and stop the service. The background tasks run during the block. Afterwards, all parts are closed."""
    install_signal_handlers(services[probes.Readiness])
    if services.database.connector.lacks_channel_binding:
        log.warning("channel_binding_ignored", reason=CHANNEL_BINDING_LACKING)
    is_loaded = await _prepare(services)
    background_tasks = asyncio.create_task(_run_background_tasks(services, is_loaded=is_loaded), name="keeping")
    services[probes.Readiness].is_serving = True
    try:
        yield
    finally:
        await cancel([background_tasks])
        await services.aclose()
        log.info("stopped")


async def _prepare(services: Services) -> bool:
    """Check and load the stored data. Return False, without loading it, if the database is not ready yet."""
    try:
        is_checked = await check_stored_state(services)
        if is_checked:
            await _load_stored_data(services)
        else:
            services[probes.Readiness].stored_state = _NOT_CHECKED
    except InvalidSettings as exc:
        report_failed_start(exc.text)
        raise
    except Exception:
        log.exception("not_started")
        raise
    return is_checked


def _warn_without_app(services: Services) -> None:
    if not services[Apps].all():
        log.warning("no_app", consequence="nobody can log in", what_to_do="'wxauth apps add APP_ID', or WXAUTH_APPS")


async def _run_background_tasks(services: Services, *, is_loaded: bool) -> None:
    await asyncio.sleep(0)  # uvicorn opens the port in this round of the loop
    log.info("started", version=__version__, issuer=services.settings.issuer, apps=len(services[Apps].all()))
    if is_loaded:
        _warn_without_app(services)
    else:
        await _check_until_right(services)
        await attempt(partial(_load_stored_data, services), failure_event="stored_data_not_loaded")
        services[probes.Readiness].stored_state = None
        _warn_without_app(services)
    # Each of these tasks continues after an outage or any other failure, because nothing restarts a task.
    tasks = [
        services[KeyRing].keep_fresh(),
        services[Apps].keep_fresh(),
        services[LoginCounts].keep_storing(),
        services[Refusals].keep_storing(),
        services[StaffReads].keep_storing(),
        services[LastSeen].keep_storing(),
        keep_house(services),
        keep_placing(services),
        services[Deliveries].keep_delivering(),
    ]
    if isinstance(services.clock, DatabaseClock):
        tasks.append(keep_time(services.clock, services.database))
    await asyncio.gather(*tasks)


async def _check_until_right(services: Services) -> None:
    reported = ""
    is_checked = False
    while not is_checked:
        reason = _NOT_CHECKED
        try:
            is_checked = await check_stored_state(services)
        except InvalidSettings as exc:
            # Unlike at the start, a failed check does not end the service: after an outage, wrong data can be
            # corrected, and several workers can get other settings by a reload.
            reason = exc.text
            if reason != reported:
                log.error("stored_state_wrong", reason=reason, consequence="not ready until this is corrected")
                reported = reason
        except Exception as exc:  # for example a bug
            if message_of(exc) != reported:
                log.exception("stored_state_not_checked")
                reported = message_of(exc)
        if not is_checked:
            services[probes.Readiness].stored_state = reason
            await asyncio.sleep(_CHECK_PAUSE_SECONDS)
    if reported:
        log.info("stored_state_right")


async def check_stored_state(services: Services) -> bool:
    """Check the stored data against the settings, and create the first signing keys or rotate the keys that are due.

    The configured secret keys must decrypt all signing keys. If there are none, they must decrypt at least one of a
    sample of the other stored secrets, if there are any. No OAuth client may have the name of the audience or an app.
    Return False if the database does not respond or has no usable schema. Nothing else in this process can use the
    database until the stored data matches the settings.

    Raises: InvalidSettings, if a check fails, or if the URL of the database is invalid.
    """
    database, keys = services.database, services[KeyRing]
    database.held_because = _HELD
    is_right = False
    try:
        if not await _has_right_data(services, database.unheld()):
            return False
        database.held_because = None  # because the key ring uses the same database
        await keys.refresh()
        if keys.unopened:
            raise InvalidSettings([WRONG_SECRET_KEY])
        await keys.note_issuer()
        is_right = True
    except CannotOpen:
        raise InvalidSettings([WRONG_SECRET_KEY]) from None
    except DatabaseUrlRefused as exc:
        text = _("WXAUTH_DATABASE_URL: must be a valid PostgreSQL URL: {reason}", reason=reason_of(exc))
        raise InvalidSettings([text]) from None
    except StorageUnavailable as exc:
        outage_log.note(exc)
        return False
    finally:
        if not is_right:
            database.held_because = _HELD
    return True


async def _has_right_data(services: Services, database: Database) -> bool:
    if not await probes.has_our_schema(database):
        return False
    # The clock is corrected first, because the age of the keys depends on it.
    if isinstance(services.clock, DatabaseClock):
        await correct_clock(services.clock, database)
    now = services.clock()
    await ensure_opens(database, services[Sealer], now=now)
    # `ensure_opens` accepts one key that opens, but the service would refuse tokens that another key has signed.
    published = await database.rows(PUBLISHED, now=now)
    if not all(SEALED_SIGNING_KEYS.opens(services[Sealer], key) for key in published):
        raise CannotOpen("encrypted with an unknown key")
    await _check_names_of_clients(database, services.settings)
    return True


async def _check_names_of_clients(database: Database, settings: Settings) -> None:
    clashing = await clashing_clients(database, settings)
    if clashing:
        text = _(
            "WXAUTH_AUDIENCE, WXAUTH_APPS: must not be the name of an OAuth client ({name}), because "
            "services couldn't distinguish the tokens. Remove this client, and add it under another name",
            name=clashing[0],
        )
        raise InvalidSettings([text])


async def _load_stored_data(services: Services) -> None:
    # If the database stops responding, the tasks of `_run_background_tasks` repeat these two reads.
    await services[Apps].try_refresh()
    await services[KeyRing].try_refresh()
    await services[ConsoleSessions].add_as_site()
    with suppress(StorageUnavailable):
        await _warn_of_role(services.database)


async def _warn_of_role(database: Database) -> None:
    statements = await statements_for_role(database)
    if statements:
        consequence = "one locked row can block all logins"
        log.warning("role_settings_missing", consequence=consequence, what_to_do="; ".join(statements))
