"""The texts for operators in the language of their terminal."""

import errno
import os
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final
from unicodedata import east_asian_width

from wxauth.i18n import SOURCE, Text, WrongValue, find_language, lazy_gettext as _, pgettext, translate

# `scripts/texts` puts these names and states into the catalogues. Printed tables contain them and
# `core.users.PROFILE_FIELDS`.
WORDS: Final = """
    id status roles last_login_at last_seen_at active disabled user new_user former_id reason until erase_at
    phone external_id attribute former_external_id created_at identity identities session
    ended_session consent session_key unionid logout expired replaced revoked reused banned erased merged at
    code app_id user_id network request_id count source state sign_up push kind title settings database open
    closed client_id client_secret scopes name url secret types kid alg
    signs_from published_until former signing next event_id type attempts answer next_at pending delivered
    failed
""".split()  # noqa: SIM905 - a list would need a line for each word
# Python returns these texts only in English.
_SYSTEM_REASONS: Final[Mapping[int | None, Text]] = {
    errno.EADDRINUSE: _("Address already in use"),
    errno.EADDRNOTAVAIL: _("Cannot assign requested address"),
    errno.EACCES: _("Permission denied"),
    errno.ENOENT: _("No such file or directory"),
    errno.EISDIR: _("Is a directory"),
    errno.EEXIST: _("File exists"),
    errno.ENOSPC: _("No space left on device"),
}
# The keys are pydantic's types of errors, whose messages these texts replace. `.9g` shows 5.0 as 5.
_RULES: Final = {
    "literal_error": _("must be {choices} or {last}"),
    "int_parsing": _("must be a valid integer"),
    "float_parsing": _("must be a valid number"),
    "bool_parsing": _("must be true or false"),
    "greater_than_equal": _("must be at least {ge:.9g}"),
    "greater_than": _("must be greater than {gt:.9g}"),
    "less_than_equal": _("must be at most {le:.9g}"),
    "string_too_short": _("must be at least {min_length} characters long"),
    "string_too_long": _("must be at most {max_length} characters long"),
}


def terminal_language() -> str:
    """Return the language that the environment's locale selects, or else English."""
    # POSIX defines this order of precedence.
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return find_language(next(filter(None, variables), "")) or SOURCE


def localized(text: object) -> str:
    """Return a text in the language of the terminal. Any other value is converted with `str`."""
    return str(translate(text, terminal_language()))


def os_reason(exc: OSError) -> Text:
    """Return the operating system's reason for an error or, if there is none, the name of the error's class."""
    # A text from elsewhere is the value of a placeholder, so that it is not looked up in the catalogues.
    return _SYSTEM_REASONS.get(exc.errno) or Text("{reason}", reason=exc.strerror or type(exc).__name__)


def rule_of(error: Mapping[str, Any]) -> Text:
    """Return the rule that a value breaks, from pydantic's error."""
    context = error.get("ctx", {})
    if isinstance(context.get("error"), WrongValue):
        text: Text = context["error"].text
        return text
    if error["type"] in _RULES:
        # For a `literal_error`, pydantic lists the choices as in "'json', 'text' or 'auto'". Other errors have no
        # choices.
        choices = re.findall("'.*?'", context.get("expected", ""))
        last = choices.pop() if choices else ""
        return Text(_RULES[error["type"]], **context, choices=_(", ").join(choices), last=last)
    # As in `os_reason`, pydantic's message is not looked up in the catalogues.
    return Text("{rule}", rule=re.sub(r"^\w+ should ", "must ", error["msg"].removeprefix("Value error, ")))


def word(name: str) -> str:
    """Translate the name of a column or the value of a state."""
    return pgettext("word", name, terminal_language())


def width(text: str) -> int:
    """Return the terminal columns that a text takes. Even a combining accent counts as one."""
    wide = [character for character in text if east_asian_width(character) in ("W", "F")]
    return len(text) + len(wide)


def printable_json(line: bytes) -> bytes:
    """Return JSON in which each character is escaped that is not printable, such as those that steer a terminal.

    JSON itself requires this only of U+0000 to U+001F.
    """
    if line.isascii() and line.find(b"\x7f") == -1:
        return line
    text = line.decode()
    if text.isprintable():
        return line
    return "".join(
        each if each.isprintable() or each == "\n" else encode_basestring_ascii(each)[1:-1] for each in text
    ).encode()
