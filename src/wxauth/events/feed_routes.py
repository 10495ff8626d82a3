"""The route `GET /v1/events`, which services use to read the feed, and the cursors that mark a place in the feed."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, BaseModel, Field

from wxauth.clients.service_clients import EventsClientDep
from wxauth.core.models import SharedEvent
from wxauth.errors import CursorExpired
from wxauth.events.feed_queries import MAX_POSITION, Place, read_page
from wxauth.events.schemas import SiblingEventType
from wxauth.i18n import lazy_gettext as _
from wxauth.web.dependencies import DatabaseDep
from wxauth.web.direct import Router
from wxauth.web.schemas import OrEmpty, Parameters

# A cursor is base64url of 28 bytes: the position, the 16 bytes of the event's id, and the check bytes.
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{38}")
_NOT_A_CURSOR: Final = "Must be a next_cursor of this feed"
_POSITION_BYTES: Final = 8
_CHECK_BYTES: Final = 4
NOW: Final = "now"  # as `after`, selects only future events
_MAX_LIMIT: Final = 1000
router = Router("siblings")


def cursor_of(place: Place) -> str:
    """Return the cursor for the events after a place."""
    place_bytes = place.position.to_bytes(_POSITION_BYTES, "big") + place.event_id.bytes
    # A hash without a key is enough, because a forged cursor reveals nothing that the client may not read. The hash
    # only distinguishes the cursors of a feed from other strings.
    check = sha256(b"wxauth feed\0" + place_bytes).digest()[:_CHECK_BYTES]
    return urlsafe_b64encode(place_bytes + check).rstrip(b"=").decode()


def place_in(cursor: str) -> Place:
    """Return the place that a cursor marks. Raises: ValueError, if `cursor_of` cannot have made it."""
    if not _CURSOR.fullmatch(cursor):
        raise ValueError(_NOT_A_CURSOR)
    place_bytes = urlsafe_b64decode(cursor + "==")[:-_CHECK_BYTES]
    position = int.from_bytes(place_bytes[:_POSITION_BYTES], "big")
    place = Place(position, UUID(bytes=place_bytes[_POSITION_BYTES:]))
    # This comparison verifies the check bytes. It also admits only zeros in the four unused bits of the last character,
    # so that each place has only one spelling.
    if cursor_of(place) != cursor or position > MAX_POSITION:
        raise ValueError(_NOT_A_CURSOR)
    return place


def _checked_cursor(value: str) -> str:
    if value != NOW:
        place_in(value)
    return value


class FeedQuery(Parameters):
    """The parameters that select events."""

    after: Annotated[str, AfterValidator(_checked_cursor)] | None = Field(
        default=None,
        description="The `next_cursor` of the previous response. `now`: only future events. Default: all events.",
    )
    type: list[SiblingEventType] = Field(
        default=[], description="The type of events. Repeat the parameter for several types. Default: all types."
    )
    limit: Annotated[int, Field(ge=1, le=_MAX_LIMIT, description="The maximum number of events."), OrEmpty] = 100

    @property
    def place(self) -> Place | None:
        """The place to read after; None for the beginning of the feed, and for `now`."""
        return None if self.after in (None, NOW) else place_in(self.after)


class FeedAnswer(BaseModel):
    """Some events, the oldest first. They contain no names or phone numbers, so look these up by the user's id."""

    items: list[SharedEvent]
    next_cursor: str = Field(
        description="`after` of the next request. Keep it even if `items` is empty.",
        examples=[cursor_of(Place(2, UUID("01933c62-14e0-7b11-8f3a-5d2c7e9a4b60")))],
    )


@router.get("/v1/events", summary=_("Read the event feed"), failures=[CursorExpired])
async def read_feed(
    _client: EventsClientDep, database: DatabaseDep, query: Annotated[FeedQuery, Query()]
) -> FeedAnswer:
    """Return the events about users, the oldest first, for a service client with the scope `events`.

    Store `next_cursor` and continue from it, and you will get each event exactly once. An event appears within two
    seconds of its commit. If events after your cursor are missing, because they were deleted by age or a backup was
    restored, the request fails with `cursor_expired`, so that you never miss events silently.
    """
    # With the limit 0, `read_page` returns no events, and the place of the newest event.
    limit = 0 if query.after == NOW else query.limit
    events, next_place = await read_page(database, query.place, query.type, limit=limit)
    # The events come from the database, so validating up to 1000 of them again would only take time.
    items: list[Any] = [event.for_siblings for event in events]
    return FeedAnswer.model_construct(items=items, next_cursor=cursor_of(next_place))
