"""One line of the report."""

from dataclasses import dataclass
from enum import StrEnum


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

    @property
    def ok(self) -> bool:
        """Whether it works, as far as that can be told."""
        return self.level is not Level.BAD


def good(name: str, message: str) -> Result:
    """It works."""
    return Result(name, Level.OK, message)


def note(name: str, message: str) -> Result:
    """It may be meant so."""
    return Result(name, Level.NOTE, message)


def bad(name: str, message: str) -> Result:
    """It does not work."""
    return Result(name, Level.BAD, message)
