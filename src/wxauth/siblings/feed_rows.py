"""The feed as it is stored: how events get their places in it, and how it is read.

Why a reader who follows the cursor is told of every event, once, at one place:

- A trigger adds a row to `events_unplaced` in the transaction that writes the event. So the row is there exactly if the
  event has been committed, and two transactions that write events never wait for each other's row.
- One transaction at a time gives places and deletes those rows: it holds an advisory lock until it is committed. Others
  see a commit before its locks are free. So the transaction that gives places 8 and 9 sees that 7 has been given, and a
  reader who sees 9 sees everything before 9: no place is filled later. If a transaction that gives places is rolled
  back, the numbers have a gap, and its rows stay in `events_unplaced`.
- An event that is committed late is found late. It gets a place behind the faster ones, never one that readers have
  passed. Nobody waits for it: another open transaction, such as a backup's or a psql's, holds up nothing.

A place is stored with the event's type, so that reading one type does not pass all the others.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypedDict
from uuid import UUID

from wxauth.core.database import Database, Transaction

_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('wxauth.feed'))"
_ARE_UNPLACED: Final = "SELECT EXISTS (SELECT FROM events_unplaced) AS are_some"
# $1 how many events at most
_PLACE: Final = """
WITH taken AS (
    DELETE FROM events_unplaced
     WHERE event_id IN (SELECT event_id FROM events_unplaced ORDER BY event_id LIMIT $1)
    RETURNING event_id
)
INSERT INTO feed (event_id, type)
SELECT events.id, events.type FROM taken JOIN events ON events.id = taken.event_id ORDER BY events.id
RETURNING event_id, type
"""
_LAST: Final = """
SELECT COALESCE(f.position, s.position, 0) AS position,
       COALESCE(f.event_id, s.event_id, '00000000-0000-0000-0000-000000000000') AS event_id,
       COALESCE(s.position, 0) AS swept, s.event_id AS swept_id
  FROM (VALUES (true)) AS one
  LEFT JOIN (SELECT position, event_id FROM feed ORDER BY position DESC LIMIT 1) f ON true
  LEFT JOIN feed_swept s ON true"""


def _page_part(places: str) -> str:
    # A gap follows a place that no longer exists, or behind which events have been swept away. There is none if the
    # place itself was the last one swept. Position 0, before the first event, has no row and needs none.
    return f"""
WITH last AS ({_LAST}
), known AS (
    SELECT NOT $3::boolean OR swept <= $1 AND ($1 = 0 OR (swept, swept_id) = ($1, $2::uuid) OR EXISTS (
               SELECT FROM feed WHERE feed.position = $1 AND feed.event_id = $2::uuid)) AS is_known
      FROM last
)
SELECT known.is_known, last.position AS last_position, last.event_id AS last_id, page.*
  FROM last CROSS JOIN known LEFT JOIN LATERAL (
           SELECT place.position, e.id, e.type, e.at, e.user_id, e.app_id, e.actor, e.data
             FROM ({places}) place JOIN events e ON e.id = place.event_id
            ORDER BY place.position LIMIT $4
       ) page ON known.is_known
 ORDER BY page.position
"""  # noqa: S608 - put together from constants


# $1 and $2 position and event of the reader's place  $3 whether that place must exist  $4 how many events at most
_PAGE: Final = _page_part("SELECT position, event_id FROM feed WHERE position > $1 ORDER BY position LIMIT $4")
# The first events of each type, by that type's part of the index. $5 types
_PAGE_OF_TYPES: Final = _page_part("""
    SELECT f.position, f.event_id FROM unnest($5::text[]) AS wanted CROSS JOIN LATERAL (
           SELECT position, event_id FROM feed WHERE type = wanted AND position > $1 ORDER BY position LIMIT $4) f""")


class Place(NamedTuple):
    """A place in the feed."""

    position: int
    event_id: UUID


BEGINNING: Final = Place(0, UUID(int=0))
"""Before the first event."""
LAST_POSITION: Final = 2**63 - 1
"""The highest position that there can be."""


class PlacedEvent(NamedTuple):
    """An event that has its place in the feed."""

    event_id: UUID
    type: str
    """The stored name of the type."""


class FeedRow(TypedDict):
    """An event as it is read, with its position."""

    position: int
    id: UUID
    type: str
    at: datetime
    user_id: UUID | None
    app_id: str | None
    actor: str
    data: dict[str, Any]


class FeedPage(NamedTuple):
    """Some events, and where the feed ended when they were read."""

    items: Sequence[FeedRow]
    last: Place


async def are_unplaced(database: Database) -> bool:
    """Whether there are events without a place. Raises: StorageUnavailable."""
    return bool((await database.fetchrow(_ARE_UNPLACED))["are_some"])


async def place_some(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent] | None:
    """Give events their places in the order of their ids; None if another process is doing so."""
    if not await transaction.fetchval(_TRY_LOCK):
        return None
    return [PlacedEvent(**row) for row in await transaction.fetch(_PLACE, limit)]


async def last_place(database: Database) -> Place:
    """The place of the newest event. Raises: StorageUnavailable."""
    row = await database.fetchrow(_LAST)
    return Place(row["position"], row["event_id"])


async def read_feed(database: Database, after: Place | None, types: Sequence[str], *, limit: int) -> FeedPage | None:
    """The events behind a place, or from the beginning; None if events are missing behind that place.

    Args:
        database: Where the events are.
        after: The place that the reader has reached; None for the beginning.
        types: Stored names of types; empty for all types.
        limit: How many events at most.

    Raises: StorageUnavailable.
    """
    position, event_id = after or BEGINNING
    arguments = position, event_id, after is not None, limit
    rows = await (
        database.fetch(_PAGE_OF_TYPES, *arguments, list(types)) if types else database.fetch(_PAGE, *arguments)
    )
    first = rows[0]
    if not first["is_known"]:
        return None
    last = Place(first["last_position"], first["last_id"])
    return FeedPage([row for row in rows if row["position"] is not None], last)
