"""The statements that give events their places in the feed, and that read the feed (the events for other services).

**Every event once.** A reader who follows the cursor gets every event exactly once, for three reasons:

- A trigger adds a row to `events_unplaced` in the transaction that writes the event. Therefore, the row is visible to
  other transactions if and only if the event is. Two transactions that write events never wait for each other's row.
- Only one transaction at a time assigns places and deletes those rows, because it holds an advisory lock until it has
  committed. PostgreSQL makes a commit visible before it releases the locks. Therefore, the transaction that assigns
  places 8 and 9 sees that 7 is taken. A reader who sees 9 also sees every earlier event, because wxauth never fills an
  earlier place later. If a transaction that assigns places is rolled back, the places have a gap, and the rows of its
  events stay in `events_unplaced`.
- An event whose transaction commits late gets a place after the events that committed earlier, and never a place that
  readers have passed. No event waits for a transaction that is still open, for example of a backup or of psql.

**The order of a user's events.** The events about a user have the order of their commits, because a transaction that
records an event holds the lock of the user's row until the commit. The row in `events_unplaced` draws its number under
this lock. Places are assigned in the order of these numbers. A trigger makes sure that each event has a higher id than
the user's previous event, and no earlier time. Therefore, the audit trail, which is read in the order of ids, has the
same order. An event never gets its place before another event of the same user with a lower id. This rule preserves the
order even if a tool has set the sequence of the numbers back.

**A wrong sequence.** The sequence of places may have a wrong value, for example after the database was moved without
the sequence. Therefore, wxauth compares each new place with the last place of the feed. If a new place is not after the
last place, or is above `MAX_SENSIBLE_NUMBER`, wxauth rolls the transaction back, and counts the places from the last
place instead of using the sequence. The last place is the highest one in the feed or, if the newest events have been
deleted by age, the place in `feed_swept`.

Each place is stored with the event's type, so that reading events of one type does not scan the events of other types.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import asyncpg
from sqlmodel import SQLModel

from wxauth.core.database import Database, Transaction
from wxauth.core.ids import FIRST_ID
from wxauth.core.models import SharedEvent
from wxauth.core.statements import Statement, fragment
from wxauth.core.trail import data_for_siblings
from wxauth.errors import CursorExpired

MAX_POSITION: Final = 2**63 - 1
"""The highest position that the column `feed.position` can contain."""
MAX_SENSIBLE_NUMBER: Final = 2**62
"""The highest number of a sequence that wxauth accepts.

A higher number must be a mistake. If wxauth continued from a number close to `MAX_POSITION`, the feed would soon have
no places left.
"""


class EventToSend(SharedEvent):
    """An event, with the fields that are sent to siblings (services that verify wxauth's tokens)."""

    @property
    def for_siblings(self) -> dict[str, Any]:
        """The event as the feed and webhooks show it."""
        columns = vars(self)
        values = {name: columns[name] for name in EventToSend.model_fields}  # without the columns of a subclass
        return values | {"data": data_for_siblings(self.type, self.data)}


class Place(NamedTuple):
    """A place in the feed, and the event at this place."""

    position: int
    """The number of the place. Later events have higher positions."""
    event_id: UUID
    """The id of the event at this position.

    After a backup is restored, another event may get the same position. Only the id then shows the difference.
    """


class PlacedEvent(SQLModel):
    """An event with a place in the feed."""

    event_id: UUID
    type: str
    """The stored name of the event's type."""


class Placement(PlacedEvent):
    """An event that has just got its place."""

    position: int


class FeedRow(EventToSend):
    """A row of a page of the feed. The columns `is_complete`, `last_position` and `last_id` are equal in all rows.

    If the page is empty, its only row has no event. Then `position` and the fields of the event are None, although
    their types do not say so. `read_page` does not return such a row.
    """

    position: int
    is_complete: bool
    """Whether the feed still contains all events after the reader's place. If it does not, the page is empty."""
    last_position: int
    """The position of the newest event, even if the event has been deleted; 0 if the feed has never had an event."""
    last_id: UUID
    """The id of the newest event, even if it has been deleted; `FIRST_ID` if the feed has never had an event."""


TRY_LOCK_PLACES: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.feed'))")
"""The statement that takes the lock for assigning places, until the transaction ends.

The statement does not wait. If another transaction holds the lock, the statement returns false.
"""
HAS_UNPLACED: Final = Statement[bool]("SELECT EXISTS (SELECT FROM events_unplaced) AS has_some")
"""The query that returns whether any event is waiting for its place."""
HIGHEST_POSITION_FRAGMENT: Final = """
(SELECT COALESCE(max(position), 0)
   FROM ((SELECT position FROM feed ORDER BY position DESC LIMIT 1) UNION ALL SELECT position FROM feed_swept) places)
"""
"""The SQL expression for the highest position in the tables `feed` and `feed_swept`; 0 if both tables are empty."""
_HIGHEST_POSITION: Final = Statement[int](f"SELECT {HIGHEST_POSITION_FRAGMENT} AS position")
# The statement takes the events with the lowest ids first, so that an earlier event of a user never stays without a
# place when a later event of that user gets one. If an event already has a place, because an older `events_unplaced`
# was restored next to a newer `feed`, the event keeps that place.
# `max` raises the number of each event to the highest number of the user's earlier events. Therefore, the events of a
# user are ordered by their ids, even if a tool has set the sequence of the numbers back. An event without a user is a
# partition of its own.
# The join is LATERAL, so that PostgreSQL looks up each event through the index. It could execute any other join
# by reading the whole table, if its statistics are old.
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
# Only a transaction that holds the lock of `TRY_LOCK_PLACES` runs this statement and the next one. The sequence is the
# default of `position`, and each row draws a number in the order of ORDER BY.
_PLACE_BY_SEQUENCE: Final = Statement[Placement](f"""{_WAITING_FRAGMENT}
INSERT INTO feed (event_id, type) SELECT id, type FROM waiting ORDER BY number, id
RETURNING position, event_id, type
""")
_PLACE_AFTER: Final = Statement[Placement](f"""{_WAITING_FRAGMENT}
INSERT INTO feed (position, event_id, type) OVERRIDING SYSTEM VALUE
SELECT :last_position + row_number() OVER (ORDER BY number, id), id, type FROM waiting
RETURNING position, event_id, type
""")


def _page_fragment(places: LiteralString) -> LiteralString:
    """Return the SQL of a page. The page contains the events at the first places that the query `places` returns.

    `bounds` contains the newest place, and the place of the last deleted event. Its join with one row of VALUES makes
    the statement return the newest place even if there are no events.

    `completeness` finds out whether the feed still contains all events after the reader's place. Events are missing if
    the place no longer exists, or if later events have been deleted. No event is missing if the reader's place is the
    place of the last deleted event. Position 0 is before the first event, so the statement needs no row for it. If
    `:is_after` is false, the reader has no place, and gets the oldest remaining events.

    The LATERAL joins with LIMIT make PostgreSQL read only as many rows of the index as the page needs, even if its
    statistics are old.
    """
    return f"""
WITH bounds AS (
    SELECT COALESCE(newest.position, 0) AS last_position,
           COALESCE(newest.event_id, '{fragment(str(FIRST_ID))}') AS last_id,
           COALESCE(swept.position, 0) AS swept_position, swept.event_id AS swept_id
      FROM (VALUES (true)) AS one
           LEFT JOIN feed_swept swept ON true
           LEFT JOIN LATERAL (
               (SELECT position, event_id FROM feed WHERE position > COALESCE(swept.position, 0)
                 ORDER BY position DESC LIMIT 1)
                UNION ALL
               SELECT swept.position, swept.event_id WHERE swept.position IS NOT NULL
                ORDER BY position DESC LIMIT 1) newest ON true
), completeness AS (
    SELECT NOT :is_after::boolean
           OR (swept_position <= :position
               AND (:position = 0
                    OR (swept_position, swept_id) = (:position, :event_id::uuid)
                    OR EXISTS (SELECT FROM feed WHERE feed.position = :position AND feed.event_id = :event_id::uuid)))
           AS is_complete
      FROM bounds
)
SELECT is_complete, last_position, last_id, page.*
  FROM bounds
       CROSS JOIN completeness
       LEFT JOIN LATERAL (
           SELECT place.position, e.id, e.type, e.at, e.user_id, e.app_id, e.actor, e.data
             FROM ({places}) place JOIN events e ON e.id = place.event_id
            ORDER BY place.position LIMIT :limit) page ON is_complete
 ORDER BY page.position
"""


_PAGE: Final = Statement[FeedRow](
    _page_fragment("SELECT position, event_id FROM feed WHERE position > :position ORDER BY position LIMIT :limit")
)
# For each type, PostgreSQL reads the first events from that type's part of the index.
_PAGE_OF_TYPES: Final = Statement[FeedRow](
    _page_fragment("""
    SELECT f.position, f.event_id FROM unnest(:types::text[]) AS wanted CROSS JOIN LATERAL (
           SELECT position, event_id FROM feed WHERE type = wanted AND position > :position
            ORDER BY position LIMIT :limit) f""")
)


class WrongPlace(Exception):
    """The error for a sequence that has produced a wrong position.

    A position is wrong if it is not after the last position, or if it is above `MAX_SENSIBLE_NUMBER`.
    """


NOT_PLACED: Final = (
    WrongPlace,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SequenceGeneratorLimitExceededError,
)
"""The errors that `place_by_sequence` raises if the sequence produces no number, a used number, or a wrong number."""


async def place_by_sequence(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent]:
    """Assign the places that the sequence produces to up to `limit` waiting events, and return these events.

    Raises: one of `NOT_PLACED`, if the sequence is wrong. The caller must then roll the transaction back.
    """
    [last_position] = await transaction.values(_HIGHEST_POSITION)
    placed = await transaction.rows(_PLACE_BY_SEQUENCE, limit=limit)
    new_positions = [placement.position for placement in placed]
    is_rising = all(earlier < later for earlier, later in pairwise([last_position, *new_positions]))
    if not is_rising or max(new_positions, default=0) > MAX_SENSIBLE_NUMBER:
        raise WrongPlace
    return placed


async def place_after_last(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent]:
    """Assign the places directly after the last place to up to `limit` waiting events, and return these events.

    The statement does not use the sequence, which may be wrong.
    """
    [last_position] = await transaction.values(_HIGHEST_POSITION)
    return await transaction.rows(_PLACE_AFTER, last_position=last_position, limit=limit)


async def read_page(
    database: Database, after: Place | None, types: Sequence[str], *, limit: int
) -> tuple[Sequence[FeedRow], Place]:
    """Return the oldest events of these types after a place, and the place after which to read the next page.

    `after` is None for the beginning of the feed, and an empty `types` selects all types. The page contains up to
    `limit` events. If the page is full, the returned place is the place of the last event of the page. Otherwise, the
    returned place is the place of the newest event of any type, so that the next request does not examine the events of
    other types again. With the limit 0, the function returns only the place of the newest event.

    Raises: CursorExpired, if the feed no longer contains all events after `after`.
    """
    position, event_id = (0, FIRST_ID) if after is None else after
    values = {"position": position, "event_id": event_id, "is_after": after is not None, "limit": limit}
    if types:
        distinct_types = sorted(set(types))  # a type that is given twice would return its events twice
        rows = await database.rows(_PAGE_OF_TYPES, **values, types=distinct_types)
    else:
        rows = await database.rows(_PAGE, **values)
    if not rows[0].is_complete:
        raise CursorExpired("events are missing: look up your users, and start again with after=now")
    events = [row for row in rows if row.position is not None]
    is_full = bool(events) and len(events) == limit
    if is_full:
        return events, Place(events[-1].position, events[-1].id)
    return events, Place(rows[0].last_position, rows[0].last_id)
