"""What somebody who searches for users has typed, by its form, and phone numbers as people type and staff see them."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

from wxauth.server.core.users import UserFields

_WECHAT_ID: Final = re.compile(r"[A-Za-z0-9_-]{24,36}")
"""The form of WeChat's openids, which have 28 characters, and of its unionids."""
_TYPED_NUMBER: Final = re.compile(r"\+?[0-9][0-9 ()-]{6,}")


class Term(StrEnum):
    """A kind of search term. Nobody has a nickname like one of the first three, so these are only looked up whole."""

    USER_ID = "user_id"
    PHONE = "phone"
    WECHAT_ID = "wechat_id"
    """An openid or unionid: they look alike."""
    TEXT = "text"
    """Anything else: an external id, or a part of a nickname."""
    NONE = "none"

    @property
    def is_exact(self) -> bool:
        """Whether only the whole value can match."""
        return self not in (Term.TEXT, Term.NONE)


_CHINESE_MOBILE: Final = re.compile(r"1[3-9][0-9]{9}")
"""What most tables hold; the library takes 84 µs for one, so 84 s for a million lines of an import."""
SHOWN_AT_THE_END: Final = 4
HIDDEN: Final = 4
_SHORTEST: Final = 9
"""Digits of the shortest number of which as many are shown and hidden."""
User = TypeVar("User", bound=UserFields)


def term_of(text: str | None, *, region: str) -> Term:
    """The kind of a search term. A phone number without a country code belongs to the region."""
    if not text:
        return Term.NONE
    if id_in(text) is not None:
        return Term.USER_ID
    if _is_number(text, region=region):
        return Term.PHONE
    return Term.WECHAT_ID if _WECHAT_ID.fullmatch(text) else Term.TEXT


def id_in(text: str) -> UUID | None:
    """The id in this text, if it is written as in answers, in any case."""
    try:
        user_id = UUID(text)
    except ValueError:
        return None
    return user_id if str(user_id) == text.lower() else None


def _is_number(text: str, *, region: str) -> bool:
    if not _TYPED_NUMBER.fullmatch(text):
        return False
    import phonenumbers  # 2 MB, which a process without phone numbers does not need

    for typed in (text, f"+{text}"):  # also with a country code, but without a plus
        try:
            number = phonenumbers.parse(typed, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE:
            return True
    return False


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
