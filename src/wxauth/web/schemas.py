"""The types, examples and paged lists that the bodies and parameters of all packages share.

This module also reads bodies, repairs those that may be incomplete, and builds the errors about them.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, Unpack
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    RootModel,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticUseDefault, from_json

from wxauth.i18n import Text
from wxauth.terminal import WrongValue
from wxauth.texts import read_loosely
from wxauth_guard.errors import FieldError, InvalidRequest

_MAX_ERRORS: Final = 20
"""The largest number of errors that are reported for one request.

The limit exists because some bodies may have any number of fields, and because the errors are also logged.
"""
_MAX_FIELD_NAME: Final = 64
"""The largest number of characters of a field's name that are reported."""
TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
"""The pattern of stored text. It allows no control characters, including NUL, which PostgreSQL refuses."""
StoredText = Annotated[str, StringConstraints(pattern=TEXT)]

_NO_LONE_SURROGATES: Final = "Must not contain lone surrogates such as \\ud83d"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
"""The pattern of the date at the beginning of a time, and the separator after it."""
EXAMPLE_APP_ID: Final = "wx1a2b3c4d5e6f7a8b"
EXAMPLE_USER_ID: Final = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
EXAMPLE_OPENID: Final = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
EXAMPLE_SESSION_ID: Final = "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2"
PAGE_SIZE: Final = 50
"""The number of items on a page if the request has no `limit`."""
MAX_PAGE_SIZE: Final = 200
"""The largest number of items on a page of most lists."""
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{22}")
"""The form of a cursor of `cursor_at`, which is the base64url of 16 bytes."""
_TIMED_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{32}")
"""The form of a cursor of `timed_cursor`, which is the base64url of 24 bytes: the time, and then the id."""
_TIME_BYTES: Final = 8
"""The number of bytes of the time in such a cursor."""
_NOT_A_CURSOR: Final = "Must be a next_cursor of this list"
FIRST_PAGE: Final[dict[str, object]] = {"after_at": None, "after_id": None}
"""The parameters with which a statement returns the first rows of a list that is sorted by time and id."""
_FIRST_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""The time from which a cursor counts microseconds."""
Row = TypeVar("Row")


def _check_has_date(value: object) -> object:
    # Pydantic would also accept a number, and guess whether the number means seconds or milliseconds.
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError("Must be a time with an offset, such as 2026-11-20T08:00:00+08:00")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("Must be a time in the years 1 to 9999 of UTC") from None


Time = Annotated[AwareDatetime, BeforeValidator(_check_has_date), AfterValidator(_in_utc)]
"""A time with an offset, converted to UTC. If the result is not in the years 1 to 9999, the time is refused."""


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
"""A network in CIDR notation, or an address."""


def only_null(remedy: str = "") -> BeforeValidator:
    """Return the validator of a field that can only be cleared.

    `remedy` is the end of the message for any other value. It says how to set the field, and begins with a colon.
    """

    def check(value: object) -> None:
        if value is not None:
            raise ValueError(f"Must be null, or absent{remedy}")

    return BeforeValidator(check)


OnlyNull = Annotated[None, only_null()]
"""A field that can only be cleared."""

# The types of response fields whose examples always show the same user, app and session.
ShownAppId = Annotated[str, Field(examples=[EXAMPLE_APP_ID])]
ShownUserId = Annotated[UUID, Field(examples=[EXAMPLE_USER_ID])]
ShownOpenid = Annotated[str, Field(examples=[EXAMPLE_OPENID])]
ShownSessionId = Annotated[UUID, Field(examples=[EXAMPLE_SESSION_ID])]
ShownIp = Annotated[str, Field(examples=["203.0.113.7"])]
ShownNickname = Annotated[str | None, Field(examples=["小明"])]
ShownPictureUrl = Annotated[str | None, Field(examples=["https://example.com/avatars/1.png"])]

NextCursor = Annotated[
    str | None,
    Field(description="`cursor` for the next page, null after the last.", examples=["AZM8Xo8afD6bHS9qTowNFw"]),
]


class HasId(Protocol):
    """A row of a list that is sorted by ids."""

    @property
    def id(self) -> UUID:
        """The id of the row: a UUIDv7, which begins with the time when the row was created."""


RowWithId = TypeVar("RowWithId", bound=HasId)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list, and the cursor for the next page."""

    items: Sequence[Row]
    next_cursor: str | None
    is_incomplete: bool = False
    """Whether the search stopped before the page was full. In that case, `next_cursor` continues the search."""

    @classmethod
    def of(cls: "type[Page[RowWithId]]", rows: Sequence[RowWithId], limit: int) -> "Page[RowWithId]":
        """Build a page from the rows of a query whose limit was `limit + 1`.

        If the query returned the additional row, there is a next page.
        """
        return cls.with_cursor(rows, limit, lambda last: cursor_at(last.id))

    @classmethod
    def with_cursor(cls, rows: Sequence[Row], limit: int, cursor: Callable[[Row], str]) -> Self:
        """Build a page of a list that is not sorted by ids.

        `cursor` returns the cursor for the rows after a given row.
        """
        return cls(rows[:limit], cursor(rows[limit - 1]) if len(rows) > limit else None)


def cursor_at(row_id: UUID) -> str:
    """Return the cursor for the rows after the row with this id."""
    return urlsafe_b64encode(row_id.bytes).rstrip(b"=").decode()


def id_in_cursor(cursor: str) -> UUID:
    """Return the id in a cursor, which is the id of the last row before the page. Raises: ValueError."""
    if not _CURSOR.fullmatch(cursor):
        raise ValueError(_NOT_A_CURSOR)
    return UUID(bytes=urlsafe_b64decode(cursor + "=="))


def timed_cursor(at: datetime, row_id: UUID) -> str:
    """Return the cursor for the rows after the row with this time and id, in a list that is sorted by time and id."""
    microseconds = (at - _FIRST_TIME) // timedelta(microseconds=1)
    return urlsafe_b64encode(microseconds.to_bytes(_TIME_BYTES, "big") + row_id.bytes).decode()


def _place_in(cursor: str) -> tuple[datetime, UUID]:
    """Return the time and id in a cursor made by `timed_cursor`. Raises: ValueError."""
    if not _TIMED_CURSOR.fullmatch(cursor):
        raise ValueError(_NOT_A_CURSOR)
    time_and_id = urlsafe_b64decode(cursor)
    microseconds = int.from_bytes(time_and_id[:_TIME_BYTES], "big")
    try:
        return _FIRST_TIME + timedelta(microseconds=microseconds), UUID(bytes=time_and_id[_TIME_BYTES:])
    except OverflowError:
        raise ValueError(_NOT_A_CURSOR) from None


TimedCursor = Annotated[tuple[datetime, UUID], BeforeValidator(_place_in), WithJsonSchema({"type": "string"})]
"""The time and id in a cursor made by `timed_cursor`."""


class _OrEmpty:
    """The annotation that adds the empty string to a parameter's documented values.

    An empty string has the same effect as leaving the parameter out.
    """

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        non_empty = handler(schema)
        if "anyOf" in non_empty:
            return {**non_empty, "anyOf": [*non_empty["anyOf"], {"const": ""}]}
        return {"anyOf": [non_empty, {"const": ""}]}


OrEmpty: Final = _OrEmpty()


class Items(BaseModel, Generic[Row]):
    """Some rows of a list."""

    items: list[Row]
    next_cursor: NextCursor


def items_of(page: Page[Row]) -> Items[Row]:
    """Return the response that contains the rows of a page."""
    return Items.model_construct(items=list(page.items), next_cursor=page.next_cursor)


def all_of(rows: Iterable[Row]) -> Items[Row]:
    """Return the response that contains all rows of a short list."""
    return Items.model_construct(items=list(rows), next_cursor=None)


class Parameters(BaseModel):
    """The parameters of a request. An empty parameter has the same effect as no parameter."""

    @field_validator("*", mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        if value == "":
            raise PydanticUseDefault
        return [each for each in value if each != ""] if isinstance(value, list) else value


class PageQuery(Parameters):
    """The parameters that select a page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE, description="The maximum number of items."), OrEmpty] = (
        PAGE_SIZE
    )
    cursor: Annotated[UUID | None, BeforeValidator(id_in_cursor), WithJsonSchema({"type": "string"})] = Field(
        default=None, description="The `next_cursor` of the previous page."
    )


class TimedPageQuery(PageQuery):
    """The parameters that select a page of a list that is sorted by time and id."""

    cursor: TimedCursor | None = Field(  # type: ignore[assignment]  # another type
        default=None, description="The `next_cursor` of the previous page."
    )

    @property
    def after(self) -> dict[str, object]:
        """The time and id of the last row before the page, as parameters of a statement."""
        if self.cursor is None:
            return FIRST_PAGE
        after_at, after_id = self.cursor
        return {"after_at": after_at, "after_id": after_id}


def body_like(example: Mapping[str, Any], **options: Unpack[ConfigDict]) -> ConfigDict:
    """Return the `model_config` of a body with this example and these further options.

    Validation errors of such a body never repeat its values.
    """
    return ConfigDict(json_schema_extra={"examples": [dict(example)]}, hide_input_in_errors=True, **options)


class Changes(BaseModel):
    """A body of changes, which must contain at least one change."""

    @model_validator(mode="before")
    @classmethod
    def _is_not_empty(cls, values: Any) -> Any:
        if values == {}:
            raise ValueError("Must name a field to change")
        return values


class BodyWithRules(BaseModel):
    """A body with some fields to which the functions below apply other rules."""

    cleaned: ClassVar[Collection[str]] = ()
    """The fields whose validators remove lone surrogates, so that a body with lone surrogates is accepted."""
    titles: ClassVar[Mapping[str, Text]] = {}
    """The title of the error for each field that has its own title, by the name under which the field was sent."""


class Lenient(BodyWithRules):
    """A body that is never refused because of its `optional` fields. If such a field is invalid, it is ignored."""

    optional: ClassVar[frozenset[str]] = frozenset()
    left_out: ClassVar[Mapping[str, str]] = {}
    """The optional fields of this body that were ignored, each with the code of its problem.

    `read_anyway` sets the attribute for one body. It is not a field, so callers cannot send it.
    """


Model = TypeVar("Model", bound=BaseModel)


def read_body(model: type[Model], body: bytes) -> Model:
    """Validate a JSON body, and return it as this model. Raises: InvalidRequest."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        return read_anyway(model, body, errors_of(exc))


def read_anyway(model: type[Model], body: bytes, errors: list[Any], context: Mapping[Any, Any] | None = None) -> Model:
    """Read an invalid body without its invalid optional fields. Raises: InvalidRequest, if other parts are invalid.

    `errors` are pydantic's errors of the body, and `context` contains the values for its validators. An incomplete
    character, for example at the end of text that was cut off, makes only the field that contains it invalid. If the
    model lists that field in `cleaned`, the field is accepted.
    """
    is_json = errors[0]["type"] != "json_invalid"
    optional = model.optional if issubclass(model, Lenient) else frozenset()
    if is_json and not optional:
        raise invalid_request(errors, model)
    try:
        values = from_json(body) if is_json else read_loosely(body, cut=bool(optional))
    except ValueError:
        raise invalid_request(errors, model) from None
    checked = None
    if not is_json:  # pydantic could not parse this body, and has not validated its fields yet
        checked, errors = _validated(model, values, context)
    fields, left_out = _fields_of(model), set[str]()
    # One round isn't enough, because validators of the whole model run only when all fields are valid.
    while checked is None:
        # An error of an unknown field, or of the body as a whole, belongs to "", which is never optional.
        invalid = {fields.get(error["loc"][0], "") if error["loc"] else "" for error in errors}
        if not invalid <= optional:
            raise invalid_request(errors, model)
        left_out |= invalid
        values = {name: value for name, value in values.items() if fields.get(name) not in invalid}
        checked, errors = _validated(model, values, context)
    if left_out:
        vars(checked)["left_out"] = dict.fromkeys(sorted(left_out), InvalidRequest.code)
    return checked


def _validated(model: type[Model], values: Any, context: Mapping[Any, Any] | None) -> tuple[Model | None, list[Any]]:
    """Return the values of a body as this model. If they are invalid, return None and the errors.

    Pydantic can check the values only if they contain no lone surrogates.
    """
    errors = _surrogate_errors(values, model)
    if errors:
        return None, errors
    try:
        return model.__pydantic_validator__.validate_python(values, context=context), []
    except ValidationError as exc:
        return None, errors_of(exc)


def json_form(model: type[BaseModel]) -> str:
    """Return the form of a JSON body of this model, such as `{"code": "…"}`.

    The form contains the required fields. If no field is required, it contains the first field.
    """
    if issubclass(model, RootModel):
        return "{…}"
    fields = list(model.model_fields.items())
    shown = [(name, field) for name, field in fields if field.is_required()] or fields[:1]
    members = (f'"{name}": ' + ('"…"' if field.annotation is str else "…") for name, field in shown)
    return f"{{{', '.join(members)}}}"


def check_place(model: type[BaseModel], errors: list[Any], elsewhere: Iterable[str]) -> None:
    """Check that no field that is missing from the body was sent in another place.

    `errors` are pydantic's errors of the body. `elsewhere` are the names of the query parameters and headers.

    Raises: InvalidRequest.
    """
    fields = _fields_of(model)
    sent = {fields[name] for name in elsewhere if name in fields}
    for error in errors:
        if error["type"] == "missing" and fields.get(error["loc"][0]) in sent:
            raise InvalidRequest.of(error["loc"][0], f"Must be in the body: send {json_form(model)} as JSON")


@cache
def _fields_of(model: type[BaseModel]) -> Mapping[str, str]:
    """Return a mapping from each name that a body may use to the field of the model."""
    fields: dict[str, str] = {}
    for name, field in model.model_fields.items():
        aliases = field.validation_alias
        names = aliases.choices if isinstance(aliases, AliasChoices) else [aliases or name]
        fields |= dict.fromkeys(map(str, names), name)
    return fields


def _surrogate_errors(values: object, model: type[BaseModel]) -> list[Any]:
    """Return errors for the fields with lone surrogates, which neither PostgreSQL nor UTF-8 accepts.

    Unknown fields are ignored, and so are the fields in the model's `cleaned`. A `RootModel` has no known fields, so
    all of its fields are checked.
    """
    if not isinstance(values, dict):
        return []
    names = list(values)
    if not issubclass(model, RootModel):
        cleaned = model.cleaned if issubclass(model, BodyWithRules) else ()
        fields = _fields_of(model)
        names = [name for name in names if name in fields and fields[name] not in cleaned]
    return [
        {"loc": (name,), "msg": _NO_LONE_SURROGATES, "type": "lone_surrogate"}
        for name in names
        if _has_lone_surrogate([name, values[name]])
    ]


def _has_lone_surrogate(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def errors_of(exc: ValidationError) -> list[Any]:
    """Return pydantic's errors without the values that were sent."""
    return exc.errors(include_url=False, include_input=False)


def invalid_request(errors: Iterable[Mapping[str, Any]], model: type[BaseModel] | None = None) -> InvalidRequest:
    """Build wxauth's error from pydantic's errors. The error names the fields, but never contains their values.

    The error gets its title from the first wrong field for which the model defines a title in `titles`.
    """
    field_errors = [
        FieldError(_field_name(error["loc"])[:_MAX_FIELD_NAME], _message(error, model))
        for error in islice(errors, _MAX_ERRORS)
    ]
    detail = "; ".join(f"{error.field}: {error.message}" for error in field_errors)
    titles = model.titles if model is not None and issubclass(model, BodyWithRules) else {}
    title = next((titles[error.field] for error in field_errors if error.field in titles), None)
    return InvalidRequest(detail, errors=field_errors, title=title)


def _field_name(location: tuple[str | int, ...]) -> str:
    """Return the names in a location, separated by dots, or `body`. A lone surrogate becomes `?`."""
    return ".".join(part for part in location if isinstance(part, str)).encode(errors="replace").decode() or "body"


def _message(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """Return the message about an error of pydantic, without the value that was sent.

    If the body as a whole is wrong, the message shows its form.
    """
    if model is not None and not error["loc"] and error["type"] in ("json_invalid", "model_type"):
        return f"{error['msg']}: send {json_form(model)} as JSON"
    # Pydantic's own messages for these errors contain a pattern, or a character of the value.
    if error["type"] == "string_pattern_mismatch":
        return "String must have the documented form"
    if error["type"] == "uuid_parsing":
        return "Must be a UUID"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, WrongValue):
        return cause.text
    # Pydantic puts this prefix before the text of a validator's ValueError.
    return str(error["msg"]).removeprefix("Value error, ")
