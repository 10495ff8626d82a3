"""The language of the terminal, errors with translatable texts, and the operating system's reasons for failures."""

import errno
import os
from collections.abc import Mapping
from typing import Final

from wxauth_desk.i18n import SOURCE, Text, find_language, lazy_gettext as _, translate

# Python returns these texts only in English.
_SYSTEM_REASONS: Final[Mapping[int, Text]] = {
    errno.EADDRINUSE: _("Address already in use"),
    errno.EADDRNOTAVAIL: _("Cannot assign requested address"),
    errno.EACCES: _("Permission denied"),
    errno.ENOENT: _("No such file or directory"),
    errno.EISDIR: _("Is a directory"),
    errno.EEXIST: _("File exists"),
    errno.ENOSPC: _("No space left on device"),
}


class TextError(Exception):
    """An error with a text for users, which can be translated."""

    def __init__(self, text: Text) -> None:
        self.text = text
        super().__init__(text)


def terminal_language() -> str:
    """Return the language that the locale of the terminal selects; English if it has no texts."""
    # POSIX defines this order of precedence.
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return find_language(next(filter(None, variables), "")) or SOURCE


def localized(text: object) -> str:
    """Return a text in the language of the terminal. Any other value is converted to a string."""
    return str(translate(text, terminal_language()))


def os_reason(exc: OSError) -> Text:
    """Return the operating system's reason for an error or, if there is none, the name of the error's class."""
    translatable = None if exc.errno is None else _SYSTEM_REASONS.get(exc.errno)
    # A text from elsewhere is the value of a placeholder, so that it is not looked up in the catalogues.
    return translatable or Text("{reason}", reason=exc.strerror or type(exc).__name__)
