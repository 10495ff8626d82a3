"""The forms of the ids that other systems give to users, and the texts that are sent by mistake in place of an id."""

import re
import unicodedata
from functools import partial
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.wechat.received import is_placeholder

MAX_ID_LENGTH: Final = 128
LOOKS_LIKE: Final = "looks_like"
"""The type of the error that names the probable kind of a text, but not the text."""
# The patterns match texts in lower case, normalized (NFKC), without white space around them.
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
# An external id may look like one of these.
_MISTAKEN_FOR_OPENID: Final = {
    r"\w+://.*": _("a URL"),
    r".*@.*": _("an e-mail address"),
    r"w[wx][0-9a-z]{16}|gh_[0-9a-f]{12}": _("an AppID"),
}


def _refuse_placeholder(value: str) -> str:
    if is_placeholder(value):
        raise ValueError("Must not be a placeholder")
    return value


def refuse_invisible(value: str) -> str:
    """Raise ValueError if a character is not printable."""
    if not value.isprintable():
        raise ValueError("Must not contain invisible characters")
    return value


def _refuse_mistaken(patterns: dict[str, Text], value: object) -> object:
    if not isinstance(value, str):
        return value
    # Normalizing n combining marks that are out of order takes n² steps. A later check refuses texts that are too long.
    text = unicodedata.normalize("NFKC", value[: MAX_ID_LENGTH + 1]).strip().lower()
    for pattern, description in patterns.items():
        if re.fullmatch(pattern, text, re.DOTALL):
            message = "Must be only the ID, but the value looks like {it}"
            raise PydanticCustomError(LOOKS_LIKE, message, {"it": description})
    return value


# WeChat does not document the length of its ids. Most have 28 characters, but the patterns also allow other lengths.
Openid = Annotated[
    str,
    StringConstraints(pattern=rf"^[A-Za-z0-9_-]{{6,{MAX_ID_LENGTH}}}$"),
    BeforeValidator(partial(_refuse_mistaken, _MISTAKEN | _MISTAKEN_FOR_OPENID)),
    AfterValidator(_refuse_placeholder),
]
_NotMistaken = BeforeValidator(partial(_refuse_mistaken, _MISTAKEN))
Unionid = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{24,36}$"), _NotMistaken, AfterValidator(_refuse_placeholder)
]
ExternalId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ID_LENGTH),
    _NotMistaken,
    AfterValidator(refuse_invisible),
    AfterValidator(_refuse_placeholder),
]
