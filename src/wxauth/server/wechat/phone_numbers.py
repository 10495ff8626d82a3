"""Conversion of WeChat's `phone_info` to a phone number in E.164.

Source: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-info/phone-number/getPhoneNumber.html
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from wxauth.errors import WeChatBadResponse

_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_HOME: Final = "CN"
"""The country of numbers that WeChat gives without a country code."""


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
