"""Sweeps of data with a configurable retention: events and addresses.

A lap goes through one table, one page at a time in the order of ids. Any worker may sweep the next page.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.ip_addresses import TRUNCATED
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.housekeeping.sweep_rows import note_progress, progress_of
from wxauth.server.sessions.rows import END, START


class _LastRow(SQLModel):
    id: UUID
    since: datetime


_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.keeping'))")
# A trigger refuses every other change to events, because the audit trail must not be altered.
_MAY_SWEEP: Final = Statement[str]("SELECT set_config('wxauth.sweeping', 'on', true)")

# The last row of a page of each table.
_END_OF_EVENTS: Final = Statement[_LastRow](
    "SELECT id, at AS since FROM events WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
_END_OF_SESSIONS: Final = Statement[_LastRow](
    "SELECT id, created_at AS since FROM sessions WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
_END_OF_CONSENTS: Final = Statement[_LastRow](
    "SELECT id, 'epoch'::timestamptz AS since FROM consents WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
# Merges, splits and erasures are kept forever, so that sibling services can always learn of them.
_DELETE_EVENTS: Final = Statement[Nothing]("""
DELETE FROM events
 WHERE id > :after AND id <= :until AND at < :older_than AND type NOT IN ('user.erased', 'user.merged', 'user.split')
""")
_TRUNCATED: Final = f"{TRUNCATED.network_in_sql('ip')}::inet"
_IS_NOT_TRUNCATED: Final = f"masklen(ip) > {TRUNCATED.length_in_sql('ip')}"
_OPENED_TRUNCATED: Final = f"{TRUNCATED.network_in_sql('opened_ip')}::inet"
_IS_OPENED_NOT_TRUNCATED: Final = f"masklen(opened_ip) > {TRUNCATED.length_in_sql('opened_ip')}"
_TRUNCATE_IN_EVENTS: Final = Statement[Nothing](f"""
UPDATE events SET ip = {_TRUNCATED}
 WHERE id > :after AND id <= :until AND at < :older_than AND {_IS_NOT_TRUNCATED}
""")  # noqa: S608 - put together from constants
# Locked rows are skipped and left to the next lap, because a sweep that waits for locks could deadlock.
_TRUNCATE_IN_SESSIONS: Final = Statement[Nothing](f"""
UPDATE sessions SET ip = CASE WHEN last_used_at < :older_than AND {_IS_NOT_TRUNCATED} THEN {_TRUNCATED} ELSE ip END,
                    opened_ip = CASE WHEN {_IS_OPENED_NOT_TRUNCATED} THEN {_OPENED_TRUNCATED} ELSE opened_ip END
 WHERE id = ANY (ARRAY(
     SELECT id FROM sessions
      WHERE id > :after AND id <= :until AND created_at < :older_than
        AND (last_used_at < :older_than AND {_IS_NOT_TRUNCATED} OR {_IS_OPENED_NOT_TRUNCATED})
        FOR UPDATE SKIP LOCKED))
""")  # noqa: S608 - put together from constants
_TRUNCATE_IN_CONSENTS: Final = Statement[Nothing](f"""
UPDATE consents SET ip = {_TRUNCATED}
 WHERE id > :after AND id <= :until AND given_at < :older_than AND {_IS_NOT_TRUNCATED}
""")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Lap:
    """A pass through one table, and the statement to run on each page."""

    name: str
    end_of_page: Statement[_LastRow]
    """The query for the last id of a page, and for a time before which no row after the page was made."""
    work: Statement[Nothing]


EVENTS: Final = Lap("events", _END_OF_EVENTS, _DELETE_EVENTS)
ADDRESSES: Final = (
    Lap("addresses_in_events", _END_OF_EVENTS, _TRUNCATE_IN_EVENTS),
    Lap("addresses_in_sessions", _END_OF_SESSIONS, _TRUNCATE_IN_SESSIONS),
    # Imported consents are older than their ids. So this lap always goes through to the last row.
    Lap("addresses_in_consents", _END_OF_CONSENTS, _TRUNCATE_IN_CONSENTS),
)


@dataclass(frozen=True, slots=True)
class LappedPage:
    """The result of a page."""

    rows: int
    """How many rows were changed or deleted."""
    is_last: bool


async def begin_lap(database: Database, lap: Lap, *, now: datetime) -> None:
    """Start a lap now, at the first row."""
    async with database.begin() as transaction:
        await note_progress(transaction, lap.name, START, due_at=now)


async def lap_page(
    database: Database, lap: Lap, *, size: int, older_than: datetime, now: datetime, next_lap_at: datetime
) -> LappedPage | None:
    """Sweep the lap's next page.

    None if another worker is sweeping, or the next lap is not due yet.
    """
    async with database.begin() as transaction:
        if not await transaction.value(_TRY_LOCK):
            return None
        after, due_at = await progress_of(transaction, lap.name) or (START, now)
        if due_at > now:
            return None
        last = await transaction.row(lap.end_of_page, after=after, skipped=size - 1)
        until = END if last is None else last.id
        await transaction.value(_MAY_SWEEP)
        written = await transaction.run(lap.work, after=after, until=until, older_than=older_than)
        is_last = last is None or last.since >= older_than
        if is_last:
            await note_progress(transaction, lap.name, START, due_at=next_lap_at)
        else:
            await note_progress(transaction, lap.name, until, due_at=due_at)
        return LappedPage(written, is_last)
