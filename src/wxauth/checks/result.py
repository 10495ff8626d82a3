"""One line of the report."""

from dataclasses import dataclass
from enum import StrEnum

from wxauth.problems import Language


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """Right or wrong, as it is meant: somebody should read it."""
    BAD = "bad"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was looked at, and what is to be said of it: where it is wrong, also what to do."""

    name: str
    level: Level
    message: str
    chinese: str = ""
    """The same; what has none is said in English."""

    def said(self, language: Language) -> str:
        """It, to somebody who reads this language."""
        return (self.chinese if language == "zh" else "") or self.message

    @property
    def ok(self) -> bool:
        """Whether it works, as far as that can be told."""
        return self.level is not Level.BAD


def good(name: str, message: str, chinese: str = "") -> Result:
    """It works."""
    return Result(name, Level.OK, message, chinese)


def note(name: str, message: str, chinese: str = "") -> Result:
    """It may be meant so."""
    return Result(name, Level.NOTE, message, chinese)


def bad(name: str, message: str, chinese: str = "") -> Result:
    """It does not work."""
    return Result(name, Level.BAD, message, chinese)
