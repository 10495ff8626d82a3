"""Sweeps of all sessions, one page at a time in the order of ids.

Ids are UUIDv7, so this is the order of logins, and needs no additional index. An index on `expires_at`, which every
refresh changes, would rule out heap-only updates for refreshes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import first_id_at
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import SYSTEM
from wxauth.server.sessions.rows import START, delete_ended_sessions, end_replaced_sessions, last_of_page

SESSIONS_SWEEP: Final = "sessions"
_REPLACING: Final = "replaced_sessions"
_OVERLAP: Final = timedelta(seconds=60)


class _Progress(SQLModel):
    after: UUID
    due_at: datetime


_TRY_LOCK_REPLACING: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.replaced_sessions'))")
# The planner expects a user to have a few sessions. For a user with a million it would read and sort all of them for
# each page, although the index has them in order.
_READ_IN_ORDER: Final = Statement[str](
    "SELECT set_config(setting, 'off', true) FROM unnest(ARRAY['enable_sort', 'enable_bitmapscan']) AS given (setting)"
)
_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.housekeeping'))")
_PROGRESS: Final = Statement[_Progress]("SELECT after, due_at FROM sweeps WHERE name = :name")
_NOTE: Final = Statement[Nothing]("""
INSERT INTO sweeps (name, after, due_at) VALUES (:name, :after, :due_at)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
""")
# Locked rows are skipped, so that this statement waits for nobody and cannot deadlock.
_DELETE: Final = Statement[Nothing]("""
DELETE FROM sessions WHERE id = ANY (ARRAY(
    SELECT id FROM sessions
     WHERE id > :after AND id <= :until AND (expires_at < :ended_before OR revoked_at < :ended_before)
       FOR UPDATE SKIP LOCKED))
""")


@dataclass(frozen=True, slots=True)
class SweptPage:
    """The result of a page."""

    sessions: int
    """How many sessions were deleted."""
    is_last: bool


@dataclass(frozen=True, slots=True)
class ReplacedPage:
    """The result of a page of old sessions."""

    ended: int
    deleted: int
    is_last: bool


async def replace_old_sessions(
    database: Database, *, open_kept: int, ended_kept: int, size: int, now: datetime, pause: timedelta
) -> ReplacedPage | None:
    """End a page of open sessions, and delete a page of ended ones, beyond the newest of each identity.

    Only identities that have logged in since the last run are checked. None if another worker is doing this or has just
    done it.
    """
    async with database.begin() as transaction:
        if not await transaction.value(_TRY_LOCK_REPLACING):
            return None
        since, due_at = await progress_of(transaction, _REPLACING) or (first_id_at(now - pause), now)
        if due_at > now:
            return None
        await transaction.values(_READ_IN_ORDER)
        ended = await end_replaced_sessions(transaction, since=since, at_most=open_kept, size=size, by=SYSTEM, now=now)
        deleted = await delete_ended_sessions(transaction, since=since, at_most=ended_kept, size=size)
        is_last = max(ended, deleted) < size
        # The next run begins a minute before now, to cover logins under way.
        after, due_at = (first_id_at(now - _OVERLAP), now + pause) if is_last else (since, due_at)
        await note_progress(transaction, _REPLACING, after, due_at=due_at)
        return ReplacedPage(ended, deleted, is_last)


async def sweep_page(
    database: Database, *, size: int, ended_before: datetime, now: datetime, next_sweep_at: datetime
) -> SweptPage | None:
    """Delete the sessions on the sweep's next page that ended before a time.

    None if another worker is sweeping, or the next sweep is not due yet.
    """
    async with database.begin() as transaction:
        if not await transaction.value(_TRY_LOCK):
            return None
        after, due_at = await progress_of(transaction, SESSIONS_SWEEP) or (START, now)
        if due_at > now:
            return None
        until, last_login_at = await last_of_page(transaction, after=after, size=size)
        deleted = await transaction.run(_DELETE, after=after, until=until, ended_before=ended_before)
        # Later sessions began even later, so they cannot have ended before that time.
        is_last = last_login_at is None or last_login_at >= ended_before
        if is_last:
            await note_progress(transaction, SESSIONS_SWEEP, START, due_at=next_sweep_at)
        else:
            await note_progress(transaction, SESSIONS_SWEEP, until, due_at=due_at)
        return SweptPage(deleted, is_last)


async def progress_of(transaction: Transaction, name: str) -> tuple[UUID, datetime] | None:
    """The last id that a sweep has reached, and when it continues; None before its first page."""
    row = await transaction.row(_PROGRESS, name=name)
    return None if row is None else (row.after, row.due_at)


async def note_progress(transaction: Transaction, name: str, after: UUID, *, due_at: datetime) -> None:
    """Store the last id that a sweep has reached, and when it continues."""
    await transaction.run(_NOTE, name=name, after=after, due_at=due_at)
