"""Chores that a process does again and again, through outages of the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from wxauth.errors import StorageUnavailable
from wxauth.server.core.database import reason_of
from wxauth.server.core.logs import get_logger

log = get_logger()


async def keep_doing(chore: Callable[[], Awaitable[object]], *, pause: float, put_off: str, failed: str) -> NoReturn:
    """Do a chore forever, with a pause of so many seconds after each time.

    Logs the event `put_off` once per database outage, and `failed` for each error.
    """
    is_well = True
    while True:
        try:
            await chore()
            is_well = True
        except StorageUnavailable as exc:
            if is_well:
                log.warning(put_off, reason=reason_of(exc))
            is_well = False
        except Exception:
            log.exception(failed)
        await asyncio.sleep(pause)
