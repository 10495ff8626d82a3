"""Texts for users, in English in the code, and in other languages in gettext's `locale/*/LC_MESSAGES/wxauth_desk.po`.

The simulated WeChat runs without wxauth, so it cannot use wxauth's module. Texts of both can contain each other.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Self

SOURCE: Final = "en"
"""The language of the texts in the code."""
LOCALES: Final = Path(__file__).with_name("locale")
_CATALOGUE: Final = "LC_MESSAGES/wxauth_desk.po"
_LINE: Final = re.compile(r'^(?:(msgctxt|msgid|msgstr) )?"(.*)"$', re.MULTILINE)


class Text(str):
    """An English text with its placeholders filled.

    Its translations get the same values, which can also be texts.
    """

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
        """Return the text in this language, or in English if the language's catalogue does not contain it."""
        template = catalogue(language).get(self._template, self._template)
        values = {name: translate(value, language) for name, value in self._values.items()}
        return template.format(**values) if values else template


lazy_gettext = Text
"""A function, imported as `_`, that marks an English text and fills its placeholders.

`scripts/texts` looks for its calls.
"""


def translate(value: object, language: str) -> object:
    """Return a text, which may be wxauth's, in this language. A value that is not a text is returned unchanged."""
    translated = getattr(value, "translated", None)
    return value if translated is None else translated(language)


def gettext(language: str, message: str, /, **values: object) -> str:
    """Return an English text in this language, with its placeholders filled. Templates call this function `_`."""
    return Text(message, **values).translated(language)


def pgettext(context: str, message: str, language: str) -> str:
    """Return a text in this language, with the meaning that it has in this context."""
    return catalogue(language).get(f"{context}\4{message}", message)


def own_name(language: str) -> str:
    """Return the name of a language in that language."""
    return pgettext("language", "English", language)


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
def catalogues() -> Mapping[str, Path]:
    """Return the file of each language, by its tag (RFC 5646)."""
    return {path.parts[-3].replace("_", "-"): path for path in sorted(LOCALES.glob(f"*/{_CATALOGUE}"))}


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the texts of a language, by their English texts.

    If a text has a context, the key begins with the context and U+0004.
    """
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
