"""What somebody who searches for users has typed, by its form."""

import re
from enum import StrEnum
from typing import Final
from uuid import UUID

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
