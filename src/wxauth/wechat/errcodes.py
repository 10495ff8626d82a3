"""WeChat's errcodes: what each one means for the phone, and for the operator.

Source: WeChat server API, the pages of the calls and the table of global return codes.
"""

from typing import Final

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    SessionKeyExpired,
    WeChatBadResponse,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatUnavailable,
    WeChatUserBlocked,
)

CODE2SESSION: Final = "code2session"
STABLE_TOKEN: Final = "stable_token"  # noqa: S105 - the name of an API
PHONE_NUMBER: Final = "getuserphonenumber"
CHECK_SESSION_KEY: Final = "checksession"
RESET_SESSION_KEY: Final = "resetusersessionkey"
RISK_RANK: Final = "getuserriskrank"
CHECK_TEXT: Final = "msg_sec_check"

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

WHAT_TO_CHANGE: Final = {
    40013: "the app id is wrong: compare it with the console (WXAUTH_APP_ID, WXAUTH_APPS, 'wxauth apps')",
    40125: "the app secret is wrong: copy it anew from the console (WXAUTH_APP_SECRET, WXAUTH_APPS, 'wxauth apps set')",
    40164: "this server's address is not on the app's IP whitelist: add the address in errmsg in the console",
    40243: "the app secret is frozen: unfreeze it in the console",
    41002: "the app id is missing from the request: check WXAUTH_APP_ID or WXAUTH_APPS",
    41004: "the app secret is missing from the request: check WXAUTH_APP_SECRET or WXAUTH_APPS",
    41008: "the code is missing from the request: a proxy between here and WeChat may cut the query off",
    48001: "the account may not use this API: see its permissions in the console",
    50002: "the account is restricted: see the console's notices",
    89503: "the call waits for the administrator's confirmation: confirm it in WeChat",
}
"""Class C: the operator must mend the configuration. Each with what to do."""

_WHAT_TO_CHANGE_WITH_WECHAT_TOKENS: Final = {
    NOT_LATEST: "WeChat refuses the access token, a new one too: see that nobody else renews it, and the app secret",
    41001: "the access token is missing from the request: a proxy between here and WeChat may cut the query off",
}
_WHAT_TO_CHANGE_AT: Final = {
    (STABLE_TOKEN, NOT_LATEST): WHAT_TO_CHANGE[40125],
    (PHONE_NUMBER, 40013): "the phone code is of another mini-program than the login: they must be of one app",
}

_DAILY_QUOTA_RETRY_AFTER = 3600

_ERRORS: Final[dict[int, tuple[type[WeChatError], int | None]]] = {
    SYSTEM_BUSY: (WeChatUnavailable, None),
    40029: (InvalidCode, None),
    40163: (CodeUsed, None),
    40226: (WeChatUserBlocked, None),
    DAILY_QUOTA: (WeChatRateLimited, _DAILY_QUOTA_RETRY_AFTER),
    45011: (WeChatRateLimited, None),
    **dict.fromkeys(WHAT_TO_CHANGE, (WeChatMisconfigured, None)),
}
_ERRORS_WITH_WECHAT_TOKENS: Final[dict[int, tuple[type[WeChatError], int | None]]] = {
    **dict.fromkeys(SESSION_KEY_GONE, (SessionKeyExpired, None)),
    9410009: (WeChatRateLimited, _DAILY_QUOTA_RETRY_AFTER),
    **dict.fromkeys(_WHAT_TO_CHANGE_WITH_WECHAT_TOKENS, (WeChatMisconfigured, None)),
}

KNOWN: Final = frozenset({*_ERRORS, *_ERRORS_WITH_WECHAT_TOKENS, *WECHAT_TOKEN_REFUSED, NOT_SEEN_LATELY})
"""Those that have a label of their own in the metrics."""


def error_for(errcode: int, *, api: str) -> WeChatError:
    """The failure that an errcode of this API stands for."""
    found = _ERRORS.get(errcode)
    if found is None and api != CODE2SESSION:
        found = _ERRORS_WITH_WECHAT_TOKENS.get(errcode)
    kind, retry_after = found or (WeChatBadResponse, None)
    return kind(f"WeChat answered errcode {errcode}", errcode=errcode, retry_after=retry_after)


def what_to_change(errcode: int, *, api: str) -> str:
    """What the operator must do about an errcode that is theirs to mend."""
    return (
        _WHAT_TO_CHANGE_AT.get((api, errcode))
        or WHAT_TO_CHANGE.get(errcode)
        or _WHAT_TO_CHANGE_WITH_WECHAT_TOKENS[errcode]
    )
