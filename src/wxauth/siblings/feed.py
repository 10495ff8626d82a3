"""The feed: what siblings read to learn of what happened to people, in the order in which it was committed."""

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.core.trail import FEED_NAMES, stored_names
from wxauth.errors import CursorExpired, StorageUnavailable
from wxauth.siblings.feed_rows import FeedRow, Place, are_unplaced, last_place, place_some, read_feed
from wxauth.siblings.webhook_rows import queue_deliveries

PLACE_PAUSE: Final = 0.5
"""Seconds between two looks whether events wait for their places."""
PLACED_AT_ONCE: Final = 1000

_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{38}")
_POSITION_BYTES: Final = 8
_LAST_POSITION: Final = 2**63 - 1
_CHECK_BYTES: Final = 4

log = get_logger()


class NotACursor(ValueError):
    """It is none that the feed has given."""


class Page(NamedTuple):
    """Some events of the feed, and how to go on."""

    items: Sequence[FeedRow]
    next_cursor: str


async def read(database: Database, after: Place | None, types: Sequence[str], *, limit: int) -> Page:
    """The oldest events behind a place, of these types where any is named.

    The cursor leads behind all that has been looked at, so that events of other types are passed but once.

    Raises: CursorExpired, StorageUnavailable.
    """
    names = [name for kind in types for name in stored_names(kind) if name in FEED_NAMES]
    page = await read_feed(database, after, names, limit=limit)
    if page is None:
        raise CursorExpired("there are events missing: look your users up, and begin at after=now")
    if len(page.items) == limit:
        last = page.items[-1]
        return Page(page.items, cursor_of(Place(last["position"], last["id"])))
    return Page(page.items, cursor_of(page.last))


async def begin_now(database: Database) -> Page:
    """No event yet, and how to go on to those that come. Raises: StorageUnavailable."""
    return Page([], cursor_of(await last_place(database)))


def cursor_of(place: Place) -> str:
    """What leads to the events behind a place."""
    told = place.position.to_bytes(_POSITION_BYTES, "big") + place.event_id.bytes
    return urlsafe_b64encode(told + _check(told)).rstrip(b"=").decode()


def place_in(cursor: str) -> Place:
    """The place that a cursor leads behind. Raises: NotACursor."""
    if not _CURSOR.fullmatch(cursor):
        raise NotACursor("Not a next_cursor of this feed")
    raw = urlsafe_b64decode(cursor + "==")
    told, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    place = Place(int.from_bytes(told[:_POSITION_BYTES], "big"), UUID(bytes=told[_POSITION_BYTES:]))
    # One spelling for each place: the last character of base64 carries two bits that say nothing.
    if check != _check(told) or cursor_of(place) != cursor or place.position > _LAST_POSITION:
        raise NotACursor("Not a next_cursor of this feed")
    return place


async def keep_placing(services: Services) -> None:
    """Give events their places, for ever, through outages. Every process does, one at a time."""
    is_well = True
    while True:
        await asyncio.sleep(PLACE_PAUSE)
        try:
            if await are_unplaced(services.database):
                await place_events(services)
            is_well = True
        except StorageUnavailable:
            if is_well:
                log.warning("feed_held_up", reason="the database does not answer")
            is_well = False
        except Exception:
            log.exception("feed_held_up")


async def place_events(services: Services) -> int:
    """Give all events that wait their places, unless another process is at it; how many. Raises: StorageUnavailable."""
    placed = 0
    while True:
        async with services.database.begin() as transaction:
            events = await place_some(transaction, limit=PLACED_AT_ONCE)
            queued = await queue_deliveries(transaction, events or (), now=services.clock())
        placed += len(events or ())
        if queued:
            services.deliveries.wake()
        if events is None or len(events) < PLACED_AT_ONCE:
            return placed


def _check(told: bytes) -> bytes:
    # No secret: whoever makes a cursor up reads no more than they may. It tells a cursor from what is none.
    return sha256(b"wxauth feed\0" + told).digest()[:_CHECK_BYTES]
