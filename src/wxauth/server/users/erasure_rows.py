"""The statements that erase users: at once, after the days of grace, and in pages for what is left."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement, one_and_id
from wxauth.server.core.trail import ERASED_DATA, REPORTS_ERASURE
from wxauth.server.sessions.rows import START

MAX_ROWS_ERASED_WITH_USER: Final = 1000
"""How many rows are erased in the transaction that deletes the user."""
_WAIT_FOR_ANOTHER_SECONDS: Final = 0.1
"""Seconds to wait while another worker erases a page."""
_MAX_IDS_ERASED_WITH_USER: Final = 10
"""For how many of a person's ids rows are erased in the transaction that deletes the user."""


class _WaitingErasure(SQLModel):
    user_id: UUID
    about_after: UUID
    acted_after: UUID


# One worker at a time, so that the load on the database does not depend on how many erasures wait.
_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.erasures'))")
_PUT_OFF: Final = Statement[Nothing]("""
INSERT INTO erasures (user_id, about_after, acted_after)
SELECT id, :start, :start FROM unnest(:user_ids::uuid[]) AS wanted (id)
ON CONFLICT (user_id) DO UPDATE SET about_after = excluded.about_after, acted_after = excluded.acted_after
""")
_NEXT: Final = Statement[_WaitingErasure]("""
SELECT user_id, about_after, acted_after FROM erasures WHERE :user_ids::uuid[] IS NULL OR user_id = ANY (:user_ids)
 ORDER BY user_id LIMIT 1
""")
_ARE_WAITING: Final = Statement[bool](
    "SELECT EXISTS (SELECT FROM erasures WHERE :user_ids::uuid[] IS NULL OR user_id = ANY (:user_ids)) AS are_some"
)
# Removes addresses and data from events about the person. Data that other services receive stays: it is not personal.
_ERASE_ABOUT: Final = Statement[UUID](f"""
WITH page AS MATERIALIZED (
    SELECT id FROM events WHERE {one_and_id("events.user_id", ":user_id", after=":after")} AND id > :after
     ORDER BY user_id, id LIMIT :size
), erased AS (
    UPDATE events SET ip = NULL, data = {ERASED_DATA}
      FROM page
     WHERE events.id = page.id AND (ip IS NOT NULL OR data <> {ERASED_DATA}) AND {REPORTS_ERASURE} IS NOT TRUE
)
SELECT id FROM page ORDER BY id
""")  # noqa: S608 - put together from constants
# Removes the person's address from events about others.
_ERASE_ACTED: Final = Statement[UUID](f"""
WITH page AS MATERIALIZED (
    SELECT id FROM events
     WHERE {one_and_id("events.actor", ":user_id::uuid::text", after=":after")} AND id > :after AND ip IS NOT NULL
     ORDER BY actor, id LIMIT :size
), erased AS (
    UPDATE events SET ip = NULL FROM page WHERE events.id = page.id
)
SELECT id FROM page ORDER BY id
""")  # noqa: S608 - put together from constants
_ERASE_CONSENTS: Final = Statement[Nothing]("""
DELETE FROM consents WHERE id = ANY (ARRAY(
    SELECT id FROM consents WHERE user_id = :user_id ORDER BY given_at, id LIMIT :size))
""")
_ERASE_REFUSALS: Final = Statement[Nothing](f"""
DELETE FROM refusals WHERE id = ANY (ARRAY(
    SELECT id FROM refusals WHERE user_id IS NOT NULL AND {one_and_id("refusals.user_id", ":user_id")}
     ORDER BY user_id, id LIMIT :size))
""")  # noqa: S608 - put together from constants
_GO_ON: Final = Statement[Nothing](
    "UPDATE erasures SET about_after = :about_after, acted_after = :acted_after WHERE user_id = :user_id"
)
_FINISH: Final = Statement[Nothing]("DELETE FROM erasures WHERE user_id = :user_id")


class ErasedPage(NamedTuple):
    """The result of erasing a page."""

    user_id: UUID
    is_last: bool
    """Whether nothing is left for this id."""


# The caller has locked the user.
_SET: Final = Statement[Nothing]("UPDATE users SET erase_at = :erase_at WHERE id = :user_id")
# A row that is locked is skipped until the next time, because the person may just be staying. A row that has just been
# changed is checked again. A ban would end with the erasure: who is banned stays until the ban is over.
_LOCK_NEXT_DUE: Final = Statement[UUID]("""
SELECT id FROM users WHERE erase_at <= :now AND status = 'active' ORDER BY erase_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")


async def erase_person_data(transaction: Transaction, user_ids: Sequence[UUID]) -> None:
    """Erase up to `MAX_ROWS_ERASED_WITH_USER` rows about a person with these ids now, and record the rest for later."""
    await transaction.run(_PUT_OFF, user_ids=user_ids, start=START)
    left = MAX_ROWS_ERASED_WITH_USER
    for user_id in user_ids[:_MAX_IDS_ERASED_WITH_USER]:
        left -= await _erase_page(transaction, user_id, START, START, size=left)
        if left <= 0:
            break


async def erase_next_page(
    database: Database, *, size: int, user_ids: Sequence[UUID] | None = None
) -> ErasedPage | None:
    """Erase the next page that waits, only of these ids if any are given.

    Returns None if nothing waits, or another worker is erasing a page.
    """
    async with database.begin() as transaction:
        if not await transaction.value(_TRY_LOCK):
            return None
        waiting = await transaction.row(_NEXT, user_ids=user_ids)
        if waiting is None:
            return None
        number = await _erase_page(transaction, waiting.user_id, waiting.about_after, waiting.acted_after, size=size)
        return ErasedPage(waiting.user_id, is_last=number < size)


async def erase_rest(database: Database, user_ids: Sequence[UUID] | None = None) -> None:
    """Erase all that waits, only of these ids if any are given."""
    while await are_waiting(database, user_ids):
        if await erase_next_page(database, size=MAX_ROWS_ERASED_WITH_USER, user_ids=user_ids) is None:
            await asyncio.sleep(_WAIT_FOR_ANOTHER_SECONDS)


async def are_waiting(asked: Database | Transaction, user_ids: Sequence[UUID] | None = None) -> bool:
    """Whether there are rows left to erase, only of these ids if any are given."""
    return bool(await asked.value(_ARE_WAITING, user_ids=user_ids))


async def _erase_page(
    transaction: Transaction, user_id: UUID, about_after: UUID, acted_after: UUID, *, size: int
) -> int:
    """Erase up to `size` rows. Returns how many. If there were fewer, the erasure is finished."""
    about = await transaction.values(_ERASE_ABOUT, user_id=user_id, after=about_after, size=size)
    acted = await transaction.values(_ERASE_ACTED, user_id=user_id, after=acted_after, size=size - len(about))
    number = len(about) + len(acted)
    number += await transaction.run(_ERASE_CONSENTS, user_id=user_id, size=size - number)
    number += await transaction.run(_ERASE_REFUSALS, user_id=user_id, size=size - number)
    if number < size:
        await transaction.run(_FINISH, user_id=user_id)
    else:
        about_after, acted_after = (about[-1] if about else about_after), (acted[-1] if acted else acted_after)
        await transaction.run(_GO_ON, user_id=user_id, about_after=about_after, acted_after=acted_after)
    return number


async def set_erase_at(transaction: Transaction, user_id: UUID, erase_at: datetime | None) -> None:
    """Set when a locked user is erased; None: not at all."""
    await transaction.run(_SET, user_id=user_id, erase_at=erase_at)


async def lock_next_due(transaction: Transaction, *, now: datetime) -> UUID | None:
    """Lock a user whose time has come, the earliest first; None if there is none."""
    return await transaction.value(_LOCK_NEXT_DUE, now=now)
