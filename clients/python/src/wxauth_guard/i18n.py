"""Texts for users, in English in the code, and in other languages in gettext's `locale/*/LC_MESSAGES/*.po`.

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
"""The language of the texts in the code."""
LOCALES: Final = [Path(__file__).with_name("locale")]
"""The folders with catalogues. The service adds its own."""
_LINE: Final = re.compile(r'^(?:(msgctxt|msgid|msgstr) )?"(.*)"$', re.MULTILINE)
_IS_GUESS: Final = re.compile(r"^#,.*\bfuzzy\b", re.MULTILINE)
"""The mark of a translation that nobody has confirmed. Like gettext, this module ignores such entries."""


class Text(str):
    """An English text with its placeholders filled.

    Its translations get the same values, which can also be texts.
    """

    _template: str
    _values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: object) -> Self:
        """Fill a template with values. A template without values becomes the text unchanged."""
        if isinstance(template, cls):
            return template if not values else cls(template._template, **template._values, **values)
        text = super().__new__(cls, template.format(**values) if values else template)
        text._template, text._values = template, values
        return text

    def __deepcopy__(self, _: object) -> Self:
        """Return this text itself, because it never changes."""
        return self

    def __add__(self, other: str, /) -> Text:
        return Text("{text}{other}", text=self, other=other)

    def __radd__(self, other: str, /) -> Text:
        return Text("{other}{text}", other=other, text=self)

    def join(self, texts: Iterable[str], /) -> Text:
        """Join texts with this text between them."""
        pieces = {f"text{number}": text for number, text in enumerate(texts)}
        return Text("{separator}".join(f"{{{name}}}" for name in pieces), separator=self, **pieces)

    def translated(self, language: str) -> str:
        """Return the text in this language, or in English if the language's catalogue does not contain it."""
        template = catalogue(language).get(self._template, self._template)
        values = {name: translate(value, language) for name, value in self._values.items()}
        return template.format(**values) if values else template


def add_catalogues(folder: Path) -> None:
    """Add the catalogues of this folder."""
    LOCALES.append(folder)
    for cached in (catalogues, catalogue):
        cached.cache_clear()


lazy_gettext = Text
"""A function, imported as `_`, that marks an English text and fills its placeholders.

`scripts/texts` looks for its calls.
"""


def translate(value: object, language: str) -> object:
    """Return a text in this language. A value that is not a `Text` is returned unchanged."""
    return value.translated(language) if isinstance(value, Text) else value


def find_language(wanted: str) -> str | None:
    """Return the available language for a language tag or locale: this language, or one with the same first subtag."""
    tag = re.split("[.@]", wanted, maxsplit=1)[0].replace("_", "-").lower()
    known = {each.lower(): each for each in languages()}
    beside = (each for other, each in known.items() if other.partition("-")[0] == tag.partition("-")[0])
    return known.get(tag) or next(beside, None)


def languages() -> Sequence[str]:
    """Return the tags of all languages with texts (RFC 5646), beginning with the language of the code."""
    return [SOURCE, *catalogues()]


@cache
def catalogues() -> Mapping[str, Sequence[Path]]:
    """Return the files of each language, by its tag (RFC 5646)."""
    found: dict[str, list[Path]] = {}
    files = (path for folder in LOCALES for path in folder.glob("*/LC_MESSAGES/*.po"))
    for path in sorted(files, key=lambda path: path.parts[-3]):
        found.setdefault(path.parts[-3].replace("_", "-"), []).append(path)
    return found


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the texts of a language, by their English texts.

    If a text has a context, the key begins with the context and U+0004. The texts are read from the .po file, because a
    .mo file would have to be built, and could be older than its source.
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
