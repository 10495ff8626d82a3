"""The apps and APIs in the simulated WeChat, and the requests that control it.

The real WeChat has no such requests.
"""

from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from wxauth_desk.wechat.people import is_person_name

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
"""The mini-programs that `wxauth-desk dev` puts into the service's settings.

Only the second mini-program gets encrypted messages, because it has a `push_aes_key`.
"""
LATER_APP: Final = {
    "app_id": "wxdev00000000000c3",
    "app_secret": "dev-secret-of-the-third-app",
    "push_token": "devPushTokenOfTheThirdApp",
}
"""An app of the simulated WeChat. The service does not know it until an administrator adds it."""
ACCOUNT: Final = {
    "app_id": "wxdevaccount0000d4",
    "app_secret": "dev-secret-of-the-service-account",
    "kind": "official_account",
    "push_token": "devPushTokenOfTheAccount",
}
"""A service account, which is an app of the kind `official_account`.

The class `Account` is something else: the state of an app of any kind.
"""
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
OTHER_APPS: Final = (ACCOUNT, WEBSITE, MOBILE_APP)
"""The apps that are not mini-programs.

`wxauth-desk dev` puts the service account and the website into the service's settings. The service does not know the
mobile app until an administrator adds it.
"""
APPS_BY_ID: Final = {app["app_id"]: app for app in (*APPS, LATER_APP, *OTHER_APPS)}
"""All apps of the simulated WeChat, by their ids."""
SECRETS: Final = {app_id: app["app_secret"] for app_id, app in APPS_BY_ID.items()}
"""The app secret of each app, by the app's id."""
APP_KINDS: Final = dict.fromkeys(SECRETS, "mini_program") | {app["app_id"]: app["kind"] for app in OTHER_APPS}
"""The kind of each app, by the app's id."""


class Endpoint(NamedTuple):
    """The path of an API on WeChat's host, and the HTTP methods that the API accepts."""

    methods: str
    """The methods, separated by spaces."""
    path: str


ENDPOINTS: Final = {
    "code2session": Endpoint("GET", "/sns/jscode2session"),
    "access_token": Endpoint("GET", "/sns/oauth2/access_token"),
    "userinfo": Endpoint("GET", "/sns/userinfo"),
    "auth": Endpoint("GET", "/sns/auth"),
    "refresh_token": Endpoint("GET", "/sns/oauth2/refresh_token"),
    "token": Endpoint("GET", "/cgi-bin/token"),
    "stable_token": Endpoint("POST", "/cgi-bin/stable_token"),
    "getuserphonenumber": Endpoint("POST", "/wxa/business/getuserphonenumber"),
    "checksession": Endpoint("GET", "/wxa/checksession"),
    "resetusersessionkey": Endpoint("GET", "/wxa/resetusersessionkey"),
    "getuserencryptkey": Endpoint("GET POST", "/wxa/business/getuserencryptkey"),
    "getuserriskrank": Endpoint("POST", "/wxa/getuserriskrank"),
    "msg_sec_check": Endpoint("POST", "/wxa/msg_sec_check"),
    "media_check_async": Endpoint("POST", "/wxa/media_check_async"),
    "getwxacodeunlimit": Endpoint("POST", "/wxa/getwxacodeunlimit"),
    "generate_urllink": Endpoint("POST", "/wxa/generate_urllink"),
    "generatescheme": Endpoint("POST", "/wxa/generatescheme"),
    "getticket": Endpoint("GET", "/cgi-bin/ticket/getticket"),
    "quota_get": Endpoint("POST", "/cgi-bin/openapi/quota/get"),
    "rid_get": Endpoint("POST", "/cgi-bin/openapi/rid/get"),
    "clear_quota": Endpoint("POST", "/cgi-bin/clear_quota/v2"),
    "clear_quota_by_token": Endpoint("POST", "/cgi-bin/clear_quota"),
    "getverifyid": Endpoint("POST", "/cityservice/face/identify/getverifyid"),
    "queryverifyinfo": Endpoint("POST", "/cityservice/face/identify/queryverifyinfo"),
    "getbalance": Endpoint("POST", "/wxa/game/getbalance"),
    "pay": Endpoint("POST", "/wxa/game/pay"),
    "cancelpay": Endpoint("POST", "/wxa/game/cancelpay"),
    "present": Endpoint("POST", "/wxa/game/present"),
}
"""The endpoint of each API, by the API's name in this simulation."""
FAULT_KINDS: Final = ("errcode", "slow", "status", "hang", "drop", "garbage", "html", "cut_off", "json_type")
"""The fields of `FaultRequest` that choose the kind of a fault. A request must set exactly one of them."""


def _check_person(value: str) -> str:
    if not is_person_name(value):
        raise ValueError("must be a plain name: a letter, then letters, digits, '_', '.', '-', 32 in all")
    return value


def _one_of(choices: Collection[str]) -> AfterValidator:
    """Return a validator that accepts only these texts."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return value

    return AfterValidator(check)


PersonName = Annotated[str, AfterValidator(_check_person)]
HttpUrl = Annotated[str, StringConstraints(pattern="^https?://[^/]")]
SimulatedAppId = Annotated[str, _one_of(SECRETS)]
Api = Annotated[str, _one_of(ENDPOINTS)]


class Control(BaseModel):
    """The body of a request that controls the simulated WeChat."""

    model_config = ConfigDict(extra="forbid")


class ControlOfPerson(Control):
    """The body of a request that controls the simulated WeChat, and concerns a person in an app."""

    person: PersonName
    app_id: SimulatedAppId = APPS[0]["app_id"]


class _CodeOfPerson(ControlOfPerson):
    """The body of a request that makes a single-use code for a person in an app."""

    busy: Annotated[int, Field(ge=0, le=100)] = 0
    """The number of exchanges of the code that fail with the errcode -1 (busy) before one can succeed."""
    busy_burns: bool = False
    """Whether an exchange that fails with -1 uses up the code. WeChat does not document what happens."""


class CodeRequest(_CodeOfPerson):
    """The body of `POST /codes`, which makes a login code.

    For a mini-program, it is a code of `wx.login`. For any other app, it is a code of WeChat's page or SDK.
    """

    has_unionid: bool = True
    """Whether WeChat returns a unionid for this code, if `Account.has_unionids` allows it for the app."""
    scope: Literal["snsapi_base", "snsapi_userinfo", "snsapi_login"] | None = None
    """The scope that the site requested from WeChat's page.

    By default, it is `snsapi_login` for a website, and `snsapi_userinfo` for a service account or a mobile app. With
    `snsapi_base`, WeChat returns no unionid.
    """
    snapshot: Literal["shown", "hidden", "false_alarm"] | None = None
    """The effect of WeChat's snapshot mode on the login.

    With `shown`, WeChat returns an invented person, and marks them as invented. With `hidden`, WeChat does not mark the
    invented person. With `false_alarm`, WeChat marks a real person as invented. By default, WeChat returns the real
    person without a mark.
    """


class Visitor(ControlOfPerson):
    """The body of `POST /visitors`, which sets the state of a person on WeChat's page of an app."""

    app_id: SimulatedAppId
    is_bound: bool = True
    """Whether WeChat returns a unionid for this person, if `Account.has_unionids` allows it for the app.

    The codes of WeChat's page get this value as `CodeRequest.has_unionid`.
    """
    follows: bool = False
    """Whether the person follows the account, so that WeChat's own browser logs them in without a question."""
    snapshot: Literal["on", "hidden_once", "false_alarm"] | None = None
    """The effect of WeChat's snapshot mode.

    With `on`, WeChat always returns an invented person, and marks them as invented. With `hidden_once`, WeChat does not
    mark them the first time. With `false_alarm`, WeChat marks the real person as invented.
    """
    refusal: Literal["stays", "returns"] = "stays"
    """The page that the browser shows after the person has refused.

    With `stays`, which is usual, the browser stays on WeChat's page. With `returns`, WeChat redirects the browser to
    the site, with `state` but without a code.
    """
    comes_twice: Annotated[float, Field(ge=0, le=15)] | None = None
    """The number of seconds after which the browsers on the desk send the callback again; null if they send it once."""


class PhoneCodeRequest(_CodeOfPerson):
    """The body of `POST /phone-codes`, which makes a code of the phone button."""

    phone: str | None = None
    """A Chinese number, or a number with `+` and its country code; by default, the person's own number."""
    watermark_app_id: str | None = None
    """The app in the response's watermark; by default, the app of the code."""


class SealRequest(ControlOfPerson):
    """The body of `POST /encrypted-data`, with data that the simulated WeChat signs and encrypts with a session_key."""

    code: str | None = None
    """The code of `POST /codes` whose session_key is used, for a back end that gets code and data in one request.

    By default, the session_key of the last login is used.
    """
    data: dict[str, Any]
    """The data. If it contains no watermark, a current watermark is added."""


class FaceRequest(Control):
    """The body of `POST /faces`, which ends `wx.requestFacialVerify` on the phone."""

    verify_id: str
    verify_ret: int = 10000
    """The result. 10000 is a recognized face, 90004 a cancellation, and 10004 another person's face."""


class FaultRequest(Control):
    """The body of `POST /faults`, which makes the next calls to an API fail."""

    api: Api
    app_id: SimulatedAppId | None = None
    """The app whose calls fail. By default, the calls of all apps fail."""
    times: Annotated[int, Field(ge=1)] | None = 1
    """The number of calls that fail; null for all calls until `DELETE /faults`."""
    work_is_done: bool = False
    """Whether WeChat carries out the call, and uses up the code, before the response fails."""
    errcode: int | None = None
    """The errcode that is returned."""
    slow: Annotated[float, Field(ge=0, le=60)] | None = None
    """The time, in seconds, before the right response is sent."""
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    """The HTTP status that is returned, with an empty body."""
    hang: Literal[True] | None = None
    """Whether no response is ever sent."""
    drop: Literal[True] | None = None
    """Whether the connection is closed without a response."""
    garbage: Literal[True] | None = None
    """Whether the response is a text that is not JSON."""
    html: Literal[True] | None = None
    """Whether a web page is returned, as by a proxy whose back end is down."""
    cut_off: Literal[True] | None = None
    """Whether only the first half of the right response is sent."""
    json_type: Literal[True] | None = None
    """Whether the right response, even a picture, gets the Content-Type of JSON."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if len([kind for kind in FAULT_KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"must be one of {', '.join(FAULT_KINDS)}")
        return self


class Account(Control):
    """The body of `POST /accounts`, which sets the state of an app in WeChat.

    The simulator stores the state in an object of this class. A request changes only the fields that it contains.
    """

    model_config = ConfigDict(validate_assignment=True)  # the callers of `Simulator.account` assign fields

    app_id: SimulatedAppId = APPS[0]["app_id"]
    is_whitelisted: bool = True
    """Whether the caller's IP address is on the whitelist.

    If not, requests for an access token of the app, and `clear_quota`, fail with 40164. For a service account, logins
    also fail with 40164, and calls with an access token of the app fail with 61004.
    """
    is_frozen: bool = False
    """Whether the app secret is frozen (40243)."""
    has_unionids: bool = True
    """Whether the app is bound to an Open Platform account, so that WeChat returns unionids."""
    denied: frozenset[Api] = frozenset()
    """The APIs that refuse the account's calls with 48001. Only APIs that are called with an access token can do so."""
    openid_check: Literal["on", "ignored", "refused"] = "on"
    """The handling of the openid in a call to getuserphonenumber.

    With `on`, WeChat compares it with the openid of the code's owner. With `ignored`, WeChat does not read it. With
    `refused`, a call with an openid fails with 47001.
    """
    country_code: Literal["text", "number"] = "text"
    """The type of the country code. WeChat has sent both `"86"` and 86."""
    daily_quota: dict[Api, int] = Field(default_factory=dict)
    """The number of calls allowed per day, by API. Further calls get 45009 or, for `getuserriskrank`, 9410009."""
    callback_domains: frozenset[str] = frozenset({"127.0.0.1", "localhost"})
    """The hosts to which WeChat's page may redirect browsers. For any other host, the page shows the error 10003."""
    pages: frozenset[str] = frozenset({"pages/index/index", "pages/scan/scan"})
    """The pages of the published version."""
    push_url: HttpUrl | None = None
    """The URL to which messages are pushed, as set in WeChat's console; by default, the URL of the service."""
    push_format: Literal["json", "xml"] = "json"
    """The format of the notices about payments. It does not change the format of other messages."""
    picture_verdict: Literal["pass", "review", "risky"] | None = "pass"
    """The verdict on each picture, which is pushed to the service; null if no verdict is ever sent."""
