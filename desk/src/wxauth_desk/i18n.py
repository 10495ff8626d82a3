"""Texts for people: English in the code, other languages in `locale/*/LC_MESSAGES/wxauth_desk.po`, as gettext has them.

The simulated WeChat runs without wxauth, so this is no module of wxauth's. Texts of both may be values of one another.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Self

SOURCE: Final = "en"
"""The language of the code."""
LOCALES: Final = Path(__file__).with_name("locale")
_CATALOGUE: Final = "LC_MESSAGES/wxauth_desk.po"
_LINE: Final = re.compile(r'^(?:(msgctxt|msgid|msgstr) )?"(.*)"$', re.MULTILINE)


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

    def join(self, texts: Iterable[str], /) -> "Text":
        """Join texts by this one."""
        pieces = {f"text{number}": text for number, text in enumerate(texts)}
        return Text("{separator}".join(f"{{{name}}}" for name in pieces), separator=self, **pieces)

    def translated(self, language: str) -> str:
        """Return the same in this language; English where its catalogue has none."""
        template = catalogue(language).get(self._template, self._template)
        values = {name: translate(value, language) for name, value in self._values.items()}
        return template.format(**values) if values else template


lazy_gettext = Text
"""Marks an English text of the code, and fills its holes. Imported as `_`, by which `scripts/texts` finds it."""


def translate(value: object, language: str) -> object:
    """Return a text in this language, one of wxauth's too. What is no text is a value, and stays."""
    translated = getattr(value, "translated", None)
    return value if translated is None else translated(language)


def gettext(language: str, message: str, /, **values: object) -> str:
    """This English text in this language, with its holes filled. Templates have it as `_`."""
    return Text(message, **values).translated(language)


def pgettext(context: str, message: str, language: str) -> str:
    """This text in this language, in its meaning in this context."""
    return catalogue(language).get(f"{context}\4{message}", message)


def own_name(language: str) -> str:
    """Return the language's name in itself."""
    return pgettext("language", "English", language)


def find_language(wanted: str) -> str | None:
    """Return the language here for this language tag or locale: this one, or else one with the same first subtag."""
    tag = re.split("[.@]", wanted, maxsplit=1)[0].replace("_", "-").lower()
    known = {each.lower(): each for each in languages()}
    beside = (each for other, each in known.items() if other.partition("-")[0] == tag.partition("-")[0])
    return known.get(tag) or next(beside, None)


def languages() -> Sequence[str]:
    """Return the tags of all languages in which there are texts (RFC 5646), the code's first."""
    return [SOURCE, *catalogues()]


@cache
def catalogues() -> Mapping[str, Path]:
    """Return the file of each language, by its tag (RFC 5646)."""
    return {path.parts[-3].replace("_", "-"): path for path in sorted(LOCALES.glob(f"*/{_CATALOGUE}"))}


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of a language by the English ones, which have their context and U+0004 before them if they have one."""
    if language not in catalogues():
        return {}
    found = {}
    for entry in catalogues()[language].read_text("utf-8").split("\n\n"):
        parts: dict[str, str] = {}
        name = ""
        for keyword, text in _LINE.findall(entry):
            name = keyword or name
            parts[name] = parts.get(name, "") + json.loads(f'"{text}"')
        if parts.get("msgid") and parts.get("msgstr"):
            found["\4".join(parts[each] for each in ("msgctxt", "msgid") if each in parts)] = parts["msgstr"]
    return found
