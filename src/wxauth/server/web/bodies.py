"""What the bodies and parameters of all rooms share."""

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime

TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
"""A pattern for text that is stored. It allows no control characters: PostgreSQL refuses a NUL."""


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("Should be a time in the years 1 to 9999 of UTC") from None


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time that the database takes. Near the ends of the calendar, an offset leads out of it."""
