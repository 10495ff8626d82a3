"""The errors that wxauth returns to a phone if a call to WeChat fails. The desk shows them next to the faults."""

from collections.abc import Mapping
from typing import Any, Final

from wxauth.errors import WeChatBadResponse, WeChatError, WeChatTimeout, WeChatUnavailable
from wxauth.i18n import languages
from wxauth.wechat.errcodes import WECHAT_TOKEN_REFUSED, Api, errcode_of

_BY_FAULT: Final[Mapping[str, type[WeChatError] | None]] = {
    "slow": None,
    "hang": WeChatTimeout,
    "drop": WeChatUnavailable,
    "garbage": WeChatBadResponse,
    "html": WeChatBadResponse,
    "status": WeChatUnavailable,
}
"""The error that each kind of fault without an errcode results in; None if the call succeeds."""


def failure_on_the_phone(api: str, fault: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the code, the status and the titles by language of the error that a phone gets if a call has this fault.

    `fault` has the kind of the fault as its only key. Return None if the login or the request succeeds nevertheless.
    """
    errcode = fault.get("errcode")
    failure: WeChatError | type[WeChatError] | None
    if errcode is None:
        [kind] = fault
        failure = _BY_FAULT[kind]
    elif api == Api.PHONE_NUMBER and errcode in WECHAT_TOKEN_REFUSED:
        failure = None  # the service renews a refused WeChat token, and calls again
    else:
        failure = errcode_of(errcode, api=api).failure()
    if failure is None:
        return None
    titles = {language: failure.title.translated(language) for language in languages()}
    return {"code": failure.code, "status": failure.status, "title": titles}
