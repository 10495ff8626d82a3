"""The search for ids that another program has rounded, so that they belong to nobody or to several people."""

import re
from decimal import Decimal
from typing import Final

from wxauth.i18n import lazy_gettext as _
from wxauth.import_export.lines import Fault

ROUNDED_IDS: Final = Fault(
    "external_id",
    _(
        "these ids have been rounded, probably by a spreadsheet, jq or JavaScript. Export the IDs again, as text, and "
        "don't change the file in a program that rounds large numbers. If the IDs are exact, add --ids-are-exact"
    ),
)
# A query may have put a prefix such as `shop-` before the number.
_NUMBER: Final = re.compile(r"[^0-9]*([1-9][0-9]{15,299})")  # a double has at most 309 digits
_EXACT_TO: Final = 2**53
_LARGE: Final = 10**17  # above it, few IDs look rounded by chance, for example one in 40 of 18 random digits
_ENOUGH: Final = 20  # slightly above `_EXACT_TO`, every second ID looks rounded by chance
_ENOUGH_LARGE: Final = 3
_DIGITS_OF_SPREADSHEETS: Final = 15


def looks_rounded(external_id: str | None) -> bool:
    """Return whether JavaScript, or a format of 17 significant digits, prints a number as this ID."""
    number = _number_in(external_id or "")
    return number is not None and _is_printed(number)


def _number_in(external_id: str) -> int | None:
    """Return the number in an ID if a double cannot hold all numbers of its size."""
    match = _NUMBER.fullmatch(external_id)
    number = int(match[1]) if match else 0
    return number if number > _EXACT_TO else None


def _is_printed(number: int) -> bool:
    double = float(number)
    # Python's shortest digits are JavaScript's. Both formats write zeros for the digits that they don't have.
    return number in (int(Decimal(repr(double))), int(Decimal(f"{double:.16e}")))


class RoundedIds:
    """The search in the external IDs of one file, which remembers only a few of them."""

    def __init__(self) -> None:
        self._rounded: set[int] = set()
        self._large: set[int] = set()
        self._has_exact = self._has_large_exact = False
        self._all_end_in_zero_bit = self._all_end_in_zero_digits = True

    def add(self, external_id: str) -> None:
        number = _number_in(external_id)
        if number is None or self._has_large_exact:  # nothing can follow from further IDs
            return
        is_large = number > _LARGE
        if not _is_printed(number):
            self._has_exact = True
            self._has_large_exact = is_large
            return
        if len(self._rounded) < _ENOUGH:
            self._rounded.add(number)
        if is_large and len(self._large) < _ENOUGH_LARGE:
            self._large.add(number)
        spacing = 1 << (number.bit_length() - _EXACT_TO.bit_length() + 1)  # of the doubles near the number
        self._all_end_in_zero_bit &= number % (2 * spacing) == 0  # false for every second rounded ID
        self._all_end_in_zero_digits &= number % 10 ** (len(str(number)) - _DIGITS_OF_SPREADSHEETS) == 0

    @property
    def are_found(self) -> bool:
        if len(self._large) == _ENOUGH_LARGE and not self._has_large_exact:
            return True
        # A double holds snowflakes of 17 digits whose last bits are zeros, so nothing has rounded them. IDs that a
        # spreadsheet has rounded can end in zero bits, too, but then also end in zero digits.
        are_snowflakes = self._all_end_in_zero_bit and not self._all_end_in_zero_digits
        return len(self._rounded) == _ENOUGH and not self._has_exact and not are_snowflakes
