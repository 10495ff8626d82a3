"""Sweeping what is kept for a time by the operator's own word: events, and addresses.

Each lap goes through one table, a page at a time in the order of the ids, whichever worker goes on with it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wxauth.core.database import Database
from wxauth.people.session_rows import END, START

_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('wxauth.keeping'))"
_SWEEP: Final = "SELECT after, due_at FROM sweeps WHERE name = $1"
# $1 name  $2 the last row that has been looked at  $3 when to go on
_NOTE: Final = """
INSERT INTO sweeps (name, after, due_at) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
"""
# The trail lets nobody else change what is in it.
_MAY_SWEEP: Final = "SELECT set_config('wxauth.sweeping', 'on', true)"

# Of a table with the names below: $1 behind this id  $2 how many less one
_END_OF_EVENTS: Final = "SELECT id, at AS since FROM events WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1"
_END_OF_SESSIONS: Final = "SELECT id, created_at AS since FROM sessions WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1"
_END_OF_CONSENTS: Final = """
SELECT id, 'epoch'::timestamptz AS since FROM consents WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1
"""
# By which ids somebody was known before, and that they were erased, siblings must be able to learn for good.
# $1 behind this id  $2 up to this one  $3 older than
_ERASE_EVENTS: Final = """
DELETE FROM events
 WHERE id > $1 AND id <= $2 AND at < $3 AND type NOT IN ('user.erased', 'user_erased', 'user.merged')
"""
_NETWORK_PART: Final = "network(set_masklen(ip, CASE family(ip) WHEN 4 THEN 24 ELSE 48 END))::inet"
_IS_WHOLE_PART: Final = "masklen(ip) > CASE family(ip) WHEN 4 THEN 24 ELSE 48 END"
_SHORTEN_IN_EVENTS: Final = f"""
UPDATE events SET ip = {_NETWORK_PART} WHERE id > $1 AND id <= $2 AND at < $3 AND {_IS_WHOLE_PART}
"""  # noqa: S608 - put together from constants
# Locked rows are left to the next lap: a sweep that waited for locks could deadlock.
_SHORTEN_IN_SESSIONS: Final = f"""
UPDATE sessions SET ip = {_NETWORK_PART}
 WHERE id IN (SELECT id FROM sessions WHERE id > $1 AND id <= $2 AND last_used_at < $3 AND {_IS_WHOLE_PART}
                 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608 - put together from constants
_SHORTEN_IN_CONSENTS: Final = f"""
UPDATE consents SET ip = {_NETWORK_PART} WHERE id > $1 AND id <= $2 AND given_at < $3 AND {_IS_WHOLE_PART}
"""  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Lap:
    """What is done to each page of a table."""

    name: str
    end_of_page: str
    """Gives the last id of a page, and since when there are such rows; later ones are no older."""
    work: str


EVENTS: Final = Lap("events", _END_OF_EVENTS, _ERASE_EVENTS)
ADDRESSES: Final = (
    Lap("addresses_in_events", _END_OF_EVENTS, _SHORTEN_IN_EVENTS),
    Lap("addresses_in_sessions", _END_OF_SESSIONS, _SHORTEN_IN_SESSIONS),
    # Imported ones are older than their ids, so that a lap ends at the last one alone.
    Lap("addresses_in_consents", _END_OF_CONSENTS, _SHORTEN_IN_CONSENTS),
)


@dataclass(frozen=True, slots=True)
class LappedPage:
    """What became of a page."""

    rows: int
    """How many were written."""
    is_last: bool


async def begin_lap(database: Database, lap: Lap, *, now: datetime) -> None:
    """Let a lap be due from the first row on. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        await transaction.execute(_NOTE, lap.name, START, now)


async def lap_page(
    database: Database, lap: Lap, *, size: int, older_than: datetime, now: datetime, next_lap_at: datetime
) -> LappedPage | None:
    """Sweep the page at which the lap has come.

    None where another worker is at it, or the next lap is not due yet. Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        if not await transaction.fetchval(_TRY_LOCK):
            return None
        after, due_at = await transaction.fetchrow(_SWEEP, lap.name) or (START, now)
        if due_at > now:
            return None
        last = await transaction.fetchrow(lap.end_of_page, after, size - 1)
        until = END if last is None else last["id"]
        await transaction.execute(_MAY_SWEEP)
        written = await transaction.execute(lap.work, after, until, older_than)
        is_last = last is None or last["since"] >= older_than
        await transaction.execute(_NOTE, lap.name, *((START, next_lap_at) if is_last else (until, due_at)))
        return LappedPage(written, is_last)
