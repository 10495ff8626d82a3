"""What can be asked of the simulator that cannot be asked of WeChat."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from wxauth.dev.wechat.people import APPS, SECRETS, is_name

Api = Literal[
    "code2session",
    "stable_token",
    "getuserphonenumber",
    "checksession",
    "resetusersessionkey",
    "getuserriskrank",
    "msg_sec_check",
    "getwxacodeunlimit",
]
KINDS: Final = ("errcode", "slow", "status", "hang", "drop", "garbage", "html", "cut_off", "json_type")
"""Of faults."""


def _check_person(value: str) -> str:
    if not is_name(value):
        raise ValueError("wants a plain name: a letter, then letters, digits, '_', '.', '-', 32 in all")
    return value


def _check_app_id(value: str) -> str:
    if value not in SECRETS:
        raise ValueError(f"wants {' or '.join(SECRETS)}")
    return value


Person = Annotated[str, AfterValidator(_check_person)]
AppId = Annotated[str, AfterValidator(_check_app_id)]


class _Control(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _CodeOfPerson(_Control):
    person: Person
    app_id: AppId = APPS[0]["app_id"]
    busy: Annotated[int, Field(ge=0, le=100)] = 0
    """So many times the code is answered with -1 first."""
    busy_burns: bool = False
    """Whether that spends it; what WeChat does is not settled."""


class CodeRequest(_CodeOfPerson):
    """What `POST /codes` takes: a code as `wx.login` gives it."""

    has_unionid: bool = True
    """False is an app that is not bound to an Open Platform account."""


class PhoneCodeRequest(_CodeOfPerson):
    """What `POST /phone-codes` takes: a code as the phone button gives it."""

    phone: str | None = None
    """In China, or with `+` and the country's number; the person's own, if none is given."""
    watermark_app_id: str | None = None
    """The app that the answer says it is for, if not the right one."""


class SealRequest(_Control):
    """What `POST /encrypted-data` takes: what `wx` seals with the session_key of the last login."""

    person: Person
    app_id: AppId = APPS[0]["app_id"]
    data: dict[str, Any]
    """Gets a watermark of now, unless it brings one."""


class FaultRequest(_Control):
    """What `POST /faults` takes: how the next calls of an API go wrong."""

    api: Api
    app_id: AppId | None = None
    """Whose calls; everybody's, if none is given."""
    times: Annotated[int, Field(ge=1)] | None = 1
    """For so many calls; null is until `DELETE /faults`."""
    work_is_done: bool = False
    """Whether WeChat has done what was asked, spent the code, and only the answer goes wrong."""
    errcode: int | None = None
    slow: Annotated[float, Field(ge=0, le=60)] | None = None
    """Seconds, then the right answer."""
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    hang: Literal[True] | None = None
    """No answer, ever."""
    drop: Literal[True] | None = None
    """The connection closes."""
    garbage: Literal[True] | None = None
    html: Literal[True] | None = None
    cut_off: Literal[True] | None = None
    """The right answer's first half."""
    json_type: Literal[True] | None = None
    """The right answer, a picture too, that says it is JSON."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if len([kind for kind in KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"wants one of {', '.join(KINDS)}")
        return self


class Account(_Control):
    """What `POST /accounts` takes: how an app stands with WeChat."""

    model_config = ConfigDict(validate_assignment=True)

    app_id: AppId = APPS[0]["app_id"]
    is_whitelisted: bool = True
    """False: a caller's address is not on the list, 40164."""
    is_frozen: bool = False
    """The secret, 40243."""
    has_unionids: bool = True
    denied: frozenset[Api] = frozenset()
    """What the account may not use, 48001."""
    openid_check: Literal["on", "ignored", "refused"] = "on"
    """What becomes of the openid at getuserphonenumber: not every account may send it, and then gets 47001."""
    country_code: Literal["text", "number"] = "text"
    """WeChat has sent both `"86"` and 86."""
    daily_quota: dict[Api, int] = Field(default_factory=dict)
    """Of calls, then 45009."""
    pages: frozenset[str] = frozenset({"pages/index/index", "pages/scan/scan"})
    """Those of the published version."""
