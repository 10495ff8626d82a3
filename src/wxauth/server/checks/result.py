"""The results of health checks."""

from dataclasses import dataclass
from enum import StrEnum

from wxauth.problems import Language


class Level(StrEnum):
    """The severity of a result."""

    OK = "ok"
    NOTE = "note"
    """Fine if intended, otherwise wrong: somebody should read it."""
    BAD = "bad"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Result:
    """The name of a check, and its result. If something is wrong, the message includes the remedy."""

    name: str
    level: Level
    message: str
    chinese: str = ""
    """The message in Chinese. If empty, the English one is shown."""

    def text_in(self, language: Language) -> str:
        """The message in this language."""
        return (self.chinese if language == "zh" else "") or self.message

    @property
    def ok(self) -> bool:
        """Whether nothing is known to be wrong."""
        return self.level is not Level.BAD


def good(name: str, message: str, chinese: str = "") -> Result:
    """A result: it works."""
    return Result(name, Level.OK, message, chinese)


def note(name: str, message: str, chinese: str = "") -> Result:
    """A result: it may be intended."""
    return Result(name, Level.NOTE, message, chinese)


def bad(name: str, message: str, chinese: str = "") -> Result:
    """A result: it does not work."""
    return Result(name, Level.BAD, message, chinese)
