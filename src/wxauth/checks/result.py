"""What health checks share: the form of a result, and what one of them finds for the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from wxauth.core.apps import App
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.models import StoredSigningKey


class CheckLevel(StrEnum):
    """The severity of a result."""

    OK = "ok"
    NOTE = "note"
    """Fine if intended, otherwise wrong: somebody should read it."""
    BAD = "bad"
    """Something does not work."""


MARKS: Final = {CheckLevel.OK: "ok", CheckLevel.NOTE: "note", CheckLevel.BAD: "BAD"}
"""How a report shows each."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The name of a check, and its result. If something is wrong, the text includes the remedy."""

    name: str
    level: CheckLevel
    text: Text

    @property
    def ok(self) -> bool:
        """Whether nothing is known to be wrong."""
        return self.level is not CheckLevel.BAD


def good(name: str, text: Text) -> CheckResult:
    """A result: it works."""
    return CheckResult(name, CheckLevel.OK, text)


def note(name: str, text: Text) -> CheckResult:
    """A result: it may be intended."""
    return CheckResult(name, CheckLevel.NOTE, text)


def bad(name: str, text: Text) -> CheckResult:
    """A result: it does not work."""
    return CheckResult(name, CheckLevel.BAD, text)


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


def compare(reading: ClockReading, *, name: str, whose: Text, allowed: float, bound: Text) -> CheckResult:
    """Whether our clock agrees with another one's, within the seconds that are allowed."""
    distance = abs(reading.ahead)
    if distance - reading.uncertainty <= allowed:
        within = max(1, round(distance + reading.uncertainty))
        return good(name, _("within {n} s of {whose}", n=within, whose=whose))
    where = _("ahead of") if reading.ahead > 0 else _("behind")
    return bad(
        name,
        _(
            "this machine's clock is {seconds:.0f} s {where} {whose}, {bound}: synchronize the wrong clock with NTP",
            seconds=distance,
            where=where,
            whose=whose,
            bound=bound,
        ),
    )


@dataclass(slots=True)
class Findings:
    """The findings so far. A field is None or empty if it could not be determined."""

    apps: Sequence[App] = ()
    """The apps that people may log in to."""
    signing_keys: Sequence[StoredSigningKey] | None = None
    wechat_readings: list[ClockReading] = field(default_factory=list)
    """Comparisons of our clock with WeChat's."""
