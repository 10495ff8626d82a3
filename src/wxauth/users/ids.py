"""The forms of the ids that other systems give to users, and the texts that are sent by mistake in place of an id."""

import re
import unicodedata
from functools import partial
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.wechat.received import is_placeholder

_MAX_LENGTH: Final = 128
"""The length limit of an openid or an external id, in characters."""
LOOKS_LIKE: Final = "looks_like"
"""The type of the error for a text that is probably not an id.

The message names the probable kind of the text, and never contains the text.
"""
_MISTAKEN: Final = {
    r"=.*": _("a spreadsheet formula"),
    r"['`\u2018\u2019].*": _("text that a spreadsheet program has marked with an apostrophe"),
    r"\{.*|\[.*\]|\[[\"{].*|\".*": _("JSON"),
    # Examples are 10023.0, 1,234,567 and 1.38E+10.
    r"[0-9]+[.,]0*|[0-9]{1,3}(,[0-9]{3})+(\.0*)?|[-+]?[0-9]+([.,][0-9]+e[-+]?|e[-+])[0-9]+": (
        _("a number that a spreadsheet program has reformatted")
    ),
    r"(new )?(\w+\([\"'].*|(object_?id|uuid|guid|bindata|number\w*|long|int32|int64|decimal\w*)\(.*)|b['\"].*": (
        _("a value in a program's notation, such as ObjectId(...)")
    ),
}
"""The patterns of texts that requests and imports contain by mistake in place of ids, with a description of each.

Before wxauth matches the patterns, it normalizes the text (NFKC), removes the white space around it, and converts it to
lower case.
"""
_MISTAKEN_FOR_OPENID: Final = {
    r"\w+://.*": _("a URL"),
    r".*@.*": _("an e-mail address"),
    r"w[wx][0-9a-z]{16}|gh_[0-9a-f]{12}": _("an AppID"),
}
"""The patterns of further texts that are not openids, with a description of each.

Such texts are valid as external ids.
"""


def _refuse_placeholder(value: str) -> str:
    """Return the text unchanged. Raises: ValueError, if programs write this text in place of a missing id."""
    if is_placeholder(value):
        raise ValueError("Must not be a placeholder")
    return value


def refuse_invisible(value: str) -> str:
    """Return the text unchanged. Raises: ValueError, if one of its characters is not printable."""
    if not value.isprintable():
        raise ValueError("Must not contain invisible characters")
    return value


def _refuse_mistaken(patterns: dict[str, Text], value: object) -> object:
    """Return the value unchanged. `patterns` contains the patterns of mistaken texts, with a description of each.

    Raises: PydanticCustomError, with the description, if the value is a text that matches one of the patterns.
    """
    if not isinstance(value, str):
        return value
    # The function truncates the text, because normalizing n combining marks that are out of order takes n² steps. A
    # later check refuses texts that are too long.
    text = unicodedata.normalize("NFKC", value[: _MAX_LENGTH + 1]).strip().lower()
    for pattern, description in patterns.items():
        if re.fullmatch(pattern, text, re.DOTALL):
            message = "Must be only the ID, but the value looks like {it}"
            raise PydanticCustomError(LOOKS_LIKE, message, {"it": description})
    return value


# WeChat does not document the length of its ids. Most have 28 characters, but the patterns also allow other lengths.
Openid = Annotated[
    str,
    StringConstraints(pattern=rf"^[A-Za-z0-9_-]{{6,{_MAX_LENGTH}}}$"),
    BeforeValidator(partial(_refuse_mistaken, _MISTAKEN | _MISTAKEN_FOR_OPENID)),
    AfterValidator(_refuse_placeholder),
]
"""The id that WeChat gives to a user in one app."""
_NotMistaken = BeforeValidator(partial(_refuse_mistaken, _MISTAKEN))
Unionid = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{24,36}$"), _NotMistaken, AfterValidator(_refuse_placeholder)
]
"""The id that WeChat gives to a user in all apps of one Open Platform account."""
ExternalId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=_MAX_LENGTH),
    _NotMistaken,
    AfterValidator(refuse_invisible),
    AfterValidator(_refuse_placeholder),
]
"""The id of a user in the system that the operator used before wxauth."""
