"""The format of imports and exports: each line is a JSON object with one identity and its user."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_interface
from typing import IO, Annotated, Any, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from wxauth.core.services import Services
from wxauth.core.tables import UserStatus
from wxauth.errors import FieldError
from wxauth.people.bodies import Role
from wxauth.people.standing import MAX_ROLES
from wxauth.profile.bodies import AvatarUrl, Nickname
from wxauth.web import bodies
from wxauth.web.direct import invalid_request

MAX_LINE: Final = 8 * 1024
"""Bytes of a line without its line break."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
_PIECE: Final = 64 * 1024
_UUID_VERSION: Final = 7


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _text_or_none(value: object) -> object:
    # Otherwise pydantic's message about a number would ask for bytes or a UUID object, which JSON does not have.
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    return value


def _time_text(value: object) -> object:
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError("Input should be a time like 2026-11-20T08:00:00Z")
    return value


def _list_if_empty(value: object) -> object:
    return [] if value in (None, "") else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("Should be printable characters")
    return value


def _version_7(value: UUID) -> UUID:
    if value.version != _UUID_VERSION:
        raise ValueError("Should be a UUIDv7")
    return value


def _few(roles: list[str]) -> list[str]:
    folded = list(dict.fromkeys(roles))
    if len(folded) > MAX_ROLES:
        raise ValueError(f"List should have at most {MAX_ROLES} items")
    return folded


def _address(value: str) -> str:
    try:
        interface = ip_interface(value)
    except ValueError:
        raise ValueError("Should be an address") from None
    return str(interface.ip if interface.network.prefixlen == interface.max_prefixlen else interface)


OrNone = BeforeValidator(_none_if_empty)
NoneIfBlank = AfterValidator(_none_if_empty)
"""For text that is stripped: nothing may be left of it."""
Time = Annotated[bodies.Time, Field(strict=False), BeforeValidator(_time_text)]
TimeOrNone = Annotated[Time | None, OrNone]
UserId = Annotated[UUID, Field(strict=False), AfterValidator(_version_7)]
WeChatId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
ExternalId = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
ShortText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class LineOfConsent(_Strict):
    """A consent: the person has agreed to a version of a document."""

    document: ShortText
    version: ShortText
    given_at: Time
    withdrawn_at: TimeOrNone = None
    app_id: Annotated[ShortText | None, OrNone] = None
    ip: Annotated[Annotated[str, AfterValidator(_address)] | None, OrNone] = None


class Line(_Strict):
    """An identity and its user."""

    app_id: str
    openid: WeChatId
    unionid: Annotated[WeChatId | None, OrNone] = None
    user_id: Annotated[UserId | None, BeforeValidator(_text_or_none)] = None
    external_id: Annotated[ExternalId | None, OrNone] = None
    nickname: Annotated[Nickname | None, OrNone, NoneIfBlank] = None
    avatar_url: Annotated[AvatarUrl | None, OrNone, NoneIfBlank] = None
    phone: Annotated[Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{1,14}$")] | None, OrNone] = None
    roles: Annotated[Annotated[list[Role], AfterValidator(_few)] | None, OrNone] = None
    status: Annotated[UserStatus | None, OrNone] = None
    created_at: TimeOrNone = None
    """When the user was created."""
    identity_created_at: TimeOrNone = None
    last_login_at: TimeOrNone = None
    consents: Annotated[list[LineOfConsent], BeforeValidator(_list_if_empty)] = []
    former_ids: Annotated[list[Annotated[UUID, Field(strict=False)]], BeforeValidator(_list_if_empty)] = []
    former_external_ids: Annotated[list[ExternalId], BeforeValidator(_list_if_empty)] = []

    @classmethod
    def read(cls, text: bytes, services: Services) -> Self | FieldError:
        """The line, or what is wrong with it. The error never repeats the line's text."""
        try:
            return cls.__pydantic_validator__.validate_json(text, context=services)  # type: ignore[no-any-return]
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            if first["type"] in ("json_invalid", "model_type", "model_attributes_type"):
                return FieldError("line", "Not a JSON object")
            return invalid_request([first]).errors[0]


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Each line that is not blank, with its number. A line that is too long is None, and is never held whole."""
    number = 0
    while piece := file.readline(MAX_LINE + 2):
        number += 1
        text = piece.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(BOM_UTF8)  # some programs on Windows begin a file with it
        if not piece.endswith(b"\n") and len(piece) > MAX_LINE:
            while (rest := file.readline(_PIECE)) and not rest.endswith(b"\n"):
                pass
        if len(text) > MAX_LINE:
            yield number, None
        elif text.strip():
            yield number, text


def exported_line(row: Any) -> dict[str, Any]:
    """An identity as it is exported. The fields are in the order of the guide."""
    return {
        "app_id": row["app_id"],
        "openid": row["openid"],
        "unionid": row["unionid"],
        "external_id": row["external_id"],
        "nickname": row["nickname"],
        "avatar_url": row["avatar_url"],
        "phone": row["phone"],
        "roles": row["roles"],
        "status": row["status"],
        "created_at": row["created_at"],
        "last_login_at": row["last_login_at"],
        "user_id": row["user_id"],
        "identity_created_at": row["identity_created_at"],
        "consents": row["consents"] or [],
        "former_ids": row["former_ids"] or [],
        **({"former_external_ids": row["former_external_ids"]} if row["former_external_ids"] else {}),
    }


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of both times; None if there is neither."""
    return max((time for time in (one, other) if time is not None), default=None)
