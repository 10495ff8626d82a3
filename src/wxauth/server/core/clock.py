"""Clocks: the current time as an argument."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the current time, with its time zone."""


def utc_now() -> datetime:
    """The current time of this machine, in UTC."""
    return datetime.now(UTC)


class DatabaseClock:
    """The database's time: this machine's time, corrected by the last difference measured.

    So replicas on machines whose clocks differ agree on what has expired.
    """

    def __init__(self, own: Clock = utc_now) -> None:
        self.own = own
        self.ahead = timedelta()
        """How far this machine is ahead of the database."""

    def __call__(self) -> datetime:
        """The time now."""
        return self.own() - self.ahead

    def correct(self, theirs: datetime, *, asked_at: datetime, answered_at: datetime) -> None:
        """Set the clock by the database's time, assumed to be read half way between question and answer."""
        self.ahead = asked_at + (answered_at - asked_at) / 2 - theirs
