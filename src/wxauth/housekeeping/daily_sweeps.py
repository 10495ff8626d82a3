"""The daily sweeps of large tables. They delete old sessions and events, and truncate old IP addresses."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter
from typing import Final

from wxauth.core.clock import DatabaseClock
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.housekeeping import queries
from wxauth.housekeeping.pace import Pace
from wxauth.settings.settings import Settings

SWEEP_EVERY: Final = timedelta(days=1)
"""The time between two sweeps of a large table."""
MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=30)
"""The largest difference between this machine's clock and the database's at which wxauth still deletes rows by age.

It is also the largest difference at which wxauth still erases the users whose erasure is due.
"""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of `sweep_events_and_addresses`."""

    events: int = 0
    """The number of events that were deleted."""
    addresses: int = 0
    """The number of rows in which addresses were truncated to their networks."""


async def sweep_sessions(services: Services, pace: Pace) -> None:
    """Delete the sessions that ended long ago (`ENDED_SESSIONS_KEPT_DAYS`), if a sweep is due.

    If this machine's clock and the database's differ too much, log an error instead.
    """
    if not clocks_agree(services):
        # Only this chore logs the difference, because one line for all chores is enough.
        log.error("sweep_put_off", reason="the clocks differ")
        return
    kept = timedelta(days=services.settings.ended_sessions_kept_days)
    deleted = 0
    try:
        async for rows in _sweep_pages(services, queries.ENDED_SESSIONS, pace, kept=kept):
            deleted += rows
    finally:  # a sweep can take hours, so the number is logged even if a later page fails
        if deleted:
            log.info("sessions_swept", sessions=deleted)


async def sweep_events_and_addresses(services: Services, pace: Pace) -> Swept:
    """Delete old events (`EVENTS_KEPT_DAYS`), and truncate old addresses (`ADDRESSES_KEPT_DAYS`), if a sweep is due.

    Return the numbers of deleted events, and of rows with truncated addresses. If this machine's clock and the
    database's differ by more than `MAX_CLOCK_DIFFERENCE`, do nothing, and return zeros.
    """
    if not clocks_agree(services):
        return Swept()
    events = addresses = 0
    for table_sweep, kept in _table_sweeps(services.settings):
        async for rows in _sweep_pages(services, table_sweep, pace, kept=kept):
            if table_sweep is queries.EVENTS:
                events += rows
            else:
                addresses += rows
    swept = Swept(events, addresses)
    if swept != Swept():
        log.info("aged_swept", events=swept.events, addresses=swept.addresses)
    return swept


async def _sweep_pages(
    services: Services, table_sweep: queries.TableSweep, pace: Pace, *, kept: timedelta
) -> AsyncIterator[int]:
    """Sweep a table page by page if its sweep is due. For each page, yield the number of rows changed or deleted.

    The sweep changes and deletes only rows that are older than `kept`. It stops if another worker is processing a page.
    """
    now = services.clock()
    began = perf_counter()
    while page := await queries.sweep_page(
        services.database,
        table_sweep,
        size=pace.page_size,
        older_than=now - kept,
        now=now,
        next_sweep_at=now + SWEEP_EVERY,
    ):
        yield page.rows
        if page.is_last:
            break
        await asyncio.sleep(pace.rest_after(perf_counter() - began, page.rows))
        began = perf_counter()


def sweep_names(settings: Settings) -> list[str]:
    """Return the names of the daily sweeps under these settings."""
    return [queries.ENDED_SESSIONS.name, *(table_sweep.name for table_sweep, _kept in _table_sweeps(settings))]


def _table_sweeps(settings: Settings) -> list[tuple[queries.TableSweep, timedelta]]:
    """Return the sweeps of `sweep_events_and_addresses`, each with the age up to which rows are kept.

    If a setting is 0 days, its sweeps are left out.
    """
    sweeps: list[tuple[queries.TableSweep, timedelta]] = []
    if settings.events_kept_days:
        sweeps.append((queries.EVENTS, timedelta(days=settings.events_kept_days)))
    if settings.addresses_kept_days:
        kept = timedelta(days=settings.addresses_kept_days)
        sweeps.extend((table_sweep, kept) for table_sweep in queries.ADDRESSES)
    return sweeps


def clocks_agree(services: Services) -> bool:
    """Return whether this machine's clock and the database's differ by at most `MAX_CLOCK_DIFFERENCE`.

    If they differ more, one of them is wrong. In this case, wxauth must not delete rows by age, and must not erase
    users whose erasure is due, because neither can be undone.

    A clock that was passed to `build_services`, as in tests, is not compared. For such a clock, return True.
    """
    clock = services.clock
    return not isinstance(clock, DatabaseClock) or abs(clock.ahead) <= MAX_CLOCK_DIFFERENCE
