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
    OAUTH_CODE = "access_token", "/sns/oauth2/access_token"  # for all kinds of apps except mini-programs
    STABLE_TOKEN = "stable_token", "/cgi-bin/stable_token"
    PHONE_NUMBER = "getuserphonenumber", "/wxa/business/getuserphonenumber"
    CHECK_SESSION_KEY = "checksession", "/wxa/checksession"
    MINI_PROGRAM_CODE = "getwxacodeunlimit", "/wxa/getwxacodeunlimit"
    URL_LINK = "generate_urllink", "/wxa/generate_urllink"
    JS_TICKET = "getticket", "/cgi-bin/ticket/getticket"


SYSTEM_BUSY: Final = -1  # the only errcode for which WeChat's documentation recommends a retry
# The WeChat token is malformed, has expired, or is no longer the latest. WeChat has not executed the request, so it can
# be sent again. In a request with the AppSecret instead of a token, 40001 means that the AppSecret is wrong.
WECHAT_TOKEN_REFUSED: Final = frozenset({40001, 40014, 42001})
SESSION_KEY_GONE: Final = frozenset({87007, 87009})
# The app has used up its daily quota of calls, which WeChat resets at midnight in Beijing. For getwxacodeunlimit, the
# errcode means too many calls within a minute.
USED_UP_QUOTA: Final = 45009
# With getuserphonenumber, the openid belongs to another app, or the code to another user.
OPENID_MISMATCH: Final = frozenset({40003, 43104})

WRONG_SECRET_REMEDY: Final = _(
    "the AppSecret is wrong. Copy it again from WeChat's console (WXAUTH_APP_SECRET, WXAUTH_APPS, 'wxauth apps set')"
)
# Several errcodes share each of these remedies. The table uses these names for them.
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


@dataclass(frozen=True, slots=True)
class Errcode:
    number: int
    meaning: Text | None = None
    remedy: Text | None = None
    error: type[WeChatError] = WeChatBadResponse
    retry_after: int | None = None
    at: Collection[str] = ()  # if empty, all APIs without a row of their own

    @property
    def is_for_the_operator(self) -> bool:
        return self.error is WeChatMisconfigured

    def failure(self, hint: str = "") -> WeChatError:
        """Return the error for the errcode, whose detail ends with the hint."""
        detail = ": ".join(filter(None, [f"WeChat returned errcode {self.number}", self.meaning, hint]))
        return self.error(detail, errcode=self.number, retry_after=self.retry_after)


def _read_table() -> Iterator[Errcode]:
    lines = Path(__file__).with_name("errcodes.csv").read_text("utf-8").splitlines()
    rows = reader(lines, delimiter="|")
    next(rows)  # the names of the columns
    for numbers, at, error, retry_after, meaning, remedy in rows:
        for number in numbers.split():
            yield Errcode(
                number=int(number),
                meaning=Text(meaning) if meaning else None,  # without a mark, because `scripts/texts` reads the table
                remedy=Text(remedy) if " " in remedy else _REMEDIES[remedy],  # a single word is a key
                error=getattr(errors, error) if error else WeChatBadResponse,
                retry_after=int(retry_after) if retry_after else None,
                at=at.split(),
            )


# The keys are API and errcode. None is the API of a row for all APIs without a row of their own.
_ROWS: Final = {(api, row.number): row for row in _read_table() for api in row.at or (None,)}

# Metrics have a series for each of these faults, even before it occurs.
FAULTS_OF_WECHAT: Final = (WeChatUnavailable, WeChatTimeout, WeChatBadResponse)
KNOWN_ERRCODES: Final = frozenset(number for _api, number in _ROWS)


def errcode_label(error: Exception | None) -> str:
    """Return the errcode of an error for metrics. All errcodes that the table lacks share one label."""
    errcode = error.errcode if isinstance(error, WeChatError) else None
    if errcode is None:
        return ""
    return str(errcode) if errcode in KNOWN_ERRCODES else "other"  # because each label is a time series


def errcode_of(number: int, *, api: str) -> Errcode:
    """Return the description of an errcode of this API. An unknown errcode counts as WeChatBadResponse."""
    return _ROWS.get((api, number)) or _ROWS.get((None, number)) or Errcode(number)
