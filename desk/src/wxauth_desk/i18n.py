"""The texts for users, in English in the code, and translated in the files `wxauth_desk.po`.

The simulated WeChat runs without wxauth, so this module cannot use `wxauth.i18n`. A text of `wxauth.i18n` can be a
placeholder's value in a text of this module.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Self

SOURCE: Final = "en"  # the language of the texts in the code
LOCALES: Final = Path(__file__).with_name("locale")
_CATALOGUE: Final = "LC_MESSAGES/wxauth_desk.po"
# This pattern matches a keyword with a quoted text, or a quoted text that continues a text.
_LINE: Final = re.compile(r'^(?:(msgctxt|msgid|msgstr) )?"(.*)"$', re.MULTILINE)


class Text(str):
    """An English text, filled with values that also fill its translations, and can themselves be texts."""

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

    def join(self, texts: Iterable[str], /) -> "Text":
        """Join texts with this text between them, so that the result can be translated, too."""
        pieces = {f"text{number}": text for number, text in enumerate(texts)}
        # For example, the template for two texts is "{text0}{separator}{text1}".
        return Text("{separator}".join(f"{{{name}}}" for name in pieces), separator=self, **pieces)

    def translated(self, language: str) -> str:
        """Return the text in this language, or in English if the language's catalogue does not contain it."""
        template = translations_into(language).get(self._template, self._template)
        values = {name: translate(value, language) for name, value in self._values.items()}
        return template.format(**values) if values else template


# Modules import it as `_`, and `scripts/texts` finds the texts to translate by the calls to `_`.
lazy_gettext = Text


def translate(value: object, language: str) -> object:
    """Return a text of this module or of `wxauth.i18n` in this language. Any other value is returned unchanged."""
    translated = getattr(value, "translated", None)
    return value if translated is None else translated(language)


def gettext(language: str, message: str, /, **values: object) -> str:
    """Return an English text in this language, with its placeholders filled. Templates call this function `_`."""
    return Text(message, **values).translated(language)


def pgettext(context: str, message: str, language: str) -> str:
    """Return an English text in this language, with the meaning that the text has in this context.

    The context and the text come first, because `scripts/texts` looks for them there.
    """
    return translations_into(language).get(f"{context}\4{message}", message)


def own_name(language: str) -> str:
    """Return the name of a language in that language.

    In the context "language", each catalogue translates "English" as the name of its own language.
    """
    return pgettext("language", "English", language)


def find_language(tag_or_locale: str) -> str | None:
    """Return the available language for a tag or a locale such as zh_CN.UTF-8, or one with the same first subtag."""
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
def catalogue_paths() -> Mapping[str, Path]:
    """Return the path of each language's catalogue, by the language's tag (RFC 5646)."""
    # Sorted, so that `find_language` chooses the same language on each machine.
    paths = sorted(LOCALES.glob(f"*/{_CATALOGUE}"))
    return {path.parents[1].name.replace("_", "-"): path for path in paths}


@cache
def translations_into(language: str) -> Mapping[str, str]:
    """Return the translations into a language, by the English text (after its context and U+0004, if it has one)."""
    if language not in catalogue_paths():
        return {}
    translations = {}
    for entry in catalogue_paths()[language].read_text("utf-8").split("\n\n"):
        texts = _texts_in_entry(entry)
        if texts.get("msgid") and texts.get("msgstr"):  # neither the file's header nor an untranslated text
            key = f"{texts['msgctxt']}\4{texts['msgid']}" if "msgctxt" in texts else texts["msgid"]
            translations[key] = texts["msgstr"]
    return translations


def _texts_in_entry(entry: str) -> Mapping[str, str]:
    texts: dict[str, str] = {}
    keyword = ""
    for own_keyword, text in _LINE.findall(entry):
        keyword = own_keyword or keyword  # a line without a keyword continues the text of the previous line
        texts[keyword] = texts.get(keyword, "") + json.loads(f'"{text}"')  # the escapes are the same as in JSON
    return texts
