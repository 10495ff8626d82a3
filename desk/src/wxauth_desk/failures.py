"""The errors that wxauth returns to a phone if a call to WeChat fails, which the desk shows next to each fault."""

from collections.abc import Mapping
from typing import Any, Final

from wxauth.errors import WeChatBadResponse, WeChatError, WeChatTimeout, WeChatUnavailable
from wxauth.i18n import languages
from wxauth.wechat.errcodes import WECHAT_TOKEN_REFUSED, Api, errcode_of

# The error for `status` is right for 500, the only status that the desk offers (`_TRANSPORT_FAULTS` in
# `wechat/offered_faults.py`).
_ERROR_BY_KIND: Final[Mapping[str, type[WeChatError] | None]] = {
    "slow": None,
    "hang": WeChatTimeout,
    "drop": WeChatUnavailable,
    "garbage": WeChatBadResponse,
    "html": WeChatBadResponse,
    "status": WeChatUnavailable,
}


def failure_on_the_phone(api: str, fault: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the error that a phone gets if a call to this API of WeChat has this fault, in each language.

    Return None if the phone's login or request succeeds despite the fault. The only key of `fault` is its kind, for
    example `errcode`.
    """
    errcode = fault.get("errcode")
    error: type[WeChatError] | None
    if errcode is None:
        [kind] = fault
        error = _ERROR_BY_KIND[kind]
    elif api == Api.PHONE_NUMBER and errcode in WECHAT_TOKEN_REFUSED:
        error = None  # the service renews a refused WeChat token, and calls again
    else:
        error = errcode_of(errcode, api=api).error
    if error is None:
        return None
    titles = {language: error.title.translated(language) for language in languages()}
    return {"code": error.code, "status": error.status, "title": titles}
