"""The service's time, which is the database's. It is an argument everywhere, also of ids: UUIDv7 (RFC 9562)."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.errors import StorageUnavailable

Clock = Callable[[], datetime]
"""Returns the current time, with its time zone."""

# Linux's monotonic clock stops while the machine sleeps. That of macOS does not, and macOS has no other.
_SINCE_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""None on Windows, which has `monotonic` alone."""

CORRECTION_PAUSE_SECONDS: Final = 5.0
"""Between two corrections."""
FIRST_PAUSE_SECONDS: Final = 0.1
"""The same until the database has answered once, because requests may arrive as soon as it does."""
TOO_SLOW: Final = 1.0
"""Seconds. An answer that took this long is not used: it is too inexact."""
REPORTED_FROM: Final = timedelta(seconds=5)
"""The difference of the clocks from which a warning is logged."""

_REPORTED_EVERY: Final = timedelta(minutes=10)
_STEP_BYTES: Final = 4
log = get_logger()
LAST_ID: Final = UUID(int=2**128 - 1)
"""An id after every other one."""
_last = 0
"""The newest id of this process. It only orders ids within a millisecond."""


def utc_now() -> datetime:
    """The current time of this machine, in UTC."""
    return datetime.now(UTC)


def since_boot() -> float:
    """Seconds since this machine has started. Nobody sets this clock, and it runs on while the machine sleeps."""
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)


class DatabaseClock:
    """The database's time: as it was when it was last asked, and what has elapsed since.

    So replicas on machines whose clocks differ agree on what has expired, also when NTP sets one of the clocks. This
    machine's `own` time counts until the database has answered.
    """

    def __init__(self, own: Clock = utc_now) -> None:
        self.own = own
        self.ahead = timedelta()
        """How far this machine was ahead of the database when it was last asked."""
        self._read: tuple[datetime, float] | None = None
        """The database's time, and by `since_boot` when that was."""

    @property
    def is_set(self) -> bool:
        """Whether the database has answered."""
        return self._read is not None

    def __call__(self) -> datetime:
        """The time now."""
        if self._read is None:
            return self.own()
        theirs, read_at = self._read
        return theirs + timedelta(seconds=since_boot() - read_at)

    def correct(self, theirs: datetime, *, asked_at: float, answered_at: float) -> None:
        """Set the clock by the database's time, assumed to be read half way between question and answer.

        Both are seconds of `since_boot`.
        """
        self._read = theirs, (asked_at + answered_at) / 2
        self.ahead = self.own() - self()


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
    asked_at = since_boot()
    try:
        theirs = await database.time()
    except StorageUnavailable:
        return
    answered_at = since_boot()
    if answered_at - asked_at < TOO_SLOW:
        clock.correct(theirs, asked_at=asked_at, answered_at=answered_at)


def new_id(now: datetime) -> UUID:
    """Make an id of this time. Within a millisecond, the ids of a process increase (section 6.2, method 2).

    The time is an argument because a library's own `uuid7()` reads the machine's clock: if the clocks of replicas
    differ, sessions and events would be out of order, and the newest might seem old.
    """
    global _last
    made = uuid7(nanoseconds=_milliseconds(now) * 1_000_000)
    if made.int >> 80 == _last >> 80:
        made = UUID(int=_last + 1 + int.from_bytes(os.urandom(_STEP_BYTES)))
    _last = made.int
    return made


def first_id_at(time: datetime) -> UUID:
    """The lower bound of all ids of this time (section 5.7)."""
    return UUID(int=_milliseconds(time) << 80)


def id_range(since: datetime | None, until: datetime | None, before: UUID | None) -> tuple[UUID, UUID]:
    """The bounds of the ids in a page of a list: the lowest id, and the first id above. Ids begin with their times.

    `before` is where the page before has ended. None: no bound.
    """
    lowest = UUID(int=0) if since is None else first_id_at(since)
    end = LAST_ID if until is None else first_id_at(until)
    return lowest, min(end, before or LAST_ID)


def _milliseconds(time: datetime) -> int:
    return min(max(0, int(time.timestamp() * 1000)), 2**48 - 1)
