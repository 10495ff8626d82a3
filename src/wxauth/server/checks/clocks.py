"""Comparisons of our clock with others."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from wxauth.errors import Title
from wxauth.server.checks.result import CheckResult, bad, good
from wxauth.tokens.verifier import CLOCK_SKEW


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How many seconds our clock is ahead of another one, and by how much that may be wrong."""

    ahead: float
    uncertainty: float

    @classmethod
    def of(cls, theirs: datetime, *, asked_at: datetime, answered_at: datetime, grain: timedelta = timedelta()) -> Self:
        """The reading from one request, assuming that the other clock was read halfway between request and answer.

        `grain` is the unit to which their time is truncated.
        """
        midpoint = asked_at + (answered_at - asked_at) / 2
        uncertainty = (answered_at - asked_at) / 2 + grain / 2
        return cls((midpoint - theirs - grain / 2).total_seconds(), abs(uncertainty.total_seconds()))


_ALLOWED: Final = CLOCK_SKEW
"""Seconds that siblings tolerate."""
_ALLOWED_OF_DATABASE: Final = 5.0
"""Seconds. `serve` corrects any difference, but a larger one is a sign that one of the clocks is not synchronized."""


def compare_with_database(reading: ClockReading) -> CheckResult:
    """Whether our clock agrees with the database's, by which all replicas decide what has expired."""
    ahead, name = reading.ahead, "clock database"
    if abs(ahead) - reading.uncertainty <= _ALLOWED_OF_DATABASE:
        within = max(1, round(abs(ahead) + reading.uncertainty))
        return good(name, f"within {within} s of the database's", f"与数据库的时钟相差不超过 {within} 秒")
    which = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    by = f"{'快' if ahead > 0 else '慢'} {abs(ahead):.0f} 秒"
    chinese = f"本机时钟比数据库{by}，而时间以数据库为准：请用 NTP 校准不准的一方"
    message = f"this machine's clock is {which}, whose time counts: have NTP set the one that is wrong"
    return bad(name, message, chinese)


def compare_clocks(name: str, whose: Title, reading: ClockReading) -> CheckResult:
    """Whether two clocks agree well enough for tokens."""
    ahead = reading.ahead
    if abs(ahead) - reading.uncertainty <= _ALLOWED:
        within = max(1, round(abs(ahead) + reading.uncertainty))
        return good(name, f"within {within} s of {whose.en}", f"与{whose.zh}的时钟相差不超过 {within} 秒")
    which = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose.en}"
    message = f"this machine's clock is {which}, tokens bear with {_ALLOWED} s: have NTP set the one that is wrong"
    by = f"比{whose.zh}{'快' if ahead > 0 else '慢'} {abs(ahead):.0f} 秒"
    return bad(name, message, f"本机时钟{by}，令牌只容许 {_ALLOWED} 秒：请用 NTP 校准不准的一方")
