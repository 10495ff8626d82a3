"""The types, examples, paged lists and base classes that the schemas of all packages share."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, Unpack
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

TEXT: Final = r"^[^\x00-\x1f\x7f]*$"  # without control characters: PostgreSQL refuses NUL
StoredText = Annotated[str, StringConstraints(pattern=TEXT)]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_BEFORE_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
# The ids of one login, which most examples of the API documentation show.
EXAMPLE_APP_ID: Final = "wx1a2b3c4d5e6f7a8b"
EXAMPLE_USER_ID: Final = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
EXAMPLE_OPENID: Final = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
EXAMPLE_SESSION_ID: Final = "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2"
DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200
LIMIT_DESCRIPTION: Final = "The maximum number of items."
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{22}")  # 16 bytes in base64url
_TIMED_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{32}")  # the time (8 bytes) and the id (16 bytes)
_TIME_BYTES: Final = 8
_NOT_A_CURSOR: Final = "Must be a next_cursor of this list"
# The parameters of a statement that reads the first page of a list that is sorted by time and id.
FIRST_PAGE: Final[dict[str, object]] = {"after_at": None, "after_id": None}
_FIRST_TIME: Final = datetime.min.replace(tzinfo=UTC)
Row = TypeVar("Row")


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
    """Accept only null. `remedy` says how to set the field, and begins with a colon."""

    def check(value: object) -> None:
        if value is not None:
            raise ValueError(f"Must be null, or absent{remedy}")

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

NextCursor = Annotated[
    str | None,
    Field(description="`cursor` for the next page, null after the last.", examples=["AZM8Xo8afD6bHS9qTowNFw"]),
]


class HasId(Protocol):
    """A row of a list that is sorted by ids."""

    @property
    def id(self) -> UUID:
        """A UUIDv7, which begins with the time when the row was created."""


RowWithId = TypeVar("RowWithId", bound=HasId)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    items: Sequence[Row]
    next_cursor: str | None
    is_incomplete: bool = False  # the search ran out of time; `next_cursor` continues it

    @classmethod
    def of(cls: "type[Page[RowWithId]]", rows: Sequence[RowWithId], limit: int) -> "Page[RowWithId]":
        """Build a page from the rows of a query whose limit was `limit + 1`, to know whether there is a next page."""
        return cls.with_cursor(rows, limit, lambda last: cursor_at(last.id))

    @classmethod
    def with_cursor(cls, rows: Sequence[Row], limit: int, cursor_after: Callable[[Row], str]) -> Self:
        """Build a page of a list in any order. `cursor_after` returns the cursor after a given row."""
        has_next_page = len(rows) > limit
        return cls(rows[:limit], cursor_after(rows[limit - 1]) if has_next_page else None)


def cursor_at(row_id: UUID) -> str:
    """Return the cursor for the rows after the row with this id."""
    return urlsafe_b64encode(row_id.bytes).rstrip(b"=").decode()


def id_in_cursor(cursor: str) -> UUID:
    """Return the id in a cursor made by `cursor_at`, which is the id of the last row before the page."""
    if not _CURSOR.fullmatch(cursor):
        raise ValueError(_NOT_A_CURSOR)
    return UUID(bytes=urlsafe_b64decode(cursor + "=="))


def timed_cursor(at: datetime, row_id: UUID) -> str:
    """Return the cursor for the rows after the row with this time and id, in a list that is sorted by time and id."""
    microseconds = (at - _FIRST_TIME) // timedelta(microseconds=1)
    return urlsafe_b64encode(microseconds.to_bytes(_TIME_BYTES, "big") + row_id.bytes).decode()


def _time_and_id_in(cursor: str) -> tuple[datetime, UUID]:
    if not _TIMED_CURSOR.fullmatch(cursor):
        raise ValueError(_NOT_A_CURSOR)
    time_and_id = urlsafe_b64decode(cursor)
    microseconds = int.from_bytes(time_and_id[:_TIME_BYTES], "big")
    try:
        return _FIRST_TIME + timedelta(microseconds=microseconds), UUID(bytes=time_and_id[_TIME_BYTES:])
    except OverflowError:
        raise ValueError(_NOT_A_CURSOR) from None


TimedCursor = Annotated[tuple[datetime, UUID], BeforeValidator(_time_and_id_in), WithJsonSchema({"type": "string"})]


class _OrEmpty:
    """Documents the empty string as a value of a parameter. It means the same as leaving the parameter out."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        non_empty = handler(schema)
        if "anyOf" in non_empty:
            return {**non_empty, "anyOf": [*non_empty["anyOf"], {"const": ""}]}
        return {"anyOf": [non_empty, {"const": ""}]}


OrEmpty: Final = _OrEmpty()


class Items(BaseModel, Generic[Row]):
    """Some rows of a list, with the cursor for the next page."""

    items: list[Row]
    next_cursor: NextCursor


def items_of(page: Page[Row]) -> Items[Row]:
    # `model_construct` does not validate the rows again.
    return Items.model_construct(items=list(page.items), next_cursor=page.next_cursor)


def all_of(rows: Iterable[Row]) -> Items[Row]:
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

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE, description=LIMIT_DESCRIPTION), OrEmpty] = DEFAULT_PAGE_SIZE
    cursor: Annotated[UUID | None, BeforeValidator(id_in_cursor), WithJsonSchema({"type": "string"})] = Field(
        default=None, description="The `next_cursor` of the previous page."
    )


class TimedPageQuery(PageQuery):
    """The parameters that select a page of a list that is sorted by time and id."""

    cursor: TimedCursor | None = Field(  # type: ignore[assignment]  # the type differs from that in `PageQuery`
        default=None, description="The `next_cursor` of the previous page."
    )

    @property
    def after(self) -> dict[str, object]:
        """The parameters of a statement that reads the rows after the cursor."""
        if self.cursor is None:
            return FIRST_PAGE
        after_at, after_id = self.cursor
        return {"after_at": after_at, "after_id": after_id}


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

    `bodies.read_anyway` sets the attribute for one body. It is not a field, so callers cannot send it.
    """
