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

A person may change their profile as often as they like. The first change gets its place at once. Those that follow
within a minute get none: `profile_changes` keeps what they changed. When the minute is over, one more event says all
of it. The trail has every change, as it was made, and that event too.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import new_id
from wxauth.server.core.trail import EventType

PROFILE_PAUSE: Final = timedelta(minutes=1)
"""How long after siblings were told of a changed profile the person's next changes are folded into one event."""

_PROFILE: Final = ("nickname", "avatar_url")
_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('wxauth.feed'))"
# $1 profile changes are due that were told before
_ARE_UNPLACED: Final = """
SELECT EXISTS (SELECT FROM events_unplaced) OR EXISTS (SELECT FROM profile_changes WHERE told_at <= $1) AS are_some
"""
# The first change of a profile gets a place, unless another one was told within the last minute. The others are noted.
# So is a change whose id is behind that of the person's erasure, which waited for it: nobody is left to tell it of.
# $1 how many events at most
_PLACE: Final = f"""
WITH taken AS (
    DELETE FROM events_unplaced
     WHERE event_id IN (SELECT event_id FROM events_unplaced ORDER BY event_id LIMIT $1)
    RETURNING event_id
), new AS (
    SELECT id, type, at, user_id, data FROM taken JOIN events ON events.id = taken.event_id
), erased AS (
    SELECT id, user_id FROM new WHERE type = '{EventType.USER_ERASED.value}'
), changes AS (
    SELECT id, at, user_id, data,
           row_number() OVER (PARTITION BY user_id ORDER BY id) > 1
           OR EXISTS (SELECT FROM profile_changes p WHERE p.user_id = new.user_id)
           OR EXISTS (SELECT FROM erased WHERE erased.user_id = new.user_id AND erased.id < new.id) AS is_folded
      FROM new WHERE type = '{EventType.PROFILE_CHANGED.value}'
), noted AS (
    INSERT INTO profile_changes AS before (user_id, told_at, event_id, fields)
    SELECT user_id, min(at), (array_agg(id ORDER BY id DESC) FILTER (WHERE is_folded))[1],
           COALESCE(array_agg(DISTINCT field) FILTER (WHERE is_folded), '{{}}')
      FROM changes CROSS JOIN jsonb_array_elements_text(data -> 'fields') AS field
     GROUP BY user_id
    ON CONFLICT (user_id) DO UPDATE
       SET event_id = excluded.event_id,
           fields = ARRAY (SELECT DISTINCT unnest(before.fields || excluded.fields))
)
INSERT INTO feed (event_id, type)
SELECT id, type FROM new WHERE id NOT IN (SELECT id FROM changes WHERE is_folded) ORDER BY id
RETURNING event_id, type
"""  # noqa: S608 - put together from constants
# $1 told before  $2 how many
_TAKE_CHANGES: Final = """
DELETE FROM profile_changes
 WHERE user_id IN (SELECT user_id FROM profile_changes WHERE told_at <= $1 ORDER BY told_at LIMIT $2)
RETURNING event_id, fields
"""
# By whom and in which app is that of the newest change. If the person has been merged since, the event is the remaining
# user's; if they have been erased, there is none. $1 ids  $2 newest changes  $3 data  $4 now
_TELL_CHANGES: Final = """
INSERT INTO events (id, type, at, actor, user_id, app_id, data)
SELECT told.id, newest.type, $4, CASE newest.actor WHEN newest.user_id::text THEN users.id::text ELSE newest.actor END,
       users.id, newest.app_id, told.data
  FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[]) AS told (id, event_id, data)
  JOIN events newest ON newest.id = told.event_id
  JOIN users ON users.id = COALESCE((SELECT user_id FROM former_users WHERE id = newest.user_id), newest.user_id)
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


async def are_unplaced(database: Database, *, now: datetime) -> bool:
    """Whether there are events without a place, or changes of profiles to tell. Raises: StorageUnavailable."""
    return bool((await database.fetchrow(_ARE_UNPLACED, now - PROFILE_PAUSE))["are_some"])


async def may_place(transaction: Transaction) -> bool:
    """Whether this transaction alone gives places, until it ends; otherwise another process is doing so."""
    may: bool = await transaction.fetchval(_TRY_LOCK)
    return may


async def tell_folded_changes(transaction: Transaction, *, now: datetime, limit: int) -> int:
    """Record an event for each person whose folded changes are due; how many people were looked at."""
    noted = await transaction.fetch(_TAKE_CHANGES, now - PROFILE_PAUSE, limit)
    folded = [row for row in noted if row["event_id"] is not None]
    if folded:
        data = [{"fields": [name for name in _PROFILE if name in row["fields"]]} for row in folded]
        await transaction.execute(
            _TELL_CHANGES, [new_id(now) for _ in folded], [row["event_id"] for row in folded], data, now
        )
    return len(noted)


async def place_some(transaction: Transaction, *, limit: int) -> Sequence[PlacedEvent]:
    """Give events their places in the order of their ids. The caller has asked `may_place`."""
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
