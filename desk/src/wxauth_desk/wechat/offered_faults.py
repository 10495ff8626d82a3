"""The faults that a developer can select on the desk's page, so that calls to the simulated WeChat fail."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from wxauth_desk.i18n import Text, languages, lazy_gettext as _

_UNLISTED: Final = 99999
# These APIs are called for a login or a phone number. `POST /faults` also accepts the others.
# fmt: off
_ERRCODES: Final = {
    "code2session": (
        -1, 40029, 40163, 40226, 45011, 45009, 40013, 40125, 40164, 40243, 41002, 41004, 41008, 48001, 50002, 89503,
        _UNLISTED,
    ),
    "getuserphonenumber": (
        -1, 40029, 40163, 40003, 43104, 45011, 45009, 40001, 40014, 42001, 40013, 41001, 47001, 48001, 50002, 89501,
        40234, _UNLISTED,
    ),
    "stable_token": (
        -1, 45011, 45009, 40001, 40013, 40125, 40164, 40243, 41002, 41004, 89501, 89503, 89506, 89507, _UNLISTED,
    ),
}
# fmt: on
_MEANINGS: Final = {  # according to WeChat's documentation
    -1: _("WeChat is busy"),
    40001: _("the access token is invalid or isn't the latest token"),
    40003: _("the openid doesn't belong to this app"),
    40013: _("the appid is malformed"),
    40014: _("the access token is malformed"),
    40029: _("the code is invalid, has expired, or belongs to another app"),
    40125: _("the AppSecret is wrong"),
    40163: _("the code has already been used"),
    40164: _("this server's IP address isn't on the IP whitelist"),
    40226: _("WeChat classifies this user as high-risk"),
    40234: _("the app requires signed and encrypted calls"),
    40243: _("the AppSecret is frozen"),
    41001: _("the access token is missing"),
    41002: _("the appid is missing"),
    41004: _("the AppSecret is missing"),
    41008: _("the code is missing"),
    42001: _("the access token has expired"),
    43104: _("the phone number code belongs to another user"),
    45009: _("the daily quota is used up"),
    45011: _("too many calls within a minute"),
    47001: _("the request body doesn't have the expected format"),
    48001: _("the account isn't allowed to use this API"),
    50002: _("the account is restricted"),
    89501: _("this server's IP address is waiting for the administrator's confirmation"),
    89503: _("the call is waiting for the administrator's confirmation"),
    89506: _("the administrator has rejected this server's IP address twice, so calls are blocked for 24 hours"),
    89507: _("the administrator has rejected this server's IP address, so calls are blocked for an hour"),
    _UNLISTED: _("an errcode that isn't in any list"),
}
_TRANSPORT_FAULTS: Final[tuple[tuple[dict[str, Any], Text], ...]] = (
    ({"slow": 3}, _("responds after 3 s")),
    ({"hang": True}, _("never responds")),
    ({"drop": True}, _("drops the connection")),
    ({"garbage": True}, _("returns garbage")),
    ({"html": True}, _("returns a web page")),
    ({"status": 500}, _("returns HTTP 500")),
)
# A function of this type takes an API and a fault. It returns the error (code, status and titles) that a phone gets;
# None if nothing fails, or if no service is known.
FailureOf = Callable[[str, Mapping[str, Any]], dict[str, Any] | None]


def unknown_failure(_api: str, _fault: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return None, because the simulated WeChat without wxauth does not know how its caller handles a failure."""
    return None


def offered_faults(failure_of: FailureOf = unknown_failure) -> dict[str, list[dict[str, Any]]]:
    """Return the faults that the page offers for each API, by the API's name.

    Each fault contains its `meaning` in each language, and the `failure` that a phone gets because of it.
    """
    return {
        api: [_shown_fault(api, fault, meaning, failure_of) for fault, meaning in _faults_of(api)] for api in _ERRCODES
    }


def _faults_of(api: str) -> Iterator[tuple[dict[str, Any], Text]]:
    for errcode in _ERRCODES[api]:
        yield {"errcode": errcode}, _MEANINGS[errcode]
    yield from _TRANSPORT_FAULTS


def _shown_fault(api: str, fault: dict[str, Any], meaning: Text, failure_of: FailureOf) -> dict[str, Any]:
    meanings = {language: meaning.translated(language) for language in languages()}
    return {"fault": fault, "meaning": meanings, "failure": failure_of(api, fault)}
