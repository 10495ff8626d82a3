"""The chores of housekeeping, in which workers delete or change old rows, page by page.

For example, they lift bans that have ended, and erase the data of erased users. The chores that sweep large tables are
in `daily_sweeps`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple

from wxauth.clients.queries import end_removed_page
from wxauth.core.chores import keep_doing
from wxauth.core.ids import first_id_at
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.events.webhook_queries import sweep_deliveries
from wxauth.housekeeping import queries
from wxauth.housekeeping.daily_sweeps import (
    Swept,
    clocks_agree,
    sweep_events_and_addresses,
    sweep_names,
    sweep_sessions,
)
from wxauth.housekeeping.pace import PAGE_PAUSE_SECONDS, PAGE_SIZE, USUAL_PACE, Pace
from wxauth.keys.queries import DELETE_RETIRED, ERASE_RETIRED
from wxauth.limits.queries import WINDOW, sweep_action_counts
from wxauth.login.login_counts import LoginCounts
from wxauth.login.refusal_queries import sweep_refusals
from wxauth.phones.phones import Phones
from wxauth.phones.queries import sweep_answers
from wxauth.push.queries import sweep_messages
from wxauth.sessions.list_queries import MAX_OPEN_SESSIONS
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
REMAINS_CHECK_PAUSE_SECONDS: Final = 5.0
"""The pause, in seconds, between two checks for data of erased users, and for data of removed clients."""
REFUSALS_KEPT: Final = timedelta(days=14)
"""The time for which refused logins and refreshes are stored for support staff."""
DELIVERIES_KEPT: Final = timedelta(days=30)
"""The time for which finished webhook deliveries are stored for operators, counted from the last time they were queued.

Pending deliveries are deleted only after their webhook was removed.
"""
CHECK_PAUSE_SECONDS: Final = 300.0
"""The pause, in seconds, between two checks for due work."""
BANS_CHECK_PAUSE_SECONDS: Final = 20.0
"""The pause, in seconds, between two checks for bans that have ended.

A ban must be lifted within a minute of its end.
"""
ERASURES_CHECK_PAUSE_SECONDS: Final = 20.0
"""The pause, in seconds, between two checks for users whose erasure is due.

A user must be erased within a minute of the time at which the erasure is due.
"""
BANS_PER_TRANSACTION: Final = 100
"""The largest number of bans that one transaction lifts."""
SITE_LOGINS_CHECK_PAUSE_SECONDS: Final = 30.0
"""The pause, in seconds, between two checks for expired logins to sites, and for expired logins of browsers.

The pause is short because everyone who opens an authorize page causes a row to be stored.
"""

log = get_logger()


class _Chore(NamedTuple):
    """A function that does the due work of one kind, and stops."""

    run: Callable[[Services, Pace], Awaitable[object]]
    pause_seconds: float
    """The pause between two checks for due work."""
    failure_event: str = "sweep_failed"
    """The name of the log line about a failure."""


async def keep_house(services: Services, pace: Pace = USUAL_PACE, *, check_pause: float = CHECK_PAUSE_SECONDS) -> None:
    """Run all chores forever, even during outages.

    Every worker runs all chores, and locks in the database prevent conflicts. The chores run concurrently, because a
    sweep of sessions can take hours. `check_pause` is the longest pause, in seconds, between two runs of a chore.
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
    """Run every chore of `_CHORES` once, then run `sweep_events_and_addresses`, and return its result.

    `pause` is the pause between two pages in seconds.
    """
    pace = Pace(page_size, pause)
    for chore in _CHORES:
        await chore.run(services, pace)
    return await sweep_events_and_addresses(services, pace)


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


async def sweep_other_rows(services: Services, pace: Pace) -> None:
    """Delete retired keys and other expired rows, and merge the login counts of each old hour into one row.

    First, bind phone numbers that the users' own requests have not bound, for example because a process crashed. If
    this machine's clock and the database's differ too much, do nothing else.
    """
    now, database = services.clock(), services.database
    await services[Phones].bind_pending(size=pace.page_size)
    if not clocks_agree(services):
        return
    longest_session = timedelta(seconds=services.settings.web_session_max_age)
    for kid in await database.values(ERASE_RETIRED, now=now):
        log.info("signing_key_retired", kid=kid)
    await database.run(DELETE_RETIRED, longest_session_ago=now - longest_session)
    await services[LoginCounts].merge_hours()
    await _page_by_page(
        pace,
        partial(sweep_answers, database, before=now - PHONE_ANSWERS_KEPT),
        partial(sweep_action_counts, database, before=now - WINDOW),
        partial(sweep_messages, database, before=now),  # each row stores the time until which it is kept
        partial(sweep_refusals, database, before=first_id_at(now - REFUSALS_KEPT)),
        partial(sweep_deliveries, database, before=now - DELIVERIES_KEPT),
    )


async def sweep_logins_to_sites(services: Services, pace: Pace) -> None:
    """Delete the expired logins to sites, and the expired logins of browsers.

    If this machine's clock and the database's differ too much, do nothing.
    """
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
    """Lift the bans that have ended."""
    pace_of_bans = Pace(min(pace.page_size, BANS_PER_TRANSACTION), pace.pause)
    await _page_by_page(pace_of_bans, partial(lift_bans, services.database, now=services.clock()))


async def erase_due_users(services: Services, pace: Pace) -> None:
    """Erase the users whose requested erasure is due, except those who are banned.

    If this machine's clock and the database's differ too much, do nothing.
    """
    if not clocks_agree(services):
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


_CHORES: Final = (
    # `erasure_delayed` also reports that sessions of removed clients end later than they should.
    _Chore(erase_remains, REMAINS_CHECK_PAUSE_SECONDS, "erasure_delayed"),
    _Chore(end_removed_clients, REMAINS_CHECK_PAUSE_SECONDS, "erasure_delayed"),
    _Chore(sweep_other_rows, CHECK_PAUSE_SECONDS),
    _Chore(sweep_logins_to_sites, SITE_LOGINS_CHECK_PAUSE_SECONDS),
    _Chore(lift_ended_bans, BANS_CHECK_PAUSE_SECONDS),
    _Chore(erase_due_users, ERASURES_CHECK_PAUSE_SECONDS),
    _Chore(sweep_sessions, CHECK_PAUSE_SECONDS),
)
"""The chores that both `keep_house` and `sweep` run."""
_CHORES_OUTSIDE_SWEEP: Final = (
    _Chore(sweep_events_and_addresses, CHECK_PAUSE_SECONDS),  # `sweep` calls it separately, to return its result
    _Chore(replace_sessions, REPLACEMENTS_PAUSE.total_seconds(), "sessions_not_replaced"),
)
"""The other chores of `keep_house`."""
