"""Correction of this replica's clock to the database's time, in the background."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import DatabaseClock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger

CORRECTION_PAUSE_SECONDS: Final = 5.0
"""Between two corrections."""
FIRST_PAUSE_SECONDS: Final = 0.1
"""The same until the database has answered once, because requests may come as soon as it does."""
TOO_SLOW: Final = 1.0
"""Seconds. An answer that took this long is not used: it is too inexact."""
REPORTED_FROM: Final = timedelta(seconds=5)
"""The difference of the clocks from which a warning is logged."""

_REPORTED_EVERY: Final = timedelta(minutes=10)

log = get_logger()


async def keep_time(clock: DatabaseClock, database: Database, *, pause: float = CORRECTION_PAUSE_SECONDS) -> None:
    """Correct the clock forever, despite outages."""
    reported_at: datetime | None = None
    while True:
        await correct_clock(clock, database)
        now = clock.own()
        if abs(clock.ahead) >= REPORTED_FROM and (reported_at is None or abs(now - reported_at) >= _REPORTED_EVERY):
            reported_at = now
            log.warning(
                "clocks_differ",
                ahead_of_database=round(clock.ahead.total_seconds(), 1),
                consequence="the database's time counts",
                what_to_change="have NTP set the clock that is wrong: see 'wxauth check'",
            )
        await asyncio.sleep(pause if clock.is_set else min(pause, FIRST_PAUSE_SECONDS))


async def correct_clock(clock: DatabaseClock, database: Database) -> None:
    """Correct the clock once. If the database does not answer, the former correction stays."""
    asked_at = clock.elapsed()
    try:
        theirs = await database.time()
    except StorageUnavailable:
        return
    answered_at = clock.elapsed()
    if answered_at - asked_at < TOO_SLOW:
        clock.correct(theirs, asked_at=asked_at, answered_at=answered_at)
