"""What goes by itself: sessions some time after their end, signing keys that have retired, and what WeChat said."""

import asyncio
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


async def sweep(services: Services, *, page_size: int = PAGE_SIZE, pause: float = PAGE_PAUSE) -> None:
    """Erase the keys that have retired, and where a sweep is due, the sessions that ended long ago.

    Bind the phone numbers that were left half way, and erase WeChat's answers and messages whose time is over.

    Raises: StorageUnavailable.
    """
    now = services.clock()
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
    database = services.database
    for erase_page in (
        partial(sweep_answers, database, asked_before=now - PHONE_ANSWERS_KEPT),
        partial(sweep_attempts, database, began_before=now - WINDOW),
        partial(sweep_messages, database, received_before=now - PUSH_MESSAGES_KEPT),
        partial(sweep_nonces, database, received_before=now - PUSH_NONCES_KEPT),
    ):
        while await erase_page(size=page_size):  # noqa: ASYNC110
            await asyncio.sleep(pause)
