"""Texts for users. The code contains the English texts, and gettext's files `locale/*/LC_MESSAGES/*.po` translate them.

Modules mark a text with `_`, for example:

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

SOURCE: Final = "en"  # the language of the texts in the code
LOCALES: Final = [Path(__file__).with_name("locale")]  # the service adds its own folder
# This pattern matches a keyword with a quoted text, or a quoted text that continues a text.
_LINE: Final = re.compile(r'^(?:(msgctxt|msgid|msgstr) )?"(.*)"$', re.MULTILINE)
# Like gettext, this module ignores an entry whose translation nobody has confirmed.
_FUZZY: Final = re.compile(r"^#,.*\bfuzzy\b", re.MULTILINE)


class Text(str):
    """An English text, filled with values that also fill its translations. A `Text` among them is translated, too."""

    _template: str
    _values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: object) -> Self:
        """Fill a template with values, in addition to those that it has if it is a `Text`.

        Without values, the text is the template itself, and its braces need no escaping.
        """
        if isinstance(template, cls):
            return template if not values else cls(template._template, **template._values, **values)
        text = super().__new__(cls, template.format(**values) if values else template)
        text._template, text._values = template, values
        return text

    def __deepcopy__(self, memo: object) -> Self:
        """Return this text itself, because it never changes."""
        return self

    def __add__(self, other: str, /) -> Text:
        return Text("{text}{other}", text=self, other=other)

    def __radd__(self, other: str, /) -> Text:
        return Text("{other}{text}", other=other, text=self)

    def join(self, texts: Iterable[str], /) -> Text:
        """Join texts with this text between them. Unlike the result of `str.join`, the result can be translated."""
        pieces = {f"text{number}": text for number, text in enumerate(texts)}
        # For example, the template for two texts is "{text0}{separator}{text1}".
        return Text("{separator}".join(f"{{{name}}}" for name in pieces), separator=self, **pieces)

    def translated(self, language: str) -> str:
        """Return the text in this language, or in English if the language's catalogues do not contain the text."""
        template = translations_into(language).get(self._template, self._template)
        values = {name: translate(value, language) for name, value in self._values.items()}
        return template.format(**values) if values else template


# Modules import it as `_`, and `scripts/texts` finds the texts to translate by the calls to `_`.
lazy_gettext = Text


def add_catalogues(folder: Path) -> None:
    """Add a folder with catalogues, and forget what was read without it."""
    LOCALES.append(folder)
    catalogue_paths.cache_clear()
    translations_into.cache_clear()


def translate(value: object, language: str) -> object:
    """Return a text in this language. A value that is not a `Text` is returned unchanged."""
    return value.translated(language) if isinstance(value, Text) else value


def find_language(tag_or_locale: str) -> str | None:
    """Return the available language for a language tag or a locale, such as zh-TW or zh_CN.UTF-8.

    If there is no exact match, return the first language with the same first subtag, for example zh-CN for zh-TW.
    """
    tag = re.split("[.@]", tag_or_locale, maxsplit=1)[0].replace("_", "-").lower()
    by_tag = {language.lower(): language for language in languages()}
    if tag in by_tag:
        return by_tag[tag]
    first_subtag = tag.partition("-")[0]
    related = (language for other_tag, language in by_tag.items() if other_tag.partition("-")[0] == first_subtag)
    return next(related, None)


def languages() -> Sequence[str]:
    """Return the tags (RFC 5646) of all languages that have texts, beginning with the language of the code."""
    return [SOURCE, *catalogue_paths()]


@cache
def catalogue_paths() -> Mapping[str, Sequence[Path]]:
    """Return the paths of each language's catalogues, by the language's tag (RFC 5646). English has none."""
    by_tag: dict[str, list[Path]] = {}
    files = (path for folder in LOCALES for path in folder.glob("*/LC_MESSAGES/*.po"))
    # Sorted, so that `find_language` chooses the same language on each machine.
    for path in sorted(files, key=_locale_of):
        by_tag.setdefault(_locale_of(path).replace("_", "-"), []).append(path)
    return by_tag


def _locale_of(path: Path) -> str:
    return path.parents[1].name


@cache
def translations_into(language: str) -> Mapping[str, str]:
    """Return the translations into a language, keyed by the English text (after its context and U+0004, if it has one).

    The texts are read from the .po file, because a .mo file would have to be built, and could be older than its source.
    """
    translations = {}
    for path in catalogue_paths().get(language, ()):
        for entry in path.read_text("utf-8").split("\n\n"):
            if _FUZZY.search(entry) is not None:
                continue
            texts = _texts_in_entry(entry)
            if texts.get("msgid") and texts.get("msgstr"):  # neither the header nor an untranslated text
                key = "\4".join(texts[keyword] for keyword in ("msgctxt", "msgid") if keyword in texts)
                translations[key] = texts["msgstr"]
    return translations


def _texts_in_entry(entry: str) -> Mapping[str, str]:
    texts: dict[str, str] = {}
    keyword = ""
    for own_keyword, text in _LINE.findall(entry):
        keyword = own_keyword or keyword  # a line without a keyword continues the text of the previous line
        texts[keyword] = texts.get(keyword, "") + json.loads(f'"{text}"')  # the escapes are the same as in JSON
    return texts
