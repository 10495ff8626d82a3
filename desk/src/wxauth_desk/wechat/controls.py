"""Who is in the simulated WeChat, and the requests that control it. The real WeChat has nothing like these."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Collection
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

APPS: Final = (
    {
        "app_id": "wxdev00000000000a1",
        "app_secret": "dev-secret-of-the-first-app",
        "push_token": "devPushTokenOfTheFirstApp",
    },
    {
        "app_id": "wxdev00000000000b2",
        "app_secret": "dev-secret-of-the-second-app",
        "push_token": "devPushTokenOfTheSecondApp",
        "push_aes_key": "devPushAesKeyOfTheSecondApp0000000000000000",
    },
)
LATER_APP: Final = {
    "app_id": "wxdev00000000000c3",
    "app_secret": "dev-secret-of-the-third-app",
    "push_token": "devPushTokenOfTheThirdApp",
}
"""An app that WeChat knows, but the service does not until somebody adds it."""
ACCOUNT: Final = {
    "app_id": "wxdevaccount0000d4",
    "app_secret": "dev-secret-of-the-service-account",
    "kind": "official_account",
    "push_token": "devPushTokenOfTheAccount",
}
WEBSITE: Final = {
    "app_id": "wxdevwebsite0000e5",
    "app_secret": "dev-secret-of-the-website",
    "kind": "website",
    "push_token": "devPushTokenOfTheWebsite",
}
MOBILE_APP: Final = {
    "app_id": "wxdevmobile00000f6",
    "app_secret": "dev-secret-of-the-mobile-app",
    "kind": "mobile_app",
    "push_token": "devPushTokenOfTheMobileApp",
}
OTHER_KINDS: Final = (ACCOUNT, WEBSITE, MOBILE_APP)
"""Apps that are not mini-programs. WeChat knows them, but the service does not until somebody adds them."""
BY_ID: Final = {app["app_id"]: app for app in (*APPS, LATER_APP, *OTHER_KINDS)}
SECRETS: Final = {app_id: app["app_secret"] for app_id, app in BY_ID.items()}
APP_KINDS: Final = dict.fromkeys(SECRETS, "mini_program") | {app["app_id"]: app["kind"] for app in OTHER_KINDS}
"""The kind of each app."""

_NAME: Final = re.compile(r"[^\W\d_][\w.-]{0,31}")
_RISKY: Final = re.compile(r"risky-([0-4])")
API_PATHS: Final = {
    "code2session": ("GET", "/sns/jscode2session"),
    "access_token": ("GET", "/sns/oauth2/access_token"),
    "userinfo": ("GET", "/sns/userinfo"),
    "auth": ("GET", "/sns/auth"),
    "refresh_token": ("GET", "/sns/oauth2/refresh_token"),
    "token": ("GET", "/cgi-bin/token"),
    "stable_token": ("POST", "/cgi-bin/stable_token"),
    "getuserphonenumber": ("POST", "/wxa/business/getuserphonenumber"),
    "checksession": ("GET", "/wxa/checksession"),
    "resetusersessionkey": ("GET", "/wxa/resetusersessionkey"),
    "getuserencryptkey": ("GET POST", "/wxa/business/getuserencryptkey"),
    "getuserriskrank": ("POST", "/wxa/getuserriskrank"),
    "msg_sec_check": ("POST", "/wxa/msg_sec_check"),
    "media_check_async": ("POST", "/wxa/media_check_async"),
    "getwxacodeunlimit": ("POST", "/wxa/getwxacodeunlimit"),
    "generate_urllink": ("POST", "/wxa/generate_urllink"),
    "generatescheme": ("POST", "/wxa/generatescheme"),
    "getticket": ("GET", "/cgi-bin/ticket/getticket"),
    "quota_get": ("POST", "/cgi-bin/openapi/quota/get"),
    "rid_get": ("POST", "/cgi-bin/openapi/rid/get"),
    "clear_quota": ("POST", "/cgi-bin/clear_quota/v2"),
    "clear_quota_by_token": ("POST", "/cgi-bin/clear_quota"),
    "getverifyid": ("POST", "/cityservice/face/identify/getverifyid"),
    "getbalance": ("POST", "/wxa/game/getbalance"),
    "pay": ("POST", "/wxa/game/pay"),
    "cancelpay": ("POST", "/wxa/game/cancelpay"),
    "present": ("POST", "/wxa/game/present"),
    "queryverifyinfo": ("POST", "/cityservice/face/identify/queryverifyinfo"),
}
"""The methods and the path of each API."""
FAULT_KINDS: Final = ("errcode", "slow", "status", "hang", "drop", "garbage", "html", "cut_off", "json_type")
"""The kinds of faults."""


def is_person_name(text: str) -> bool:
    """Return whether this can be a person's name."""
    return _NAME.fullmatch(text) is not None


def openid_of(person: str, app_id: str) -> str:
    """Return the person's openid in an app. All openids of an app begin alike."""
    return openid_prefix(app_id) + _digest(app_id, person)[:22]


def openid_prefix(app_id: str) -> str:
    """Return the beginning of all openids of an app."""
    return "o" + _digest(app_id)[:5]


def unionid_of(person: str) -> str:
    """Return the person's unionid, which is the same in every app."""
    return "o6_bm" + _digest(person)[:23]


def phone_number_of(person: str) -> str:
    """Return the person's own number, a Chinese one."""
    return f"138{int.from_bytes(sha256(person.encode()).digest()[:4]) % 10**8:08}"


def risk_of(person: str) -> int:
    """Return the person's risk rank, 0 to 4: 4 for `risky-4`, 0 for a name of any other form."""
    found = _RISKY.fullmatch(person)
    return int(found[1]) if found else 0


def _digest(*parts: str) -> str:
    return urlsafe_b64encode(sha256("\0".join(parts).encode()).digest()).decode()


def _check_person(value: str) -> str:
    if not is_person_name(value):
        raise ValueError("must be a plain name: a letter, then letters, digits, '_', '.', '-', 32 in all")
    return value


def _one_of(known: Collection[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be {' or '.join(known)}")
        return value

    return AfterValidator(check)


PersonName = Annotated[str, AfterValidator(_check_person)]
HttpUrl = Annotated[str, StringConstraints(pattern="^https?://[^/]")]
SimulatedAppId = Annotated[str, _one_of(SECRETS)]
Api = Annotated[str, _one_of(API_PATHS)]


class Control(BaseModel):
    """Body of a request that controls the simulated WeChat."""

    model_config = ConfigDict(extra="forbid")


class ControlOfPerson(Control):
    """A control about a person in an app."""

    person: PersonName
    app_id: SimulatedAppId = APPS[0]["app_id"]


class _CodeOfPerson(ControlOfPerson):
    busy: Annotated[int, Field(ge=0, le=100)] = 0
    """How many times the code is first answered with -1."""
    busy_burns: bool = False
    """Whether -1 spends the code. WeChat does not document this."""


class CodeRequest(_CodeOfPerson):
    """Body of `POST /codes`: a code as `wx.login` gives it or, for an app of another kind, WeChat's page or SDK."""

    has_unionid: bool = True
    """False: as for an app that is not bound to an Open Platform account."""
    scope: Literal["snsapi_base", "snsapi_userinfo", "snsapi_login"] | None = None
    """What WeChat's page was asked for; `snsapi_base` gives no unionid. By default, as its kind is."""
    snapshot: Literal["shown", "hidden", "false_alarm"] | None = None
    """shown: a made-up person, marked so; hidden: one not marked; false_alarm: a real person marked as made up."""


class Visitor(ControlOfPerson):
    """Body of `POST /visitors`: the state of a person at WeChat's page of an app."""

    app_id: SimulatedAppId
    is_bound: bool = True
    """False: WeChat gives no unionid, as for an app that is not bound to an Open Platform account."""
    follows: bool = False
    """Whether the person follows the account: then a page opened in WeChat logs in without a question."""
    snapshot: Literal["on", "hidden_once", "false_alarm"] | None = None
    """Always a snapshot; a snapshot whose made-up person is not marked the first time; a real person marked as made
    up."""
    refusal: Literal["stays", "returns"] = "stays"
    """Whether a refusal redirects to the site, with `state` but without a code. Mostly it stays on WeChat's page."""
    comes_twice: Annotated[float, Field(ge=0, le=15)] | None = None
    """Seconds after which the browsers on the desk repeat the callback."""


class PhoneCodeRequest(_CodeOfPerson):
    """Body of `POST /phone-codes`: a code as the phone button gives it."""

    phone: str | None = None
    """A Chinese number, or one with `+` and the country code. By default, the person's own."""
    watermark_app_id: str | None = None
    """The app in the answer's watermark. By default, the app of the code."""


class SealRequest(ControlOfPerson):
    """Body of `POST /encrypted-data`: data to sign and to encrypt with the session_key, as `wx` does."""

    code: str | None = None
    """The code of `POST /codes` whose session_key it is, for a back end that gets both at once. By default, the
    session_key is that of the last login."""
    data: dict[str, Any]
    """The data. A current watermark is added, unless the data has one."""


class FaceRequest(Control):
    """Body of `POST /faces`: the end of `wx.requestFacialVerify` on the phone."""

    verify_id: str
    verify_ret: int = 10000
    """Recognised; 90004: cancelled; 10004: another person's face."""


class FaultRequest(Control):
    """Body of `POST /faults`: how the next calls of an API fail."""

    api: Api
    app_id: SimulatedAppId | None = None
    """The app whose calls fail. By default, every app's."""
    times: Annotated[int, Field(ge=1)] | None = 1
    """How many calls fail; null: all, until `DELETE /faults`."""
    work_is_done: bool = False
    """Whether WeChat does the work, and spends the code, before the answer fails."""
    errcode: int | None = None
    slow: Annotated[float, Field(ge=0, le=60)] | None = None
    """Seconds before the right answer."""
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    hang: Literal[True] | None = None
    """No answer, ever."""
    drop: Literal[True] | None = None
    """The connection is closed without an answer."""
    garbage: Literal[True] | None = None
    html: Literal[True] | None = None
    cut_off: Literal[True] | None = None
    """Only the first half of the right answer is sent."""
    json_type: Literal[True] | None = None
    """The right answer, even a picture, with the Content-Type of JSON."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if len([kind for kind in FAULT_KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"must be one of {', '.join(FAULT_KINDS)}")
        return self


class Account(Control):
    """Body of `POST /accounts`: the state of an app at WeChat."""

    model_config = ConfigDict(validate_assignment=True)

    app_id: SimulatedAppId = APPS[0]["app_id"]
    is_whitelisted: bool = True
    """False: the caller's address is not on the IP whitelist, 40164. A service account's binds every call: 61004."""
    is_frozen: bool = False
    """Whether the app secret is frozen, 40243."""
    has_unionids: bool = True
    denied: frozenset[Api] = frozenset()
    """The APIs that the account may not use, 48001."""
    openid_check: Literal["on", "ignored", "refused"] = "on"
    """How getuserphonenumber treats an openid. An account that may not send one gets 47001 (`refused`)."""
    country_code: Literal["text", "number"] = "text"
    """The type of the country code. WeChat has sent both `"86"` and 86."""
    daily_quota: dict[Api, int] = Field(default_factory=dict)
    """Calls allowed per day, by API. Further ones get 45009."""
    callback_domains: frozenset[str] = frozenset({"127.0.0.1", "localhost"})
    """The hosts to which WeChat's page may redirect browsers. Any other gets 10003."""
    pages: frozenset[str] = frozenset({"pages/index/index", "pages/scan/scan"})
    """The pages of the published version."""
    push_url: HttpUrl | None = None
    """Where messages are pushed to, as set in WeChat's console. By default, to wxauth beside this WeChat."""
    push_format: Literal["json", "xml"] = "json"
    """The format of the notices about payments."""
    picture_verdict: Literal["pass", "review", "risky"] | None = "pass"
    """The verdict on each picture, which is pushed to the service; null: none is ever sent."""
