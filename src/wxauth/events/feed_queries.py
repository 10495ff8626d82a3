"""The statements that give events their places in the feed (the list of events that other services read), and read it.

A reader who follows the cursor gets every event exactly once, for three reasons:

- A trigger adds a row to `events_unplaced` in the transaction that writes the event. So that row exists exactly if the
event has been committed, and two transactions that write events never wait for each other's row.
- One transaction at a time assigns places and deletes those rows, because it holds an advisory lock until it has
committed. A commit becomes visible before its locks are released. So the transaction that assigns places 8 and 9 sees
that 7 is taken. A reader who sees 9 sees everything before it, because no place is filled later. If such a transaction
is rolled back, the numbers have a gap, and its rows stay in `events_unplaced`.
- An event that commits late gets a place after the faster events, never one that readers have passed. No other event
waits for it, so another open transaction, such as a backup or psql, delays no event.

The events about a user have the order of their commits, because a transaction that records an event holds the lock of
the user's row until the commit, and the row in `events_unplaced` draws its number under this lock. Places are assigned
in the order of these numbers. A trigger puts id and time of an event after those of the user's newest one, so the audit
log, which is read in the order of ids, has the same order. An event never gets its place before one of the same user
with a lower id, so that this holds even if the sequence of the numbers has been set back.

The sequence of places can have any value, for example after a move of the database without it, because each place is
compared with the last place of the feed. If it is not after that, the transaction is rolled back and the places are
counted from the last one. The highest place is the last one in the feed or, if the newest events have been deleted by
age, the place in `feed_swept`.

A place is stored with the event's type, so that reading one type does not scan all the others.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import asyncpg
from sqlmodel import SQLModel

from wxauth.core.database import Database, Transaction
from wxauth.core.models import SharedEvent
from wxauth.core.statements import Statement
from wxauth.core.trail import data_for_siblings
from wxauth.errors import CursorExpired

LAST_POSITION: Final = 2**63 - 1
"""The highest possible position."""
LAST_SENSIBLE: Final = 2**62
"""The highest sensible value of a sequence.

A higher value must be a mistake. With it, the feed would soon run out of places.
"""


class EventToSend(SharedEvent):
    """An event in the form in which siblings (services that verify our tokens) get it."""

    @property
    def for_siblings(self) -> dict[str, Any]:
        """The event in the form of the feed and of webhooks."""
        columns = vars(self)
        values = {name: columns[name] for name in EventToSend.model_fields}
        return values | {"data": data_for_siblings(self.type, self.data)}


class PlacedEvent(SQLModel):
    """An event with a place in the feed."""

    event_id: UUID
    type: str
    """The stored name of the event's type."""


class Placement(PlacedEvent):
    """An event that has just got its place."""

    position: int


class FeedRow(EventToSend):
    """An event of the feed, if there is one, and the columns that are equal in all rows of a page."""

    position: int
    is_known: bool
    last_position: int
    last_id: UUID


LOCK_PLACES: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.feed'))")
ARE_UNPLACED: Final = Statement[bool]("SELECT EXISTS (SELECT FROM events_unplaced) AS are_some")
HIGHEST_PLACE: Final = """
(SELECT COALESCE(max(position), 0)
   FROM ((SELECT position FROM feed ORDER BY position DESC LIMIT 1) UNION ALL SELECT position FROM feed_swept) places)
"""
"""SQL for the highest place that the feed has given, as far as the database knows; 0 before the first."""
_LAST_PLACE: Final = Statement[int](f"SELECT {HIGHEST_PLACE} AS position")
# The events with the lowest ids come first, so that no event of a user is left behind when a later event of that user
# gets its place. An event that has a place already, because an older table was restored next to a newer feed, keeps
# that place.
_WAITING_FRAGMENT: Final = """
WITH taken AS (
    DELETE FROM events_unplaced
     WHERE event_id = ANY (ARRAY(SELECT event_id FROM events_unplaced ORDER BY event_id LIMIT :limit))
    RETURNING number, event_id
), waiting AS (
    SELECT e.id, e.type, max(number) OVER (PARTITION BY COALESCE(e.user_id, e.id) ORDER BY e.id) AS number
      FROM taken CROSS JOIN LATERAL (SELECT id, type, user_id FROM events WHERE id = taken.event_id LIMIT 1) e
     WHERE NOT EXISTS (SELECT FROM feed WHERE event_id = taken.event_id)
)
"""
# Only the holder of the lock runs this statement.
_PLACE_BY_SEQUENCE: Final = Statement[Placement](f"""{_WAITING_FRAGMENT}
INSERT INTO feed (event_id, type) SELECT id, type FROM waiting ORDER BY number, id
RETURNING position, event_id, type
""")
_PLACE_AFTER: Final = Statement[Placement](f"""{_WAITING_FRAGMENT}
INSERT INTO feed (position, event_id, type) OVERRIDING SYSTEM VALUE
SELECT :last + row_number() OVER (ORDER BY number, id), id, type FROM waiting
RETURNING position, event_id, type
""")


def _page_fragment(places: LiteralString) -> LiteralString:
    # A place has a gap after it if it no longer exists, or if events after it have been deleted. There is no gap if the
    # place itself was the last one deleted. Position 0, before the first event, has no row and needs none.
    return f"""
WITH last AS (
    SELECT COALESCE(newest.position, 0) AS position,
           COALESCE(newest.event_id, '00000000-0000-0000-0000-000000000000') AS event_id,
           COALESCE(s.position, 0) AS swept, s.event_id AS swept_id
      FROM (VALUES (true)) AS one
      LEFT JOIN feed_swept s ON true
      LEFT JOIN LATERAL (
               (SELECT position, event_id FROM feed WHERE position > COALESCE(s.position, 0)
                 ORDER BY position DESC LIMIT 1)
                UNION ALL SELECT s.position, s.event_id WHERE s.position IS NOT NULL
                ORDER BY position DESC LIMIT 1) newest ON true
), known AS (
    SELECT NOT :is_after::boolean OR swept <= :position
        AND (:position = 0 OR (swept, swept_id) = (:position, :event_id::uuid) OR EXISTS (
               SELECT FROM feed WHERE feed.position = :position AND feed.event_id = :event_id::uuid)) AS is_known
      FROM last
)
SELECT known.is_known, last.position AS last_position, last.event_id AS last_id, page.*
  FROM last CROSS JOIN known LEFT JOIN LATERAL (
           SELECT place.position, e.id, e.type, e.at, e.user_id, e.app_id, e.actor, e.data
             FROM ({places}) place JOIN events e ON e.id = place.event_id
            ORDER BY place.position LIMIT :limit
       ) page ON known.is_known
 ORDER BY page.position
"""


_PAGE: Final = Statement[FeedRow](
    _page_fragment("SELECT position, event_id FROM feed WHERE position > :position ORDER BY position LIMIT :limit")
)
# The first events of each type are read from that type's part of the index.
_PAGE_OF_TYPES: Final = Statement[FeedRow](
    _page_fragment("""
    SELECT f.position, f.event_id FROM unnest(:types::text[]) AS wanted CROSS JOIN LATERAL (
           SELECT position, event_id FROM feed WHERE type = wanted AND position > :position
            ORDER BY position LIMIT :limit) f""")
)


class Place(NamedTuple):
    """A place in the feed."""

    position: int
    event_id: UUID


class PlaceTaken(Exception):
    """The sequence has produced a place that is not after the last one."""


NOT_PLACED: Final = (
    PlaceTaken,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SequenceGeneratorLimitExceededError,
)
"""The errors of `place_some` if the sequence has produced no number, a used one, or a wrong one."""


async def place_some(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent]:
    """Give the next waiting events their places, from the sequence.

    Raises: PlaceTaken, if a place is not after the one before it. The transaction must then not be committed.
    """
    last = await transaction.value(_LAST_PLACE) or 0
    places = await transaction.rows(_PLACE_BY_SEQUENCE, limit=limit)
    positions = [last, *(place.position for place in places)]
    if any(later <= earlier for earlier, later in pairwise(positions)) or positions[-1] > max(last, LAST_SENSIBLE):
        raise PlaceTaken
    return places


async def place_after_last(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent]:
    """Give the next waiting events the places after the last one, and ignore the sequence."""
    last = await transaction.value(_LAST_PLACE) or 0
    return await transaction.rows(_PLACE_AFTER, last=last, limit=limit)


async def read_slice(
    database: Database, after: Place | None, types: Sequence[str], *, limit: int
) -> tuple[Sequence[FeedRow], Place]:
    """Return the oldest events of these types after a place, and the place up to which the feed was read.

    No types means all types. The place is past every event that was examined, so that the next reader does not examine
    events of other types again. With the limit 0, it is the place of the newest event. `after` is None for the
    beginning of the feed.

    Raises: CursorExpired, if events after that place are missing.
    """
    position, event_id = after or (0, UUID(int=0))
    values = {"position": position, "event_id": event_id, "is_after": after is not None, "limit": limit}
    if types:
        rows = await database.rows(_PAGE_OF_TYPES, **values, types=sorted(set(types)))
    else:
        rows = await database.rows(_PAGE, **values)
    if not rows[0].is_known:
        raise CursorExpired("events are missing: look up your users, and start again with after=now")
    items = [row for row in rows if row.position is not None]
    if items and len(items) == limit:
        return items, Place(items[-1].position, items[-1].id)
    return items, Place(rows[0].last_position, rows[0].last_id)
