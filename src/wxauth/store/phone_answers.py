"""What WeChat answered to phone codes: kept from before anything else can fail until the number is bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import asyncpg
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.core.database import Database
from wxauth.core.trail import EventType, NewEvent, record_event
from wxauth.store.users import lock_user_of

_FIND: Final = """
SELECT app_id, openid, sealed, asked_at,
       users.id, unionid, nickname, avatar_url, phone, roles, status, users.created_at, last_login_at
  FROM phone_answers JOIN identities USING (app_id, openid) JOIN users ON users.id = user_id
 WHERE code_hash = $1
"""
_ADD: Final = """
INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (code_hash) DO NOTHING
"""
_PENDING: Final = """
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE sealed IS NOT NULL AND refused_at IS NULL AND asked_at < $1
 ORDER BY asked_at LIMIT $2
"""
_REFUSE: Final = "UPDATE phone_answers SET refused_at = $2 WHERE code_hash = $1 AND sealed IS NOT NULL"

# Of two users who get one number at once, the second waits here, and then sees the first.
_LOCK_NUMBER: Final = text("SELECT pg_advisory_xact_lock(hashtext('wxauth.phone'), hashtext(:phone))")
_REFUSAL: Final = text("""
    SELECT CASE
           WHEN i.created_at > :asked_at THEN 'erased'
           WHEN EXISTS (SELECT FROM events
                         WHERE events.user_id = users.id AND type = 'authorization_revoked' AND at > :asked_at
                           AND data -> 'revoked' @> '"phone"') THEN 'withdrawn'
           WHEN status <> 'active' THEN 'gone'
           WHEN :is_late AND EXISTS (SELECT FROM phone_answers JOIN identities USING (app_id, openid)
                                      WHERE user_id = users.id AND settled_at > :asked_at) THEN 'outdated'
           WHEN NOT :may_share AND EXISTS (SELECT FROM users other
                                            WHERE other.phone = :phone AND other.id <> users.id) THEN 'taken'
           END
      FROM users JOIN identities i ON i.user_id = users.id
     WHERE users.id = :user_id AND i.app_id = :app_id AND i.openid = :openid
""")
_FORGET_ONE: Final = text("DELETE FROM phone_answers WHERE code_hash = :code_hash").bindparams(
    bindparam("code_hash", type_=BYTEA)
)
_NOTE_REFUSAL: Final = text("""
    UPDATE phone_answers SET refused_at = :now WHERE code_hash = :code_hash AND sealed IS NOT NULL
""").bindparams(bindparam("code_hash", type_=BYTEA))
# A number is bound once for each answer: a request that comes second finds the user as the first one left them.
_BIND: Final = text("""
    WITH settled AS (
        UPDATE phone_answers SET sealed = NULL, settled_at = :now
         WHERE code_hash = :code_hash AND sealed IS NOT NULL
        RETURNING code_hash
    )
    UPDATE users SET phone = CASE WHEN EXISTS (SELECT FROM settled) THEN :phone ELSE phone END
     WHERE id = :user_id
    RETURNING id, unionid, nickname, avatar_url, phone, roles, status, created_at, last_login_at,
              EXISTS (SELECT FROM settled) AS is_first
""").bindparams(bindparam("code_hash", type_=BYTEA))
_FORGET: Final = text("""
    DELETE FROM phone_answers USING identities i
     WHERE i.user_id = :user_id AND phone_answers.app_id = i.app_id AND phone_answers.openid = i.openid
""")
_SEALED_OTHERWISE: Final = """
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE code_hash > $1 AND sealed IS NOT NULL AND substring(sealed FOR octet_length($2::bytea)) <> $2
 ORDER BY code_hash LIMIT $3
"""
_REPLACE: Final = "UPDATE phone_answers SET sealed = $3 WHERE code_hash = $1 AND sealed = $2 RETURNING code_hash"
_SWEEP: Final = text("""
    DELETE FROM phone_answers WHERE code_hash IN (
        SELECT code_hash FROM phone_answers WHERE asked_at < :asked_before
         ORDER BY asked_at LIMIT :size FOR UPDATE SKIP LOCKED)
""")


class Refusal(StrEnum):
    """Why a number that WeChat gave is not bound."""

    GONE = "gone"
    """The user is banned or erased."""
    ERASED = "erased"
    """The user who asked for it has been erased; who is there by the same identity came later."""
    WITHDRAWN = "withdrawn"
    """The person has withdrawn their number since they asked for it."""
    TAKEN = "taken"
    """Another user has it."""
    OUTDATED = "outdated"
    """The user has bound a number since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer whose number is still to be bound."""

    code_hash: bytes = field(repr=False)
    app_id: str
    openid: str
    sealed: bytes = field(repr=False)
    asked_at: datetime
    """When WeChat was asked, so that what the person does from then on counts for more."""


async def find_answer(database: Database, code_hash: bytes) -> StoredAnswer | Mapping[str, Any] | None:
    """The answer to a code; once its number has been bound, the user; None where there is none.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_FIND, code_hash)
    if row is None or row["sealed"] is None:
        return row
    return StoredAnswer(
        code_hash=code_hash,
        app_id=row["app_id"],
        openid=row["openid"],
        sealed=row["sealed"],
        asked_at=row["asked_at"],
    )


async def add_answer(database: Database, answer: StoredAnswer) -> bool:
    """Keep an answer; whether its identity was still there. Raises: StorageUnavailable."""
    try:
        await database.fetchrow(_ADD, answer.code_hash, answer.app_id, answer.openid, answer.sealed, answer.asked_at)
    except asyncpg.ForeignKeyViolationError:
        return False
    return True


async def pending_answers(database: Database, *, asked_before: datetime, size: int) -> Sequence[StoredAnswer]:
    """The oldest of those whose number was neither bound nor refused. Raises: StorageUnavailable."""
    return [StoredAnswer(**row) for row in await database.fetch(_PENDING, asked_before, size)]


async def refuse_answer(database: Database, code_hash: bytes, *, now: datetime) -> None:
    """Note that what WeChat answered cannot be used. Raises: StorageUnavailable."""
    await database.fetchrow(_REFUSE, code_hash, now)


async def bind_phone(
    database: Database, answer: StoredAnswer, phone: str, *, may_share: bool, is_late: bool, now: datetime
) -> Mapping[str, Any] | Refusal:
    """Give the number of an answer to whose it is, and settle the answer; the user as they are then.

    An answer that has been settled meanwhile changes nothing. One of before an erasure or a withdrawal is forgotten.

    Args:
        database: Where they are.
        answer: Which answer.
        phone: Its number, E.164.
        may_share: Whether another user may have the number too.
        is_late: Whether a number that the user has bound since counts for more.
        now: The time.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        await transaction.execute(_LOCK_NUMBER, {"phone": phone})
        user_id = await lock_user_of(transaction, app_id=answer.app_id, openid=answer.openid)
        if user_id is None:
            return Refusal.GONE
        number = {"user_id": user_id, "phone": phone}
        identity = {"app_id": answer.app_id, "openid": answer.openid}
        conditions = {"asked_at": answer.asked_at, "is_late": is_late, "may_share": may_share}
        refusal = (await transaction.execute(_REFUSAL, {**number, **identity, **conditions})).scalar_one()
        settling = {"code_hash": answer.code_hash, "now": now}
        if refusal is not None:
            is_void = refusal in (Refusal.ERASED, Refusal.WITHDRAWN)
            await transaction.execute(_FORGET_ONE if is_void else _NOTE_REFUSAL, settling)
            return Refusal(refusal)
        bound = (await transaction.execute(_BIND, {**number, **settling})).one()
        if bound.is_first:
            event = NewEvent(
                type=EventType.PHONE_BOUND, at=now, actor=str(user_id), user_id=user_id, app_id=answer.app_id
            )
            await record_event(transaction, event)
        return bound._asdict()


async def forget_answers(transaction: AsyncConnection, user_id: UUID) -> None:
    """Bind no number that a user has given so far, as when the person withdraws it; no code finds its answer again."""
    await transaction.execute(_FORGET, {"user_id": user_id})


async def answers_sealed_otherwise(
    database: Database, *, prefix: bytes, after: bytes, size: int
) -> Sequence[StoredAnswer]:
    """The next ones that are kept sealed and do not begin with the prefix. Raises: StorageUnavailable."""
    return [StoredAnswer(**row) for row in await database.fetch(_SEALED_OTHERWISE, after, prefix, size)]


async def replace_answer(database: Database, answer: StoredAnswer, anew: bytes) -> bool:
    """Store this in place of the former; whether that was still there. Raises: StorageUnavailable."""
    return await database.fetchrow(_REPLACE, answer.code_hash, answer.sealed, anew) is not None


async def sweep_answers(database: Database, *, asked_before: datetime, size: int) -> int:
    """Erase the oldest; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        swept = await transaction.execute(_SWEEP, {"asked_before": asked_before, "size": size})
        return swept.rowcount
