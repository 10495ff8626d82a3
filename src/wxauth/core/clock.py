"""The service's clock, which shows the database's time.

Other code gets the clock or the time as an argument, so that tests can set the time.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.errors import StorageUnavailable

Clock = Callable[[], datetime]
"""A function that returns the current time with its time zone."""

# Linux's monotonic clock stops while the machine sleeps, so wxauth uses Linux's boot-time clock. macOS has no boot-time
# clock, but its CLOCK_MONOTONIC continues during sleep (in contrast to `time.monotonic` on macOS).
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The clock that counts from the start of the machine. None on Windows, where only `time.monotonic` exists."""

CORRECTION_PAUSE_SECONDS: Final = 5.0
"""The pause, in seconds, between two corrections of the clock."""
FIRST_PAUSE_SECONDS: Final = 0.1
"""The pause, in seconds, between two attempts before the first correction of the clock.

The pause is short because requests might arrive as soon as the database responds.
"""
_MAX_RESPONSE_SECONDS: Final = 1.0
"""The response time, in seconds, from which on the database's time is too inexact to set the clock."""
MIN_REPORTED_DIFFERENCE: Final = timedelta(seconds=5)
"""The smallest difference between the clocks that is logged as a warning."""
_REPORT_PAUSE: Final = timedelta(minutes=10)
"""The shortest time between two warnings about a difference between the clocks."""

log = get_logger()


def utc_now() -> datetime:
    """Return the current time in UTC, as this machine's clock shows it."""
    return datetime.now(UTC)


def since_boot() -> float:
    """Return the seconds since this machine started.

    Nobody can set this clock, and it continues while the machine sleeps.
    """
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


class DatabaseClock:
    """A clock that shows the database's time: the time that it last read from the database, plus the elapsed time.

    With this clock, replicas on machines whose clocks differ agree on which sessions and tokens have expired, even if
    NTP sets one of the machines' clocks. Before the first correction, this clock shows `own`, the time of this machine.
    """

    def __init__(self, own: Clock = utc_now) -> None:
        self.own = own
        self.ahead = timedelta()
        """The time by which this machine's clock was ahead of the database's at the last correction.

        It is negative if this machine's clock was behind, and zero before the first correction.
        """
        self._reading: tuple[datetime, float] | None = None
        """The database's time, and the value of `since_boot` at that moment; None before the first correction."""

    @property
    def is_set(self) -> bool:
        """Whether the clock has been corrected at least once."""
        return self._reading is not None

    def __call__(self) -> datetime:
        """Return the database's current time; before the first correction, the time of `own`."""
        if self._reading is None:
            return self.own()
        database_time, read_at = self._reading
        return database_time + timedelta(seconds=since_boot() - read_at)

    def correct(self, database_time: datetime, *, asked_at: float, answered_at: float) -> None:
        """Set the clock to the database's time, as the database has returned it.

        `asked_at` and `answered_at` are the values of `since_boot` at the request and at the response. This method
        assumes that the database read its clock halfway between them.
        """
        self._reading = database_time, (asked_at + answered_at) / 2
        self.ahead = self.own() - self()


async def keep_time(clock: DatabaseClock, database: Database, *, pause: float = CORRECTION_PAUSE_SECONDS) -> None:
    """Correct the clock forever, with a pause of `pause` seconds between two corrections.

    Before the first correction, the pause is shorter. At most every ten minutes, log a warning if this machine's clock
    differs from the database's clock by `MIN_REPORTED_DIFFERENCE` or more. An outage does not end this loop, but any
    other error does.
    """
    reported_at: datetime | None = None
    while True:
        await correct_clock(clock, database)
        now = clock.own()
        # If this machine's clock has been set back since the last warning, `reported_at` is in the future. Without
        # abs(), there would be no warning until that time has passed.
        is_due = reported_at is None or abs(now - reported_at) >= _REPORT_PAUSE
        if is_due and abs(clock.ahead) >= MIN_REPORTED_DIFFERENCE:
            reported_at = now
            log.warning(
                "clocks_differ",
                ahead_of_database=round(clock.ahead.total_seconds(), 1),
                consequence="the database's time counts",
                what_to_change="have NTP set the clock that is wrong: see 'wxauth check'",
            )
        await asyncio.sleep(pause if clock.is_set else min(pause, FIRST_PAUSE_SECONDS))


async def correct_clock(clock: DatabaseClock, database: Database) -> None:
    """Correct the clock once. If the database does not respond, or responds too slowly, the clock stays unchanged."""
    asked_at = since_boot()
    try:
        database_time = await database.time()
    except StorageUnavailable:
        return
    answered_at = since_boot()
    if answered_at - asked_at < _MAX_RESPONSE_SECONDS:
        clock.correct(database_time, asked_at=asked_at, answered_at=answered_at)
