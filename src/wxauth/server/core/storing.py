"""Storing every few seconds what a process gathers in memory: through outages, and once more at its end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from wxauth.errors import StorageUnavailable
from wxauth.server.core.database import reason_of
from wxauth.server.core.logs import get_logger

FAREWELL: Final = 2.0
"""Seconds for the last store when the service ends."""

Store = Callable[[], Awaitable[None]]
"""Stores what was gathered since the last time. Raises: StorageUnavailable."""

log = get_logger()


async def keep_storing(store: Store, *, pause: float, failed: str) -> NoReturn:
    """Store for ever, with a pause before each time. The log gets `failed` for each time that fails."""
    while True:
        await asyncio.sleep(pause)
        try:
            await store()
        except StorageUnavailable as exc:
            log.warning(failed, reason=reason_of(exc))
        except Exception:
            log.exception(failed)


async def store_last(store: Store, *, failed: str) -> None:
    """Store the last ones, if that takes only a moment."""
    try:
        async with asyncio.timeout(FAREWELL):
            await store()
    except (TimeoutError, StorageUnavailable):
        log.warning(failed, reason="the service has ended")
