"""Texts for operators, in their language: at a terminal, and in reports.

The code has them in English. `terminal.zh.txt` has their Chinese, by the English text with its holes. A text that has
both, such as `"Removed. 已删除。"`, is its own translation.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unicodedata import east_asian_width

from wxauth.errors import Title

if TYPE_CHECKING:  # imports Starlette
    from wxauth.problems import Language

_WITH_CHINESE: Final = re.compile(r"[^\u4e00-\u9fff]*[.?!] (.*[\u4e00-\u9fff].*)", re.DOTALL)
_HOLE: Final = re.compile(r"\{(\w+)\}")


def terminal_language() -> "Language":
    """The language of the terminal's user, from the locale."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, variables), "").lower().startswith("zh") else "en"


def say(text: str, /, **holes: object) -> str:
    """This English text in the language of the terminal, with its holes filled."""
    return text_in(terminal_language(), text, **holes)


def both(text: str, /, **holes: object) -> Title:
    """This English text, and its Chinese, with their holes filled."""
    return Title(text_in("en", text, **holes), text_in("zh", text, **holes))


def text_in(language: "Language", text: str, /, **holes: object) -> str:
    """This English text in a language, with its holes filled. A title that fills one is in that language, too."""
    if language == "zh":
        text = in_chinese(text) or text
    filled = {name: getattr(hole, language) if isinstance(hole, Title) else hole for name, hole in holes.items()}
    return text.format(**filled) if holes else text


def translation(sentence: str) -> Title:
    """A sentence whose holes are filled, and its Chinese."""
    return Title(sentence, to_chinese(sentence))


def translated(sentence: str) -> str:
    """A sentence of a room that speaks English alone, in the language of the terminal."""
    return to_chinese(sentence) if terminal_language() == "zh" else sentence


def to_chinese(sentence: str) -> str:
    """The Chinese of a sentence that is logged, or answered over HTTP, in English: itself if there is none.

    Its holes are filled already: its template is the longest one that it matches.
    """
    bare = sentence.removesuffix(".")
    if (chinese := in_chinese(sentence) or in_chinese(bare)) is not None:
        return chinese
    if "\n" in sentence:
        return "\n".join(map(to_chinese, sentence.split("\n")))
    for form, template in () if sentence[:2] in ("[{", '{"') else _forms():  # not of JSON
        if found := form.fullmatch(bare):
            return _HOLE.sub(lambda hole: to_chinese(found[hole[1]]), template)
    return sentence


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
    pairs = (line.replace("\r", "\n").partition(" = ") for line in text.split("\n") if line and line[0] != "#")
    return {english: chinese for english, _, chinese in pairs}


def in_chinese(text: str) -> str | None:
    """The Chinese of a text whose holes are not filled; None if there is none."""
    own = _WITH_CHINESE.fullmatch(text)
    return catalogue().get(text) or (own[1] if own else None)


@cache
def _forms() -> list[tuple[re.Pattern[str], str]]:
    templates = [each for each in catalogue().items() if _HOLE.search(each[0]) and not _WITH_CHINESE.fullmatch(each[0])]
    templates.sort(key=lambda each: -len(each[0]))
    return [(re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(en))), zh) for en, zh in templates]


@cache
def _words() -> dict[str, str]:
    lists = (chinese for name, chinese in catalogue().items() if name.startswith("words "))
    return dict(pair.replace("_ID", " ID").split(":") for each in lists for pair in each.split())
