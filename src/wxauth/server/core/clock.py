"""The time, as an argument."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Gives the time now, aware of its zone."""


def utc_now() -> datetime:
    """The time now by this machine, in UTC."""
    return datetime.now(UTC)


class DatabaseClock:
    """The database's time: that of this machine, corrected by the database's last answer.

    With it, replicas on machines with different clocks agree on what has expired.

    Args:
        own: This machine's time.
    """

    def __init__(self, own: Clock = utc_now) -> None:
        self.own = own
        self.ahead = timedelta()
        """How far this machine is ahead of the database."""

    def __call__(self) -> datetime:
        """The time now."""
        return self.own() - self.ahead

    def correct(self, theirs: datetime, *, asked_at: datetime, answered_at: datetime) -> None:
        """Correct the clock by the database's time, which is taken as read half way between question and answer."""
        self.ahead = asked_at + (answered_at - asked_at) / 2 - theirs
