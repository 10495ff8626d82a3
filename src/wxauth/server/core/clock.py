"""Clocks: the current time as an argument."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

Clock = Callable[[], datetime]
"""Returns the current time, with its time zone."""

# Linux's monotonic clock stands still while the machine sleeps. That of macOS does not, and it has no other.
_SINCE_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""None on Windows, which has `monotonic` alone."""


def utc_now() -> datetime:
    """The current time of this machine, in UTC."""
    return datetime.now(UTC)


def since_boot() -> float:
    """Seconds since this machine has started. Nobody sets this clock, and it runs on while the machine sleeps."""
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)


class DatabaseClock:
    """The database's time: as it was when it was last asked, and what has elapsed since.

    So replicas on machines whose clocks differ agree on what has expired, also when NTP sets one of the clocks.

    Args:
        own: This machine's time, which counts until the database has answered.
        elapsed: Seconds, of any beginning, by a clock that nobody sets.
    """

    def __init__(self, own: Clock = utc_now, elapsed: Callable[[], float] = since_boot) -> None:
        self.own = own
        self.elapsed = elapsed
        self.ahead = timedelta()
        """How far this machine was ahead of the database when it was last asked."""
        self._read: tuple[datetime, float] | None = None
        """The database's time, and by `elapsed` when that was."""

    @property
    def is_set(self) -> bool:
        """Whether the database has answered."""
        return self._read is not None

    def __call__(self) -> datetime:
        """The time now."""
        if self._read is None:
            return self.own()
        theirs, read_at = self._read
        return theirs + timedelta(seconds=self.elapsed() - read_at)

    def correct(self, theirs: datetime, *, asked_at: float, answered_at: float) -> None:
        """Set the clock by the database's time, assumed to be read half way between question and answer.

        Both are seconds of `elapsed`.
        """
        self._read = theirs, (asked_at + answered_at) / 2
        self.ahead = self.own() - self()
