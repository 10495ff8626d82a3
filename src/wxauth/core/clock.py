"""The service's clock, which shows the database's time, and the ids of rows, which begin with a time.

Other code gets the clock or the time as an argument, so that tests can set the time. The ids are UUIDv7 (RFC 9562).
"""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.errors import StorageUnavailable

Clock = Callable[[], datetime]

# Linux's monotonic clock stops while the machine sleeps, so wxauth uses Linux's boot-time clock. macOS has no boot-time
# clock, but its CLOCK_MONOTONIC continues during sleep (in contrast to `time.monotonic` on macOS).
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))  # None on Windows
since_boot: Final = time.monotonic if _BOOT_CLOCK is None else partial(time.clock_gettime, _BOOT_CLOCK)
"""Returns seconds of a clock that nobody can set, and that continues while the machine sleeps."""

CORRECTION_PAUSE_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 0.1  # requests might arrive as soon as the database responds
_MAX_RESPONSE_SECONDS: Final = 1.0  # after a slower response, the time would be too inexact
MIN_REPORTED_DIFFERENCE: Final = timedelta(seconds=5)
_REPORT_PAUSE: Final = timedelta(minutes=10)
_STEP_BYTES: Final = 4  # of the random difference between two ids with the same millisecond
_BITS_AFTER_TIME: Final = 80  # the first 48 bits are milliseconds
_MAX_MILLISECONDS: Final = 2**48 - 1
FIRST_ID: Final = UUID(int=0)
LAST_ID: Final = UUID(int=2**128 - 1)

_last_id = 0

log = get_logger()


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class DatabaseClock:
    """A clock that shows the database's time: the time that it last read from the database, plus the elapsed time.

    With this clock, replicas on machines whose clocks differ agree on which sessions and tokens have expired, even if
    NTP sets one of the machines' clocks. Before the first correction, this clock shows `own`, the time of this machine.
    """

    def __init__(self, own: Clock = utc_now) -> None:
        self.own = own
        self.ahead = timedelta()  # how far this machine's clock was ahead of the database's at the last correction
        self._reading: tuple[datetime, float] | None = None  # the database's time, and `since_boot` at that moment

    @property
    def is_set(self) -> bool:
        """Whether the clock has been corrected at least once."""
        return self._reading is not None

    def __call__(self) -> datetime:
        if self._reading is None:
            return self.own()
        database_time, read_at = self._reading
        return database_time + timedelta(seconds=since_boot() - read_at)

    def correct(self, database_time: datetime, *, asked_at: float, answered_at: float) -> None:
        """Set the clock, as if the database had read its own clock halfway between the request and the response.

        `asked_at` and `answered_at` are the values of `since_boot` when these two were sent and received.
        """
        self._reading = database_time, (asked_at + answered_at) / 2
        self.ahead = self.own() - self()


async def keep_time(clock: DatabaseClock, database: Database, *, pause: float = CORRECTION_PAUSE_SECONDS) -> None:
    """Correct the clock forever, and log a warning if this machine's clock differs from the database's."""
    reported_at: datetime | None = None
    while True:
        try:
            await correct_clock(clock, database)
        except Exception:  # for example an error of a pooler that does not mean an outage
            log.exception("clock_not_corrected")
            await asyncio.sleep(pause)
            continue
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
    """Correct the clock once. If the database does not respond, or responds too slowly, leave the clock unchanged."""
    asked_at = since_boot()
    try:
        database_time = await database.time()
    except StorageUnavailable:
        return
    answered_at = since_boot()
    if answered_at - asked_at < _MAX_RESPONSE_SECONDS:
        clock.correct(database_time, asked_at=asked_at, answered_at=answered_at)


def new_id(now: datetime) -> UUID:
    """Create an id for this time.

    If a process creates several ids of one millisecond in a row, these ids increase (RFC 9562, section 6.2, method 2).
    The time is an argument, because the library's `uuid7()` would otherwise read this machine's clock. If the clocks of
    two replicas differed, sessions and events would be out of order, and the newest session might seem old.
    """
    global _last_id
    created = uuid7(nanoseconds=_milliseconds(now) * 1_000_000)
    if created.int >> _BITS_AFTER_TIME == _last_id >> _BITS_AFTER_TIME:
        created = UUID(int=_last_id + 1 + int.from_bytes(os.urandom(_STEP_BYTES)))
    _last_id = created.int
    return created


def first_id_at(at: datetime) -> UUID:
    """Return the lowest possible id of this time (RFC 9562, section 5.7)."""
    return UUID(int=_milliseconds(at) << _BITS_AFTER_TIME)


def id_range(since: datetime | None, until: datetime | None, before: UUID | None) -> tuple[UUID, UUID]:
    """Return the bounds of the ids in a page of a list: at least the first bound, and below the second one.

    `before` is the last id of the previous page, which had higher ids. None means no bound.
    """
    lowest = FIRST_ID if since is None else first_id_at(since)
    end = LAST_ID if until is None else first_id_at(until)
    return lowest, min(end, before or LAST_ID)


def _milliseconds(at: datetime) -> int:
    return min(max(0, int(at.timestamp() * 1000)), _MAX_MILLISECONDS)
