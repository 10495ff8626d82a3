"""A clock that tests move."""

from datetime import datetime, timedelta


class Clock:
    """A clock that does not run; tests advance it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)
