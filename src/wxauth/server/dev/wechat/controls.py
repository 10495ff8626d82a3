"""Requests that control the simulator. The real WeChat has nothing like them."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from wxauth.server.dev.wechat.people import APPS, SECRETS, is_person_name

Api = Literal[
    "code2session",
    "access_token",
    "stable_token",
    "getuserphonenumber",
    "checksession",
    "resetusersessionkey",
    "getuserriskrank",
    "msg_sec_check",
    "media_check_async",
    "getwxacodeunlimit",
    "generate_urllink",
    "quota_get",
    "rid_get",
    "clear_quota",
]
FAULT_KINDS: Final = ("errcode", "slow", "status", "hang", "drop", "garbage", "html", "cut_off", "json_type")
"""The kinds of faults."""


def _check_person(value: str) -> str:
    if not is_person_name(value):
        raise ValueError("must be a plain name: a letter, then letters, digits, '_', '.', '-', 32 in all")
    return value


def _check_app_id(value: str) -> str:
    if value not in SECRETS:
        raise ValueError(f"must be {' or '.join(SECRETS)}")
    return value


PersonName = Annotated[str, AfterValidator(_check_person)]
SimulatedAppId = Annotated[str, AfterValidator(_check_app_id)]


class _Control(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _CodeOfPerson(_Control):
    person: PersonName
    app_id: SimulatedAppId = APPS[0]["app_id"]
    busy: Annotated[int, Field(ge=0, le=100)] = 0
    """How many times the code is first answered with -1."""
    busy_burns: bool = False
    """Whether -1 spends the code. WeChat does not document this."""


class CodeRequest(_CodeOfPerson):
    """Body of `POST /codes`: a code as `wx.login` gives it or, for an app of another kind, WeChat's page or SDK."""

    has_unionid: bool = True
    """False: as for an app that is not bound to an Open Platform account."""
    snapshot: Literal["shown", "hidden", "false_alarm"] | None = None
    """shown: a made-up person, marked so; hidden: one not marked; false_alarm: a real person marked as made up."""


class Visitor(_Control):
    """Body of `POST /visitors`: the state of a person at WeChat's page of an app."""

    person: PersonName
    app_id: SimulatedAppId
    is_bound: bool = True
    """False: WeChat gives no unionid, as for an app that is not bound to an Open Platform account."""
    follows: bool = False
    """Whether the person follows the account: then a page opened in WeChat logs in without a question."""
    snapshot: Literal["on", "hidden_once", "false_alarm"] | None = None
    """Always a snapshot; a snapshot whose made-up person is not marked the first time; a real person marked as made
    up."""
    refusal: Literal["stays", "returns"] = "stays"
    """Whether a refusal leads back to the site, with `state` but without a code. Mostly it stays on WeChat's page."""
    comes_twice: Annotated[float, Field(ge=0, le=15)] | None = None
    """Seconds after which the browsers on the desk repeat the callback."""


class PhoneCodeRequest(_CodeOfPerson):
    """Body of `POST /phone-codes`: a code as the phone button gives it."""

    phone: str | None = None
    """A Chinese number, or one with `+` and the country code. By default, the person's own."""
    watermark_app_id: str | None = None
    """The app in the answer's watermark. By default, the app of the code."""


class SealRequest(_Control):
    """Body of `POST /encrypted-data`: data to seal with the session_key of the last login, as `wx` does."""

    person: PersonName
    app_id: SimulatedAppId = APPS[0]["app_id"]
    data: dict[str, Any]
    """The data. A current watermark is added, unless the data has one."""


class FaultRequest(_Control):
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


class Account(_Control):
    """Body of `POST /accounts`: the state of an app at WeChat."""

    model_config = ConfigDict(validate_assignment=True)

    app_id: SimulatedAppId = APPS[0]["app_id"]
    is_whitelisted: bool = True
    """False: the caller's address is not on the IP whitelist, 40164."""
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
    push_format: Literal["json", "xml"] = "json"
    """The format of the notices about payments."""
    picture_verdict: Literal["pass", "review", "risky"] | None = "pass"
    """The verdict on each picture, which is pushed to the service; null: none ever comes."""
