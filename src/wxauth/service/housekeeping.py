"""What goes by itself: sessions some time after their end, signing keys that have retired, and what WeChat said."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final

from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.errors import StorageUnavailable
from wxauth.keys.rows import erase_retired_keys
from wxauth.profile.attempt_rows import sweep_attempts
from wxauth.profile.attempts import WINDOW
from wxauth.profile.phone_rows import sweep_answers
from wxauth.profile.push_rows import sweep_messages, sweep_nonces
from wxauth.service.sweep_rows import sweep_page

KEPT_AFTER_THE_END: Final = timedelta(days=30)
"""Who comes back within it is still told why: `session_revoked`, `refresh_token_expired`, `refresh_token_reused`. Later
it is `invalid_refresh_token`, after which the client does the same. Not longer, for a session has an address in it."""
PHONE_ANSWERS_KEPT: Final = timedelta(days=7)
"""So long the same phone code finds what WeChat answered to it; longer than most outages."""
PUSH_MESSAGES_KEPT: Final = timedelta(days=30)
"""So long a message that WeChat pushes again is known to have been carried out. WeChat does so within seconds."""
PUSH_NONCES_KEPT: Final = timedelta(hours=2)
"""Longer than a signature counts, and than a message waits in memory for the database to come back."""
SWEEP_EVERY: Final = timedelta(days=1)
LOOK_PAUSE: Final = 300.0
"""Seconds between two looks at whether there is something to do."""
PAGE_SIZE: Final = 1000
PAGE_PAUSE: Final = 0.1
"""Seconds between two pages, for whoever else uses the database."""

log = get_logger()


async def keep_house(
    services: Services, *, page_size: int = PAGE_SIZE, pause: float = PAGE_PAUSE, look_pause: float = LOOK_PAUSE
) -> None:
    """Sweep for ever, through outages. Every worker does; a lock in the database lets one at a time at the sessions.

    Those may take hours, for which nothing else waits.
    """
    await asyncio.gather(
        *(
            _keep_doing(partial(chore, services, page_size=page_size, pause=pause), look_pause=look_pause)
            for chore in (sweep_rest, sweep_sessions)
        )
    )


async def sweep(services: Services, *, page_size: int = PAGE_SIZE, pause: float = PAGE_PAUSE) -> None:
    """Do once all that is due. Raises: StorageUnavailable."""
    await sweep_rest(services, page_size=page_size, pause=pause)
    await sweep_sessions(services, page_size=page_size, pause=pause)


async def sweep_sessions(services: Services, *, page_size: int, pause: float) -> None:
    """Where a sweep is due, erase the sessions that ended long ago. Raises: StorageUnavailable."""
    now = services.clock()
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


async def sweep_rest(services: Services, *, page_size: int, pause: float) -> None:
    """Bind the phone numbers that were left half way; erase retired keys, and what was kept of WeChat for a time.

    Raises: StorageUnavailable.
    """
    now, database = services.clock(), services.database
    await services.phones.take_up_pending(size=page_size)
    for kid in await erase_retired_keys(database, now=now):
        log.info("signing_key_retired", kid=kid)
    for erase_page in (
        partial(sweep_answers, database, asked_before=now - PHONE_ANSWERS_KEPT),
        partial(sweep_attempts, database, began_before=now - WINDOW),
        partial(sweep_messages, database, received_before=now - PUSH_MESSAGES_KEPT),
        partial(sweep_nonces, database, received_before=now - PUSH_NONCES_KEPT),
    ):
        while await erase_page(size=page_size):  # noqa: ASYNC110
            await asyncio.sleep(pause)


async def _keep_doing(chore: Callable[[], Awaitable[None]], *, look_pause: float) -> None:
    while True:
        try:
            await chore()
        except StorageUnavailable:
            log.warning("sweep_put_off", reason="the database does not answer")
        except Exception:
            log.exception("sweep_failed")
        await asyncio.sleep(look_pause)
