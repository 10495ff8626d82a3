"""The format of imports and exports: each line is a JSON object with one identity and its user."""

from datetime import datetime
from ipaddress import ip_interface
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)

from wxauth.errors import UnknownApp
from wxauth.server.apps.registry import Apps
from wxauth.server.core.services import Services
from wxauth.server.core.users import MAX_ROLES, UserStatus
from wxauth.server.moving.faults import EXPECTED, NOT_JSON, Fault
from wxauth.server.profile.bodies import AvatarUrl, Nickname
from wxauth.server.users.bodies import Reason, Role
from wxauth.server.web import bodies
from wxauth.server.wechat.wechat_ids import is_placeholder

_ZERO_DATE: Final = "0000-00-00"
_UUID_VERSION: Final = 7


# The messages of these errors are never shown: `EXPECTED` has a sentence for each field.


def _known_app(value: str, info: ValidationInfo) -> str:
    services: Any = info.context
    try:
        services[Apps].known(value)
    except UnknownApp:
        raise ValueError("unknown") from None
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _time_or_none(value: object) -> object:
    """A time as text, or None. MySQL writes zeros for a missing date."""
    is_none = value in (None, "") or (isinstance(value, str) and value.startswith(_ZERO_DATE))
    return None if is_none else value


def _list_if_empty(value: object) -> object:
    return [] if value in (None, "") else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("not printable")
    return value


def _no_placeholder(value: str) -> str:
    if is_placeholder(value):
        raise ValueError("a placeholder")
    return value


def _version_7(value: UUID) -> UUID:
    if value.version != _UUID_VERSION:
        raise ValueError("not a UUIDv7")
    return value


def _few(roles: list[str]) -> list[str]:
    folded = list(dict.fromkeys(roles))
    if len(folded) > MAX_ROLES:
        raise ValueError("too many")
    return folded


def _address(value: str) -> str:
    interface = ip_interface(value)
    return str(interface.ip if interface.network.prefixlen == interface.max_prefixlen else interface)


OrNone = BeforeValidator(_none_if_empty)
NoneIfBlank = AfterValidator(_none_if_empty)
"""For text that is stripped and may end up empty."""
Time = Annotated[bodies.Time, Field(strict=False)]
TimeOrNone = Annotated[Time | None, BeforeValidator(_time_or_none)]
UserId = Annotated[UUID, Field(strict=False), AfterValidator(_version_7)]
Openid = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$"), AfterValidator(_no_placeholder)]
Unionid = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{24,36}$"), AfterValidator(_no_placeholder)]
ExternalId = Annotated[
    str, Field(min_length=1, max_length=128), AfterValidator(_printable), AfterValidator(_no_placeholder)
]
ShortText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class LineOfConsent(_Strict):
    """A consent: the person has agreed to a version of a document."""

    document: ShortText
    version: ShortText
    given_at: Annotated[Time, BeforeValidator(_time_or_none)]
    withdrawn_at: TimeOrNone = None
    app_id: Annotated[ShortText | None, OrNone] = None
    ip: Annotated[Annotated[str, AfterValidator(_address)] | None, OrNone] = None


class Line(_Strict):
    """An identity and its user."""

    app_id: Annotated[str, AfterValidator(_known_app)]
    openid: Openid
    unionid: Annotated[Unionid | None, OrNone] = None
    user_id: Annotated[UserId | None, OrNone] = None
    external_id: Annotated[ExternalId | None, OrNone] = None
    nickname: Annotated[Nickname | None, OrNone, NoneIfBlank] = None
    avatar_url: Annotated[AvatarUrl | None, OrNone, NoneIfBlank] = None
    phone: Annotated[Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{1,14}$")] | None, OrNone] = None
    roles: Annotated[Annotated[list[Role], AfterValidator(_few)] | None, OrNone] = None
    status: Annotated[UserStatus | None, OrNone] = None
    ban_reason: Annotated[Reason | None, OrNone] = None
    banned_until: TimeOrNone = None
    created_at: TimeOrNone = None
    """When the user was created."""
    identity_created_at: TimeOrNone = None
    last_login_at: TimeOrNone = None
    consents: Annotated[list[LineOfConsent], BeforeValidator(_list_if_empty)] = []
    former_ids: Annotated[list[Annotated[UUID, Field(strict=False)]], BeforeValidator(_list_if_empty)] = []
    former_external_ids: Annotated[list[ExternalId], BeforeValidator(_list_if_empty)] = []

    @classmethod
    def read(cls, text: bytes, services: Services) -> Self | list[Fault]:
        """The line, or all its faults."""
        try:
            return cls.__pydantic_validator__.validate_json(text, context=services)  # type: ignore[no-any-return]
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False, include_input=False)
        if not errors[0]["loc"]:
            return [NOT_JSON]
        fields = [".".join(part for part in error["loc"] if isinstance(part, str)) for error in errors]
        return [Fault(field, EXPECTED[field]) for field in dict.fromkeys(fields)]


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two times; None if both are None."""
    return max((time for time in (one, other) if time is not None), default=None)
