"""The result of a check, the comparison of clocks, and the findings that one check passes to other checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.models import StoredSigningKey
from wxauth.settings.apps import App


class CheckLevel(StrEnum):
    OK = "ok"
    NOTE = "note"  # a state that is right only if the operator intends it
    BAD = "bad"


# Commands print a mark before each result. The capitals let a bad result stand out.
MARKS: Final = {CheckLevel.OK: "ok", CheckLevel.NOTE: "note", CheckLevel.BAD: "BAD"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The name of a check, and its result. If something is wrong, the text says how to fix it."""

    name: str
    level: CheckLevel
    text: Text

    @property
    def is_ok(self) -> bool:
        """Whether the result is OK or only a NOTE."""
        return self.level is not CheckLevel.BAD


def good(name: str, text: Text) -> CheckResult:
    """Return a result that says that nothing is wrong."""
    return CheckResult(name, CheckLevel.OK, text)


def note(name: str, text: Text) -> CheckResult:
    """Return a result for a state that the operator may intend."""
    return CheckResult(name, CheckLevel.NOTE, text)


def bad(name: str, text: Text) -> CheckResult:
    """Return a result that says that something does not work, or is not safe."""
    return CheckResult(name, CheckLevel.BAD, text)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How far this machine's clock is ahead of another clock, and the largest possible error of this difference."""

    ahead_seconds: float
    uncertainty_seconds: float

    @classmethod
    def of(cls, theirs: datetime, *, asked_at: datetime, answered_at: datetime, grain: timedelta = timedelta()) -> Self:
        """Return the reading from one request, whose response contained `theirs`, the time of the other clock.

        `grain` is the unit to which the time of the other clock was truncated.
        """
        # The other clock was probably read halfway between request and response.
        midpoint = asked_at + (answered_at - asked_at) / 2
        uncertainty = (answered_at - asked_at) / 2 + grain / 2
        # `uncertainty` is negative if this machine's clock was set back during the request, so the sign is removed.
        return cls((midpoint - theirs - grain / 2).total_seconds(), abs(uncertainty.total_seconds()))


def judge_clock(reading: ClockReading, *, name: str, whose: Text, allowed_seconds: float, why: Text) -> CheckResult:
    """Return the result of a comparison of this machine's clock with another clock.

    `whose` is the owner of the other clock, in the possessive, for example "WeChat's". `why` says why a difference
    matters. The result is bad only if the clocks certainly differ by more than `allowed_seconds`.
    """
    distance = abs(reading.ahead_seconds)
    if distance - reading.uncertainty_seconds <= allowed_seconds:
        within = max(1, round(distance + reading.uncertainty_seconds))
        return good(name, _("within {n} s of {whose}", n=within, whose=whose))
    where = _("ahead of") if reading.ahead_seconds > 0 else _("behind")
    return bad(
        name,
        _(
            "this machine's clock is {seconds:.0f} s {where} {whose} clock, {why}. Synchronize the wrong "
            "clock with NTP",
            seconds=distance,
            where=where,
            whose=whose,
            why=why,
        ),
    )


@dataclass(slots=True)
class Findings:
    """The values that one check finds and other checks need."""

    # The enabled apps, or those in the settings if the database was not read. If only one app is checked, the disabled
    # apps are included, because the check compares the push_tokens of all apps.
    apps: Sequence[App] = ()
    signing_keys: Sequence[StoredSigningKey] | None = None  # None if they could not be read
    has_served: bool = False  # whether a replica has used this database
    wechat_readings: list[ClockReading] = field(default_factory=list)
