"""Our clock against another one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from wxauth.checks.result import Result, bad, good
from wxauth.tokens.verifier import CLOCK_SKEW


@dataclass(frozen=True, slots=True)
class Reading:
    """How far our clock is ahead of another one, in seconds, and by how much that may be wrong."""

    ahead: float
    uncertainty: float

    @classmethod
    def of(cls, theirs: datetime, *, asked_at: datetime, answered_at: datetime, grain: timedelta = timedelta()) -> Self:
        """From one question: their time, cut off to a `grain`, was read half way between asking and answer."""
        half_way = asked_at + (answered_at - asked_at) / 2
        uncertainty = (answered_at - asked_at) / 2 + grain / 2
        return cls((half_way - theirs - grain / 2).total_seconds(), abs(uncertainty.total_seconds()))


_ALLOWED: Final = CLOCK_SKEW
"""What siblings bear with."""
_ALLOWED_OF_DATABASE: Final = 5.0
"""Seconds; more is corrected by whoever serves, and yet a sign that nobody sets a clock."""


def compare_with_database(reading: Reading) -> Result:
    """Whether our clock is the database's, by whose time replicas agree on what has expired."""
    ahead, name = reading.ahead, "clock database"
    if abs(ahead) - reading.uncertainty <= _ALLOWED_OF_DATABASE:
        return good(name, f"within {max(1, round(abs(ahead) + reading.uncertainty))} s of the database's")
    which = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    message = f"this machine's clock is {which}, whose time counts: have NTP set the one that is wrong"
    return bad(name, message)


def compare(name: str, whose: str, reading: Reading) -> Result:
    """Whether both clocks are right enough for tokens."""
    ahead = reading.ahead
    if abs(ahead) - reading.uncertainty <= _ALLOWED:
        return good(name, f"within {max(1, round(abs(ahead) + reading.uncertainty))} s of {whose}")
    which = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose}"
    message = f"this machine's clock is {which}, tokens bear with {_ALLOWED} s: have NTP set the one that is wrong"
    return bad(name, message)
