"""WeChat's errcodes at code2Session: what each one means for the phone, and for the operator.

Source: WeChat server API, auth.code2Session and its table of global return codes.
"""

from typing import Final

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    WeChatBadResponse,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatUnavailable,
    WeChatUserBlocked,
)

SYSTEM_BUSY: Final = -1
"""The one answer after which WeChat asks for the same request again."""

WHAT_TO_CHANGE: Final = {
    40013: "the app id is wrong: check WXAUTH_APP_ID or WXAUTH_APPS against the mini-program's console",
    40125: "the app secret is wrong: copy it anew from the console into WXAUTH_APP_SECRET or WXAUTH_APPS",
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

_DAILY_QUOTA_RETRY_AFTER = 3600

_ERRORS: Final[dict[int, tuple[type[WeChatError], int | None]]] = {
    SYSTEM_BUSY: (WeChatUnavailable, None),
    40029: (InvalidCode, None),
    40163: (CodeUsed, None),
    40226: (WeChatUserBlocked, None),
    45009: (WeChatRateLimited, _DAILY_QUOTA_RETRY_AFTER),
    45011: (WeChatRateLimited, None),
    **dict.fromkeys(WHAT_TO_CHANGE, (WeChatMisconfigured, None)),
}


def error_for(errcode: int) -> WeChatError:
    """The failure that an errcode of code2Session stands for."""
    kind, retry_after = _ERRORS.get(errcode, (WeChatBadResponse, None))
    return kind(f"WeChat answered errcode {errcode}", errcode=errcode, retry_after=retry_after)
