"""Repeated work, which continues even if it fails, for example during a database outage."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from wxauth.core.logs import get_logger
from wxauth.core.outage_log import outage_log
from wxauth.errors import StorageUnavailable

log = get_logger()


async def keep_doing(chore: Callable[[], Awaitable[object]], *, pause: float, failure_event: str) -> NoReturn:
    """Call `chore` forever, with a pause of `pause` seconds after each call. Log failures as `attempt` does."""
    while True:
        await attempt(chore, failure_event=failure_event)
        await asyncio.sleep(pause)


async def attempt(chore: Callable[[], Awaitable[object]], *, failure_event: str) -> None:
    """Call `chore` once. If it fails, log the failure instead of raising it.

    The name of the log event is `failure_event`. But a database outage is logged under another name, and only at
    intervals for the whole process, however many chores fail.
    """
    try:
        await chore()
    except StorageUnavailable as exc:
        outage_log.note(exc)
    except Exception:
        log.exception(failure_event)
