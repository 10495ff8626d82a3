"""A clock that tests set, and the limit for work in real time."""

from datetime import datetime, timedelta

PATIENCE = 120.0
"""The limit, in seconds of real time, for work that takes up to a few seconds on an idle machine."""


class Clock:
    """A clock that stands still until a test advances it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)
