"""The table of WeChat's responses to phone codes, and the statements that store them and bind their numbers to users.

A response is settled when its number is bound, or when its user is merged into the holder of the number. The row is
kept for a while without the number, so that the same code still succeeds.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.database import ChangedMeanwhile, Database, Transaction, retrying
from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.core.upkeep import Reseal, Sweep
from wxauth.core.users import MAY_LOG_IN, USER, USER_IN_SESSION, UserInSession
from wxauth.merging.merging import Merged, link_by_phone
from wxauth.settings.types import PhonePolicy
from wxauth.users.status_queries import lock_users
from wxauth.users.user_queries import USER_OF_IDENTITY, lock_user_of_identity


class StoredPhoneAnswer(SQLModel, table=True):
    """WeChat's responses to phone codes. Each costs money, and WeChat returns it only once."""

    __tablename__ = "phone_answers"

    code_hash: bytes = Field(sa_type=BYTEA, primary_key=True)  # SHA-256 of the app id, the openid and the phone code
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    sealed: bytes | None = Field(sa_type=BYTEA)  # WeChat's `phone_info`, encrypted; null from `settled_at` on
    asked_at: datetime = Field(sa_type=TIME)  # the time of the request for which wxauth called WeChat
    # After a refusal, wxauth tries again only if a request contains the same code.
    refused_at: datetime | None = Field(sa_type=TIME)
    settled_at: datetime | None = Field(sa_type=TIME)


class PhoneRefusal(StrEnum):
    CANNOT_LOG_IN = "cannot_log_in"  # also if the identity has just moved to another user
    ERASED = "erased"  # The user who shared the number was erased, and the identity belongs to a later user.
    WITHDRAWN = "withdrawn"  # in WeChat, or by the user, staff or an operator, after the user shared it
    TAKEN = "taken"  # Another user has verified the number.
    OUTDATED = "outdated"  # The user has since bound another number. This occurs only with `is_late`.


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsettledAnswer:
    """A response from WeChat that is not settled yet."""

    code_hash: bytes = field(repr=False)
    app_id: str
    openid: str
    sealed: bytes = field(repr=False)
    asked_at: datetime  # What the user has done since this request takes precedence over the response.

    @property
    def identity(self) -> dict[str, str]:
        """The identity as parameters of a statement."""
        return {"app_id": self.app_id, "openid": self.openid}


class _AnswerAndUser(UserInSession):
    sealed: bytes | None
    asked_at: datetime


_FIND: Final = Statement[_AnswerAndUser](f"""
SELECT app_id, openid, sealed, asked_at, {USER}
  FROM phone_answers JOIN identities USING (app_id, openid) JOIN users ON users.id = user_id
 WHERE code_hash = :code_hash
""")
_ADD: Final = Statement[Nothing]("""
INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at)
VALUES (:code_hash, :app_id, :openid, :sealed, :asked_at)
ON CONFLICT (code_hash) DO NOTHING
""")
PENDING_ANSWERS: Final = Statement[UnsettledAnswer]("""
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE sealed IS NOT NULL AND refused_at IS NULL AND asked_at < :asked_before
 ORDER BY asked_at LIMIT :size
""")

# Of two users who get the number at the same time, the second sees that the first has it.
_LOCK_NUMBER: Final = Statement[object]("SELECT pg_advisory_xact_lock(hashtext('wxauth.phone'), hashtext(:phone))")
# The result is a `PhoneRefusal` or null. There is no row if the identity no longer belongs to the user.
_REFUSAL: Final = Statement[tuple[str | None]](f"""
SELECT CASE
       -- a creation after now means that the clock was ahead
       WHEN i.created_at > :asked_at AND i.created_at <= :now THEN 'erased'
       WHEN EXISTS (SELECT FROM events
                     WHERE events.user_id = users.id AND at > :asked_at
                       AND (type = 'user.authorization_revoked' AND data -> 'fields' @> '"phone"'
                            -- `system`: another user has got the number
                            OR type = 'user.phone_removed' AND actor <> 'system')) THEN 'withdrawn'
       WHEN NOT ({MAY_LOG_IN}) THEN 'cannot_log_in'
       WHEN :is_late AND EXISTS (SELECT FROM phone_answers JOIN identities USING (app_id, openid)
                                  WHERE user_id = users.id AND settled_at > :asked_at) THEN 'outdated'
       WHEN :policy <> 'share'
            AND EXISTS (SELECT FROM users other
                         WHERE other.phone = :phone AND other.id <> users.id AND other.phone_verified_at IS NOT NULL
                           AND (:policy <> 'move' OR other.phone_verified_at > :asked_at)) THEN 'taken'
       END
  FROM users JOIN identities i ON i.user_id = users.id
 WHERE users.id = :user_id AND i.app_id = :app_id AND i.openid = :openid
""")
_DELETE_ANSWER: Final = Statement[Nothing]("DELETE FROM phone_answers WHERE code_hash = :code_hash")
REFUSE_ANSWER: Final = Statement[Nothing](
    "UPDATE phone_answers SET refused_at = :now WHERE code_hash = :code_hash AND sealed IS NOT NULL"
)
# Of two requests with the same response, the second gets no row, and must change nothing.
_SETTLE: Final = Statement[bytes]("""
UPDATE phone_answers SET sealed = NULL, settled_at = :now WHERE code_hash = :code_hash AND sealed IS NOT NULL
RETURNING code_hash
""")

_BIND: Final = Statement[Nothing](
    "UPDATE users SET phone = :phone, phone_verified_at = :verified_at WHERE id = :user_id"
)

_USER: Final = Statement[UserInSession](f"SELECT {USER_IN_SESSION} FROM users WHERE id = :user_id")
# If all identities that have proved the number are split off, the user loses the number.
_PROVE: Final = Statement[Nothing]("""
UPDATE identities SET phone_proved_at = GREATEST(phone_proved_at, :proved_at)
 WHERE app_id = :app_id AND openid = :openid
""")

_LOSERS: Final = Statement[UUID]("""
SELECT id FROM users
 -- if :verified_until is null, nobody who has verified the number loses it
 WHERE phone = :phone AND (phone_verified_at IS NULL OR phone_verified_at <= :verified_until::timestamptz)
""")
# RETURNING sees only the new row, so `before` reads whether the user had verified the number.
_CLEAR_NUMBER: Final = Statement[tuple[UUID, bool]]("""
WITH before AS (
    SELECT id, phone_verified_at IS NOT NULL AS had_verified FROM users
     WHERE id = ANY (:user_ids::uuid[]) AND phone = :phone AND id <> :verified_by
)
UPDATE users SET phone = NULL, phone_verified_at = NULL FROM before WHERE users.id = before.id
RETURNING before.id, before.had_verified
""")
# Two rows show that there is more than one.
_HOLDERS: Final = Statement[UUID](
    "SELECT id FROM users WHERE phone = :phone AND phone_verified_at IS NOT NULL AND id <> :user_id LIMIT 2"
)
# A value that was encrypted with the current key begins with its prefix.
ANSWERS_SEALED_OTHERWISE: Final = Statement[UnsettledAnswer]("""
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE code_hash > :after AND sealed IS NOT NULL AND substring(sealed FOR octet_length(:prefix::bytea)) <> :prefix
 ORDER BY code_hash LIMIT :size
""")
reseal_answer: Final = Reseal.of("phone_answers", "sealed", key="code_hash")
DELETE_UNCHANGED: Final = Statement[bytes](
    "DELETE FROM phone_answers WHERE code_hash = :code_hash AND sealed = :sealed RETURNING code_hash"
)
sweep_answers: Final = Sweep.of("phone_answers", key="code_hash", by="asked_at")


async def find_answer(database: Database, code_hash: bytes) -> UnsettledAnswer | UserInSession | None:
    """Return the response to a code, or its user if the response is settled; None if no response is stored."""
    row = await database.row(_FIND, code_hash=code_hash)
    if row is None:
        return None
    if row.sealed is None:
        return row  # an `_AnswerAndUser` is also a `UserInSession`
    return UnsettledAnswer(
        code_hash=code_hash,
        app_id=row.app_id,
        openid=row.openid,
        sealed=row.sealed,
        asked_at=row.asked_at,
    )


async def add_answer(database: Database, answer: UnsettledAnswer) -> bool:
    """Store a response, unless it is stored already. Return False if its identity has been erased."""
    try:
        await database.run(_ADD, **asdict(answer))
    except asyncpg.ForeignKeyViolationError:
        return False
    return True


@retrying(detail="too many concurrent changes to this number")
async def bind_phone(
    database: Database, answer: UnsettledAnswer, phone: str, *, policy: PhonePolicy, is_late: bool, now: datetime
) -> UserInSession | PhoneRefusal:
    """Bind the number of a response, and return the changed user, or the reason for a refusal.

    With `is_late`, the request that fetched the response has ended, and a number that the user has bound since takes
    precedence. Other users with the number from an import lose it. If another user has verified the number, the policy
    decides:

    - `share`: both users have the number.
    - `move`: the other user loses the number, because WeChat binds a number to one account at a time. If the other user
      verified it after wxauth called WeChat, the number is refused.
    - `refuse`, `link`: the number is refused. After `link`, the caller can call `link_phone`.
    """
    verified_until = answer.asked_at if policy == "move" else None
    async with database.begin() as transaction:
        user_id, losers = await _lock_user_and_losers(transaction, answer, phone, verified_until=verified_until)
        if user_id is None:
            return PhoneRefusal.CANNOT_LOG_IN
        refusal = await _refusal(transaction, answer, user_id, phone, policy=policy, is_late=is_late, now=now)
        if refusal is not None:
            await _store_refusal(transaction, answer, refusal, now=now)
            return refusal
        losers_now = await transaction.values(_LOSERS, phone=phone, verified_until=verified_until)
        if not {user_id, *losers}.issuperset(losers_now):
            # A merge or a split has just given the number to a user who is not locked here.
            raise ChangedMeanwhile
        if await _settle(transaction, answer, now=now):
            by = Actor(str(user_id))
            await transaction.run(_BIND, user_id=user_id, phone=phone, verified_at=answer.asked_at)
            await record_event(transaction, EventType.PHONE_BOUND, by=by, at=now, user_id=user_id, app_id=answer.app_id)
            if losers:
                await _clear_number(transaction, phone, losers, verified_by=user_id, now=now)
        return await transaction.one(_USER, user_id=user_id, **answer.identity)


@retrying()
async def link_phone(
    database: Database,
    answer: UnsettledAnswer,
    phone: str,
    *,
    verified_since: datetime,
    harmless_roles: Collection[str],
    now: datetime,
) -> tuple[UserInSession, Merged] | None:
    """Merge the response's user into the number's holder. Return the latter, and the merge, which you must report.

    The result is None if not exactly one other user has verified the number, or `link_by_phone` forbids the merge.
    """
    async with database.begin() as transaction:
        await transaction.value(_LOCK_NUMBER, phone=phone)
        user_id = await transaction.value(USER_OF_IDENTITY, **answer.identity)
        holders = await transaction.values(_HOLDERS, phone=phone, user_id=user_id)
        if user_id is None or len(holders) != 1:
            return None
        [holder_id] = holders
        merged = await link_by_phone(
            transaction,
            user_id,
            holder_id=holder_id,
            phone=phone,
            verified_since=verified_since,
            harmless_roles=harmless_roles,
            now=now,
        )
        if merged is None:
            return None
        # While this transaction waited for the locks, the identity might have moved to another user.
        refusal = await _refusal(transaction, answer, holder_id, phone, policy="link", is_late=False, now=now)
        if refusal is not None or await transaction.value(USER_OF_IDENTITY, **answer.identity) != holder_id:
            raise ChangedMeanwhile
        # The holder's time of verification stays: if each link renewed it, the number's next owner, to whom the carrier
        # might have given it, would be merged, too.
        await _settle(transaction, answer, now=now)
        return await transaction.one(_USER, user_id=holder_id, **answer.identity), merged


async def _lock_user_and_losers(
    transaction: Transaction, answer: UnsettledAnswer, phone: str, *, verified_until: datetime | None
) -> tuple[UUID | None, Sequence[UUID]]:
    """Return the locked user of the response, and the users who would lose the number, which may include that user."""
    await transaction.value(_LOCK_NUMBER, phone=phone)
    losers = await transaction.values(_LOSERS, phone=phone, verified_until=verified_until)
    # One statement locks all of these users, because users must always be locked in the order of their ids.
    if losers:
        user_id = await transaction.value(USER_OF_IDENTITY, **answer.identity)
        to_lock = [*losers] if user_id is None else [*losers, user_id]
        await lock_users(transaction, to_lock)
    # The identity might have moved to another user during the wait for the locks, so its user is read again.
    return await lock_user_of_identity(transaction, **answer.identity), losers


async def _clear_number(
    transaction: Transaction, phone: str, losers: Sequence[UUID], *, verified_by: UUID, now: datetime
) -> None:
    cleared = await transaction.rows(_CLEAR_NUMBER, user_ids=losers, phone=phone, verified_by=verified_by)
    for user_id, had_verified in cleared:
        data = {"reason": "moved"} if had_verified else None  # "moved" means that another user has verified the number
        await record_event(transaction, EventType.PHONE_REMOVED, by=SYSTEM, at=now, user_id=user_id, data=data)


async def _refusal(
    transaction: Transaction,
    answer: UnsettledAnswer,
    user_id: UUID,
    phone: str,
    *,
    policy: PhonePolicy,
    is_late: bool,
    now: datetime,
) -> PhoneRefusal | None:
    row = await transaction.row(
        _REFUSAL,
        user_id=user_id,
        **answer.identity,
        phone=phone,
        asked_at=answer.asked_at,
        policy=policy,
        is_late=is_late,
        now=now,
    )
    if row is None:  # the identity no longer belongs to the user
        return PhoneRefusal.CANNOT_LOG_IN
    (reason,) = row
    return None if reason is None else PhoneRefusal(reason)


async def _store_refusal(
    transaction: Transaction, answer: UnsettledAnswer, refusal: PhoneRefusal, *, now: datetime
) -> None:
    if refusal in (PhoneRefusal.ERASED, PhoneRefusal.WITHDRAWN):
        await transaction.run(_DELETE_ANSWER, code_hash=answer.code_hash)
    else:
        await transaction.run(REFUSE_ANSWER, code_hash=answer.code_hash, now=now)


async def _settle(transaction: Transaction, answer: UnsettledAnswer, *, now: datetime) -> bool:
    """Return False if the response was already settled. The caller must have locked the response's user."""
    was_pending = await transaction.value(_SETTLE, code_hash=answer.code_hash, now=now) is not None
    if was_pending:
        await transaction.run(_PROVE, **answer.identity, proved_at=answer.asked_at)
    return was_pending
