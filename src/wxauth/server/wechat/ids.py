"""Which texts can be the ids that WeChat gives."""

import re
from typing import Final, TypeGuard

_MAX_LENGTH: Final = 128
_PLACEHOLDERS: Final = frozenset({"null", "(null)", "#n/a", "\\n", "none", "undefined", "nan", "nil", "n/a", "0", "-"})
_COUNTER: Final = re.compile(r"[1-9]{1,11}")
"""An id that a table may have counted up to, though it be 7, 22 or 5555."""
_UNIONID: Final = re.compile(r"[A-Za-z0-9_-]+")


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value can be an openid, a unionid or a session_key."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH and value.isascii() and value.isprintable()


def is_placeholder(text: str) -> bool:
    """Whether programs write this text where there is no id. As an id, it would make one person of many.

    So does one character again and again, as in a UUID of zeros, or no letter and digit at all.
    """
    if text.strip().lower() in _PLACEHOLDERS:
        return True
    letters = "".join(filter(str.isalnum, text))
    is_one = len(letters) > 1 and len(set(letters.lower())) == 1
    return not letters or (is_one and not _COUNTER.fullmatch(text))


def can_name_a_person(unionid: str) -> bool:
    """Whether a unionid may join identities. WeChat's have 28 or 29 characters, a length that it may change."""
    return _UNIONID.fullmatch(unionid) is not None and not is_placeholder(unionid)
