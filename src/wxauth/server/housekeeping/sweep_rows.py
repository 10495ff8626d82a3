"""Sweeping all sessions, a page at a time in the order of their ids.

Ids are UUIDv7, so this is the order of the logins. It needs no further index. An index on `expires_at`, which every
refresh changes, would make heap-only updates impossible for refreshes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import first_id_at
from wxauth.server.core.trail import SYSTEM
from wxauth.server.sessions.rows import START, end_of_page, end_replaced_sessions

_SESSIONS: Final = "sessions"
_REPLACING: Final = "replaced_sessions"
_OVERLAP: Final = timedelta(seconds=60)
_TRY_LOCK_REPLACING: Final = "SELECT pg_try_advisory_xact_lock(hashtext('wxauth.replaced_sessions'))"
_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('wxauth.housekeeping'))"
_PROGRESS: Final = "SELECT after, due_at FROM sweeps WHERE name = $1"
# $1 name  $2 the id of the last row looked at  $3 when the next page is due
_NOTE: Final = """
INSERT INTO sweeps (name, after, due_at) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
"""
# Locked rows are skipped: a statement that waits for nobody is part of no deadlock.
# $1 behind this id  $2 up to this one  $3 ended before
_ERASE: Final = """
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions
     WHERE id > $1 AND id <= $2 AND (expires_at < $3 OR revoked_at < $3)
       FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class SweptPage:
    """The result of a page."""

    sessions: int
    """How many sessions were erased."""
    is_last: bool


async def replace_old_sessions(database: Database, *, at_most: int, now: datetime, pause: timedelta) -> int:
    """End all but the newest open sessions of each identity that has logged in since the last time; how many.

    Nothing is done if another worker has just done it. Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        if not await transaction.fetchval(_TRY_LOCK_REPLACING):
            return 0
        since, due_at = await progress_of(transaction, _REPLACING) or (first_id_at(now - pause), now)
        if due_at > now:
            return 0
        # The next look begins a minute before now, for the sake of logins under way.
        await note_progress(transaction, _REPLACING, first_id_at(now - _OVERLAP), due_at=now + pause)
        return await end_replaced_sessions(transaction, since=since, at_most=at_most, by=SYSTEM, now=now)


async def sweep_page(
    database: Database, *, size: int, ended_before: datetime, now: datetime, next_sweep_at: datetime
) -> SweptPage | None:
    """Erase the sessions on the sweep's next page that ended before a time.

    None if another worker is sweeping, or the next sweep is not due yet. Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        if not await transaction.fetchval(_TRY_LOCK):
            return None
        after, due_at = await progress_of(transaction, _SESSIONS) or (START, now)
        if due_at > now:
            return None
        until, last_login_at = await end_of_page(transaction, after=after, size=size)
        erased = await transaction.execute(_ERASE, after, until, ended_before)
        # Sessions behind this page began even later, so they cannot have ended before that time.
        is_last = last_login_at is None or last_login_at >= ended_before
        if is_last:
            await note_progress(transaction, _SESSIONS, START, due_at=next_sweep_at)
        else:
            await note_progress(transaction, _SESSIONS, until, due_at=due_at)
        return SweptPage(erased, is_last)


async def progress_of(transaction: Transaction, name: str) -> tuple[UUID, datetime] | None:
    """The last id that a sweep has looked at, and when it goes on; None before its first page."""
    row: tuple[UUID, datetime] | None = await transaction.fetchrow(_PROGRESS, name)
    return row


async def note_progress(transaction: Transaction, name: str, after: UUID, *, due_at: datetime) -> None:
    """Note the last id that a sweep has looked at, and when it goes on."""
    await transaction.execute(_NOTE, name, after, due_at)
