"""Values of I-JSON (RFC 7493), which programs in all languages read alike. Attributes and claims are I-JSON."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from math import inf, isfinite, nan
from typing import Any, Final

from pydantic import BeforeValidator

from wxauth.i18n import WrongValue, lazy_gettext as _

# `parse` returns these values in place of what is not I-JSON. `check` refuses them, even after they were written as
# JSON and parsed again. If a caller checks only a part, no ID in the rest can be one of them, because IDs are texts.
_INEXACT_NUMBER: Final = nan
_OBJECT_WITH_REPEATED_NAME: Final = [-inf, inf, -inf]
_ALIKE_BELOW: Final = 10**21  # JavaScript prints larger numbers with an exponent
_NONCHARACTERS: Final = "\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)
)
_WRONG_CHARACTER: Final = re.compile(f"(\0)|([\ud800-\udfff])|[{_NONCHARACTERS}]")
REPEATED_NAME: Final = _("must not contain a name twice in the same object")


class NotIJson(WrongValue):
    pass


def parse(text: str) -> Any:
    """Parse JSON. The caller passes the result to `check`, or the part of the result that must be I-JSON.

    In place of inexact fractions and of objects that repeat a name, the result contains values that `check` refuses.
    """
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check(value: object) -> None:
    """Check that a value is I-JSON without U+0000, which PostgreSQL can't store. Raises: NotIJson."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text:
                _check_text(text)
            case bool():
                pass
            case int() | float() as number:
                if not _is_exact(number):
                    raise NotIJson(
                        _(
                            "must not contain a number that some programs would round, such as 9007199254740993. Write "
                            "the number as text"
                        )
                    )
            case Mapping() as members:
                rest += (*members, *members.values())
            case list() | tuple() as items:
                if repeats_name(items):
                    raise NotIJson(REPEATED_NAME)
                rest += items


def repeats_name(value: object) -> bool:
    """Return whether a result of `parse` was an object that repeats a name."""
    return value == _OBJECT_WITH_REPEATED_NAME


def parse_typed(text: str) -> Any:
    """Return the value of JSON that an operator has typed, and any other text as it is. The caller checks the value.

    A number that programs would print differently, such as 1.10 or an ID of 19 digits, stays text.
    """
    try:
        value = parse(text)
    except ValueError:
        return text
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not _is_exact(value) or text != str(value) or re.search(r"e|\.0\Z", text) or abs(value) >= _ALIKE_BELOW:
        return text
    return value


def _checked(value: Any) -> Any:
    check(value)
    return value


# In a body's field, `web/solver.py` also checks the numbers as they were sent.
IS_I_JSON: Final = BeforeValidator(_checked)


def _check_text(text: str) -> None:
    wrong = _WRONG_CHARACTER.search(text)
    if wrong is None:
        return
    if wrong[1]:
        raise NotIJson(_("must not contain U+0000"))
    if wrong[2]:
        raise NotIJson(_("must not contain lone surrogates"))
    raise NotIJson(_("must not contain noncharacters such as U+FFFF"))


def _is_exact(number: float) -> bool:
    try:
        double = float(number)
    except OverflowError:
        return False
    return isfinite(double) and (isinstance(number, float) or Decimal(repr(double)) == number)


def _exact_number(literal: str) -> float:
    double = float(literal)
    if not isfinite(double):
        return _INEXACT_NUMBER
    if double == 0:  # `Decimal` refuses some of the exponents
        return _INEXACT_NUMBER if re.search("[1-9]", re.split("[eE]", literal)[0]) else double
    return double if Decimal(repr(double)) == Decimal(literal) else _INEXACT_NUMBER


def _object(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _OBJECT_WITH_REPEATED_NAME


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_exact_number, parse_constant=lambda _name: _INEXACT_NUMBER
)
