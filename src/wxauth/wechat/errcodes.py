"""WeChat's errcodes: which failure of ours each one is, and what the developer and the operator are told of it.

Source: WeChat server API, the pages of the calls and the table of global return codes.
"""

from typing import Final

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    SessionKeyExpired,
    Title,
    WeChatBadResponse,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatUnavailable,
    WeChatUserBlocked,
)
from wxauth.problems import Language
from wxauth.wechat.errcode_texts import (
    MEANINGS,
    MEANINGS_OF_PHONE_CODES,
    NO_SCAN_PAGE,
    OTHER_APP_OF_PHONE_CODE,
    SECRET_NOT_TAKEN,
    SIGNED_CALLS,
    TOKENS_NOT_TAKEN,
    UNKNOWN_SCAN_ENV,
    WHAT_TO_CHANGE,
)

CODE2SESSION: Final = "code2session"
STABLE_TOKEN: Final = "stable_token"  # noqa: S105 - the name of an API
PHONE_NUMBER: Final = "getuserphonenumber"
CHECK_SESSION_KEY: Final = "checksession"
RESET_SESSION_KEY: Final = "resetusersessionkey"
RISK_RANK: Final = "getuserriskrank"
CHECK_TEXT: Final = "msg_sec_check"
MINI_PROGRAM_CODE: Final = "getwxacodeunlimit"

SYSTEM_BUSY: Final = -1
"""The one answer after which WeChat asks for the same request again."""
NOT_LATEST: Final = 40001
WECHAT_TOKEN_REFUSED: Final = frozenset({NOT_LATEST, 40014, 42001})
"""The WeChat token is no longer good. What was asked for has not been done."""
NOT_SEEN_LATELY: Final = 61010
"""The person has not used the app for two hours, so WeChat says nothing of them."""
SESSION_KEY_GONE: Final = frozenset({87007, 87009})
"""The session_key is missing, has expired, or is another one by now."""
DAILY_QUOTA: Final = 45009
OF_ANOTHER_PERSON: Final = frozenset({40003, 43104})
"""Of a phone code: it is not this person's, or this person is not one of the app."""
ABOUT_THE_ACCOUNT: Final = frozenset({89501, 89506, 89507, *SIGNED_CALLS})
"""How the app stands with WeChat, whatever was asked. The operator's to mend; the phone gets an unexpected answer."""

_MISCONFIGURED: Final = (40013, 40125, 40164, 40243, 41002, 41004, 41008, 48001, 50002, 89503)
"""Class C: the operator must mend the configuration."""
_MISCONFIGURED_WITH_WECHAT_TOKENS: Final = (NOT_LATEST, 41001)
_WHAT_TO_CHANGE_AT: Final = {
    (CODE2SESSION, NOT_LATEST): SECRET_NOT_TAKEN,
    (STABLE_TOKEN, NOT_LATEST): SECRET_NOT_TAKEN,
    (PHONE_NUMBER, 40013): OTHER_APP_OF_PHONE_CODE,
    (MINI_PROGRAM_CODE, 40097): UNKNOWN_SCAN_ENV,
    (MINI_PROGRAM_CODE, 41030): NO_SCAN_PAGE,
}

_DAILY_QUOTA_RETRY_AFTER = 3600

_ERRORS: Final[dict[int, tuple[type[WeChatError], int | None]]] = {
    SYSTEM_BUSY: (WeChatUnavailable, None),
    40029: (InvalidCode, None),
    40163: (CodeUsed, None),
    40226: (WeChatUserBlocked, None),
    DAILY_QUOTA: (WeChatRateLimited, _DAILY_QUOTA_RETRY_AFTER),
    45011: (WeChatRateLimited, None),
    **dict.fromkeys(_MISCONFIGURED, (WeChatMisconfigured, None)),
}
_ERRORS_WITH_WECHAT_TOKENS: Final[dict[int, tuple[type[WeChatError], int | None]]] = {
    **dict.fromkeys(SESSION_KEY_GONE, (SessionKeyExpired, None)),
    9410009: (WeChatRateLimited, _DAILY_QUOTA_RETRY_AFTER),
    **dict.fromkeys(_MISCONFIGURED_WITH_WECHAT_TOKENS, (WeChatMisconfigured, None)),
}
_ERRORS_OF_PHONE_CODES: Final[dict[int, tuple[type[WeChatError], int | None]]] = dict.fromkeys(
    OF_ANOTHER_PERSON, (InvalidCode, None)
)

_ERRORS_AT: Final[dict[tuple[str, int], tuple[type[WeChatError], int | None]]] = {
    (MINI_PROGRAM_CODE, 40097): (WeChatMisconfigured, None),
    (MINI_PROGRAM_CODE, 41030): (WeChatMisconfigured, None),
    (MINI_PROGRAM_CODE, DAILY_QUOTA): (WeChatRateLimited, None),  # here it is the minute's
}

KNOWN: Final = frozenset({*MEANINGS, *_ERRORS, *_ERRORS_WITH_WECHAT_TOKENS, *(errcode for _, errcode in _ERRORS_AT)})
"""Those that have a label of their own in the metrics."""


def error_for(errcode: int, *, api: str, hint: str = "") -> WeChatError:
    """The failure that an errcode of this API stands for; a hint is for the developer, beside what it means."""
    found = _ERRORS_AT.get((api, errcode)) or _ERRORS.get(errcode)
    if found is None and api != CODE2SESSION:
        found = _ERRORS_WITH_WECHAT_TOKENS.get(errcode)
    if found is None and api == PHONE_NUMBER:
        found = _ERRORS_OF_PHONE_CODES.get(errcode)
    kind, retry_after = found or (WeChatBadResponse, None)
    means = meaning(errcode, api=api)
    told = [f"WeChat answered errcode {errcode}", *([means.en] if means else []), *([hint] if hint else [])]
    return kind(": ".join(told), errcode=errcode, retry_after=retry_after)


def meaning(errcode: int, *, api: str) -> Title | None:
    """What an errcode of this API says, where WeChat's pages have it."""
    of_phone_codes = MEANINGS_OF_PHONE_CODES.get(errcode) if api == PHONE_NUMBER else None
    return of_phone_codes or MEANINGS.get(errcode)


def is_for_the_operator(errcode: int, *, api: str) -> bool:
    """Whether it stays as it is until the operator does something."""
    return errcode in ABOUT_THE_ACCOUNT or isinstance(error_for(errcode, api=api), WeChatMisconfigured)


def what_to_change(errcode: int, *, api: str, language: Language = "en") -> str | None:
    """What can be done about an errcode of this API, where WeChat's pages have it."""
    advice = _WHAT_TO_CHANGE_AT.get((api, errcode))
    if advice is None and errcode == NOT_LATEST and is_for_the_operator(errcode, api=api):
        advice = TOKENS_NOT_TAKEN
    advice = advice or WHAT_TO_CHANGE.get(errcode)
    return advice and str(getattr(advice, language))
