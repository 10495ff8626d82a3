"""A clock that tests move, and the limit of what takes real time."""

from datetime import datetime, timedelta

PATIENCE = 120.0
"""Seconds, of real time, for work that takes a fraction of one on an idle machine, or a few."""


class Clock:
    """A clock that does not run; tests advance it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)
