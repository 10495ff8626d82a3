"""The statements that merge two users, and find the user that remains."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from wxauth.server.consents.rows import PRESENT_CONSENTS
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.trail import Actor
from wxauth.server.sessions.rows import EndReason, record_ended


class People(NamedTuple):
    """The users concerned by a unionid that is new to an identity."""

    user_id: UUID | None
    """The identity's user."""
    holder_id: UUID | None
    """The unionid's user."""


class Moved(NamedTuple):
    """What a merge has given to the user that remains."""

    app_ids: Sequence[str]
    """The app of each identity that was moved."""
    fields: Sequence[str]
    """Those of `nickname` and `avatar_url` that the remaining user lacked, and now has."""


# $1 app_id  $2 openid  $3 unionid
_PEOPLE: Final = """
SELECT (SELECT user_id FROM identities WHERE app_id = $1 AND openid = $2) AS user_id,
       (SELECT user_id FROM unionids WHERE unionid = $3) AS holder_id
"""
_NAME: Final = """
WITH named AS (UPDATE identities SET unionid = $3 WHERE app_id = $1 AND openid = $2 RETURNING user_id)
UPDATE users SET unionid = $3 FROM named WHERE users.id = named.user_id
"""
# $1 former user id  $2 remaining user id
_MOVE_IDENTITIES: Final = "UPDATE identities SET user_id = $2 WHERE user_id = $1 RETURNING app_id"
_MOVE_UNIONIDS: Final = "UPDATE unionids SET user_id = $2 WHERE user_id = $1"
_MOVE_FORMER_USERS: Final = "UPDATE former_users SET user_id = $2 WHERE user_id = $1"
_MOVE_EXTERNAL_IDS: Final = "UPDATE former_external_ids SET user_id = $2 WHERE user_id = $1"
_REMEMBER_FORMER_USER: Final = "INSERT INTO former_users (id, user_id, merged_at) VALUES ($1, $2, $3)"
# Deletes the former user and fills the remaining one in one statement: otherwise a unique value would exist twice for a
# moment. The caller has locked both.
_MERGE: Final = f"""
WITH before AS (
    SELECT nickname, avatar_url, external_id FROM users WHERE id = $2
), former AS (
    DELETE FROM users WHERE id = $1
    RETURNING *
), moved AS (
    UPDATE avatars SET user_id = users.id FROM former, users
     WHERE avatars.user_id = former.id AND users.id = $2 AND users.avatar_url IS NULL
), remembered AS (
    INSERT INTO former_external_ids (external_id, user_id)
    SELECT former.external_id, $2 FROM former, before
     WHERE former.external_id IS NOT NULL AND before.external_id IS NOT NULL
)
UPDATE users
   SET unionid = COALESCE(users.unionid, former.unionid),
       nickname = COALESCE(users.nickname, former.nickname),
       avatar_url = COALESCE(users.avatar_url, former.avatar_url),
       phone = COALESCE(users.phone, former.phone),
       phone_proved_at = CASE WHEN users.phone IS NULL THEN former.phone_proved_at
                              WHEN users.phone = former.phone
                              THEN GREATEST(users.phone_proved_at, former.phone_proved_at)
                              ELSE users.phone_proved_at END,
       external_id = COALESCE(users.external_id, former.external_id),
       consents = {PRESENT_CONSENTS},
       created_at = LEAST(users.created_at, former.created_at),
       last_login_at = GREATEST(users.last_login_at, former.last_login_at)
  FROM former, before
 WHERE users.id = $2
RETURNING array_remove(ARRAY [
    CASE WHEN users.nickname IS DISTINCT FROM before.nickname THEN 'nickname' END,
    CASE WHEN users.avatar_url IS DISTINCT FROM before.avatar_url THEN 'avatar_url' END], NULL) AS fields
"""  # noqa: S608 - put together from constants
# The present user for a user's id, present or former. $1 id
_CURRENT: Final = """
SELECT id FROM users WHERE id = $1
 UNION ALL
SELECT user_id FROM former_users WHERE id = $1
 LIMIT 1
"""
_EXTERNAL_IDS: Final = "SELECT count(external_id) FROM users WHERE id IN ($1, $2)"
# The caller has locked both users and the number.
# $1 newcomer  $2 holder  $3 number  $4 the newcomer was created since then
# $5 the holder has proved the number since then
_MAY_LINK: Final = """
SELECT EXISTS (
    SELECT FROM users newcomer, users holder
     WHERE newcomer.id = $1 AND holder.id = $2
       AND newcomer.created_at >= $4
       AND (SELECT count(*) FROM identities WHERE user_id = $1) = 1
       AND NOT EXISTS (SELECT FROM identities one JOIN identities other USING (app_id)
                        WHERE one.user_id = $1 AND other.user_id = $2)
       AND NOT (EXISTS (SELECT FROM unionids WHERE user_id = $1) AND EXISTS (SELECT FROM unionids WHERE user_id = $2))
       AND (newcomer.external_id IS NULL OR holder.external_id IS NULL)
       AND holder.roles = '{}' AND holder.status = 'active'
       AND holder.phone = $3 AND holder.phone_proved_at >= $5
       AND NOT EXISTS (SELECT FROM users other
                        WHERE other.phone = $3 AND other.phone_proved_at IS NOT NULL AND other.id NOT IN ($1, $2)))
"""
# Whether the user was joined from several by a phone number or an operator, of which WeChat knows nothing. The sweep
# keeps these events for good.
_IS_JOINED: Final = """
SELECT EXISTS (SELECT FROM former_users WHERE user_id = $1)
   AND EXISTS (SELECT FROM events
                WHERE type = 'user.merged' AND data ? 'by'
                  AND user_id IN (SELECT $1::uuid UNION ALL SELECT id FROM former_users WHERE user_id = $1))
"""
# A foreign key deletes the identities' sessions with them. $1 user id  $2 app_id  $3 openid  $4 now
_ERASE_IDENTITIES: Final = """
WITH gone AS (
    SELECT unionid FROM identities WHERE user_id = $1 AND app_id = $2 AND openid = $3
), erased AS (
    DELETE FROM identities USING gone
     WHERE user_id = $1
       AND CASE WHEN gone.unionid IS NULL THEN app_id = $2 AND openid = $3 ELSE identities.unionid = gone.unionid END
    RETURNING identities.app_id, identities.openid
), forgotten AS (
    DELETE FROM unionids USING gone WHERE user_id = $1 AND unionids.unionid = gone.unionid
), unnamed AS (
    UPDATE users
       SET unionid = (SELECT i.unionid FROM identities i
                       WHERE i.user_id = $1 AND i.unionid <> gone.unionid ORDER BY created_at DESC LIMIT 1)
      FROM gone WHERE users.id = $1 AND users.unionid = gone.unionid
)
SELECT (SELECT count(*) FROM identities WHERE user_id = $1) - (SELECT count(*) FROM erased) AS left,
       ARRAY (SELECT s.id FROM sessions s JOIN erased USING (app_id, openid)
               WHERE s.user_id = $1 AND s.revoked_at IS NULL AND s.expires_at > $4 ORDER BY s.id) AS session_ids
"""
_REMAINING: Final = "SELECT user_id FROM former_users WHERE id = $1"
_FORMER_EXTERNAL_IDS: Final = "SELECT external_id FROM former_external_ids WHERE user_id = $1 ORDER BY external_id"
_FORMER: Final = "SELECT id FROM former_users WHERE user_id = $1 ORDER BY merged_at, id"


async def people_of(database: Database, *, app_id: str, openid: str, unionid: str | None) -> People:
    """The users of an identity and of a unionid. Raises: StorageUnavailable."""
    return People(**await database.fetchrow(_PEOPLE, app_id, openid, unionid))


async def name_identity(transaction: Transaction, *, app_id: str, openid: str, unionid: str) -> None:
    """Store the unionid that WeChat last gave with an identity, for the identity and its user."""
    await transaction.execute(_NAME, app_id, openid, unionid)


async def merge_users(transaction: Transaction, former_id: UUID, *, into: UUID, now: datetime) -> Moved:
    """Merge a user into another one, and remember the former id. Fields that the other user has stay."""
    app_ids = [row["app_id"] for row in await transaction.fetch(_MOVE_IDENTITIES, former_id, into)]
    for statement in (_MOVE_UNIONIDS, _MOVE_FORMER_USERS, _MOVE_EXTERNAL_IDS):
        await transaction.execute(statement, former_id, into)
    # Before the merge, which finds the former user's consents by it. They stay where they are: there may be many.
    await transaction.execute(_REMEMBER_FORMER_USER, former_id, into, now)
    fields = await transaction.fetchval(_MERGE, former_id, into)
    return Moved(app_ids, fields or [])


async def current_user(database: Database, user_id: UUID) -> UUID | None:
    """The user of this id, or the one who remains after merges; None if there is none. Raises: StorageUnavailable."""
    row = await database.fetchrow(_CURRENT, user_id)
    return None if row is None else row["id"]


async def have_both_external_ids(transaction: Transaction, one_id: UUID, other_id: UUID) -> bool:
    """Whether both users have an external id."""
    number: int = await transaction.fetchval(_EXTERNAL_IDS, one_id, other_id)
    return number == len((one_id, other_id))


async def may_link_by_phone(
    transaction: Transaction,
    newcomer_id: UUID,
    *,
    holder_id: UUID,
    phone: str,
    created_since: datetime,
    proved_since: datetime,
) -> bool:
    """Whether the newcomer may become the holder of the number, without anybody's account being stolen.

    The caller has locked both users.
    """
    may: bool = await transaction.fetchval(_MAY_LINK, newcomer_id, holder_id, phone, created_since, proved_since)
    return may


async def is_joined(transaction: Transaction, user_id: UUID) -> bool:
    """Whether the user was joined from several by a phone number or an operator, not by a unionid of WeChat's."""
    joined: bool = await transaction.fetchval(_IS_JOINED, user_id)
    return joined


async def erase_identities(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, by: Actor, now: datetime
) -> int:
    """Erase an identity and all others with its unionid; how many identities the user has left.

    The caller has locked the user. The identities' sessions end, which is recorded.
    """
    done = await transaction.fetchrow(_ERASE_IDENTITIES, user_id, app_id, openid, now)
    await record_ended(transaction, user_id, done["session_ids"], reason=EndReason.ERASED, by=by, now=now)
    left: int = done["left"]
    return left


async def remaining_user(database: Database, former_id: UUID) -> UUID | None:
    """The user into whom this one was merged; None if this id was never merged. Raises: StorageUnavailable."""
    row = await database.fetchrow(_REMAINING, former_id)
    return None if row is None else row["user_id"]


async def former_ids(asked: Database | Transaction, user_id: UUID) -> Sequence[UUID]:
    """The ids that were merged into this one, the first merge first."""
    return [row["id"] for row in await asked.fetch(_FORMER, user_id)]


async def former_external_ids(asked: Database | Transaction, user_id: UUID) -> Sequence[str]:
    """The external ids of users whom WeChat has made one with this one."""
    return [row["external_id"] for row in await asked.fetch(_FORMER_EXTERNAL_IDS, user_id)]
