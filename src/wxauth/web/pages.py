"""Lists in pages: their rows and cursors, and the parameters that select a page."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Generic, Protocol, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from wxauth.web.schemas import OrEmpty, Parameters

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


class Items(BaseModel, Generic[Row]):
    """Some rows of a list, with the cursor for the next page."""

    items: list[Row]
    next_cursor: NextCursor


def items_of(page: Page[Row]) -> Items[Row]:
    assert not page.is_incomplete  # `Items` cannot say it
    # `model_construct` does not validate the rows again.
    return Items.model_construct(items=list(page.items), next_cursor=page.next_cursor)


def all_of(rows: Iterable[Row]) -> Items[Row]:
    return Items.model_construct(items=list(rows), next_cursor=None)


class PageQuery(Parameters):
    """The parameters that select a page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE, description=LIMIT_DESCRIPTION), OrEmpty] = DEFAULT_PAGE_SIZE
    cursor: Annotated[UUID | None, BeforeValidator(id_in_cursor), WithJsonSchema({"type": "string"})] = Field(
        default=None, description="The `next_cursor` of the previous page."
    )


class TimedPageQuery(PageQuery):
    """As `PageQuery`, for a list that is sorted by time and id."""

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
