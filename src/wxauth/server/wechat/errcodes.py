"""WeChat's errcodes: the error of ours for each, its meaning, and what operators should do.

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
from wxauth.server.wechat.errcode_texts import (
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
OAUTH_CODE: Final = "access_token"
"""`/sns/oauth2/access_token`: exchanges the codes of apps that are not mini-programs."""
STABLE_TOKEN: Final = "stable_token"  # noqa: S105 - the name of an API
PHONE_NUMBER: Final = "getuserphonenumber"
CHECK_SESSION_KEY: Final = "checksession"
RESET_SESSION_KEY: Final = "resetusersessionkey"
RISK_RANK: Final = "getuserriskrank"
CHECK_TEXT: Final = "msg_sec_check"
MINI_PROGRAM_CODE: Final = "getwxacodeunlimit"

SYSTEM_BUSY: Final = -1
"""The only errcode after which WeChat asks to retry."""
NOT_LATEST: Final = 40001
WECHAT_TOKEN_REFUSED: Final = frozenset({NOT_LATEST, 40014, 42001})
"""The WeChat token is no longer valid. WeChat has not executed the request."""
NOT_SEEN_LATELY: Final = 61010
"""The person has not used the app for two hours, so WeChat does not rate them."""
SESSION_KEY_GONE: Final = frozenset({87007, 87009})
"""The session_key is missing, has expired, or has been replaced."""
DAILY_QUOTA: Final = 45009
OF_ANOTHER_PERSON: Final = frozenset({40003, 43104})
"""A phone code belongs to another person, or the openid is not of this app."""
ABOUT_THE_ACCOUNT: Final = frozenset({89501, 89506, 89507, *SIGNED_CALLS})
"""WeChat refuses all calls of the app until the operator fixes it. The phone gets `wechat_bad_response`."""

_EXCHANGES: Final = frozenset({CODE2SESSION, OAUTH_CODE})
_MISCONFIGURED: Final = (40013, 40125, 40164, 40243, 41001, 41002, 41004, 41008, 48001, 50002, 89503)
"""Class C: the operator must fix the configuration."""
_WHAT_TO_CHANGE_AT: Final = {
    (CODE2SESSION, NOT_LATEST): SECRET_NOT_TAKEN,
    (OAUTH_CODE, NOT_LATEST): SECRET_NOT_TAKEN,
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
    NOT_LATEST: (WeChatMisconfigured, None),
}
_ERRORS_OF_PHONE_CODES: Final[dict[int, tuple[type[WeChatError], int | None]]] = dict.fromkeys(
    OF_ANOTHER_PERSON, (InvalidCode, None)
)

_ERRORS_AT: Final[dict[tuple[str, int], tuple[type[WeChatError], int | None]]] = {
    (MINI_PROGRAM_CODE, 40097): (WeChatMisconfigured, None),
    (MINI_PROGRAM_CODE, 41030): (WeChatMisconfigured, None),
    (OAUTH_CODE, 42003): (InvalidCode, None),
    (MINI_PROGRAM_CODE, DAILY_QUOTA): (WeChatRateLimited, None),  # for this API, it is a limit per minute
}

KNOWN_ERRCODES: Final = frozenset(
    {*MEANINGS, *_ERRORS, *_ERRORS_WITH_WECHAT_TOKENS, *(errcode for _, errcode in _ERRORS_AT)}
)
"""The errcodes that have a label of their own in the metrics."""


def error_for(errcode: int, *, api: str, hint: str = "") -> WeChatError:
    """The error for an errcode of this API. Its detail is the meaning, followed by the hint."""
    found = _ERRORS_AT.get((api, errcode)) or _ERRORS.get(errcode)
    if found is None and api not in _EXCHANGES:
        found = _ERRORS_WITH_WECHAT_TOKENS.get(errcode)
    if found is None and api == PHONE_NUMBER:
        found = _ERRORS_OF_PHONE_CODES.get(errcode)
    kind, retry_after = found or (WeChatBadResponse, None)
    means = meaning_of(errcode, api=api)
    details = [f"WeChat answered errcode {errcode}", *([means.en] if means else []), *([hint] if hint else [])]
    return kind(": ".join(details), errcode=errcode, retry_after=retry_after)


def meaning_of(errcode: int, *, api: str) -> Title | None:
    """The meaning of an errcode of this API; None if it is unknown."""
    of_phone_codes = MEANINGS_OF_PHONE_CODES.get(errcode) if api == PHONE_NUMBER else None
    return of_phone_codes or MEANINGS.get(errcode)


def is_for_the_operator(errcode: int, *, api: str) -> bool:
    """Whether the failure lasts until the operator does something."""
    if api in _EXCHANGES and errcode == NOT_LATEST:  # without an access token in the call, this is about the secret
        return True
    return errcode in ABOUT_THE_ACCOUNT or isinstance(error_for(errcode, api=api), WeChatMisconfigured)


def what_to_change(errcode: int, *, api: str, language: Language = "en") -> str | None:
    """What to do about an errcode of this API; None if that is unknown."""
    advice = _WHAT_TO_CHANGE_AT.get((api, errcode))
    if advice is None and errcode == NOT_LATEST and is_for_the_operator(errcode, api=api):
        advice = TOKENS_NOT_TAKEN
    advice = advice or WHAT_TO_CHANGE.get(errcode)
    return advice and str(getattr(advice, language))
