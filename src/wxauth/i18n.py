"""The texts for people, and errors with such a text.

The code contains the texts in English, and catalogues contain the other languages. The service uses its own catalogues
and the guard's (`wxauth_guard`). A text is marked where it is written:

    from wxauth.i18n import lazy_gettext as _

    title = _("Please log in.")
    detail = _("{n} lines", n=lines)
"""

from pathlib import Path

from wxauth_guard.i18n import (
    SOURCE,
    Text,
    add_catalogues,
    catalogue_paths,
    find_language,
    languages,
    lazy_gettext,
    translate,
    translations_into,
)

__all__ = [
    "SOURCE",
    "Text",
    "TextError",
    "WrongValue",
    "catalogue_paths",
    "find_language",
    "languages",
    "lazy_gettext",
    "own_name",
    "pgettext",
    "translate",
    "translations_into",
]

add_catalogues(Path(__file__).with_name("locale"))


class TextError(Exception):
    """An error with a text that wxauth can translate."""

    def __init__(self, text: Text) -> None:
        self.text = text
        super().__init__(text)


class WrongValue(TextError, ValueError):
    """A value breaks a rule. The text states the rule, and never contains the value."""


def pgettext(context: str, message: str, language: str) -> str:
    """Return the translation of an English text in a context, or else the text."""
    # In a catalogue, the character U+0004 separates the context from the text, as in gettext's MO files.
    return translations_into(language).get(f"{context}\4{message}", message)


def own_name(language: str) -> str:
    """Return the name of a language in that language."""
    # In this context, each catalogue translates "English" as the name of its own language.
    return pgettext("language", "English", language)
