"""Checks of WeChat's ids: openid, unionid, session_key."""

import re
import unicodedata
from typing import Final, TypeGuard

_MAX_LENGTH: Final = 128
_PLACEHOLDERS: Final = frozenset(
    {
        *(
            "null",
            "\\n",
            "none",
            "undefined",
            "nan",
            "nil",
            "n/a",
            "n.a.",
            "na",
            "0",
            "-",
            "object object",
            "inf",
            "tbd",
        ),
        *("#n/a", "#name?", "#null!", "#num!", "#ref!", "#value!", "#div/0!"),
        *("unknown", "empty", "blank", "missing", "test", "true", "false", "external_id", "openid", "unionid"),
        *(
            "无",
            "空",
            "空值",
            "暂无",
            "没有",
            "无数据",
            "未知",
            "不详",
            "未填",
            "未填写",
            "未绑定",
            "未授权",
            "待定",
            "测试",
        ),
    }
)
_AROUND: Final = " \t\r\n()<>[]{}\"'"
"""What may stand around a placeholder: (null), [object Object]."""
_NO_ID: Final = re.compile(r"[-\u2212][0-9.,]+|[-+\u2212\xb1]?[0-9]([.,][0-9]+e[+-]?|e[+-])[0-9]+|(\$\{|\{\{).*")
"""A negative number, such as -1; one that was rounded, such as 1.38E+10, but not 5e13, as hexadecimal ids begin; or a
variable that was not replaced, such as ${id}."""
_UNIONID: Final = re.compile(r"[A-Za-z0-9_-]+")


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value can be an openid, a unionid or a session_key."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH and value.isascii() and value.isprintable()


def is_placeholder(text: str) -> bool:
    """Whether this text stands for a missing id, as programs write it. As an id, it would merge many people into one.

    Zeros alone, as in a UUID of zeros, are a placeholder, and so are a text without letters and digits, a negative
    number, and a number that a spreadsheet has rounded. Full-width letters count as others do.
    """
    whole = (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()
    plain = whole.strip(_AROUND)
    return (
        plain in _PLACEHOLDERS
        or not any(map(str.isalnum, plain.replace("0", "")))
        or _NO_ID.fullmatch(plain) is not None
        or _NO_ID.fullmatch(whole.strip()) is not None
    )


def can_name_a_person(unionid: str) -> bool:
    """Whether a unionid may join identities. The length is not checked: it is 28 or 29, but WeChat may change it."""
    return _UNIONID.fullmatch(unionid) is not None and not is_placeholder(unionid)
