"""What both commands need of a terminal and of the operating system."""

import errno
import os
import socket
from typing import Final

from wxauth_desk.i18n import SOURCE, Text, find_language, lazy_gettext as _, translate

_OF_THE_SYSTEM: Final = {
    errno.EADDRINUSE: _("Address already in use"),
    errno.EADDRNOTAVAIL: _("Cannot assign requested address"),
    errno.EACCES: _("Permission denied"),
    errno.ENOENT: _("No such file or directory"),
    errno.EISDIR: _("Is a directory"),
    errno.EEXIST: _("File exists"),
    errno.ENOSPC: _("No space left on device"),
}
_BACKLOG: Final = 2048


class TextError(Exception):
    """An error with a text for people."""

    def __init__(self, text: Text) -> None:
        self.text = text
        super().__init__(text)


def terminal_language() -> str:
    """The language of the terminal's user, from the locale."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return find_language(next(filter(None, variables), "")) or SOURCE


def localized(text: object) -> str:
    """A text in the language of the terminal; the text of a value that is none."""
    return str(translate(text, terminal_language()))


def os_reason(exc: OSError) -> Text:
    """The operating system's reason."""
    return _OF_THE_SYSTEM.get(exc.errno or 0) or Text("{reason}", reason=exc.strerror or type(exc).__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; at `::`, for IPv4 too. Clients may connect before anything serves, and wait.

    Raises: OSError.
    """
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - asked for
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
