"""The checks of data from WeChat: JSON, base64 text, ids, names, pictures, phone numbers and `encryptedData`.

Some of the checks also apply to requests from clients and to imports.

Sources: https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/signature.html and
https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-info/phone-number/getPhoneNumber.html
"""

import json
import re
import unicodedata
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128, AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic_core import from_json

from wxauth.errors import WeChatBadResponse
from wxauth.faulty_json import read_loosely
from wxauth.i18n import lazy_gettext as _
from wxauth_guard.errors import InvalidRequest

BLOCK_BYTES: Final = 16  # of AES, and so of an iv and of a session_key
# Without a limit, captured data would work forever.
MAX_WATERMARK_AGE: Final = timedelta(days=1)
MAX_CLOCK_LEAD: Final = timedelta(minutes=5)

# These replacements undo what forms, URLs and text fields do to base64.
_BASE64_REPAIRS: Final = str.maketrans({" ": "+", "-": "+", "_": "/", "\r": None, "\n": None})

E164: Final = re.compile(r"^\+[1-9][0-9]{1,14}$")
_HOME_REGION: Final = "CN"  # of numbers that WeChat sends without a country code
_MAX_ID_LENGTH: Final = 128
# Programs and spreadsheets write these texts in place of a missing id.
_PLACEHOLDER: Final = re.compile(
    r"null|\\n|none|undefined|nan|nil|n/a|n\.a\.|na|object object|inf|tbd"
    r"|#n/a|#name\?|#null!|#num!|#ref!|#value!|#div/0!"
    r"|unknown|empty|blank|missing|test|true|false|external_id|openid|unionid"
    r"|无|空|空值|暂无|没有|无数据|未知|不详|未填|未填写|未绑定|未授权|待定|测试"
)
_PLACEHOLDER_FRAME: Final = " \t\r\n()<>[]{}\"'"  # for example in (null) or [object Object]
# The pattern matches -1, 1.38E+10 and ${id}, but not 5e13, because hexadecimal ids can look like that.
_NEVER_AN_ID: Final = re.compile(r"[-\u2212][0-9.,]+|[-+\u2212\xb1]?[0-9]([.,][0-9]+e[+-]?|e[+-])[0-9]+|(\$\{|\{\{).*")
# WeChat sends these values for users who have set no name or picture.
_STAND_IN: Final = re.compile(
    r"微信用户|https?://(thirdwx\.qlogo\.cn/mmopen/vi_32/POgEwh4mIHO4|mmbiz\.qpic\.cn/mmbiz/icTdbqWNOwNRna42)"
    r"[A-Za-z0-9_-]*(/[0-9]*)?([?#].*)?",
    re.IGNORECASE,
)
_UNIONID: Final = re.compile(r"[A-Za-z0-9_-]+")


def base64_bytes(text: str) -> bytes:
    """Decode base64 in the standard or the URL-safe alphabet, without padding and with line breaks, too.

    A space counts as '+', because decoding a form turns '+' into a space. Raises: ValueError.
    """
    unpadded = text.translate(_BASE64_REPAIRS).rstrip("=")
    return b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


def open_encrypted_data(encrypted_data: bytes, *, iv: bytes, session_key: bytes) -> dict[str, Any] | None:
    """Decrypt `encryptedData`, and return the JSON object in it; None if the data, the iv or the key is wrong.

    Valid padding alone does not prove that the key is right, because one in 256 wrong keys results in valid
    padding. But with a wrong key, the decrypted bytes are practically never a JSON object.
    """
    try:
        key = base64_bytes(session_key.decode())
        opened = read_json(decrypted(encrypted_data, AES128(key), iv=iv, padded_to_bits=AES128.block_size))
    except ValueError:
        # Every failure has the same result, so that the response does not reveal whether the padding was valid.
        return None
    return opened if isinstance(opened, dict) else None


def decrypted(data: bytes, algorithm: AES128 | AES256, *, iv: bytes, padded_to_bits: int) -> bytes:
    """Decrypt data in CBC mode, and remove the padding (PKCS #7). Raises: ValueError."""
    decryptor, unpadder = Cipher(algorithm, CBC(iv)).decryptor(), PKCS7(padded_to_bits).unpadder()
    padded = decryptor.update(data) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def check_watermark(opened: Mapping[str, Any], *, app_id: str, now: datetime) -> None:
    """Check that WeChat created this data for this app within the last day. Raises: InvalidRequest."""
    match opened.get("watermark"):
        case {"appid": str(watermarked), "timestamp": int(timestamp)}:
            age = int(now.timestamp()) - timestamp
        case _:
            raise InvalidRequest.of("encrypted_data", "Has no watermark")
    if watermarked != app_id:
        raise InvalidRequest.of("encrypted_data", "The watermark belongs to another app")
    if age > MAX_WATERMARK_AGE.total_seconds():
        raise InvalidRequest.of("encrypted_data", "The watermark is more than a day old")
    if age < -MAX_CLOCK_LEAD.total_seconds():
        raise InvalidRequest.of("encrypted_data", "The watermark is in the future")


def e164_of(phone_info: Mapping[str, Any], *, app_id: str) -> str:
    """Return the number in WeChat's `phone_info` in the form E.164. Raises: WeChatBadResponse, without the number."""
    watermark = phone_info.get("watermark")
    if not isinstance(watermark, Mapping) or watermark.get("appid") != app_id:
        raise WeChatBadResponse(_("the phone number's watermark doesn't belong to this app"))
    phone = _formatted_number(phone_info)
    if not E164.fullmatch(phone):  # some countries have numbers that are longer than E.164 allows
        raise WeChatBadResponse(_("WeChat didn't return a phone number"))
    return phone


def _formatted_number(phone_info: Mapping[str, Any]) -> str:
    # The import is here because it takes 2 MB of memory, and many processes parse no phone numbers.
    import phonenumbers

    country, national = text_of(phone_info.get("countryCode")), text_of(phone_info.get("purePhoneNumber"))
    try:
        if country and national:
            number = phonenumbers.parse(f"+{country.removeprefix('+')}{national}")
            is_accepted = phonenumbers.is_possible_number(number)
        else:
            # A foreign number without its country code may have a possible length in China. Therefore, a number without
            # a country code must be a valid Chinese number.
            number = phonenumbers.parse(text_of(phone_info.get("phoneNumber")), _HOME_REGION)
            is_accepted = phonenumbers.is_valid_number(number)
    except phonenumbers.NumberParseException:
        return ""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if is_accepted else ""


def is_stand_in(value: object) -> bool:
    """Return whether `value` is what WeChat sends for users who have set no name or picture."""
    return isinstance(value, str) and _STAND_IN.fullmatch(value) is not None


def read_json(body: bytes) -> Any:
    """Parse JSON in which nicknames may contain raw control characters and halves of an emoji. Raises: ValueError."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        # Python's own parser is slower, but accepts control characters and lone surrogates. Encoding and then
        # decoding the text replaces the lone surrogates.
        text = json.dumps(read_loosely(body, strict=False), ensure_ascii=False)
        return json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value is printable ASCII of a possible length for an openid, a unionid or a session_key."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH and value.isascii() and value.isprintable()


def is_placeholder(text: str) -> bool:
    """Return whether a program may have written this text for a missing id, which would merge many users.

    A text whose letters and digits are all zeros, such as a UUID of zeros, counts as well. Full-width letters count as
    normal letters.
    """
    normalized = (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()
    unframed = normalized.strip(_PLACEHOLDER_FRAME)
    has_letter_or_digit_except_0 = any(map(str.isalnum, unframed.replace("0", "")))
    return (
        not has_letter_or_digit_except_0
        or _PLACEHOLDER.fullmatch(unframed) is not None
        or _NEVER_AN_ID.fullmatch(unframed) is not None
        # A variable such as ${id} has lost its braces in `unframed`, because the frame contains braces.
        or _NEVER_AN_ID.fullmatch(normalized.strip()) is not None
    )


def can_name_a_person(unionid: str) -> bool:
    """Return whether wxauth may join all identities with this unionid.

    The length is not checked, because WeChat may change the present 28 or 29 characters.
    """
    return _UNIONID.fullmatch(unionid) is not None and not is_placeholder(unionid)


def text_of(value: object) -> str:
    """Return a text or an integer of a JSON field, stripped; for any other value, an empty text."""
    return str(value).strip() if isinstance(value, str | int) else ""
