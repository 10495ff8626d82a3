"""Linking an identity to the person whom its unionid names, when WeChat tells it only later.

Rare: an app that has newly been bound to an Open Platform account, or moved to another one. Clarity
before speed. A user has one unionid, the one given last: while the apps of one owner move, one after the
other, each login with the other unionid comes this way.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.core.tables import UserStatus
from wxauth.core.trail import SYSTEM, EventType, NewEvent, forget_person, record_event
from wxauth.store.sessions import EndReason, end_sessions
from wxauth.store.users import lock_administrators

_PEOPLE = text("""
    SELECT (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid) AS user_id,
           (SELECT id FROM users WHERE unionid = :unionid) AS holder_id
""")
# In the order of ids, so that two of these never wait for each other; and before the identity, as a login does.
_LOCK_USERS = text("SELECT FROM users WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")
_NAME_USER = text("UPDATE users SET unionid = :unionid WHERE id = :user_id")
_MOVE_IDENTITY = text("UPDATE identities SET user_id = :user_id WHERE app_id = :app_id AND openid = :openid")
# A ban follows the person, unless it left no administrator; so does all that the emptied user had and the remaining
# one lacks.
_SETTLE_BAN = text("""
    UPDATE users SET status = :status WHERE id = :user_id AND status <> :status RETURNING id
""")
_STANDING = text("""
    SELECT (SELECT bool_or(status = 'disabled') FROM users WHERE id IN (:user_id, :former_id)) AS is_banned,
           (SELECT roles FROM users WHERE id = :user_id) AS roles
""")
# Away with the one and into the other in one statement, so that no unique value of theirs is there twice.
_MERGE_EMPTY_USER = text("""
    WITH former AS (
        DELETE FROM users
         WHERE id = :former_id AND NOT EXISTS (SELECT FROM identities WHERE user_id = :former_id)
        RETURNING *
    ), moved AS (
        UPDATE avatars SET user_id = users.id FROM former, users
         WHERE avatars.user_id = former.id AND users.id = :user_id AND users.avatar_url IS NULL
    )
    UPDATE users
       SET nickname = COALESCE(users.nickname, former.nickname),
           avatar_url = COALESCE(users.avatar_url, former.avatar_url),
           phone = COALESCE(users.phone, former.phone),
           roles = ARRAY(SELECT role FROM unnest(users.roles || former.roles) role
                          GROUP BY role ORDER BY role <> 'admin', role LIMIT 32),
           created_at = LEAST(users.created_at, former.created_at)
      FROM former
     WHERE users.id = :user_id
    RETURNING users.roles
""")


async def link_unionid(transaction: AsyncConnection, app_id: str, openid: str, unionid: str, *, now: datetime) -> None:
    """Give a known identity's user this unionid; where another user has it, the identity becomes that user's.

    Its sessions go with it. A user left without identities is merged into the other one: to WeChat they
    are one person.
    """
    identity = {"app_id": app_id, "openid": openid}
    known = {**identity, "unionid": unionid}
    people = (await transaction.execute(_PEOPLE, known)).one()
    user_id, holder_id = people
    if user_id is None:
        return
    administrators = set(await lock_administrators(transaction))
    await transaction.execute(_LOCK_USERS, {"ids": [user_id, holder_id or user_id]})
    if (await transaction.execute(_PEOPLE, known)).one() != people:
        return  # linked meanwhile, by another request
    if holder_id is None:
        await transaction.execute(_NAME_USER, {"user_id": user_id, "unionid": unionid})
    elif holder_id != user_id:
        merged = {"user_id": holder_id, "former_id": user_id}
        await transaction.execute(_MOVE_IDENTITY, {**identity, "user_id": holder_id})
        is_needed = bool(administrators) and administrators <= {user_id, holder_id}
        is_banned, roles = (await transaction.execute(_STANDING, merged)).one()
        await _settle_ban(transaction, holder_id, is_banned=is_banned and not is_needed, now=now)
        merged_roles = (await transaction.execute(_MERGE_EMPTY_USER, merged)).scalar()
        if merged_roles is None:
            return  # the user still has other identities
        await forget_person(transaction, user_id)  # nothing would lead to it any more, should the person be erased
        if set(merged_roles) != set(roles):
            data = {"before": roles, "after": merged_roles}
            event = NewEvent(type=EventType.ROLES_CHANGED, at=now, actor=SYSTEM, user_id=holder_id, data=data)
            await record_event(transaction, event)


async def _settle_ban(transaction: AsyncConnection, user_id: UUID, *, is_banned: bool, now: datetime) -> None:
    status = UserStatus.DISABLED if is_banned else UserStatus.ACTIVE
    changed = (await transaction.execute(_SETTLE_BAN, {"user_id": user_id, "status": status})).first()
    if changed is not None:
        kind = EventType.USER_BANNED if is_banned else EventType.USER_UNBANNED
        await record_event(transaction, NewEvent(type=kind, at=now, actor=SYSTEM, user_id=user_id))
    if is_banned:
        await end_sessions(transaction, user_id, reason=EndReason.BANNED, actor=SYSTEM, now=now)
