"""The housekeeping, in which workers delete or change old rows, page by page.

For example, they delete sessions that ended long ago, lift bans that have ended, and erase the data of erased users.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Final

from wxauth.clients.queries import end_removed_page
from wxauth.core.background import keep_doing
from wxauth.core.clock import DatabaseClock
from wxauth.core.ids import first_id_at
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.events.webhook_queries import sweep_deliveries
from wxauth.housekeeping import queries
from wxauth.keys.queries import DELETE_RETIRED
from wxauth.limits.queries import WINDOW, sweep_attempts
from wxauth.login.record_queries import sweep_refusals
from wxauth.login.records import LoginCounts
from wxauth.phones.phones import Phones
from wxauth.phones.queries import sweep_answers
from wxauth.push.queries import sweep_messages
from wxauth.sessions.list_queries import MAX_OPEN_SESSIONS
from wxauth.settings.settings import Settings
from wxauth.site_logins.authorization_codes import proved_after
from wxauth.site_logins.browser_login_queries import sweep_browser_logins
from wxauth.site_logins.doors import AUTHORIZATION_CODE_LASTS
from wxauth.site_logins.queries import sweep_site_logins
from wxauth.users.erasure_queries import ARE_WAITING, erase_next_due, erase_next_page, erase_waiting_rows
from wxauth.users.status_queries import lift_bans

PHONE_ANSWERS_KEPT: Final = timedelta(days=7)
"""The time for which WeChat's response to a phone code is stored.

If the same identity sends the same code again during this time, wxauth uses the stored response.
"""
MAX_SESSIONS: Final = 1000
"""The largest number of open and ended sessions per identity.

The number is limited because a single statement moves all sessions of an identity in a merge, or deletes them when the
identity is erased. WeChat issues one user 100 codes a minute per app, so at most 50 further sessions accumulate in the
30 seconds between two checks. A session that ends because of `MAX_OPEN_SESSIONS` is usually still among the newest
1000, so its client can learn why the session has ended.
"""
REPLACEMENTS_PAUSE: Final = timedelta(seconds=30)
"""The time between two checks for identities with more sessions than the limits allow."""
SESSIONS_PER_TRANSACTION: Final = 5000
"""The largest number of sessions that one transaction ends, and the largest number that it deletes."""
ERASE_PAUSE_SECONDS: Final = 5.0
"""The pause, in seconds, between two checks for data of erased users, and for data of removed clients."""
REFUSALS_KEPT: Final = timedelta(days=14)
"""The time for which refused logins and refreshes are stored for support staff."""
DELIVERIES_KEPT: Final = timedelta(days=30)
"""The time for which finished webhook deliveries are stored for operators, counted from the last time they were queued.

Pending deliveries are deleted only after their webhook was removed.
"""
SWEEP_EVERY: Final = timedelta(days=1)
"""The time between two sweeps of a large table."""
MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=30)
"""The largest difference between this machine's clock and the database's at which wxauth still deletes rows by age.

It is also the largest difference at which wxauth still erases the users whose erasure is due.
"""
CHECK_PAUSE_SECONDS: Final = 300.0
"""The pause, in seconds, between two checks for due work."""
BANS_CHECK_PAUSE_SECONDS: Final = 20.0
"""The pause, in seconds, between two checks for bans that have ended.

A ban must be lifted within a minute of its end.
"""
LEAVING_CHECK_PAUSE_SECONDS: Final = 20.0
"""The pause, in seconds, between two checks for users whose erasure is due.

A user must be erased within a minute of the time at which the erasure is due.
"""
BANS_PER_TRANSACTION: Final = 100
"""The largest number of bans that one transaction lifts."""
SITE_REQUESTS_CHECK_PAUSE_SECONDS: Final = 30.0
"""The pause, in seconds, between two checks for expired logins to sites, and for expired logins of browsers.

The pause is short because everyone who opens an authorize page causes a row to be stored.
"""
_SWEEP_FAILED: Final = "sweep_failed"
"""The log event for a chore that fails, unless the chore has its own event."""
PAGE_SIZE: Final = 1000
"""The largest number of rows in one page of a sweep."""
PAGE_PAUSE_SECONDS: Final = 0.1
"""The usual pause, in seconds, between two pages. For large tables, `rest_after` calculates the pause from it."""
ROWS_PER_SECOND: Final = 3000
"""The largest number of rows of a large table that a sweep with pauses writes in a second, on average."""
REST_RATIO: Final = 5
"""The smallest ratio of the rest after a page to the time that the page took, while a large table is swept.

With this ratio, the sweep uses at most a sixth of one connection's time, and slows down when the database has other
work.
"""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """The size of a page, and the pause between two pages, during which other work can use the database."""

    page_size: int = PAGE_SIZE
    pause: float = PAGE_PAUSE_SECONDS
    """The pause in seconds."""


USUAL_PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of `sweep_aged`."""

    events: int = 0
    """The number of events that were deleted."""
    addresses: int = 0
    """The number of rows in which addresses were truncated to their networks."""


async def keep_house(services: Services, pace: Pace = USUAL_PACE, *, check_pause: float = CHECK_PAUSE_SECONDS) -> None:
    """Run all chores forever, even during outages.

    Every worker runs all chores, and locks in the database prevent conflicts. The chores run concurrently, because a
    sweep of sessions can take hours. `check_pause` is the longest pause, in seconds, between two runs of a chore.
    """
    await asyncio.gather(
        *(
            keep_doing(partial(chore, services, pace), pause=min(check_pause, pause), failure_event=failure_event)
            for chore, pause, failure_event in (*_CHORES, *_OTHER_CHORES)
        )
    )


async def replace_sessions(services: Services, pace: Pace = USUAL_PACE) -> None:
    """For each identity, end the oldest open sessions, and delete the oldest ended sessions, beyond the limits.

    Only identities with a recent login are checked, because only a login adds a session. Stop if another worker is
    doing this.
    """
    ended = deleted = 0
    while page := await queries.replace_old_sessions(
        services.database,
        max_open=MAX_OPEN_SESSIONS,
        max_stored=MAX_SESSIONS,
        size=SESSIONS_PER_TRANSACTION,
        now=services.clock(),
        pause=REPLACEMENTS_PAUSE,
    ):
        ended, deleted = ended + page.ended, deleted + page.deleted
        if page.is_last:
            break
        await asyncio.sleep(pace.pause)
    if ended or deleted:
        log.info("sessions_replaced", sessions=ended, erased=deleted)


async def sweep(services: Services, *, page_size: int = PAGE_SIZE, pause: float = PAGE_PAUSE_SECONDS) -> Swept:
    """Run every chore of `_CHORES` once, then run `sweep_aged`, and return its result.

    `pause` is the pause between two pages in seconds.
    """
    pace = Pace(page_size, pause)
    for chore, _pause, _failure_event in _CHORES:
        await chore(services, pace)
    return await sweep_aged(services, pace)


async def sweep_now(services: Services, *, page_size: int = PAGE_SIZE) -> Swept:
    """Run `sweep` with all daily sweeps, even those that are not due, and return its result.

    The command `wxauth sweep` calls this function. The sweep makes no pauses between pages. Before the sweep, erase the
    remaining data of all erased users. Unlike the chore `erase_remains`, wait while another worker is erasing a page.
    """
    for name in sweep_names(services.settings):
        await queries.restart_sweep(services.database, name, now=services.clock())
    await erase_waiting_rows(services.database)
    return await sweep(services, page_size=page_size, pause=0.0)


async def erase_remains(services: Services, pace: Pace) -> None:
    """Erase the remaining data of erased users. Stop if another worker is erasing a page."""
    if not await services.database.value(ARE_WAITING, user_ids=None):
        return  # in the usual case, this one query is enough
    while page := await erase_next_page(services.database, size=pace.page_size):
        if page.is_last:
            log.info("erasure_completed", user_id=page.user_id)
        await asyncio.sleep(pace.pause)


async def end_removed_clients(services: Services, pace: Pace) -> None:
    """End the sessions of removed clients, and delete the clients' other rows, one page of each client in turn.

    If such a round changes no row of the clients that remain, for example because other transactions have locked the
    users of the sessions, these clients wait for the next run. Stop if another worker is doing this.
    """
    has_more = True
    while has_more:
        after = ""
        has_more = False
        while page := await end_removed_page(services.database, size=pace.page_size, after=after, now=services.clock()):
            after = page.name
            if page.is_last:
                log.info("client_sessions_ended", client_id=page.name)
            elif page.rows > 0:
                has_more = True
            await asyncio.sleep(pace.pause)


async def sweep_aged(services: Services, pace: Pace) -> Swept:
    """Delete old events (`EVENTS_KEPT_DAYS`), and truncate old addresses (`ADDRESSES_KEPT_DAYS`), if a sweep is due.

    Return the numbers of deleted events, and of rows with truncated addresses. If this machine's clock and the
    database's differ by more than `MAX_CLOCK_DIFFERENCE`, do nothing, and return zeros.
    """
    if not _clocks_agree(services):
        return Swept()
    events = addresses = 0
    for table, kept in _table_sweeps(services.settings):
        async for rows in _sweep_pages(services, table, pace, kept=kept):
            if table is queries.EVENTS:
                events += rows
            else:
                addresses += rows
    swept = Swept(events, addresses)
    if swept != Swept():
        log.info("aged_swept", events=swept.events, addresses=swept.addresses)
    return swept


async def sweep_sessions(services: Services, pace: Pace) -> None:
    """Delete the sessions that ended long ago (`ENDED_SESSIONS_KEPT_DAYS`), if a sweep is due.

    If this machine's clock and the database's differ too much, log an error instead.
    """
    if not _clocks_agree(services):
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


async def _sweep_pages(
    services: Services, table: queries.TableSweep, pace: Pace, *, kept: timedelta
) -> AsyncIterator[int]:
    """Sweep a table page by page if its sweep is due. For each page, yield the number of rows changed or deleted.

    The sweep changes and deletes only rows that are older than `kept`. It stops if another worker is processing a page.
    """
    now = services.clock()
    began = perf_counter()
    while page := await queries.sweep_page(
        services.database, table, size=pace.page_size, older_than=now - kept, now=now, next_sweep_at=now + SWEEP_EVERY
    ):
        yield page.rows
        if page.is_last:
            break
        await asyncio.sleep(rest_after(perf_counter() - began, page.rows, pause=pace.pause))
        began = perf_counter()


def rest_after(page_seconds: float, rows: int, *, pause: float = PAGE_PAUSE_SECONDS) -> float:
    """Return the rest, in seconds, after a page of a large table. The page took `page_seconds`, and wrote `rows` rows.

    The rest is at least a tenth of `pause`, which is enough for most pages, because the sweep only reads them. If
    `pause` is 0, there is no rest.
    """
    if pause == 0:
        return 0.0
    return max(pause / 10, REST_RATIO * page_seconds, rows / ROWS_PER_SECOND - page_seconds)


def sweep_names(settings: Settings) -> list[str]:
    """Return the names of the daily sweeps under these settings."""
    return [queries.ENDED_SESSIONS.name, *(table.name for table, _kept in _table_sweeps(settings))]


def _table_sweeps(settings: Settings) -> list[tuple[queries.TableSweep, timedelta]]:
    """Return the sweeps of `sweep_aged`, each with the age up to which rows are kept.

    If a setting is 0 days, its sweeps are left out.
    """
    sweeps: list[tuple[queries.TableSweep, timedelta]] = []
    if settings.events_kept_days:
        sweeps.append((queries.EVENTS, timedelta(days=settings.events_kept_days)))
    if settings.addresses_kept_days:
        kept = timedelta(days=settings.addresses_kept_days)
        sweeps.extend((table, kept) for table in queries.ADDRESSES)
    return sweeps


async def sweep_other_rows(services: Services, pace: Pace) -> None:
    """Delete retired keys and other expired rows, and merge the login counts of each old hour into one row.

    First, bind phone numbers that the users' own requests have not bound, for example because a process crashed. If
    this machine's clock and the database's differ too much, do nothing else.
    """
    now, database = services.clock(), services.database
    await services[Phones].bind_pending(size=pace.page_size)
    if not _clocks_agree(services):
        return
    longest_session = timedelta(seconds=services.settings.web_session_max_age)
    for kid in await database.values(DELETE_RETIRED, longest_session_ago=now - longest_session):
        log.info("signing_key_retired", kid=kid)
    await services[LoginCounts].merge_hours()
    await _page_by_page(
        pace,
        partial(sweep_answers, database, before=now - PHONE_ANSWERS_KEPT),
        partial(sweep_attempts, database, before=now - WINDOW),
        partial(sweep_messages, database, before=now),  # each row stores the time until which it is kept
        partial(sweep_refusals, database, before=first_id_at(now - REFUSALS_KEPT)),
        partial(sweep_deliveries, database, before=now - DELIVERIES_KEPT),
    )


async def sweep_logins_to_sites(services: Services, pace: Pace) -> None:
    """Delete the expired logins to sites, and the expired logins of browsers.

    If this machine's clock and the database's differ too much, do nothing.
    """
    if not _clocks_agree(services):
        return
    now, database = services.clock(), services.database
    # A browser's login is valid for `SSO_TTL`. It is deleted only when the lifetime of an authorization code has also
    # passed, because wxauth accepts the authorization code of a login only while the browser's login is stored.
    earliest_valid = proved_after(services.settings, now)
    await _page_by_page(
        pace,
        partial(sweep_site_logins, database, now=now),
        partial(sweep_browser_logins, database, before=earliest_valid - AUTHORIZATION_CODE_LASTS),
    )


async def lift_ended_bans(services: Services, pace: Pace) -> None:
    """Lift the bans that have ended."""
    pace_of_bans = Pace(min(pace.page_size, BANS_PER_TRANSACTION), pace.pause)
    await _page_by_page(pace_of_bans, partial(lift_bans, services.database, now=services.clock()))


async def erase_due_users(services: Services, pace: Pace) -> None:
    """Erase the users whose requested erasure is due, except those who are banned.

    If this machine's clock and the database's differ too much, do nothing.
    """
    if not _clocks_agree(services):
        return
    while await erase_next_due(services.database, now=services.clock()):  # noqa: ASYNC110 - this waits for no event
        await asyncio.sleep(pace.pause)


async def _page_by_page(pace: Pace, *steps: Callable[..., Awaitable[int]]) -> None:
    """Repeat each step until a page is not full.

    A step takes the `size` of a page, and returns the number of rows that it has processed.
    """
    for step in steps:
        while await step(size=pace.page_size) >= pace.page_size:  # noqa: ASYNC110 - this waits for no event
            await asyncio.sleep(pace.pause)


def _clocks_agree(services: Services) -> bool:
    """Return whether this machine's clock and the database's differ by at most `MAX_CLOCK_DIFFERENCE`.

    If they differ more, one of them is wrong. In this case, wxauth must not delete rows by age, and must not erase
    users whose erasure is due, because neither can be undone.

    A clock that was passed to `build_services`, as in tests, is not compared. For such a clock, return True.
    """
    clock = services.clock
    return not isinstance(clock, DatabaseClock) or abs(clock.ahead) <= MAX_CLOCK_DIFFERENCE


_CHORES: Final = (
    (erase_remains, ERASE_PAUSE_SECONDS, "erasure_delayed"),
    (end_removed_clients, ERASE_PAUSE_SECONDS, "erasure_delayed"),
    (sweep_other_rows, CHECK_PAUSE_SECONDS, _SWEEP_FAILED),
    (sweep_logins_to_sites, SITE_REQUESTS_CHECK_PAUSE_SECONDS, _SWEEP_FAILED),
    (lift_ended_bans, BANS_CHECK_PAUSE_SECONDS, _SWEEP_FAILED),
    (erase_due_users, LEAVING_CHECK_PAUSE_SECONDS, _SWEEP_FAILED),
    (sweep_sessions, CHECK_PAUSE_SECONDS, _SWEEP_FAILED),
)
"""The chores of a sweep.

Each has the pause, in seconds, between two checks for due work, and the name of the log line about a failure.
`erasure_delayed` also reports that sessions of removed clients end later than they should.
"""
_OTHER_CHORES: Final = (
    (sweep_aged, CHECK_PAUSE_SECONDS, _SWEEP_FAILED),  # `sweep` calls it separately, to return its counts
    (replace_sessions, REPLACEMENTS_PAUSE.total_seconds(), "sessions_not_replaced"),
)
"""The chores of `keep_house` that are not in `_CHORES`, in the same form as in `_CHORES`."""
