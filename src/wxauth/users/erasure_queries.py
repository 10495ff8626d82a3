"""The erasure of a user, immediately or, after the user's own request, in `ERASURE_GRACE_DAYS`.

After the request, the user has no open session, because the request ends all, and no login opens one before the
request is cancelled. Therefore, code that requires a session does not check for a requested erasure. A user who has
requested erasure is not split, not merged except by a login that cancels the erasure, and not changed by an import
without the same `erase_at`. A ban delays the erasure.

The transaction that deletes the user also erases rows without a foreign key to the user (events, consents, refused
logins). If there are many, a worker erases the remaining rows later, in pages.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from wxauth.core.clock import FIRST_ID
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.statements import Nothing, Statement, pair_range
from wxauth.core.trail import ERASED_DATA, REPORTS_ERASURE, Actor, EventType, record_event
from wxauth.sessions.queries import EndReason, end_sessions
from wxauth.users.status_queries import StatusAndRoles, lock_status_and_roles
from wxauth.users.user_queries import FORMER_IDS

MAX_ROWS_ERASED_WITH_USER: Final = 1000
_WAIT_FOR_ANOTHER_SECONDS: Final = 0.1
_MAX_IDS_ERASED_WITH_USER: Final = 10  # each id, present or former, takes five statements, even if it has no rows

# One worker erases at a time, so that the load on the database does not depend on the number of waiting erasures.
_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.erasures'))")

_QUEUE: Final = Statement[Nothing]("""
INSERT INTO erasures (user_id, about_after, acted_after)
SELECT id, :start, :start FROM unnest(:user_ids::uuid[]) AS wanted (id)
ON CONFLICT (user_id) DO UPDATE SET about_after = excluded.about_after, acted_after = excluded.acted_after
""")


@dataclass(frozen=True, slots=True)
class _Progress:
    user_id: UUID  # a present or former id
    about_after: UUID
    acted_after: UUID


_NEXT_ERASURE: Final = Statement[_Progress]("""
SELECT user_id, about_after, acted_after FROM erasures WHERE :user_ids::uuid[] IS NULL OR user_id = ANY (:user_ids)
 ORDER BY user_id LIMIT 1
""")
ARE_WAITING: Final = Statement[bool](
    "SELECT EXISTS (SELECT FROM erasures WHERE :user_ids::uuid[] IS NULL OR user_id = ANY (:user_ids))"
)
_ERASE_ABOUT: Final = Statement[UUID](f"""
WITH page AS MATERIALIZED (
    -- id > :after leaves out the last event of the previous page, which `pair_range` includes
    SELECT id FROM events WHERE {pair_range("events.user_id", ":user_id", after=":after")} AND id > :after
     ORDER BY user_id, id LIMIT :size
), erased AS (
    -- what other services receive is not personal, and stays
    UPDATE events SET ip = NULL, data = {ERASED_DATA}
      FROM page
     WHERE events.id = page.id AND (ip IS NOT NULL OR data <> {ERASED_DATA}) AND {REPORTS_ERASURE} IS NOT TRUE
)
SELECT id FROM page ORDER BY id
""")

_ERASE_ACTED: Final = Statement[UUID](f"""
WITH page AS MATERIALIZED (
    -- id > :after as above
    SELECT id FROM events
     WHERE {pair_range("events.actor", ":user_id::uuid::text", after=":after")} AND id > :after AND ip IS NOT NULL
     ORDER BY actor, id LIMIT :size
), erased AS (
    UPDATE events SET ip = NULL FROM page WHERE events.id = page.id
)
SELECT id FROM page ORDER BY id
""")
_ERASE_CONSENTS: Final = Statement[Nothing]("""
DELETE FROM consents WHERE id = ANY (ARRAY(
    SELECT id FROM consents WHERE user_id = :user_id ORDER BY given_at, id LIMIT :size))
""")
_ERASE_REFUSALS: Final = Statement[Nothing](f"""
DELETE FROM refusals WHERE id = ANY (ARRAY(
    -- IS NOT NULL makes PostgreSQL use the partial index
    SELECT id FROM refusals WHERE user_id IS NOT NULL AND {pair_range("refusals.user_id", ":user_id")}
     ORDER BY user_id, id LIMIT :size))
""")
# Only this user, whom the sites have named in `id_token_hint`, could have approved these logins. They are few, because
# they are kept only until an hour after their end.
_DELETE_HINTED_LOGINS: Final = Statement[Nothing]("""
DELETE FROM site_logins WHERE id = ANY (ARRAY(
    SELECT id FROM site_logins WHERE hinted_user_id = ANY (:user_ids::uuid[]) ORDER BY id FOR UPDATE))
""")
_SAVE_PROGRESS: Final = Statement[Nothing](
    "UPDATE erasures SET about_after = :about_after, acted_after = :acted_after WHERE user_id = :user_id"
)
_FINISH: Final = Statement[Nothing]("DELETE FROM erasures WHERE user_id = :user_id")
# Foreign keys delete the rows in other tables.
_DELETE_USER: Final = Statement[Nothing]("DELETE FROM users WHERE id = :user_id")
_SET_ERASE_AT: Final = Statement[Nothing]("UPDATE users SET erase_at = :erase_at WHERE id = :user_id")
_LOCK_NEXT_DUE: Final = Statement[UUID]("""
SELECT id FROM users
 -- only active users, because a banned user who is erased together with the ban could sign up again
 WHERE erase_at <= :now AND status = 'active'
 -- a user whose row is locked might be cancelling the erasure
 ORDER BY erase_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
log = get_logger()


class ErasedPage(NamedTuple):
    """A page of the rows that a deleted user has left."""

    user_id: UUID  # a present or former id
    is_last: bool
    """Whether no row with this id is left."""


async def erase_next_page(
    database: Database, *, size: int, user_ids: Sequence[UUID] | None = None
) -> ErasedPage | None:
    """Erase up to `size` waiting rows of users with these ids, or of all users if `user_ids` is None.

    Return None if no rows wait, or if another worker is erasing a page.
    """
    # With `replan`, PostgreSQL does not reuse a plan from a time when the tables were empty.
    async with database.begin(replan=True) as transaction:
        if not await transaction.value(_TRY_LOCK):
            return None
        progress = await transaction.row(_NEXT_ERASURE, user_ids=user_ids)
        if progress is None:
            return None
        row_count = await _erase_page(transaction, progress, size=size)
        return ErasedPage(progress.user_id, is_last=row_count < size)


async def erase_waiting_rows(database: Database, user_ids: Sequence[UUID] | None = None) -> None:
    """Erase the waiting rows that `erase_next_page` finds, and wait for other workers."""
    while await database.value(ARE_WAITING, user_ids=user_ids):
        if await erase_next_page(database, size=MAX_ROWS_ERASED_WITH_USER, user_ids=user_ids) is None:
            await asyncio.sleep(_WAIT_FOR_ANOTHER_SECONDS)


async def _erase_page(transaction: Transaction, progress: _Progress, *, size: int) -> int:
    """Return the number of rows. Fewer than `size` mean that no row with this id is left.

    Events about the user count even if they contain nothing to erase.
    """
    user_id, about_after, acted_after = progress.user_id, progress.about_after, progress.acted_after
    about_ids = await transaction.values(_ERASE_ABOUT, user_id=user_id, after=about_after, size=size)
    acted_ids = await transaction.values(_ERASE_ACTED, user_id=user_id, after=acted_after, size=size - len(about_ids))
    row_count = len(about_ids) + len(acted_ids)
    row_count += await transaction.run(_ERASE_CONSENTS, user_id=user_id, size=size - row_count)
    row_count += await transaction.run(_ERASE_REFUSALS, user_id=user_id, size=size - row_count)
    if row_count < size:
        await transaction.run(_FINISH, user_id=user_id)
    else:
        last_about = about_ids[-1] if about_ids else about_after
        last_acted = acted_ids[-1] if acted_ids else acted_after
        await transaction.run(_SAVE_PROGRESS, user_id=user_id, about_after=last_about, acted_after=last_acted)
    return row_count


async def erase_user(transaction: Transaction, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """Erase a locked user. Only events remain, without personal data.

    The events of the erasure (`REPORTS_ERASURE`) keep an administrator's address.
    """
    if by.name == str(user_id):
        by = Actor(by.name)  # without the address
    # Both precede the deletion, which also deletes the former ids and the sessions.
    former_ids = await transaction.values(FORMER_IDS, user_id=user_id)
    await end_sessions(transaction, user_id, reason=EndReason.ERASED, by=by, now=now)
    await transaction.run(_DELETE_USER, user_id=user_id)
    await _erase_or_queue_rows(transaction, [user_id, *former_ids])
    data = {"former_ids": former_ids}
    await record_event(transaction, EventType.USER_ERASED, by=by, at=now, user_id=user_id, data=data)


async def _erase_or_queue_rows(transaction: Transaction, user_ids: Sequence[UUID]) -> None:
    """`user_ids` begins with the present id, whose rows are erased at once even if there are many former ids."""
    await transaction.run(_DELETE_HINTED_LOGINS, user_ids=user_ids)
    # All ids are queued first. `_erase_page` removes an id from the queue as soon as no rows with this id remain.
    await transaction.run(_QUEUE, user_ids=user_ids, start=FIRST_ID)
    budget = MAX_ROWS_ERASED_WITH_USER
    for user_id in user_ids[:_MAX_IDS_ERASED_WITH_USER]:
        start = _Progress(user_id, about_after=FIRST_ID, acted_after=FIRST_ID)
        budget -= await _erase_page(transaction, start, size=budget)
        if budget <= 0:
            break


async def schedule_erasure(transaction: Transaction, user_id: UUID, *, erase_at: datetime, now: datetime) -> None:
    """Record that a locked user has requested erasure, and end the sessions.

    If a banned user withdraws the consent in WeChat, `erase_at` is `now`, so the user is erased once the ban has ended.
    """
    by = Actor(str(user_id))
    await transaction.run(_SET_ERASE_AT, user_id=user_id, erase_at=erase_at)
    await end_sessions(transaction, user_id, reason=EndReason.LEAVING, by=by, now=now)
    await record_event(transaction, EventType.USER_LEAVING, by=by, at=now, user_id=user_id, data={"erase_at": erase_at})


async def cancel_erasure(
    transaction: Transaction, user_id: UUID, account: StatusAndRoles, *, by: Actor, now: datetime
) -> bool:
    """Cancel a requested erasure. Return whether there was one. `account` was read after locking the user."""
    if not account.is_leaving:
        return False
    await transaction.run(_SET_ERASE_AT, user_id=user_id, erase_at=None)
    await record_event(transaction, EventType.USER_STAYED, by=by, at=now, user_id=user_id)
    return True


async def cancel_erasure_at_login(database: Database, user_id: UUID, *, now: datetime) -> None:
    """Cancel the erasure of a user who is not banned."""
    async with database.begin() as transaction:
        account = await lock_status_and_roles(transaction, user_id)
        if account is None or account.is_banned:
            return
        had_requested = await cancel_erasure(transaction, user_id, account, by=Actor(str(user_id)), now=now)
    if had_requested:
        log.info(EventType.USER_STAYED.log_event, user_id=user_id)


async def erase_next_due(database: Database, *, now: datetime) -> bool:
    """Erase one user whose `erase_at` has passed, and return whether there was one."""
    async with database.begin() as transaction:
        user_id = await transaction.value(_LOCK_NEXT_DUE, now=now)
        if user_id is None:
            return False
        await erase_user(transaction, user_id, by=Actor(str(user_id)), now=now)
    log.info(EventType.USER_ERASED.log_event, user_id=user_id)
    return True
