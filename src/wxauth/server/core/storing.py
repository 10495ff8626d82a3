"""Periodic storing of what a process gathers in memory: despite outages, and once more when the service ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from wxauth.errors import StorageUnavailable
from wxauth.server.core.chores import keep_doing
from wxauth.server.core.logs import get_logger

LAST_STORE_SECONDS: Final = 2.0
"""How long the last store may take when the service ends."""

Store = Callable[[], Awaitable[None]]
"""Stores what was gathered since the last call."""

log = get_logger()


async def keep_storing(store: Store, *, pause: float, failed: str) -> NoReturn:
    """Store forever, with a pause of so many seconds before each time.

    `failed` is the event logged once per database outage, and for each other error.
    """
    await asyncio.sleep(pause)
    await keep_doing(store, pause=pause, put_off=failed, failed=failed)


async def store_at_shutdown(store: Store, *, failed: str) -> None:
    """Store once more when the service ends, for at most `LAST_STORE_SECONDS`."""
    try:
        async with asyncio.timeout(LAST_STORE_SECONDS):
            await store()
    except (TimeoutError, StorageUnavailable):
        log.warning(failed, reason="the service has ended")
