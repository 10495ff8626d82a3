"""The statements that give events their places in the feed, that read the feed, and that correct its sequences.

The section "An event" of docs/contribute/architecture.md says why readers get each event exactly once, and in which
order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import asyncpg
from sqlmodel import SQLModel

from wxauth.core.clock import FIRST_ID
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.models import SharedEvent
from wxauth.core.statements import Statement, fragment
from wxauth.core.trail import data_for_siblings
from wxauth.errors import CursorExpired

MAX_POSITION: Final = 2**63 - 1  # of a bigint
# Continuing from a mistaken number close to `MAX_POSITION` would soon leave the feed no places.
MAX_SENSIBLE_NUMBER: Final = 2**62

log = get_logger()


class EventToSend(SharedEvent):
    """An event, with the fields that siblings (other services) get."""

    @property
    def for_siblings(self) -> dict[str, Any]:
        columns = vars(self)
        values = {name: columns[name] for name in EventToSend.model_fields}  # without the columns of a subclass
        return values | {"data": data_for_siblings(self.type, self.data)}


class Place(NamedTuple):
    position: int
    event_id: UUID  # shows whether another event got this position after a backup was restored


class PlacedEvent(SQLModel):
    event_id: UUID
    type: str


class _Placement(PlacedEvent):
    """An event that has just got its place."""

    position: int


class _PageRow(EventToSend):
    """A row of a page of the feed, with an event. `is_complete`, `last_position` and `last_id` are equal in all rows.

    If the page is empty, its only row has no event: `position` and the event's fields are None, unlike their types.
    `read_page` does not return such a row.
    """

    position: int
    is_complete: bool  # whether the feed still contains all events after the reader's place; if not, the page is empty
    last_position: int  # of the newest event, even of a deleted one; 0 if there was no event
    last_id: UUID  # of the same event; `FIRST_ID` if there was no event


# Only the transaction that holds this lock assigns places. PostgreSQL releases the lock after the commit is visible.
TRY_LOCK_PLACES: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.feed'))")
HAS_UNPLACED: Final = Statement[bool]("SELECT EXISTS (SELECT FROM events_unplaced) AS has_some")
_HIGHEST_POSITION_FRAGMENT: Final = """
(SELECT COALESCE(max(position), 0)
   -- `feed_swept` has the highest place of the events that were deleted by age
   FROM ((SELECT position FROM feed ORDER BY position DESC LIMIT 1) UNION ALL SELECT position FROM feed_swept) places)
"""
_HIGHEST_POSITION: Final = Statement[int](f"SELECT {_HIGHEST_POSITION_FRAGMENT} AS position")
_WAITING_FRAGMENT: Final = """
WITH taken AS (
    DELETE FROM events_unplaced
     -- the lowest ids first: no earlier event of a user stays without a place when a later one gets it
     WHERE event_id = ANY (ARRAY(SELECT event_id FROM events_unplaced ORDER BY event_id LIMIT :limit))
    RETURNING number, event_id
), waiting AS (
    -- `max` keeps a user's events in the order of their ids, even if a tool has set the sequence of numbers back; an
    -- event without a user is its own partition
    SELECT e.id, e.type, max(number) OVER (PARTITION BY COALESCE(e.user_id, e.id) ORDER BY e.id) AS number
      -- with LATERAL, PostgreSQL reads the index, however old its statistics are
      FROM taken CROSS JOIN LATERAL (SELECT id, type, user_id FROM events WHERE id = taken.event_id LIMIT 1) e
     -- an event keeps its place: an older `events_unplaced` may have been restored next to a newer `feed`
     WHERE NOT EXISTS (SELECT FROM feed WHERE event_id = taken.event_id)
)
"""
# The sequence is the default of `position`, and the rows draw its numbers in the order of ORDER BY.
_PLACE_BY_SEQUENCE: Final = Statement[_Placement](f"""{_WAITING_FRAGMENT}
INSERT INTO feed (event_id, type) SELECT id, type FROM waiting ORDER BY number, id
RETURNING position, event_id, type
""")
_PLACE_AFTER: Final = Statement[_Placement](f"""{_WAITING_FRAGMENT}
INSERT INTO feed (position, event_id, type) OVERRIDING SYSTEM VALUE
SELECT :last_position + row_number() OVER (ORDER BY number, id), id, type FROM waiting
RETURNING position, event_id, type
""")


def _page_fragment(places: LiteralString) -> LiteralString:
    # The LATERAL joins with LIMIT read only as many rows of the index as the page needs, even with old statistics.
    return f"""
WITH bounds AS (
    SELECT COALESCE(newest.position, 0) AS last_position,
           COALESCE(newest.event_id, '{fragment(str(FIRST_ID))}') AS last_id,
           COALESCE(swept.position, 0) AS swept_position, swept.event_id AS swept_id
      -- one row even if there are no events
      FROM (VALUES (true)) AS one
           LEFT JOIN feed_swept swept ON true
           LEFT JOIN LATERAL (
               (SELECT position, event_id FROM feed WHERE position > COALESCE(swept.position, 0)
                 ORDER BY position DESC LIMIT 1)
                UNION ALL
               SELECT swept.position, swept.event_id WHERE swept.position IS NOT NULL
                ORDER BY position DESC LIMIT 1) newest ON true
), completeness AS (
    -- events are missing if the reader's place no longer exists, or if later ones were deleted; none is missing after
    -- the place of the last deleted event, or after position 0, which has no row
    SELECT NOT :is_after::boolean  -- a reader who begins with the oldest event has no place
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


_PAGE: Final = Statement[_PageRow](
    _page_fragment("SELECT position, event_id FROM feed WHERE position > :position ORDER BY position LIMIT :limit")
)
# Each type has its own part of the index, which LATERAL reads.
_PAGE_OF_TYPES: Final = Statement[_PageRow](
    _page_fragment("""
    SELECT f.position, f.event_id FROM unnest(:types::text[]) AS wanted CROSS JOIN LATERAL (
           SELECT position, event_id FROM feed WHERE type = wanted AND position > :position
            ORDER BY position LIMIT :limit) f""")
)


class WrongPlace(Exception):
    """The sequence produced a position that is not after the last one, or is above `MAX_SENSIBLE_NUMBER`."""


# `place_by_sequence` raises one of these if the sequence produces no number, a used number, or a wrong number.
NOT_PLACED: Final = (
    WrongPlace,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SequenceGeneratorLimitExceededError,
)


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
    """Assign the places after the last one to up to `limit` waiting events, without the sequence."""
    [last_position] = await transaction.values(_HIGHEST_POSITION)
    return await transaction.rows(_PLACE_AFTER, last_position=last_position, limit=limit)


async def read_page(
    database: Database, after: Place | None, types: Sequence[str], *, limit: int
) -> tuple[Sequence[EventToSend], Place]:
    """Return the oldest events after a place (None: the beginning), and the place after which to read the next page.

    Empty `types` select all. A page that is not full returns the place of the newest event of any type, so that the
    next request does not examine events of other types again. With the limit 0, only that place is returned.

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


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The state of a sequence, and the highest number in the tables that use it.

    For example, a sequence falls behind its table if a tool copies the database without the sequences.
    """

    name: str  # quoted for SQL
    last_number: int | None  # 0 before the first number; None if wxauth's role may not read the sequence
    highest: int
    may_set: bool
    role: str  # quoted for SQL

    @property
    def is_wrong(self) -> bool:
        """Whether the next numbers would be used already, or far too high. False if the sequence may not be read."""
        if self.last_number is None:
            return False
        is_behind = self.last_number < self.highest
        # If the tables already contain far too high numbers, the next number must still be higher.
        is_far_too_high = self.last_number > max(self.highest, MAX_SENSIBLE_NUMBER)
        return is_behind or is_far_too_high


_READ_SEQUENCES: Final = Statement[SequenceState](f"""
WITH sequences (name, highest) AS (VALUES
    (pg_get_serial_sequence('feed', 'position'), {_HIGHEST_POSITION_FRAGMENT}),
    (pg_get_serial_sequence('events_unplaced', 'number'), (SELECT COALESCE(max(number), 0) FROM events_unplaced))
)
SELECT name::regclass::text AS name,
       -- `pg_sequence_last_value` requires one of these privileges
       CASE WHEN has_sequence_privilege(name, 'SELECT, USAGE')
            THEN COALESCE(pg_sequence_last_value(name), 0) END AS last_number,
       highest, has_sequence_privilege(name, 'SELECT') AND has_sequence_privilege(name, 'UPDATE') AS may_set,
       quote_ident(current_user) AS role
  FROM sequences WHERE name IS NOT NULL
""")
_SET_SEQUENCE: Final = Statement[bool]("""
SELECT setval(seqrelid, :highest) IS NOT NULL AS is_set FROM pg_sequence
 -- within the sequence's bounds, outside of which `setval` fails
 WHERE seqrelid = :name::text::regclass AND :highest::bigint BETWEEN seqmin AND seqmax
""")


async def read_sequences(reader: Database | Transaction) -> Sequence[SequenceState]:
    """Return the states of the feed's sequences that exist."""
    return await reader.rows(_READ_SEQUENCES)


async def correct_sequences(transaction: Transaction) -> None:
    """Set each wrong sequence to its tables' highest number. The caller holds the lock of placing."""
    for sequence in await read_sequences(transaction):
        if not sequence.is_wrong:
            continue
        # The highest number of an empty table is 0, but a sequence cannot be set to 0.
        highest = max(sequence.highest, 1)
        if sequence.may_set and await transaction.value(_SET_SEQUENCE, name=sequence.name, highest=highest):
            log.warning("sequence_corrected", sequence=sequence.name, was=sequence.last_number, now=highest)
        else:
            log.warning(
                "sequence_not_corrected", sequence=sequence.name, at=sequence.last_number, what_to_do="wxauth check"
            )
