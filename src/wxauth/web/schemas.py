"""The types, examples and base classes that the schemas of all packages share."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, ClassVar, Final, Unpack
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticUseDefault

from wxauth.i18n import Text

TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$"  # without control characters, of which PostgreSQL refuses NUL
StoredText = Annotated[str, StringConstraints(pattern=TEXT_PATTERN)]

# The ids of one login, which most examples of the API documentation show.
EXAMPLE_APP_ID: Final = "wx1a2b3c4d5e6f7a8b"
EXAMPLE_USER_ID: Final = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
EXAMPLE_OPENID: Final = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
EXAMPLE_SESSION_ID: Final = "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2"

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_BEFORE_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")


def _check_has_date(value: object) -> object:
    # Pydantic would also accept a number, and guess whether the number means seconds or milliseconds.
    if not isinstance(value, str) or not _DATE_BEFORE_TIME.match(value):
        raise ValueError("Must be a time with an offset, such as 2026-11-20T08:00:00+08:00")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("Must be a time in the years 1 to 9999 of UTC") from None


Time = Annotated[AwareDatetime, BeforeValidator(_check_has_date), AfterValidator(_in_utc)]


def _beginning_of_date(value: object) -> object:
    is_date = isinstance(value, str) and _DATE.fullmatch(value)
    return f"{value}T00:00:00Z" if is_date else value


DateOrTime = Annotated[Time, BeforeValidator(_beginning_of_date), WithJsonSchema({"type": "string"})]


def _parse_network(value: object) -> object:
    try:
        return ip_network(value.strip(), strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("Must be an address or a network such as 203.0.113.0/24") from None


Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_parse_network),
    WithJsonSchema({"type": "string", "examples": ["203.0.113.0/24"]}),
]


def only_null(remedy: str = "") -> BeforeValidator:
    """Accept only null. `remedy` says how else to set the field."""
    rule = f"Must be null, or absent: {remedy}" if remedy else "Must be null, or absent"

    def check(value: object) -> None:
        if value is not None:
            raise ValueError(rule)

    return BeforeValidator(check)


OnlyNull = Annotated[None, only_null()]

# The types of response fields whose examples always show the same user, app and session.
ShownAppId = Annotated[str, Field(examples=[EXAMPLE_APP_ID])]
ShownUserId = Annotated[UUID, Field(examples=[EXAMPLE_USER_ID])]
ShownOpenid = Annotated[str, Field(examples=[EXAMPLE_OPENID])]
ShownSessionId = Annotated[UUID, Field(examples=[EXAMPLE_SESSION_ID])]
ShownIp = Annotated[str, Field(examples=["203.0.113.7"])]
ShownNickname = Annotated[str | None, Field(examples=["小明"])]
ShownPictureUrl = Annotated[str | None, Field(examples=["https://example.com/avatars/1.png"])]


class _OrEmpty:
    """Documents the empty string as a value of a parameter. It means the same as leaving the parameter out."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        non_empty = handler(schema)
        if "anyOf" in non_empty:
            return {**non_empty, "anyOf": [*non_empty["anyOf"], {"const": ""}]}
        return {"anyOf": [non_empty, {"const": ""}]}


OrEmpty: Final = _OrEmpty()


class Parameters(BaseModel):
    """The parameters of a request. An empty parameter has the same effect as no parameter."""

    @field_validator("*", mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        if value == "":
            raise PydanticUseDefault
        return [each for each in value if each != ""] if isinstance(value, list) else value


def body_like(example: Mapping[str, Any], **options: Unpack[ConfigDict]) -> ConfigDict:
    """Return the `model_config` of a body, with which pydantic's messages do not contain the body's values."""
    return ConfigDict(json_schema_extra={"examples": [dict(example)]}, hide_input_in_errors=True, **options)


class Changes(BaseModel):
    """A body of changes, which must not be an empty object."""

    @model_validator(mode="before")
    @classmethod
    def _check_not_empty(cls, values: Any) -> Any:
        if values == {}:
            raise ValueError("Must name a field to change")
        return values


class BodyWithRules(BaseModel):
    """A body with fields that `web/bodies.py` treats in a special way: see `cleaned` and `titles`."""

    cleaned: ClassVar[Collection[str]] = ()  # the validators of these fields remove lone surrogates
    titles: ClassVar[Mapping[str, Text]] = {}  # of the errors, by the names under which the fields are sent


class Lenient(BodyWithRules):
    """A body that is never refused because of its `optional` fields. If such a field is invalid, it is ignored."""

    optional: ClassVar[frozenset[str]] = frozenset()
    left_out: ClassVar[Mapping[str, str]] = {}
    """The optional fields of this body that were ignored, each with the code of its problem.

    `bodies.read_without_invalid_fields` sets the attribute for one body. It is not a field, so callers cannot send it.
    """
