"""The statements of the feed: how events get their places in it, and how it is read.

Why a reader who follows the cursor gets every event exactly once:

- A trigger adds a row to `events_unplaced` in the transaction that writes the event. So that row exists exactly if the
event has been committed, and two transactions that write events never wait for each other's row.
- One transaction at a time assigns places and deletes those rows: it holds an advisory lock until it has committed. A
commit becomes visible before its locks are released. So the transaction that assigns places 8 and 9 sees that 7 is
taken, and a reader who sees 9 sees everything before it: no place is filled later. If such a transaction is rolled
back, the numbers have a gap, and its rows stay in `events_unplaced`.
- An event that commits late gets its place late: behind the faster ones, never one that readers have passed. Nobody
waits for it: another open transaction, such as that of a backup or of psql, delays nothing.

Why the events about a user have the order of their commits: whoever records one holds the lock of the user's row until
the commit, and the row in `events_unplaced` draws its number under this lock. Places are assigned in the order of these
numbers. A trigger in `core/models.py` puts id and time of an event after those of the user's newest one, so the audit
trail, which is read in the order of ids, has the same order.

A place is stored with the event's type, so that reading one type does not scan all the others.

A person may change their profile any number of times. The first change gets its place at once. Changes within the next
minute get none: `profile_changes` accumulates their fields, and after that minute one more event lists them all. The
audit trail has every single change, and that event too.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.errors import CursorExpired
from wxauth.server.core.clock import new_id
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import EventType, data_for_siblings
from wxauth.server.core.users import PROFILE

PROFILE_PAUSE: Final = timedelta(minutes=1)
"""After siblings got a profile change, further changes by the same person in this time are folded into one event."""


class EventToSend(SQLModel):
    """An event, as siblings get it: without the address."""

    id: UUID
    type: str
    at: datetime
    user_id: UUID | None
    app_id: str | None
    actor: str
    data: dict[str, Any]

    @property
    def for_siblings(self) -> dict[str, Any]:
        """It in the form that siblings get from the feed and from webhooks."""
        columns = vars(self)
        values = {name: columns[name] for name in EventToSend.model_fields}
        return values | {"data": data_for_siblings(self.type, self.data)}


class FeedRow(EventToSend):
    """An event of the feed, with its position."""

    position: int


class PlacedEvent(SQLModel):
    """An event with a place in the feed."""

    event_id: UUID
    type: str
    """The stored name of the type."""


class _FoldedChanges(SQLModel):
    event_id: UUID | None
    fields: list[str]


class _PageRow(FeedRow):
    """An event, if any, and the columns that are the same in each row of a page."""

    is_known: bool
    last_position: int
    last_id: UUID


_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.feed'))")
_ARE_UNPLACED: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM events_unplaced) OR EXISTS (SELECT FROM profile_changes
    WHERE sent_at <= :sent_before) AS are_some
""")
# The first profile change gets a place, unless siblings got another one within the last minute. The others are noted.
_PLACE: Final = Statement[PlacedEvent](f"""
WITH taken AS (
    DELETE FROM events_unplaced
     WHERE number = ANY (ARRAY(SELECT number FROM events_unplaced ORDER BY number LIMIT :limit))
    RETURNING number, event_id
), new AS (
    SELECT number, id, type, at, user_id, data FROM taken JOIN events ON events.id = taken.event_id
), changes AS (
    SELECT id, at, user_id, data,
           row_number() OVER (PARTITION BY user_id ORDER BY number) > 1
           OR EXISTS (SELECT FROM profile_changes p WHERE p.user_id = new.user_id) AS is_folded
      FROM new WHERE type = '{EventType.PROFILE_CHANGED.value}'
), noted AS (
    INSERT INTO profile_changes AS before (user_id, sent_at, event_id, fields)
    SELECT user_id, min(at), (array_agg(id ORDER BY id DESC) FILTER (WHERE is_folded))[1],
           COALESCE(array_agg(DISTINCT field) FILTER (WHERE is_folded), '{{}}')
      FROM changes CROSS JOIN jsonb_array_elements_text(data -> 'fields') AS field
     GROUP BY user_id
    ON CONFLICT (user_id) DO UPDATE
       SET event_id = excluded.event_id,
           fields = ARRAY (SELECT DISTINCT unnest(before.fields || excluded.fields))
)
INSERT INTO feed (event_id, type)
SELECT id, type FROM new WHERE id NOT IN (SELECT id FROM changes WHERE is_folded) ORDER BY number
RETURNING event_id, type
""")  # noqa: S608 - put together from constants
# Locks the users about whom an event is recorded. Changes of a user who is locked by another transaction are left for
# the next time, so that no event waits for that transaction. If the person has been merged since, the event is about
# the remaining user; if they have been erased, there is no event.
_TAKE_CHANGES: Final = Statement[_FoldedChanges]("""
WITH due AS MATERIALIZED (
    SELECT noted.user_id, noted.event_id, COALESCE(former.user_id, noted.user_id) AS current_id
      FROM profile_changes noted LEFT JOIN former_users former ON former.id = noted.user_id
     WHERE sent_at <= :sent_before ORDER BY sent_at LIMIT :limit
), known AS MATERIALIZED (
    SELECT id FROM users WHERE id IN (SELECT current_id FROM due WHERE event_id IS NOT NULL)
), locked AS MATERIALIZED (
    SELECT id FROM users WHERE id = ANY (ARRAY(SELECT id FROM known)) FOR NO KEY UPDATE SKIP LOCKED
)
DELETE FROM profile_changes USING due
 WHERE profile_changes.user_id = due.user_id
   AND (due.event_id IS NULL OR due.current_id IN (SELECT id FROM locked)
        OR due.current_id NOT IN (SELECT id FROM known))
RETURNING profile_changes.event_id, fields
""")
# Actor and app are those of the newest change.
_RECORD_CHANGES: Final = Statement[Nothing]("""
INSERT INTO events (id, type, at, actor, user_id, app_id, data)
SELECT recorded.id, newest.type, :now, CASE newest.actor WHEN newest.user_id::text THEN users.id::text
    ELSE newest.actor END,
       users.id, newest.app_id, recorded.data
  FROM unnest(:ids::uuid[], :event_ids::uuid[], :data::jsonb[]) AS recorded (id, event_id, data)
  JOIN events newest ON newest.id = recorded.event_id
  JOIN users ON users.id = COALESCE((SELECT user_id FROM former_users WHERE id = newest.user_id), newest.user_id)
""")


def _page_part(places: str) -> str:
    # A place has a gap behind it if it no longer exists, or if events behind it have been swept. There is no gap if the
    # place itself was the last one swept. Position 0, before the first event, has no row and needs none.
    return f"""
WITH last AS (
    SELECT COALESCE(f.position, s.position, 0) AS position,
           COALESCE(f.event_id, s.event_id, '00000000-0000-0000-0000-000000000000') AS event_id,
           COALESCE(s.position, 0) AS swept, s.event_id AS swept_id
      FROM (VALUES (true)) AS one
      LEFT JOIN (SELECT position, event_id FROM feed ORDER BY position DESC LIMIT 1) f ON true
      LEFT JOIN feed_swept s ON true
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
"""  # noqa: S608 - put together from constants


_PAGE: Final = Statement[_PageRow](
    _page_part("SELECT position, event_id FROM feed WHERE position > :position ORDER BY position LIMIT :limit")
)
# The first events of each type, from that type's part of the index.
_PAGE_OF_TYPES: Final = Statement[_PageRow](
    _page_part("""
    SELECT f.position, f.event_id FROM unnest(:types::text[]) AS wanted CROSS JOIN LATERAL (
           SELECT position, event_id FROM feed WHERE type = wanted AND position > :position
            ORDER BY position LIMIT :limit) f""")
)


class Place(NamedTuple):
    """A place in the feed."""

    position: int
    event_id: UUID


BEGINNING: Final = Place(0, UUID(int=0))
"""Before the first event."""
LAST_POSITION: Final = 2**63 - 1
"""The highest possible position."""


class FeedSlice(NamedTuple):
    """Some events of the feed, and the place up to which it was read."""

    items: Sequence[FeedRow]
    last: Place


async def are_unplaced(database: Database, *, now: datetime) -> bool:
    """Whether there are events without a place, or folded profile changes to send."""
    return bool(await database.value(_ARE_UNPLACED, sent_before=now - PROFILE_PAUSE))


async def may_place(transaction: Transaction) -> bool:
    """Take the lock for assigning places, until the transaction ends. False if another process has it."""
    return bool(await transaction.value(_TRY_LOCK))


async def record_folded_changes(transaction: Transaction, *, now: datetime, limit: int) -> int:
    """Record an event for each person whose folded changes are due, and return for how many people this is settled."""
    noted = await transaction.rows(_TAKE_CHANGES, sent_before=now - PROFILE_PAUSE, limit=limit)
    folded = [row for row in noted if row.event_id is not None]
    if folded:
        data = [{"fields": [name for name in PROFILE if name in row.fields]} for row in folded]
        await transaction.run(
            _RECORD_CHANGES,
            ids=[new_id(now) for _ in folded],
            event_ids=[row.event_id for row in folded],
            data=data,
            now=now,
        )
    return len(noted)


async def place_some(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent]:
    """Assign places to events in the order of their numbers. The caller holds the lock of `may_place`."""
    return await transaction.rows(_PLACE, limit=limit)


async def read_slice(database: Database, after: Place | None, types: Sequence[str], *, limit: int) -> FeedSlice:
    """The oldest events after a place, of these types, or of all for none.

    `last` is past every event that was examined, so that the next reader does not examine events of other types again.

    Args:
        database: Where the events are.
        after: The place that the reader has reached; None for the beginning.
        types: Stored names of types; empty for all types.
        limit: Maximum number of events; 0 to get only the newest event's place.

    Raises: CursorExpired, if events after that place are missing.
    """
    position, event_id = after or BEGINNING
    values = {"position": position, "event_id": event_id, "is_after": after is not None, "limit": limit}
    rows = await (
        database.rows(_PAGE_OF_TYPES, **values, types=sorted(set(types))) if types else database.rows(_PAGE, **values)
    )
    if not rows[0].is_known:
        raise CursorExpired("there are events missing: look your users up, and begin at after=now")
    items = [row for row in rows if row.position is not None]
    if items and len(items) == limit:
        return FeedSlice(items, Place(items[-1].position, items[-1].id))
    return FeedSlice(items, Place(rows[0].last_position, rows[0].last_id))
