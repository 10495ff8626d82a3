"""The parsing of phone numbers in searches and imports, and the masking of numbers for the role `support`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

# The functions that use `phonenumbers` import it when they run, so that a process that parses no phone numbers saves
# 2 MB of memory.
if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_TYPED_NUMBER: Final = re.compile(r"\+?[0-9][0-9 ()-]{6,}")
"""The pattern of texts that might be phone numbers."""
_CHINESE_MOBILE: Final = re.compile(r"1[3-9][0-9]{9}")
"""The form of the most common numbers, which `phone_number_in` parses for China without the library `phonenumbers`.

The library takes 84 µs for each number, which would be 84 s for an import of a million lines.
"""
_SHOWN_DIGITS: Final = 4
"""The number of digits at the end of a masked number that remain visible."""
_HIDDEN_DIGITS: Final = 4
"""The number of digits, just before the visible digits, that asterisks replace."""
_SHOWN_DIGITS_IF_SHORT: Final = 2
"""The number of digits at the end of a masked short number that remain visible. All others are hidden."""
_LONG_FROM: Final = 9
"""The smallest number of digits of a phone number that does not count as short."""


def is_phone_number(text: str, *, region: str) -> bool:
    """Return whether this text has the form and a possible length of a phone number.

    A number without a country code counts as a number of the region. The text may also begin with a country code
    without a plus.
    """
    if not _TYPED_NUMBER.fullmatch(text):
        return False
    import phonenumbers

    numbers = _parsed_with_and_without_plus(text, region)
    # `is_possible_number` would also accept a number that can only be dialled within a town, without its area code.
    possible = phonenumbers.ValidationResult.IS_POSSIBLE
    return any(phonenumbers.is_possible_number_with_reason(number) == possible for number in numbers)


def possible_phone_numbers(text: str, *, region: str) -> Sequence[str]:
    """Return all texts that might be the E.164 form of the number in this text, for a search.

    A number without a country code counts as a number of the region. A number without a plus may also begin with a
    country code, for example `8613800138001`.
    """
    return [text, f"+{text}", *map(_in_e164, _parsed_with_and_without_plus(text, region))]


def phone_number_in(text: str, *, region: str) -> str | None:
    """Return the number that this text means when dialled in the region, in E.164 form; None if it is not valid.

    Return None for a number with an extension, too.
    """
    if region == "CN" and _CHINESE_MOBILE.fullmatch(text):
        return f"+86{text}"
    import phonenumbers

    number = _parsed(text, region)
    # E.164 has no extensions. Without its extension, the number would belong to the switchboard.
    if number is None or number.extension or not phonenumbers.is_valid_number(number):
        return None
    return _in_e164(number)


def masked(phone: str) -> str:
    """Return an E.164 number in which asterisks replace the four digits before the last four digits.

    In a short number (fewer than nine digits), asterisks replace all digits except the last two.
    """
    digits = phone.removeprefix("+")
    if len(digits) < _LONG_FROM:
        return f"+{'*' * (len(digits) - _SHOWN_DIGITS_IF_SHORT)}{digits[-_SHOWN_DIGITS_IF_SHORT:]}"
    first_digits = digits[: -_HIDDEN_DIGITS - _SHOWN_DIGITS]
    return f"+{first_digits}{'*' * _HIDDEN_DIGITS}{digits[-_SHOWN_DIGITS:]}"


def _parsed_with_and_without_plus(text: str, region: str) -> "Sequence[PhoneNumber]":
    """Return the numbers that this text means as it is, and with a plus before it."""
    parsed = (_parsed(text, region), _parsed(f"+{text}", region))
    return [number for number in parsed if number is not None]


def _parsed(text: str, region: str) -> "PhoneNumber | None":
    """Return the number that this text means when dialled in the region; None if the text is not a phone number."""
    import phonenumbers

    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _in_e164(number: "PhoneNumber") -> str:
    """Return the E.164 form of a number, such as +8613800138000."""
    import phonenumbers

    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
