"""The feed: sibling services read the events about users, in the order of their commits."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from wxauth.errors import CursorExpired
from wxauth.server.core.database import Database
from wxauth.server.core.trail import SENT_TO_SIBLINGS
from wxauth.server.events.feed_rows import LAST_POSITION, FeedRow, Place, last_place, read_feed

_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{38}")
_POSITION_BYTES: Final = 8
_CHECK_BYTES: Final = 4


class NotACursor(ValueError):
    """The text is not a cursor of this feed."""


class FeedPage(NamedTuple):
    """Some events of the feed, and the cursor for the next request."""

    items: Sequence[FeedRow]
    next_cursor: str


async def read_page(database: Database, after: Place | None, types: Sequence[str], *, limit: int) -> FeedPage:
    """The oldest events after a place, optionally only those of some types.

    The cursor points past every event that was examined, so that the next request does not examine events of other
    types again.

    Raises: CursorExpired.
    """
    wanted = [kind for kind in SENT_TO_SIBLINGS if kind in types]  # without duplicates
    page = await read_feed(database, after, wanted, limit=limit)
    if page is None:
        raise CursorExpired("there are events missing: look your users up, and begin at after=now")
    if len(page.items) == limit:
        last = page.items[-1]
        return FeedPage(page.items, cursor_of(Place(last.position, last.id)))
    return FeedPage(page.items, cursor_of(page.last))


async def begin_now(database: Database) -> FeedPage:
    """An empty page with a cursor to future events."""
    return FeedPage([], cursor_of(await last_place(database)))


def cursor_of(place: Place) -> str:
    """The cursor to the events after a place."""
    place_bytes = place.position.to_bytes(_POSITION_BYTES, "big") + place.event_id.bytes
    return urlsafe_b64encode(place_bytes + _check(place_bytes)).rstrip(b"=").decode()


def place_in(cursor: str) -> Place:
    """The place of a cursor. Raises: NotACursor."""
    if not _CURSOR.fullmatch(cursor):
        raise NotACursor("Not a next_cursor of this feed")
    raw = urlsafe_b64decode(cursor + "==")
    place_bytes, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    place = Place(int.from_bytes(place_bytes[:_POSITION_BYTES], "big"), UUID(bytes=place_bytes[_POSITION_BYTES:]))
    # Each place has one spelling: the last of the 38 characters has four unused bits, which must be zero.
    if check != _check(place_bytes) or cursor_of(place) != cursor or place.position > LAST_POSITION:
        raise NotACursor("Not a next_cursor of this feed")
    return place


def _check(place_bytes: bytes) -> bytes:
    # A plain hash is enough, because a forged cursor reveals nothing that the client may not read. The check only
    # distinguishes this feed's cursors from other text.
    return sha256(b"wxauth feed\0" + place_bytes).digest()[:_CHECK_BYTES]
