"""The statements that store WeChat's responses to phone codes, and bind the numbers in these responses to users.

A response is done (`settled_at`) when its number has been bound to its user, or when its user has been merged into the
holder of the number. wxauth then keeps the response's row without the number (`sealed` is null), so that a request that
sends the same code again still succeeds. Housekeeping deletes the row later (`sweep_answers`).
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from wxauth.core.database import Database, Transaction
from wxauth.core.retrying import ChangedMeanwhile, retrying
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.core.upkeep import Reseal, Sweep
from wxauth.core.users import MAY_LOG_IN, USER, USER_IN_SESSION, UserInSession
from wxauth.merging.merging import Merged, link_by_phone
from wxauth.settings.types import PhonePolicy
from wxauth.users.status_queries import lock_users
from wxauth.users.user_queries import USER_OF_IDENTITY, lock_user_of_identity

MOVED: Final = "moved"
"""The reason in the event `user.phone_removed` of a user whose verified number another user has now verified."""


class PhoneRefusal(StrEnum):
    """The reason why a number from WeChat was not bound."""

    CANNOT_LOG_IN = "cannot_log_in"
    """The user is banned, erased, or about to be erased, or the identity has just moved to another user."""
    ERASED = "erased"
    """The user who shared the number has since been erased, and the identity belongs to a later user."""
    WITHDRAWN = "withdrawn"
    """Since the user shared the number, it was withdrawn in WeChat, or removed by the user, staff or an operator."""
    TAKEN = "taken"
    """Another user has verified the number.

    With the policy `move`, this is a reason only if that user verified the number after wxauth requested this response.
    With the policy `share`, it is never a reason.
    """
    OUTDATED = "outdated"
    """The user has since bound another number.

    This is a reason only with `is_late`, which means that the request that fetched the response has ended.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """A response from WeChat that is not done yet."""

    code_hash: bytes = field(repr=False)
    """The hash of the phone code and of the identity that sent it."""
    app_id: str
    openid: str
    sealed: bytes = field(repr=False)
    """WeChat's `phone_info`, encrypted."""
    asked_at: datetime
    """The time of the request for which wxauth called WeChat.

    Actions of the user after this time take precedence over the response.
    """

    @property
    def identity(self) -> dict[str, str]:
        """The identity to which the response belongs, as parameters of a statement."""
        return {"app_id": self.app_id, "openid": self.openid}


class _AnswerAndUser(UserInSession):
    """A response and its user. `sealed` is None if the response is done."""

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
PENDING_ANSWERS: Final = Statement[StoredAnswer]("""
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE sealed IS NOT NULL AND refused_at IS NULL AND asked_at < :asked_before
 ORDER BY asked_at LIMIT :size
""")
"""The query for the oldest responses, from before `asked_before`, that are neither done nor refused."""

# If two users get the same number at the same time, the second transaction waits here until the first one ends, and
# then sees that the first user has the number.
_LOCK_NUMBER: Final = Statement[object]("SELECT pg_advisory_xact_lock(hashtext('wxauth.phone'), hashtext(:phone))")
# This query returns the reason why a locked user must not get the number of a response; null if there is no reason. It
# returns no row if the identity no longer belongs to the user. If the creation time of the identity is after :now, the
# clock was ahead at that time, so the query ignores the creation time. The reasons are the values of `PhoneRefusal`. A
# removal by `system` is not a withdrawal, because it only means that another user has got the number.
_REFUSAL: Final = Statement[tuple[str | None]](f"""
SELECT CASE
       WHEN i.created_at > :asked_at AND i.created_at <= :now THEN 'erased'
       WHEN EXISTS (SELECT FROM events
                     WHERE events.user_id = users.id AND at > :asked_at
                       AND (type = 'user.authorization_revoked' AND data -> 'fields' @> '"phone"'
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
"""The statement that records that the number of a response was refused. It changes nothing if the response is done."""
# If two requests use the same response, the second request gets no row, and must change nothing.
_MARK_DONE: Final = Statement[bytes]("""
UPDATE phone_answers SET sealed = NULL, settled_at = :now WHERE code_hash = :code_hash AND sealed IS NOT NULL
RETURNING code_hash
""")
# The number counts as verified at the time of the request for which wxauth called WeChat (`StoredAnswer.asked_at`).
_BIND: Final = Statement[Nothing](
    "UPDATE users SET phone = :phone, phone_verified_at = :verified_at WHERE id = :user_id"
)
# The statement also returns its parameters :app_id and :openid (see `USER_IN_SESSION`).
_USER: Final = Statement[UserInSession](f"SELECT {USER_IN_SESSION} FROM users WHERE id = :user_id")
# This statement records which identity has proved its user's number. If all identities that have proved the number are
# split off from the user, the user loses the number.
_PROVE: Final = Statement[Nothing]("""
UPDATE identities SET phone_proved_at = GREATEST(phone_proved_at, :proved_at)
 WHERE app_id = :app_id AND openid = :openid
""")
# This query returns the users who lose a number when another user verifies it: the users who never verified the number
# and, if :verified_until is not null, the users who verified it at that time or earlier.
_LOSERS: Final = Statement[UUID]("""
SELECT id FROM users
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
# The query returns the other users who have verified a number. Two rows suffice to show that there is more than one.
_HOLDERS: Final = Statement[UUID](
    "SELECT id FROM users WHERE phone = :phone AND phone_verified_at IS NOT NULL AND id <> :user_id LIMIT 2"
)
ANSWERS_SEALED_OTHERWISE: Final = Statement[StoredAnswer]("""
SELECT code_hash, app_id, openid, sealed, asked_at FROM phone_answers
 WHERE code_hash > :after AND sealed IS NOT NULL AND substring(sealed FOR octet_length(:prefix::bytea)) <> :prefix
 ORDER BY code_hash LIMIT :size
""")
"""The query for the next responses that are not done, and were not encrypted with the current key.

The encrypted value of such a response does not begin with the prefix of the current key.
"""
reseal_answer: Final = Reseal.of("phone_answers", "sealed", key="code_hash")
DELETE_UNCHANGED: Final = Statement[bytes](
    "DELETE FROM phone_answers WHERE code_hash = :code_hash AND sealed = :sealed RETURNING code_hash"
)
"""The statement that deletes a response if its encrypted value has not changed since it was read.

It returns no row if the value has changed.
"""
sweep_answers: Final = Sweep.of("phone_answers", key="code_hash", by="asked_at")


async def find_answer(database: Database, code_hash: bytes) -> StoredAnswer | UserInSession | None:
    """Return the stored response to a code, or its user if the response is done.

    Return None if there is no response, or if its identity has been erased.
    """
    row = await database.row(_FIND, code_hash=code_hash)
    if row is None:
        return None
    if row.sealed is None:
        return row  # an `_AnswerAndUser` is also a `UserInSession`
    return StoredAnswer(
        code_hash=code_hash,
        app_id=row.app_id,
        openid=row.openid,
        sealed=row.sealed,
        asked_at=row.asked_at,
    )


async def add_phone_answer(database: Database, answer: StoredAnswer) -> bool:
    """Store a response, unless it is stored already. Return False if its identity has been erased."""
    try:
        await database.run(_ADD, **asdict(answer))
    except asyncpg.ForeignKeyViolationError:
        return False
    return True


@retrying(detail="too many concurrent changes to this number")
async def bind_phone(
    database: Database, answer: StoredAnswer, phone: str, *, policy: PhonePolicy, is_late: bool, now: datetime
) -> UserInSession | PhoneRefusal:
    """Bind the number of a response to its user, mark the response as done, and return the changed user.

    If the number is refused, return the reason. If the reason is `ERASED` or `WITHDRAWN`, also delete the response. If
    the response is already done because of another request, change nothing, and return the user.

    `is_late` means that the request that fetched the response has ended without binding the number. In this case,
    another number that the user has bound after wxauth called WeChat takes precedence.

    Other users who have the number from an import, and have never verified it, lose the number. If another user has
    verified the number, the policy decides:

    - `share`: both users have the number.
    - `move`: the other user loses the number, because WeChat binds a number to one account at a time. If the other user
      verified the number after wxauth called WeChat, the number is refused.
    - `refuse`: the number is refused.
    - `link`: the number is refused, and the caller can then call `link_phone`.

    Raises: TooManyChanges.
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
        if await _mark_done(transaction, answer, now=now):
            by = Actor(str(user_id))
            await transaction.run(_BIND, user_id=user_id, phone=phone, verified_at=answer.asked_at)
            await record_event(transaction, EventType.PHONE_BOUND, by=by, at=now, user_id=user_id, app_id=answer.app_id)
            if losers:
                await _clear_number(transaction, phone, losers, verified_by=user_id, now=now)
        return await transaction.one(_USER, user_id=user_id, **answer.identity)


@retrying()
async def link_phone(
    database: Database,
    answer: StoredAnswer,
    phone: str,
    *,
    verified_since: datetime,
    harmless_roles: Collection[str],
    now: datetime,
) -> tuple[UserInSession, Merged] | None:
    """Merge the response's user into the holder of the number, and mark the response as done.

    Return the remaining user, and the merge, which the caller must report. Return None if the response's identity was
    erased, if not exactly one other user has verified the number, or if `link_by_phone` does not allow the merge.
    `link_by_phone` explains `verified_since` and `harmless_roles`.

    The time at which the holder verified the number does not change, because the carrier might have given the number to
    another person. If each link renewed this time, the number's next owner would be merged, too.

    Raises: TooManyChanges.
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
        await _mark_done(transaction, answer, now=now)
        return await transaction.one(_USER, user_id=holder_id, **answer.identity), merged


async def _lock_user_and_losers(
    transaction: Transaction, answer: StoredAnswer, phone: str, *, verified_until: datetime | None
) -> tuple[UUID | None, Sequence[UUID]]:
    """Lock the number, the response's user, and the users who would lose the number to that user.

    Return the response's user (None if the identity has been erased), and the users who would lose the number. These
    users can include the response's user.
    """
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
    """Clear the number of the locked users in `losers`, except `verified_by`, and record the change.

    If a user had verified the number, the event contains the reason `MOVED`.
    """
    cleared = await transaction.rows(_CLEAR_NUMBER, user_ids=losers, phone=phone, verified_by=verified_by)
    for user_id, had_verified in cleared:
        data = {"reason": MOVED} if had_verified else None
        await record_event(transaction, EventType.PHONE_REMOVED, by=SYSTEM, at=now, user_id=user_id, data=data)


async def _refusal(
    transaction: Transaction,
    answer: StoredAnswer,
    user_id: UUID,
    phone: str,
    *,
    policy: PhonePolicy,
    is_late: bool,
    now: datetime,
) -> PhoneRefusal | None:
    """Return why this locked user must not get the response's number; None if there is no reason."""
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
    transaction: Transaction, answer: StoredAnswer, refusal: PhoneRefusal, *, now: datetime
) -> None:
    """Record that the number of a response was refused.

    If the refusal is `ERASED` or `WITHDRAWN`, delete the response instead.
    """
    if refusal in (PhoneRefusal.ERASED, PhoneRefusal.WITHDRAWN):
        await transaction.run(_DELETE_ANSWER, code_hash=answer.code_hash)
    else:
        await transaction.run(REFUSE_ANSWER, code_hash=answer.code_hash, now=now)


async def _mark_done(transaction: Transaction, answer: StoredAnswer, *, now: datetime) -> bool:
    """Mark a response as done, and record that its identity has proved the number.

    Return False if the response was already done. The caller must have locked the response's user.
    """
    was_pending = await transaction.value(_MARK_DONE, code_hash=answer.code_hash, now=now) is not None
    if was_pending:
        await transaction.run(_PROVE, **answer.identity, proved_at=answer.asked_at)
    return was_pending
