"""Texts for people: English in the code, other languages in `locale/*/LC_MESSAGES/*.po`, as gettext has them.

title = _("Please log in.")
detail = _("{n} lines", n=lines)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

SOURCE: Final = "en"
"""The language of the code."""
LOCALES: Final = [Path(__file__).with_name("locale")]
"""The folders with catalogues. The service adds its own."""
_LINE: Final = re.compile(r'^(?:(msgctxt|msgid|msgstr) )?"(.*)"$', re.MULTILINE)
_IS_GUESS: Final = re.compile(r"^#,.*\bfuzzy\b", re.MULTILINE)
"""The mark of a translation that nobody has confirmed. gettext leaves such entries out, too."""


class Text(str):
    """An English text, with its holes filled. In another language it has the same values, which may be texts, too."""

    _template: str
    _values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: object) -> Self:
        """Fill a template; a text without values stays as it is."""
        if isinstance(template, cls):
            return template if not values else cls(template._template, **template._values, **values)
        text = super().__new__(cls, template.format(**values) if values else template)
        text._template, text._values = template, values
        return text

    def __deepcopy__(self, _: object) -> Self:
        """Itself, which never changes."""
        return self

    def __add__(self, other: str, /) -> Text:
        return Text("{text}{other}", text=self, other=other)

    def __radd__(self, other: str, /) -> Text:
        return Text("{other}{text}", other=other, text=self)

    def join(self, texts: Iterable[str], /) -> Text:
        """Join texts by this one."""
        pieces = {f"text{number}": text for number, text in enumerate(texts)}
        return Text("{separator}".join(f"{{{name}}}" for name in pieces), separator=self, **pieces)

    def translated(self, language: str) -> str:
        """The same in this language; English where its catalogue has none."""
        template = catalogue(language).get(self._template, self._template)
        values = {name: translate(value, language) for name, value in self._values.items()}
        return template.format(**values) if values else template


def add_catalogues(folder: Path) -> None:
    """Look for texts in the catalogues of this folder, too."""
    LOCALES.append(folder)
    for cached in (catalogues, catalogue):
        cached.cache_clear()


lazy_gettext = Text
"""Marks an English text of the code, and fills its holes. Imported as `_`, by which `scripts/texts` finds it."""


def translate(value: object, language: str) -> object:
    """A text in this language. What is no `Text` is a value, and stays."""
    return value.translated(language) if isinstance(value, Text) else value


def find_language(wanted: str) -> str | None:
    """The language here for this language tag or locale: this one, or else one with the same first subtag."""
    tag = re.split("[.@]", wanted, maxsplit=1)[0].replace("_", "-").lower()
    known = {each.lower(): each for each in languages()}
    beside = (each for other, each in known.items() if other.partition("-")[0] == tag.partition("-")[0])
    return known.get(tag) or next(beside, None)


def languages() -> Sequence[str]:
    """The tags of all languages in which there are texts (RFC 5646), the code's first."""
    return [SOURCE, *catalogues()]


@cache
def catalogues() -> Mapping[str, Sequence[Path]]:
    """The files of each language, by its tag (RFC 5646)."""
    found: dict[str, list[Path]] = {}
    files = (path for folder in LOCALES for path in folder.glob("*/LC_MESSAGES/*.po"))
    for path in sorted(files, key=lambda path: path.parts[-3]):
        found.setdefault(path.parts[-3].replace("_", "-"), []).append(path)
    return found


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of a language by the English ones, which have their context and U+0004 before them if they have one.

    Read from the .po, without a .mo that a build would have to make, and that could be older.
    """
    found = {}
    entries = [entry for path in catalogues().get(language, ()) for entry in path.read_text("utf-8").split("\n\n")]
    for entry in entries:
        if _IS_GUESS.search(entry):
            continue
        parts: dict[str, str] = {}
        name = ""
        for keyword, text in _LINE.findall(entry):
            name = keyword or name
            parts[name] = parts.get(name, "") + json.loads(f'"{text}"')
        if parts.get("msgid") and parts.get("msgstr"):
            found["\4".join(parts[each] for each in ("msgctxt", "msgid") if each in parts)] = parts["msgstr"]
    return found
