"""Texts for people: English in the code, other languages in the service's catalogues, which lie beside the guard's.

title = _("Please log in.")
detail = _("{n} lines", n=lines)
"""

from pathlib import Path

from wxauth_guard.i18n import (
    LOCALES,
    SOURCE,
    Text,
    add_catalogues,
    catalogue,
    catalogues,
    find_language,
    languages,
    lazy_gettext,
    translate,
)

__all__ = [
    "LOCALES",
    "SOURCE",
    "Text",
    "catalogue",
    "catalogues",
    "find_language",
    "gettext",
    "languages",
    "lazy_gettext",
    "own_name",
    "pgettext",
    "translate",
]

add_catalogues(Path(__file__).with_name("locale"))


def gettext(language: str, message: str, /, **values: object) -> str:
    """This English text in this language, with its holes filled. Templates have it as `_`."""
    return Text(message, **values).translated(language)


def pgettext(context: str, message: str, language: str) -> str:
    """This text in this language, in its meaning in this context."""
    return catalogue(language).get(f"{context}\4{message}", message)


def own_name(language: str) -> str:
    """The language's name in itself."""
    return pgettext("language", "English", language)
