"""The parsing of phone numbers in searches and imports, and the masking of numbers for the role `support`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

# The functions that use `phonenumbers` import it when they run, so that a process that parses no phone numbers saves
# 2 MB of memory.
if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_TYPED_NUMBER: Final = re.compile(r"\+?[0-9][0-9 ()-]{6,}")
# The library takes 84 µs for each number, which would be 84 s for an import of a million lines. Therefore, these
# numbers are not checked further, and even one whose first digits no network uses is accepted.
_CHINESE_MOBILE: Final = re.compile(r"1[3-9][0-9]{9}")
_SHOWN_DIGITS: Final = 4
_HIDDEN_DIGITS: Final = 4
_SHOWN_DIGITS_IF_SHORT: Final = 2
_LONG_FROM_DIGITS: Final = 9


def is_phone_number(text: str, *, region: str) -> bool:
    """Return whether a text might be a number, of the region or with a country code, even without a plus."""
    if not _TYPED_NUMBER.fullmatch(text):
        return False
    import phonenumbers

    numbers = _parsed_with_and_without_plus(text, region)
    # `is_possible_number` would also accept a number that can only be dialled within a town, without its area code.
    possible = phonenumbers.ValidationResult.IS_POSSIBLE
    return any(phonenumbers.is_possible_number_with_reason(number) == possible for number in numbers)


def possible_phone_numbers(text: str, *, region: str) -> Sequence[str]:
    """Return all that might be the E.164 form of a number, for a search."""
    return [text, f"+{text}", *map(_in_e164, _parsed_with_and_without_plus(text, region))]


def phone_number_in(text: str, *, region: str) -> str | None:
    """Return E.164 for a number as it is dialled in the region, if it is valid and has no extension.

    Any number that looks like a Chinese mobile number counts as valid.
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
    """Hide the four digits before the last four or, of a short number, all but the last two."""
    digits = phone.removeprefix("+")
    if len(digits) < _LONG_FROM_DIGITS:
        return f"+{'*' * (len(digits) - _SHOWN_DIGITS_IF_SHORT)}{digits[-_SHOWN_DIGITS_IF_SHORT:]}"
    first_digits = digits[: -_HIDDEN_DIGITS - _SHOWN_DIGITS]
    return f"+{first_digits}{'*' * _HIDDEN_DIGITS}{digits[-_SHOWN_DIGITS:]}"


def _parsed_with_and_without_plus(text: str, region: str) -> "Sequence[PhoneNumber]":
    parsed = (_parsed(text, region), _parsed(f"+{text}", region))
    return [number for number in parsed if number is not None]


def _parsed(text: str, region: str) -> "PhoneNumber | None":
    import phonenumbers

    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _in_e164(number: "PhoneNumber") -> str:
    import phonenumbers

    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
