"""Phone numbers as the role `support` sees them."""

from typing import Final, TypeVar

from wxauth.server.core.users import UserFields

SHOWN_AT_THE_END: Final = 4
HIDDEN: Final = 4
_SHORTEST: Final = 9
"""Digits of the shortest number of which as many are shown and hidden."""

User = TypeVar("User", bound=UserFields)


def with_masked_phone(user: User) -> User:
    """The user with a number like `+86138****8000`."""
    return user if user.phone is None else user.model_copy(update={"phone": masked(user.phone)})


def masked(phone: str) -> str:
    """An E.164 number without the four digits before the last four; of a short one, only the last two are shown."""
    digits = phone.removeprefix("+")
    if len(digits) < _SHORTEST:
        return f"+{'*' * (len(digits) - 2)}{digits[-2:]}"
    end = len(digits) - SHOWN_AT_THE_END
    return f"+{digits[: end - HIDDEN]}{'*' * HIDDEN}{digits[end:]}"
