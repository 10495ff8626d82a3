"""Texts for operators, in their language: at a terminal, and in reports.

The code has them in English. `terminal.zh.txt` has their Chinese, by the English text with its holes.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unicodedata import east_asian_width

from wxauth.errors import Title

if TYPE_CHECKING:  # imports Starlette
    from wxauth.problems import Language


class Text(Title):
    """An English text, with its holes filled. Its Chinese has the same values, in Chinese where they are texts."""

    _template: str
    _values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: object) -> Self:
        """Fill a template; a text stays as it is."""
        if isinstance(template, cls):
            return template
        text = str.__new__(cls, template.format(**values) if values else template)
        text._template, text._values = template, values
        return text

    @property
    def zh(self) -> str:
        """The Chinese; English, if the catalogue has none."""
        chinese = catalogue().get(self._template, self._template)
        values = {name: value.zh if isinstance(value, Title) else value for name, value in self._values.items()}
        return chinese.format(**values) if values else chinese


class TextError(Exception):
    """An error with a text for people. Its template may be a finished `Title`, too."""

    def __init__(self, template: str, /, **values: object) -> None:
        self.text = template if isinstance(template, Title) else Text(template, **values)
        super().__init__(self.text)


class WrongValue(TextError, ValueError):
    """A value breaks a rule. The text is the rule, and never has the value."""


def terminal_language() -> "Language":
    """The language of the terminal's user, from the locale."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, variables), "").lower().startswith("zh") else "en"


def say(template: str, /, **values: object) -> str:
    """This English text in the language of the terminal, with its holes filled."""
    return shown(Text(template, **values))


def shown(text: str) -> str:
    """A text in the language of the terminal. What is no `Title` is a value, and stays."""
    return text.zh if isinstance(text, Title) and terminal_language() == "zh" else str(text)


def joined(texts: Iterable[Title], en: str, zh: str | None = None) -> Title:
    """Several texts as one, with this separator, and this one in Chinese if it differs there."""
    found = list(texts)
    return Title(en.join(found), (zh or en).join(each.zh for each in found))


def os_reason(exc: OSError) -> Title:
    """The operating system's reason."""
    return Text(exc.strerror or type(exc).__name__)


def rule_of(error: Mapping[str, Any]) -> Title:
    """What a value must be, by pydantic's error: a rule of ours, or one of pydantic's in our words."""
    found = error.get("ctx", {})
    if isinstance(found.get("error"), WrongValue):
        text: Title = found["error"].text
        return text
    english = re.sub(r"^\w+ should ", "must ", error["msg"].removeprefix("Value error, ")).partition(", unable to ")[0]
    chinese = catalogue().get(f"pydantic {error['type']}")
    choices = str(found.get("expected")).replace("', '", "'、'").replace("' or '", "' 或 '")
    return Title(english, chinese.format(**found | {"expected": choices}) if chinese else english)


def word(name: str) -> str:
    """The name of a column or the value of a state: in English the same."""
    return _words().get(name, name) if terminal_language() == "zh" else name


def width(text: str) -> int:
    """The columns that a text takes."""
    return len(text) + sum(east_asian_width(character) in "WF" for character in text)


@cache
def catalogue() -> dict[str, str]:
    """Chinese texts by their English ones, and by the names of commands and options."""
    text = Path(__file__).with_name("terminal.zh.txt").read_text("utf-8").replace("\\n", "\r").replace("\\t", "\t")
    pairs = (line.replace("\r", "\n").rpartition(" = ") for line in text.split("\n") if line and line[0] != "#")
    return {english: chinese for english, _, chinese in pairs}


@cache
def _words() -> dict[str, str]:
    lists = (chinese for name, chinese in catalogue().items() if name.startswith("words "))
    return dict(pair.replace("_ID", " ID").split(":") for each in lists for pair in each.split())
