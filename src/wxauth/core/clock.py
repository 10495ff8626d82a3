"""The time, as an argument."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the time now, aware of its zone."""


def utc_now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)
