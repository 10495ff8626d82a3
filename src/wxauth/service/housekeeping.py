"""What goes by itself: sessions after their end, signing keys that have retired, answers to phone codes, scans."""

import asyncio
from datetime import timedelta
from typing import Final

from wxauth.core.clock import DatabaseClock
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.errors import StorageUnavailable
from wxauth.keys.rows import erase_retired_keys
from wxauth.oauth.scan_rows import sweep_scans
from wxauth.profile.phone_rows import sweep_answers
from wxauth.service.sweep_rows import replace_old_sessions, sweep_page

KEPT_AFTER_THE_END: Final = timedelta(days=30)
"""Who comes back within it is still told why: `session_revoked`, `refresh_token_expired`, `refresh_token_reused`. Later
it is `invalid_refresh_token`, after which the client does the same. Not longer, for a session has an address in it."""
PHONE_ANSWERS_KEPT: Final = timedelta(days=7)
"""So long the same phone code finds what WeChat answered to it; longer than most outages."""
OPEN_SESSIONS: Final = 100
"""That an identity keeps. One that logs in again and again would have as many as it likes, each to be listed."""
REPLACED_EVERY: Final = timedelta(seconds=30)
SWEEP_EVERY: Final = timedelta(days=1)
MOST_APART: Final = timedelta(seconds=30)
"""How far our clock and the database's may differ where anything is to be erased for its age."""
LOOK_PAUSE: Final = 300.0
"""Seconds between two looks at whether there is something to do."""
PAGE_SIZE: Final = 1000
PAGE_PAUSE: Final = 0.1
"""Seconds between two pages, for whoever else uses the database."""

log = get_logger()


async def keep_house(services: Services) -> None:
    """Sweep for ever, through outages. Every worker does; a lock in the database lets one at a time."""
    while True:
        try:
            await sweep(services)
        except StorageUnavailable:
            log.warning("sweep_put_off", reason="the database does not answer")
        except Exception:
            log.exception("sweep_failed")
        await asyncio.sleep(LOOK_PAUSE)


async def keep_sessions_few(services: Services) -> None:
    """End, for ever, what an identity has open beyond its newest sessions; through outages."""
    while True:
        await asyncio.sleep(REPLACED_EVERY.total_seconds())
        try:
            await replace_sessions(services)
        except StorageUnavailable:
            log.warning("sessions_not_replaced", reason="the database does not answer")
        except Exception:
            log.exception("sessions_not_replaced")


async def replace_sessions(services: Services) -> None:
    """End what identities that have logged in lately have open beyond their newest. Raises: StorageUnavailable."""
    ended = await replace_old_sessions(
        services.database, at_most=OPEN_SESSIONS, now=services.clock(), pause=REPLACED_EVERY
    )
    if ended:
        log.info("sessions_replaced", sessions=ended)


async def sweep(services: Services, *, page_size: int = PAGE_SIZE, pause: float = PAGE_PAUSE) -> None:
    """Erase the keys that have retired, and where a sweep is due, the sessions that ended long ago.

    Bind the phone numbers that were left half way, and erase the answers and the scans whose time is over.

    Raises: StorageUnavailable.
    """
    clock = services.clock
    if isinstance(clock, DatabaseClock) and abs(clock.ahead) > MOST_APART:
        # One of the two is badly wrong, and nobody knows which: what is erased now would be gone for good.
        log.error("sweep_put_off", reason="the clocks differ", ahead_of_database=clock.ahead.total_seconds())
        return
    now = clock()
    for kid in await erase_retired_keys(services.database, now=now):
        log.info("signing_key_retired", kid=kid)
    swept = 0
    try:
        while page := await sweep_page(
            services.database,
            size=page_size,
            ended_before=now - KEPT_AFTER_THE_END,
            now=now,
            next_sweep_at=now + SWEEP_EVERY,
        ):
            swept += page.sessions
            if page.is_last:
                break
            await asyncio.sleep(pause)
    finally:
        if swept:
            log.info("sessions_swept", sessions=swept)
    await services.phones.take_up_pending(size=page_size)
    asked_before = now - PHONE_ANSWERS_KEPT
    while await sweep_answers(services.database, asked_before=asked_before, size=page_size):  # noqa: ASYNC110
        await asyncio.sleep(pause)
    while await sweep_scans(services.database, size=page_size, now=now) >= page_size:  # noqa: ASYNC110
        await asyncio.sleep(pause)
