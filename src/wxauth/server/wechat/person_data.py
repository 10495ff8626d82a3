"""What WeChat says of a person: ids, phone numbers, and `encryptedData`, checked before it is believed.

Sources: https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/signature.html and
https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-info/phone-number/getPhoneNumber.html
"""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic_core import from_json

from wxauth.errors import WeChatBadResponse

BLOCK_BYTES: Final = 16
"""AES's block size, and the length of the key and of the iv."""
MAX_AGE: Final = timedelta(days=1)
MAX_AHEAD: Final = timedelta(minutes=5)
"""How much WeChat's clock may be ahead of ours."""

# Repairs base64 that has passed through forms, URLs or text fields.
_MENDED: Final = str.maketrans({" ": "+", "-": "+", "_": "/", "\r": None, "\n": None})

_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_HOME: Final = "CN"
"""The country of numbers that WeChat gives without a country code."""
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


class WrongWatermark(Exception):
    """The data is another app's, too old, or from the future. The message says which."""


def base64_bytes(text: str) -> bytes:
    """Decode base64 in either alphabet, with or without padding, line breaks, and ' ' for '+'. Raises: ValueError."""
    unpadded = text.translate(_MENDED).rstrip("=")
    return b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


def open_encrypted_data(encrypted_data: bytes, *, iv: bytes, session_key: bytes) -> dict[str, Any] | None:
    """Decrypt to a JSON object; None if that fails. The session_key is base64 text, as WeChat sends it.

    Valid padding alone proves nothing: one in 256 wrong keys yields it. But a wrong key never yields a JSON object.
    """
    try:
        key = base64_bytes(session_key.decode())
        decryptor, unpadder = Cipher(AES128(key), CBC(iv)).decryptor(), PKCS7(AES128.block_size).unpadder()
        padded = decryptor.update(encrypted_data) + decryptor.finalize()
        opened = from_json(unpadder.update(padded) + unpadder.finalize(), allow_inf_nan=False)
    except ValueError:  # the same result for every failure, so that it does not reveal whether the padding was valid
        return None
    return opened if isinstance(opened, dict) else None


def check_watermark(opened: Mapping[str, Any], *, app_id: str, now: datetime) -> None:
    """Check that WeChat made the data for this app, and within a day. Raises: WrongWatermark."""
    match opened.get("watermark"):
        case {"appid": str(watermarked), "timestamp": int(timestamp)}:
            pass
        case _:
            raise WrongWatermark("Has no watermark")
    if watermarked != app_id:
        raise WrongWatermark("The watermark is another app's")
    age = int(now.timestamp()) - timestamp
    if age > MAX_AGE.total_seconds():
        raise WrongWatermark("The watermark is more than a day old")
    if age < -MAX_AHEAD.total_seconds():
        raise WrongWatermark("The watermark is of the future")


def e164_of(phone_info: Mapping[str, Any], *, app_id: str) -> str:
    """The number in WeChat's `phone_info`, whose watermark must be this app's.

    Raises: WeChatBadResponse, whose message never contains the number.
    """
    import phonenumbers  # 2 MB, which a process without phone numbers does not need

    watermark = phone_info.get("watermark")
    if not isinstance(watermark, Mapping) or watermark.get("appid") != app_id:
        raise WeChatBadResponse("the phone number is not marked as this app's")
    country, pure, whole = (_text(phone_info.get(name)) for name in ("countryCode", "purePhoneNumber", "phoneNumber"))
    try:
        if country and pure:
            number = phonenumbers.parse(f"+{country.removeprefix('+')}{pure}")
            is_good = phonenumbers.is_possible_number(number)
        else:  # a foreign number without its country code may be possible in China, so it must even be valid there
            number = phonenumbers.parse(whole, _HOME)
            is_good = phonenumbers.is_valid_number(number)
    except phonenumbers.NumberParseException:
        is_good = False
    phone = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if is_good else ""
    if not _E164.fullmatch(phone):  # some countries have numbers that are longer than E.164 allows
        raise WeChatBadResponse("what WeChat gave is not a phone number")
    return phone


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int) else ""


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
