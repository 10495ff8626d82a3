"""Work on all sessions, a page at a time in the order of their ids: sweeping them, sealing them anew.

Ids are UUIDv7, so that this order is that of the logins. It needs no index of its own: one on `expires_at`,
which every refresh changes, would cost each refresh its heap-only update.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.core.database import Database

START: Final = UUID(int=0)
"""Before the first session."""
END: Final = UUID(int=2**128 - 1)
"""After the last one."""

_SESSIONS: Final = "sessions"
_TRY_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.housekeeping'))")
_SWEEP: Final = text("SELECT after, due_at FROM sweeps WHERE name = :name")
_NOTE: Final = text("""
    INSERT INTO sweeps (name, after, due_at) VALUES (:name, :after, :due_at)
    ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
""")
_END_OF_PAGE: Final = text("SELECT id, created_at FROM sessions WHERE id > :after ORDER BY id OFFSET :others LIMIT 1")
# What others have locked is passed over: who waits for nobody is part of no deadlock.
_ERASE: Final = text("""
    DELETE FROM sessions WHERE id IN (
        SELECT id FROM sessions
         WHERE id > :after AND id <= :until
           AND (expires_at < :ended_before OR revoked_at < :ended_before)
           FOR UPDATE SKIP LOCKED)
""")
_SEALED_OTHERWISE: Final = text("""
    SELECT id, app_id, openid, session_key FROM sessions
     WHERE id > :after AND id <= :until
       AND session_key IS NOT NULL AND substring(session_key FOR octet_length(:prefix)) <> :prefix
""").bindparams(bindparam("prefix", type_=BYTEA))
_REPLACE: Final = text("""
    WITH free AS (
        SELECT sessions.id, anew
          FROM unnest(:ids, :former, :anew) AS sealed (id, former, anew)
          JOIN sessions ON sessions.id = sealed.id AND session_key = former
           FOR NO KEY UPDATE OF sessions SKIP LOCKED)
    UPDATE sessions SET session_key = anew FROM free WHERE sessions.id = free.id
""").bindparams(
    bindparam("ids", type_=ARRAY(PG_UUID)),
    bindparam("former", type_=ARRAY(BYTEA)),
    bindparam("anew", type_=ARRAY(BYTEA)),
)


@dataclass(frozen=True, slots=True)
class SweptPage:
    """What became of a page."""

    sessions: int
    """How many were swept away."""
    is_last: bool


@dataclass(frozen=True, slots=True)
class SealedSessionKey:
    """A session_key as it is stored."""

    session_id: UUID
    app_id: str
    openid: str
    sealed: bytes


async def sweep_page(
    database: Database, *, size: int, ended_before: datetime, now: datetime, next_sweep_at: datetime
) -> SweptPage | None:
    """Erase what ended before that time from the page at which the sweep has come.

    None where another worker is at it, or the next sweep is not due yet. Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        if not (await transaction.execute(_TRY_LOCK)).scalar_one():
            return None
        after, due_at = (await transaction.execute(_SWEEP, {"name": _SESSIONS})).one_or_none() or (START, now)
        if due_at > now:
            return None
        until, last_login_at = await _end_of_page(transaction, after=after, size=size)
        page = {"after": after, "until": until, "ended_before": ended_before}
        erased = await transaction.execute(_ERASE, page)
        # Later logins cannot have ended so early.
        is_last = last_login_at is None or last_login_at >= ended_before
        note = {"after": START, "due_at": next_sweep_at} if is_last else {"after": until, "due_at": due_at}
        await transaction.execute(_NOTE, {"name": _SESSIONS, **note})
        return SweptPage(erased.rowcount, is_last)


async def session_keys_sealed_otherwise(
    database: Database, *, prefix: bytes, after: UUID, size: int
) -> tuple[list[SealedSessionKey], UUID]:
    """Those of one page that do not begin with the prefix, and where the page ends: at `END`, if it is the last.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        until, _ = await _end_of_page(transaction, after=after, size=size)
        rows = await transaction.execute(_SEALED_OTHERWISE, {"after": after, "until": until, "prefix": prefix})
        return [SealedSessionKey(*row) for row in rows], until


async def replace_session_keys(database: Database, former: Sequence[SealedSessionKey], anew: Sequence[bytes]) -> int:
    """Store these in place of the former ones; how many were still there and free to be changed.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        replaced = await transaction.execute(
            _REPLACE,
            {"ids": [key.session_id for key in former], "former": [key.sealed for key in former], "anew": list(anew)},
        )
        return replaced.rowcount


async def _end_of_page(transaction: AsyncConnection, *, after: UUID, size: int) -> tuple[UUID, datetime | None]:
    """The last id of the page and when that session began."""
    end = (await transaction.execute(_END_OF_PAGE, {"after": after, "others": size - 1})).one_or_none()
    return (END, None) if end is None else (end.id, end.created_at)
