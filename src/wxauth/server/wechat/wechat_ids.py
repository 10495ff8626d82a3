"""Checks of WeChat's ids: openid, unionid, session_key."""

import re
from typing import Final, TypeGuard

_MAX_LENGTH: Final = 128
_PLACEHOLDERS: Final = frozenset({"null", "(null)", "#n/a", "\\n", "none", "undefined", "nan", "nil", "n/a", "0", "-"})
_UNIONID: Final = re.compile(r"[A-Za-z0-9_-]+")


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value can be an openid, a unionid or a session_key."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH and value.isascii() and value.isprintable()


def is_placeholder(text: str) -> bool:
    """Whether this text stands for a missing id, as programs write it. As an id, it would merge many people into one.

    Zeros alone, as in a UUID of zeros, are a placeholder, and so is a text without letters and digits.
    """
    return text.strip().lower() in _PLACEHOLDERS or not any(map(str.isalnum, text.replace("0", "")))


def can_name_a_person(unionid: str) -> bool:
    """Whether a unionid may join identities. The length is not checked: it is 28 or 29, but WeChat may change it."""
    return _UNIONID.fullmatch(unionid) is not None and not is_placeholder(unionid)
