"""The chores of housekeeping, in which workers delete or change old rows, page by page."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Final, NamedTuple

from wxauth.clients.queries import end_removed_page
from wxauth.core.background import keep_doing
from wxauth.core.clock import DatabaseClock, first_id_at
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.events.webhook_queries import sweep_deliveries
from wxauth.housekeeping import queries
from wxauth.keys.keyring import KeyRing
from wxauth.keys.queries import ERASE_RETIRED, FORGET_ISSUERS
from wxauth.limits.queries import WINDOW, sweep_action_counts
from wxauth.login.count_queries import LoginCounts
from wxauth.login.refusal_queries import sweep_refusals
from wxauth.phones.phones import Phones
from wxauth.phones.queries import sweep_answers
from wxauth.push.queries import sweep_messages
from wxauth.settings.apps import MAX_OPEN_SESSIONS
from wxauth.settings.settings import Settings
from wxauth.sites.authorization_codes import proved_after
from wxauth.sites.browser_login_queries import sweep_browser_logins
from wxauth.sites.door import AUTHORIZATION_CODE_LASTS
from wxauth.sites.queries import sweep_site_logins
from wxauth.users.erasure_queries import ARE_WAITING, erase_next_due, erase_next_page, erase_waiting_rows
from wxauth.users.status_queries import lift_bans

PAGE_SIZE: Final = 1000
PAGE_PAUSE_SECONDS: Final = 0.1
ROWS_PER_SECOND: Final = 3000  # what a chore that pauses for `rest_after` writes at most, on average
# Such a chore rests at least this many times as long as a page took, and therefore takes at most a sixth of a
# connection's time. A page takes longer on a busy database.
REST_RATIO: Final = 5
SWEEP_EVERY: Final = timedelta(days=1)
# If the clocks differ by more, one of them is wrong, and neither a deletion by age nor an erasure can be undone.
MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=30)
PHONE_ANSWERS_KEPT: Final = timedelta(days=7)  # an identity that sends the same code again gets the stored response
REFUSALS_KEPT: Final = timedelta(days=14)  # for support staff
# For this time after a delivery was last queued, operators can read it. Pending deliveries stay until their webhook is
# removed.
DELIVERIES_KEPT: Final = timedelta(days=30)
# One statement moves all sessions of an identity in a merge, or deletes them with the identity. WeChat issues one user
# 100 codes a minute per app, and after 100 further logins, a user with too many sessions has been found with a
# probability of 96 % (see `CROWDED_USERS`). A session that ends because of `MAX_OPEN_SESSIONS` usually stays, so its
# client can learn why.
MAX_STORED_SESSIONS: Final = 1000
REPLACEMENTS_PAUSE: Final = timedelta(seconds=30)
# A statement that ended and deleted 1.2 million sessions exceeded its time limit, each time anew.
SESSIONS_PER_TRANSACTION: Final = 5000
# If each user has 22 sessions, PostgreSQL works 2.5 ms for a page, 1.25 µs for each login. With 100 logins in a page,
# it was 7 µs, most of them for the transaction. With all logins of half a minute in one page, other logins waited.
LOGINS_PER_PAGE: Final = 2000
BANS_PER_TRANSACTION: Final = 100
CHECK_PAUSE_SECONDS: Final = 300.0
DUE_CHECK_PAUSE_SECONDS: Final = 20.0  # a ban must be lifted, or a user erased, within a minute of the due time

log = get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """The size of a page, and the pause after it, during which other work can use the database."""

    page_size: int = PAGE_SIZE
    pause_seconds: float = PAGE_PAUSE_SECONDS

    def rest_after(self, page_seconds: float, rows: int) -> float:
        if self.pause_seconds == 0:
            return 0.0
        # A tenth of the usual pause is enough for a page that was only read.
        return max(self.pause_seconds / 10, REST_RATIO * page_seconds, rows / ROWS_PER_SECOND - page_seconds)


USUAL_PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class Swept:
    events: int = 0
    addresses: int = 0  # the number of rows in which addresses were truncated to their networks


async def sweep_sessions(services: Services, pace: Pace) -> None:
    """Delete the sessions that ended or expired more than `ENDED_SESSIONS_KEPT_DAYS` ago, if a sweep is due."""
    if not clocks_agree(services):
        # Only this chore logs the difference, because one line for all chores is enough.
        log.error("sweep_put_off", reason="the clocks differ")
        return
    kept = timedelta(days=services.settings.ended_sessions_kept_days)
    deleted = 0
    try:
        async for rows in _sweep_pages(services, queries.ENDED_SESSIONS, pace, kept=kept):
            deleted += rows
    finally:  # a sweep can take hours, so its numbers are logged even if a later page fails
        if deleted:
            log.info("sessions_swept", sessions=deleted)


async def sweep_events_and_addresses(services: Services, pace: Pace) -> Swept:
    """Delete old events and truncate old addresses (`…_KEPT_DAYS`), if a sweep is due."""
    if not clocks_agree(services):
        return Swept()
    events = addresses = 0
    try:
        for table_sweep, kept in _table_sweeps(services.settings):
            async for rows in _sweep_pages(services, table_sweep, pace, kept=kept):
                if table_sweep is queries.EVENTS:
                    events += rows
                else:
                    addresses += rows
    finally:  # as in `sweep_sessions`
        if events or addresses:
            log.info("aged_swept", events=events, addresses=addresses)
    return Swept(events, addresses)


async def _sweep_pages(
    services: Services, table_sweep: queries.TableSweep, pace: Pace, *, kept: timedelta
) -> AsyncIterator[int]:
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
    return [queries.ENDED_SESSIONS.name, *(table_sweep.name for table_sweep, _kept in _table_sweeps(settings))]


def _table_sweeps(settings: Settings) -> list[tuple[queries.TableSweep, timedelta]]:
    sweeps: list[tuple[queries.TableSweep, timedelta]] = []
    if settings.events_kept_days:
        sweeps.append((queries.EVENTS, timedelta(days=settings.events_kept_days)))
    if settings.addresses_kept_days:
        kept = timedelta(days=settings.addresses_kept_days)
        sweeps.extend((table_sweep, kept) for table_sweep in queries.ADDRESSES)
    return sweeps


def clocks_agree(services: Services) -> bool:
    """Return whether this machine's clock and the database's agree well enough to delete or erase anything.

    A clock that was passed to `build_services`, as in tests, is not compared.
    """
    clock = services.clock
    return not isinstance(clock, DatabaseClock) or abs(clock.ahead) <= MAX_CLOCK_DIFFERENCE


class _Chore(NamedTuple):
    run: Callable[[Services, Pace], Awaitable[object]]
    pause_seconds: float
    failure_event: str = "sweep_failed"


async def keep_house(services: Services, pace: Pace = USUAL_PACE, *, check_pause: float = CHECK_PAUSE_SECONDS) -> None:
    """Run all chores forever, with a pause of at most `check_pause` seconds after each run of a chore.

    Every worker runs all chores, and locks prevent conflicts. The chores run concurrently, because a sweep of sessions
    can take hours.
    """
    await asyncio.gather(
        *(
            keep_doing(
                partial(chore.run, services, pace),
                pause=min(check_pause, chore.pause_seconds),
                failure_event=chore.failure_event,
            )
            for chore in (*_CHORES, *_CHORES_OUTSIDE_SWEEP)
        )
    )


async def sweep(services: Services, *, page_size: int = PAGE_SIZE, pause: float = PAGE_PAUSE_SECONDS) -> Swept:
    """Run every chore of `_CHORES` once, then `sweep_events_and_addresses`. `pause` is in seconds, after each page."""
    pace = Pace(page_size, pause)
    for chore in _CHORES:
        await chore.run(services, pace)
    return await sweep_events_and_addresses(services, pace)


async def sweep_now(services: Services, *, page_size: int = PAGE_SIZE) -> Swept:
    """Run `sweep` without pauses, even the daily sweeps that are not due, and wait for other workers' erasures."""
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
        await asyncio.sleep(pace.pause_seconds)


async def end_removed_clients(services: Services, pace: Pace) -> None:
    """End the sessions of removed clients, and delete the clients' other rows, one page of each client in turn.

    Continue until all of them are deleted, or a round changes no row, for example because the users are locked.
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
            await asyncio.sleep(pace.pause_seconds)


async def replace_sessions(services: Services, pace: Pace = USUAL_PACE) -> None:
    """For each identity, end and delete the oldest sessions beyond the limits.

    Only identities with a recent login are checked, because only a login adds a session.
    """
    ended = deleted = 0
    began = perf_counter()
    while page := await queries.replace_old_sessions(
        services.database,
        max_open=MAX_OPEN_SESSIONS,
        max_stored=MAX_STORED_SESSIONS,
        logins=LOGINS_PER_PAGE,
        size=SESSIONS_PER_TRANSACTION,
        now=services.clock(),
        pause=REPLACEMENTS_PAUSE,
    ):
        ended, deleted = ended + page.ended, deleted + page.deleted
        if page.is_last:
            break
        await asyncio.sleep(pace.rest_after(perf_counter() - began, page.ended + page.deleted))
        began = perf_counter()
    if ended or deleted:
        log.info("sessions_replaced", sessions=ended, erased=deleted)


async def sweep_other_rows(services: Services, pace: Pace) -> None:
    """Bind phone numbers that requests have left unbound, merge old counts, and delete expired rows of many kinds."""
    now, database = services.clock(), services.database
    await services[Phones].bind_pending(size=pace.page_size)  # for example of a process that has crashed
    if not clocks_agree(services):
        return
    for kid in await database.values(ERASE_RETIRED, now=now):
        log.info("signing_key_retired", kid=kid)
    await services[KeyRing].note_issuer()
    longest_session = timedelta(seconds=services.settings.web_session_max_age)
    await database.run(FORGET_ISSUERS, before=now - longest_session)
    await services[LoginCounts].merge_hours()
    await _page_by_page(
        pace,
        partial(sweep_answers, database, before=now - PHONE_ANSWERS_KEPT),
        partial(sweep_action_counts, database, before=now - WINDOW),
        partial(sweep_messages, database, before=now),  # each row stores the time until which it is kept
        partial(sweep_refusals, database, before=first_id_at(now - REFUSALS_KEPT)),
        partial(sweep_deliveries, database, before=first_id_at(now - DELIVERIES_KEPT)),
    )


async def sweep_logins_to_sites(services: Services, pace: Pace) -> None:
    """Delete the expired logins to sites, and the expired logins of browsers."""
    if not clocks_agree(services):
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
    # Unlike a deletion, the end of a ban can be undone, so this chore does not wait until the clocks agree.
    pace_of_bans = Pace(min(pace.page_size, BANS_PER_TRANSACTION), pace.pause_seconds)
    await _page_by_page(pace_of_bans, partial(lift_bans, services.database, now=services.clock()))


async def erase_due_users(services: Services, pace: Pace) -> None:
    """Erase the users whose requested erasure is due, except those who are banned."""
    if not clocks_agree(services):
        return
    while await erase_next_due(services.database, now=services.clock()):  # noqa: ASYNC110 - this waits for no event
        await asyncio.sleep(pace.pause_seconds)


async def _page_by_page(pace: Pace, *steps: Callable[..., Awaitable[int]]) -> None:
    for step in steps:
        while await step(size=pace.page_size) >= pace.page_size:  # noqa: ASYNC110 - this waits for no event
            await asyncio.sleep(pace.pause_seconds)


_CHORES: Final = (
    # `erasure_delayed` also reports that sessions of removed clients end later than they should.
    _Chore(erase_remains, 5.0, "erasure_delayed"),
    _Chore(end_removed_clients, 5.0, "erasure_delayed"),
    _Chore(sweep_other_rows, CHECK_PAUSE_SECONDS),
    _Chore(sweep_logins_to_sites, 30.0),  # often, because everyone who opens an authorize page causes a row
    _Chore(lift_ended_bans, DUE_CHECK_PAUSE_SECONDS),
    _Chore(erase_due_users, DUE_CHECK_PAUSE_SECONDS),
    _Chore(sweep_sessions, CHECK_PAUSE_SECONDS),
)
"""`keep_house` and `sweep` both run these."""
_CHORES_OUTSIDE_SWEEP: Final = (
    _Chore(sweep_events_and_addresses, CHECK_PAUSE_SECONDS),  # `sweep` calls it separately, to return its result
    _Chore(replace_sessions, REPLACEMENTS_PAUSE.total_seconds(), "sessions_not_replaced"),
)
