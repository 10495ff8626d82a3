"""The results of health checks."""

from dataclasses import dataclass
from enum import StrEnum

from wxauth.problems import Language


class CheckLevel(StrEnum):
    """The severity of a result."""

    OK = "ok"
    NOTE = "note"
    """Fine if intended, otherwise wrong: somebody should read it."""
    BAD = "bad"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The name of a check, and its result. If something is wrong, the message includes the remedy."""

    name: str
    level: CheckLevel
    message: str
    chinese: str = ""
    """The message in Chinese. If empty, the English one is shown."""

    def text_in(self, language: Language) -> str:
        """The message in this language."""
        return (self.chinese if language == "zh" else "") or self.message

    @property
    def ok(self) -> bool:
        """Whether nothing is known to be wrong."""
        return self.level is not CheckLevel.BAD


def good(name: str, message: str, chinese: str = "") -> CheckResult:
    """A result: it works."""
    return CheckResult(name, CheckLevel.OK, message, chinese)


def note(name: str, message: str, chinese: str = "") -> CheckResult:
    """A result: it may be intended."""
    return CheckResult(name, CheckLevel.NOTE, message, chinese)


def bad(name: str, message: str, chinese: str = "") -> CheckResult:
    """A result: it does not work."""
    return CheckResult(name, CheckLevel.BAD, message, chinese)
