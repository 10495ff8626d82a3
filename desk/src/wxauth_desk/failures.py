"""The errors that wxauth returns to a phone if its call to WeChat fails, for the page that announces them."""

from collections.abc import Mapping
from typing import Any, Final

from wxauth.errors import WeChatBadResponse, WeChatError, WeChatTimeout, WeChatUnavailable
from wxauth.i18n import languages
from wxauth.wechat.errcodes import WECHAT_TOKEN_REFUSED, Api, errcode_of

_ON_THE_WAY: Final[Mapping[str, type[WeChatError] | None]] = {
    "slow": None,
    "hang": WeChatTimeout,
    "drop": WeChatUnavailable,
    "garbage": WeChatBadResponse,
    "html": WeChatBadResponse,
    "status": WeChatUnavailable,
}


def failure_on_the_phone(api: str, fault: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the code, the status and the titles by language; None if the call finally succeeds."""
    errcode = fault.get("errcode")
    if errcode is None:
        [kind] = [_ON_THE_WAY[name] for name in fault]
        failure: WeChatError | type[WeChatError] | None = kind
    elif api == Api.PHONE_NUMBER and errcode in WECHAT_TOKEN_REFUSED:
        failure = None  # the service renews a refused WeChat token, and calls again
    else:
        failure = errcode_of(errcode, api=api).failure()
    if failure is None:
        return None
    titles = {language: failure.title.translated(language) for language in languages()}
    return {"code": failure.code, "status": failure.status, "title": titles}
