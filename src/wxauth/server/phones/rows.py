"""WeChat's answers to phone codes. An answer is stored before anything else can fail, until its number is bound."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from wxauth.errors import StorageUnavailable
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.server.core.users import USER, UserRow
from wxauth.server.users.merging import Merged, link_by_phone
from wxauth.server.users.rows import lock_user_of, user_of
from wxauth.server.users.standing_rows import lock_users

_FIND: Final = f"""
SELECT app_id, openid, sealed, asked_at, {USER}
  FROM phone_answers JOIN identities USING (app_id, openid) JOIN users ON users.id = user_id
 WHERE code_hash = $1
"""  # noqa: S608 - put together from constants
# $1 code_hash  $2 app_id  $3 openid  $4 sealed  $5 when WeChat was asked
_ADD: Final = """
INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (code_hash) DO NOTHING
"""
_PENDING: Final = """
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE sealed IS NOT NULL AND refused_at IS NULL AND asked_at < $1
 ORDER BY asked_at LIMIT $2
"""

# Settles the race of two users who get one number at once: the second waits here, and then sees the first.
_LOCK_NUMBER: Final = "SELECT pg_advisory_xact_lock(hashtext('wxauth.phone'), hashtext($1))"
# $1 user id  $2 app_id  $3 openid  $4 number  $5 when WeChat was asked
# $6 whether a number that the user has bound since then wins  $7 whether several users may have one number
_REFUSAL: Final = """
SELECT CASE
       WHEN i.created_at > $5 THEN 'erased'
       WHEN EXISTS (SELECT FROM events
                     WHERE events.user_id = users.id AND type = 'user.authorization_revoked' AND at > $5
                       AND data -> 'fields' @> '"phone"') THEN 'withdrawn'
       WHEN status <> 'active' THEN 'gone'
       WHEN $6 AND EXISTS (SELECT FROM phone_answers JOIN identities USING (app_id, openid)
                            WHERE user_id = users.id AND settled_at > $5) THEN 'outdated'
       WHEN NOT $7 AND EXISTS (SELECT FROM users other
                                WHERE other.phone = $4 AND other.phone_proved_at IS NOT NULL AND other.id <> users.id)
            THEN 'taken'
       END
  FROM users JOIN identities i ON i.user_id = users.id
 WHERE users.id = $1 AND i.app_id = $2 AND i.openid = $3
"""
_FORGET_ONE: Final = "DELETE FROM phone_answers WHERE code_hash = $1"
_NOTE_REFUSAL: Final = "UPDATE phone_answers SET refused_at = $2 WHERE code_hash = $1 AND sealed IS NOT NULL"
# An answer's number is bound once. A second request for the same answer changes nothing, and gets the present user.
# $1 code_hash  $2 now  $3 user id  $4 number  $5 when WeChat was asked, which is when the number was proved
_BIND: Final = f"""
WITH settled AS (
    UPDATE phone_answers SET sealed = NULL, settled_at = $2
     WHERE code_hash = $1 AND sealed IS NOT NULL
    RETURNING code_hash
)
UPDATE users SET phone = CASE WHEN EXISTS (SELECT FROM settled) THEN $4 ELSE phone END,
                 phone_proved_at = CASE WHEN EXISTS (SELECT FROM settled) THEN $5 ELSE phone_proved_at END
 WHERE id = $3
RETURNING {USER}, EXISTS (SELECT FROM settled) AS is_first
"""  # noqa: S608 - put together from constants
_UNPROVED_HOLDERS: Final = "SELECT id FROM users WHERE phone = $1 AND phone_proved_at IS NULL"
# $1 user ids  $2 number  $3 the user who has proved it
_TAKE_OVER: Final = """
UPDATE users SET phone = NULL WHERE id = ANY ($1::uuid[]) AND phone = $2 AND phone_proved_at IS NULL AND id <> $3
RETURNING id
"""
_HOLDERS: Final = "SELECT id FROM users WHERE phone = $1 AND phone_proved_at IS NOT NULL AND id <> $2 LIMIT 2"
_FORGET: Final = """
DELETE FROM phone_answers USING identities i
 WHERE i.user_id = $1 AND phone_answers.app_id = i.app_id AND phone_answers.openid = i.openid
"""
_SEALED_OTHERWISE: Final = """
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE code_hash > $1 AND sealed IS NOT NULL AND substring(sealed FOR octet_length($2::bytea)) <> $2
 ORDER BY code_hash LIMIT $3
"""
_REPLACE: Final = "UPDATE phone_answers SET sealed = $3 WHERE code_hash = $1 AND sealed = $2 RETURNING code_hash"
_ERASE: Final = "DELETE FROM phone_answers WHERE code_hash = $1 AND sealed = $2 RETURNING code_hash"
_SWEEP: Final = """
DELETE FROM phone_answers WHERE code_hash IN (
    SELECT code_hash FROM phone_answers WHERE asked_at < $1
     ORDER BY asked_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


class Refusal(StrEnum):
    """Why a number that WeChat gave is not bound."""

    GONE = "gone"
    """The user is banned or erased."""
    ERASED = "erased"
    """The user who asked for the number has been erased. The identity belongs to a user who came later."""
    WITHDRAWN = "withdrawn"
    """The person has withdrawn the number since giving it."""
    TAKEN = "taken"
    """Another user has the number."""
    OUTDATED = "outdated"
    """The user has bound another number since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer whose number is still to be bound."""

    code_hash: bytes = field(repr=False)
    app_id: str
    openid: str
    sealed: bytes = field(repr=False)
    asked_at: datetime
    """When WeChat was asked. Whatever the person does after this time wins over the answer."""


async def find_answer(database: Database, code_hash: bytes) -> StoredAnswer | UserRow | None:
    """The answer to a code; the user, once its number has been bound; None if there is no answer.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_FIND, code_hash)
    if row is None or row["sealed"] is None:
        user: UserRow | None = row
        return user
    return StoredAnswer(
        code_hash=code_hash,
        app_id=row["app_id"],
        openid=row["openid"],
        sealed=row["sealed"],
        asked_at=row["asked_at"],
    )


async def add_answer(database: Database, answer: StoredAnswer) -> bool:
    """Store an answer; False if its identity has been erased. Raises: StorageUnavailable."""
    values = answer.code_hash, answer.app_id, answer.openid, answer.sealed, answer.asked_at
    try:
        await database.fetchrow(_ADD, *values)
    except asyncpg.ForeignKeyViolationError:
        return False
    return True


async def pending_answers(database: Database, *, asked_before: datetime, size: int) -> Sequence[StoredAnswer]:
    """The oldest answers whose number is neither bound nor refused. Raises: StorageUnavailable."""
    return [StoredAnswer(**row) for row in await database.fetch(_PENDING, asked_before, size)]


async def refuse_answer(database: Database, code_hash: bytes, *, now: datetime) -> None:
    """Note that an answer cannot be used. Raises: StorageUnavailable."""
    await database.fetchrow(_NOTE_REFUSAL, code_hash, now)


async def bind_phone(
    database: Database, answer: StoredAnswer, phone: str, *, may_share: bool, is_late: bool, now: datetime
) -> UserRow | Refusal:
    """Bind an answer's number to its user, and settle the answer; the changed user.

    An answer that has been settled meanwhile changes nothing. An answer from before an erasure or a withdrawal is
    deleted. Users who have the number from an import, and have never proved it, lose it.

    Args:
        database: Where users and answers are.
        answer: The answer.
        phone: Its number, E.164.
        may_share: Whether another user may have the number too.
        is_late: Whether a number that the user has bound since then wins.
        now: The time.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        await transaction.fetchval(_LOCK_NUMBER, phone)
        unproved = [row["id"] for row in await transaction.fetch(_UNPROVED_HOLDERS, phone)]
        if unproved:  # all at once: everybody locks users in the order of their ids
            owner_id = await user_of(transaction, app_id=answer.app_id, openid=answer.openid)
            await lock_users(transaction, [*unproved, *([] if owner_id is None else [owner_id])])
        user_id = await lock_user_of(transaction, app_id=answer.app_id, openid=answer.openid)
        if user_id is None:
            return Refusal.GONE
        refusal = await transaction.fetchval(
            _REFUSAL, user_id, answer.app_id, answer.openid, phone, answer.asked_at, is_late, may_share
        )
        if refusal is not None:
            if refusal in (Refusal.ERASED, Refusal.WITHDRAWN):
                await transaction.execute(_FORGET_ONE, answer.code_hash)
            else:
                await transaction.execute(_NOTE_REFUSAL, answer.code_hash, now)
            return Refusal(refusal)
        bound = await transaction.fetchrow(_BIND, answer.code_hash, now, user_id, phone, answer.asked_at)
        if bound["is_first"]:
            by = Actor(str(user_id))
            await record_event(transaction, EventType.PHONE_BOUND, by=by, at=now, user_id=user_id, app_id=answer.app_id)
            for row in await transaction.fetch(_TAKE_OVER, unproved, phone, user_id) if unproved else ():
                await record_event(transaction, EventType.PHONE_REMOVED, by=SYSTEM, at=now, user_id=row["id"])
        user: UserRow = bound
        return user


@dataclass(frozen=True, slots=True)
class Linked:
    """A user was merged into the one who had proved the number before."""

    user: UserRow
    merged: Merged


async def link_phone(
    database: Database, answer: StoredAnswer, phone: str, *, proved_since: datetime, now: datetime
) -> Linked | None:
    """Merge the answer's user into the user who has the number, and settle the answer; None if that is not allowed.

    Raises: StorageUnavailable.
    """
    identity = {"app_id": answer.app_id, "openid": answer.openid}
    async with database.begin() as transaction:
        await transaction.fetchval(_LOCK_NUMBER, phone)
        user_id = await user_of(transaction, **identity)
        holders = [row["id"] for row in await transaction.fetch(_HOLDERS, phone, user_id)]
        if user_id is None or len(holders) != 1:
            return None
        [holder_id] = holders
        merged = await link_by_phone(
            transaction, user_id, holder_id=holder_id, phone=phone, proved_since=proved_since, now=now
        )
        if merged is None:
            return None
        # While we waited for locks, the identity may have gone to another user: then all of this is rolled back.
        refusal = await transaction.fetchval(
            _REFUSAL, holder_id, answer.app_id, answer.openid, phone, answer.asked_at, False, False
        )
        if refusal is not None or await user_of(transaction, **identity) != holder_id:
            raise StorageUnavailable("too many changes to this user at once")
        user: UserRow = await transaction.fetchrow(_BIND, answer.code_hash, now, holder_id, phone, answer.asked_at)
        return Linked(user, merged)


async def forget_answers(transaction: Transaction, user_id: UUID) -> None:
    """Delete a user's answers, as after a withdrawal: no number given so far is bound, and no code finds its answer."""
    await transaction.execute(_FORGET, user_id)


async def answers_sealed_otherwise(
    database: Database, *, prefix: bytes, after: bytes, size: int
) -> Sequence[StoredAnswer]:
    """The next answers whose sealed value does not begin with the prefix. Raises: StorageUnavailable."""
    return [StoredAnswer(**row) for row in await database.fetch(_SEALED_OTHERWISE, after, prefix, size)]


async def replace_answer(database: Database, answer: StoredAnswer, anew: bytes) -> bool:
    """Seal an answer anew, if it is still sealed as it was read; whether it was. Raises: StorageUnavailable."""
    return await database.fetchrow(_REPLACE, answer.code_hash, answer.sealed, anew) is not None


async def erase_answer(database: Database, answer: StoredAnswer) -> bool:
    """Delete an answer, if it is still sealed as it was read; whether it was. Raises: StorageUnavailable."""
    return await database.fetchrow(_ERASE, answer.code_hash, answer.sealed) is not None


async def sweep_answers(database: Database, *, asked_before: datetime, size: int) -> int:
    """Delete answers to questions of before a time, the oldest first; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.execute(_SWEEP, asked_before, size)
