"""The days and months of WeChat's limits, which begin at midnight in Beijing."""

from datetime import UTC, datetime
from typing import Final

DAY_SECONDS: Final = 86400
_BEIJING_OFFSET_SECONDS: Final = 8 * 3600


def day_of(at: float) -> int:
    """Return the number of days in Beijing from the epoch to this time, which is in seconds since the epoch."""
    return int(at + _BEIJING_OFFSET_SECONDS) // DAY_SECONDS


def month_of(at: float) -> str:
    """Return the month in Beijing at this time, for example `2026-11`. The time is in seconds since the epoch."""
    return datetime.fromtimestamp(at + _BEIJING_OFFSET_SECONDS, tz=UTC).strftime("%Y-%m")
