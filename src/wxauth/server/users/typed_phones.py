"""Phone numbers as people type them."""

import re
from collections.abc import Sequence
from typing import Final

_CHINESE_MOBILE: Final = re.compile(r"1[3-9][0-9]{9}")
"""What most tables hold; the library takes 84 µs for one, so 84 s for a million lines of an import."""


def possible_numbers(text: str, *, region: str) -> Sequence[str]:
    """The numbers in E.164 that this text may mean. A number without a country code belongs to the region.

    A number without a plus may have a country code nevertheless: `8613800138001`.
    """
    import phonenumbers  # 2 MB, which a process without phone numbers does not need

    meant = {text, f"+{text}"}
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return list(meant)
    return [*meant, phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)]


def number_in(text: str, *, region: str) -> str | None:
    """The number in E.164 that this text certainly means, as it is dialled in the region; None if it means none."""
    if region == "CN" and _CHINESE_MOBILE.fullmatch(text):
        return f"+86{text}"
    import phonenumbers

    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
