"""The apps and APIs in the simulated WeChat, and the requests that control it, which `about.txt` describes."""

from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from wxauth_desk.i18n import lazy_gettext as _
from wxauth_desk.wechat.people import is_person_name

# `wxauth-desk dev` puts these mini-programs into the service's settings. A mini-program gets encrypted messages only if
# it has a `push_aes_key`.
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
# The service does not know this mini-program until an administrator adds it.
LATER_APP: Final = {
    "app_id": "wxdev00000000000c3",
    "app_secret": "dev-secret-of-the-third-app",
    "push_token": "devPushTokenOfTheThirdApp",
}
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
# The service does not know the mobile app until an administrator adds it.
MOBILE_APP: Final = {
    "app_id": "wxdevmobile00000f6",
    "app_secret": "dev-secret-of-the-mobile-app",
    "kind": "mobile_app",
    "push_token": "devPushTokenOfTheMobileApp",
}
OTHER_APPS: Final = (ACCOUNT, WEBSITE, MOBILE_APP)
# The desk shows these titles, and `wxauth-desk dev` puts those of the apps that the service knows into its settings.
APP_TITLES: Final = {
    APPS[0]["app_id"]: _("Example Shop"),
    APPS[1]["app_id"]: _("Example Bookshop"),
    LATER_APP["app_id"]: _("Example Teahouse"),
    ACCOUNT["app_id"]: _("Example Account"),
    WEBSITE["app_id"]: _("Example Website"),
}
APPS_BY_ID: Final = {app["app_id"]: app for app in (*APPS, LATER_APP, *OTHER_APPS)}
SECRETS: Final = {app_id: app["app_secret"] for app_id, app in APPS_BY_ID.items()}
APP_KINDS: Final = dict.fromkeys(SECRETS, "mini_program") | {app["app_id"]: app["kind"] for app in OTHER_APPS}


class Endpoint(NamedTuple):
    methods: str  # separated by spaces
    path: str


ENDPOINTS: Final = {  # by the name of the API in this simulation
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
# A `FaultRequest` must set exactly one of these fields.
FAULT_KINDS: Final = ("errcode", "slow", "status", "hang", "drop", "garbage", "html", "cut_off", "json_type")


def _check_person(value: str) -> str:
    if not is_person_name(value):
        raise ValueError("must be a plain name: a letter, then letters, digits, '_', '.', '-', 32 in all")
    return value


def _one_of(choices: Collection[str]) -> AfterValidator:
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
    # This many exchanges of the code fail with the errcode -1 (busy) before one can succeed.
    busy: Annotated[int, Field(ge=0, le=100)] = 0
    # If set, a busy exchange uses up the code. WeChat does not document what happens.
    busy_burns: bool = False


class CodeRequest(_CodeOfPerson):
    """The body of `POST /codes`: a code of `wx.login` or, for an app of another kind, of WeChat's page or SDK."""

    has_unionid: bool = True  # if `AppState.has_unionids` allows it
    # By default, the scope is `snsapi_login` for a website, and `snsapi_userinfo` for a service account or a mobile
    # app. With `snsapi_base`, WeChat returns no unionid.
    scope: Literal["snsapi_base", "snsapi_userinfo", "snsapi_login"] | None = None
    # With `shown`, WeChat returns an invented person, and marks them as invented. With `hidden`, WeChat does not mark
    # them. With `false_alarm`, WeChat marks a real person as invented.
    snapshot: Literal["shown", "hidden", "false_alarm"] | None = None


class Visitor(ControlOfPerson):
    """The body of `POST /visitors`, which sets the state of a person on WeChat's page of an app."""

    app_id: SimulatedAppId
    is_bound: bool = True  # becomes `CodeRequest.has_unionid` of the codes of WeChat's page
    # If set, WeChat's own browser logs in the person, who follows the account, without a question.
    follows: bool = False
    # With `on`, each code has the snapshot `shown` of `CodeRequest`. With `hidden_once`, the first code has `hidden`.
    snapshot: Literal["on", "hidden_once", "false_alarm"] | None = None
    # After a refusal, the browser usually stays on WeChat's page. With `returns`, it is redirected without a code.
    refusal: Literal["stays", "returns"] = "stays"
    # After this many seconds, the browsers on the desk send the callback again.
    comes_twice: Annotated[float, Field(ge=0, le=15)] | None = None


class PhoneCodeRequest(_CodeOfPerson):
    """The body of `POST /phone-codes`, which makes a code of the phone button."""

    # The number is Chinese, or begins with `+` and a country code. By default, it is the person's own.
    phone: str | None = None
    watermark_app_id: str | None = None  # by default, the app of the code


class SealRequest(ControlOfPerson):
    """The body of `POST /encrypted-data`, with data that the simulated WeChat signs and encrypts with a session_key."""

    # A code from `POST /codes` is for a back end that gets code and data in one request. By default, the last login
    # counts.
    code: str | None = None
    data: dict[str, Any]  # gets a current watermark if it contains none


class FaceRequest(Control):
    """The body of `POST /faces`, which ends `wx.requestFacialVerify` on the phone."""

    verify_id: str
    # 10000 is a recognized face, 90004 a cancellation, and 10004 another person's face.
    verify_ret: int = 10000


class FaultRequest(Control):
    """The body of `POST /faults`, which makes the next calls to an API fail."""

    api: Api
    app_id: SimulatedAppId | None = None  # by default, the calls of all apps fail
    times: Annotated[int, Field(ge=1)] | None = 1  # null for all calls until `DELETE /faults`
    # If set, WeChat carries out the call, and uses up the code, before the response fails.
    work_is_done: bool = False
    errcode: int | None = None
    slow: Annotated[float, Field(ge=0, le=60)] | None = None  # seconds before the right response
    status: Annotated[int, Field(ge=200, le=599)] | None = None  # with an empty body
    hang: Literal[True] | None = None
    drop: Literal[True] | None = None
    garbage: Literal[True] | None = None  # a text that is not JSON
    html: Literal[True] | None = None  # a web page, as by a proxy whose back end is down
    cut_off: Literal[True] | None = None  # only the first half of the right response
    # The right response, even a picture, gets the Content-Type of JSON.
    json_type: Literal[True] | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if len([kind for kind in FAULT_KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"must set exactly one of {', '.join(FAULT_KINDS)}")
        return self


class AppState(Control):
    """The body of `POST /accounts`, which sets the state of an app in WeChat.

    The simulator stores the state in an object of this class. A request changes only the fields that it contains.
    """

    model_config = ConfigDict(validate_assignment=True)  # the callers of `Simulator.account` assign fields

    app_id: SimulatedAppId = APPS[0]["app_id"]
    # From an address that is not whitelisted, requests for an access token of the app, and `clear_quota`, fail with
    # 40164. For a service account, logins also fail with 40164, and calls with an access token of the app with 61004.
    is_whitelisted: bool = True
    is_frozen: bool = False  # calls with the app's secret fail with 40243
    has_unionids: bool = True  # whether the app is bound to an Open Platform account
    # Calls to these APIs fail with 48001. Only an API that is called with an access token of the app can be denied.
    denied: frozenset[Api] = frozenset()
    # getuserphonenumber compares its openid with that of the code's owner, does not read it, or fails with 47001.
    openid_check: Literal["on", "ignored", "refused"] = "on"
    # WeChat has sent both `"86"` and 86.
    country_code: Literal["text", "number"] = "text"
    # Further calls of a day get 45009 or, for `getuserriskrank`, 9410009.
    daily_quota: dict[Api, int] = Field(default_factory=dict)
    # For any other host, WeChat's page shows the error 10003.
    callback_domains: frozenset[str] = frozenset({"127.0.0.1", "localhost"})
    pages: frozenset[str] = frozenset({"pages/index/index", "pages/scan/scan"})  # of the published version
    push_url: HttpUrl | None = None  # by default, the URL of the service
    push_format: Literal["json", "xml"] = "json"  # only of the notices about payments
    picture_verdict: Literal["pass", "review", "risky"] | None = "pass"  # null if no verdict is ever sent
