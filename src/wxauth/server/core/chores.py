"""Chores that a process does again and again, through outages of the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from wxauth.errors import StorageUnavailable
from wxauth.server.core.database import troubles
from wxauth.server.core.logs import get_logger

log = get_logger()


async def keep_doing(chore: Callable[[], Awaitable[object]], *, pause: float, failed: str) -> NoReturn:
    """Do a chore forever, with a pause of so many seconds after each time.

    Logs the event `failed` for each error but an outage, which is one event for all that the service does.
    """
    while True:
        try:
            await chore()
        except StorageUnavailable as exc:
            troubles.note(exc)
        except Exception:
            log.exception(failed)
        await asyncio.sleep(pause)
