"""The meaning of WeChat's errcodes, the operator's remedies, and the errors that wxauth raises for them.

The table is `errcodes.csv`. A row without `at` applies to all APIs for which the errcode has no separate row. For a row
without an error, wxauth raises WeChatBadResponse. If only the operator can end the failure, the error is
WeChatMisconfigured. The sources are the pages of the APIs and the table of global return codes in WeChat's
documentation.
"""

from collections.abc import Collection, Iterator
from csv import reader
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from wxauth import errors
from wxauth.errors import WeChatBadResponse, WeChatError, WeChatMisconfigured, WeChatTimeout, WeChatUnavailable
from wxauth.i18n import Text, lazy_gettext as _


class Api(StrEnum):
    """The APIs of WeChat. Each has a name for logs and metrics, and a path."""

    path: str

    def __new__(cls, name: str, path: str) -> Self:
        """Create a member, whose value is the name."""
        api = str.__new__(cls, name)
        api._value_, api.path = name, path
        return api

    CODE2SESSION = "code2session", "/sns/jscode2session"
    OAUTH_CODE = "access_token", "/sns/oauth2/access_token"
    """The API that exchanges the login codes of all kinds of apps except mini-programs."""
    STABLE_TOKEN = "stable_token", "/cgi-bin/stable_token"
    PHONE_NUMBER = "getuserphonenumber", "/wxa/business/getuserphonenumber"
    CHECK_SESSION_KEY = "checksession", "/wxa/checksession"
    MINI_PROGRAM_CODE = "getwxacodeunlimit", "/wxa/getwxacodeunlimit"
    URL_LINK = "generate_urllink", "/wxa/generate_urllink"
    JS_TICKET = "getticket", "/cgi-bin/ticket/getticket"


SYSTEM_BUSY: Final = -1
"""The only errcode for which WeChat's documentation recommends a retry."""
WECHAT_TOKEN_REFUSED: Final = frozenset({40001, 40014, 42001})
"""The errcodes for an access token that is not the latest one, is malformed, or has expired.

A request with such a token can safely be sent again with a new token, because WeChat has not executed it. If the
request contains the AppSecret instead of an access token, 40001 means that the AppSecret is wrong.
"""
SESSION_KEY_GONE: Final = frozenset({87007, 87009})
"""The errcodes for a session_key that is missing, has expired, or has been replaced."""
DAILY_QUOTA: Final = 45009
"""The errcode for an exhausted daily quota, which WeChat resets at midnight in Beijing.

For `getwxacodeunlimit`, however, the errcode means too many calls within a minute.
"""
OPENID_MISMATCH: Final = frozenset({40003, 43104})
"""The errcodes of `getuserphonenumber` if the openid belongs to another app, or the phone code to another user."""

WRONG_SECRET_REMEDY: Final = _(
    "the AppSecret is wrong. Copy it again from WeChat's console (WXAUTH_APP_SECRET, WXAUTH_APPS, 'wxauth apps set')"
)
_REMEDIES: Final = {
    "request": _("the request was changed on its way. Check the proxies between this machine and WeChat"),
    "person": _("you don't have to do anything. The error concerns this user, not the service"),
    "code": _(
        "you don't have to do anything if this error is rare. If it always happens, the app on the phone "
        "isn't the app in the request"
    ),
    "token": _(
        "you don't have to do anything, because wxauth renews the access token. If the error recurs, "
        "another program also renews this app's tokens"
    ),
    "key": _("you don't have to do anything, because the next login stores a new session_key"),
    "secret": WRONG_SECRET_REMEDY,
}
"""The instructions that several errcodes share, by the names that the table uses for them.

For all other errcodes, the table itself contains the instruction.
"""


@dataclass(frozen=True, slots=True)
class Errcode:
    """The description of an errcode."""

    number: int
    meaning: Text | None = None
    """The meaning of the errcode; None if the table does not state it."""
    remedy: Text | None = None
    """The instruction for the operator on how to end the failure; None if the table lacks the errcode."""
    error: type[WeChatError] = WeChatBadResponse
    """The error that wxauth raises for the errcode.

    WeChatMisconfigured means that WeChat refuses all such calls of the app until the operator acts.
    """
    retry_after: int | None = None
    """The number of seconds after which a retry may succeed; None for the default of the error."""
    at: Collection[str] = ()
    """The APIs to which the row applies. If empty, the row applies to all APIs without a separate row."""

    @property
    def is_for_the_operator(self) -> bool:
        """Whether only the operator can end the failure."""
        return self.error is WeChatMisconfigured

    def failure(self, hint: str = "") -> WeChatError:
        """Return the error for the errcode. Its detail consists of the errcode, the meaning and the hint."""
        detail = ": ".join(filter(None, [f"WeChat returned errcode {self.number}", self.meaning, hint]))
        return self.error(detail, errcode=self.number, retry_after=self.retry_after)


def _read_table() -> Iterator[Errcode]:
    """Yield a description for each errcode in `errcodes.csv`. A row of the table can contain several errcodes."""
    lines = Path(__file__).with_name("errcodes.csv").read_text("utf-8").splitlines()
    rows = reader(lines, delimiter="|")
    next(rows)  # the names of the columns
    for numbers, at, error, retry_after, meaning, remedy in rows:
        for number in numbers.split():
            yield Errcode(
                number=int(number),
                meaning=Text(meaning) if meaning else None,
                remedy=_REMEDIES.get(remedy) or Text(remedy),
                error=getattr(errors, error) if error else WeChatBadResponse,
                retry_after=int(retry_after) if retry_after else None,
                at=at.split(),
            )


_ROWS: Final = {(api, row.number): row for row in _read_table() for api in row.at or (None,)}
"""The rows by API and errcode. The API is None for a row that applies to all APIs without a separate row."""

FAULTS_OF_WECHAT: Final = (WeChatUnavailable, WeChatTimeout, WeChatBadResponse)
"""The errors that mean that WeChat fails or cannot be reached."""
KNOWN_ERRCODES: Final = frozenset(number for _api, number in _ROWS)
"""The errcodes in the table, of all APIs."""


def errcode_label(error: Exception | None) -> str:
    """Return the label of WeChat's errcode in metrics. The label is empty if the error has no errcode.

    All errcodes that the table lacks share the label `other`, because each label is a time series.
    """
    errcode = error.errcode if isinstance(error, WeChatError) else None
    if errcode is None:
        return ""
    return str(errcode) if errcode in KNOWN_ERRCODES else "other"


def errcode_of(number: int, *, api: str) -> Errcode:
    """Return the description of an errcode of this API.

    If the table has no row for it, the description contains only the number, and the error is WeChatBadResponse.
    """
    return _ROWS.get((api, number)) or _ROWS.get((None, number)) or Errcode(number)
