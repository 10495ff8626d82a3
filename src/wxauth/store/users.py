"""Users: who is wanted, what is changed of them, and their end."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wxauth.core.database import Database
from wxauth.core.tables import UserStatus
from wxauth.core.trail import EventType, NewEvent, forget_person, record_event
from wxauth.errors import LastAdmin

ADMIN: Final = "admin"
"""The role of an administrator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSearch:
    """Which users are wanted; what is None does not matter."""

    text: str | None = None
    """Part of the nickname in any case, or the whole openid, unionid, phone number or id."""
    status: UserStatus | None = None
    role: str | None = None
    app_id: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What others decide of a user."""

    status: UserStatus
    roles: tuple[str, ...]


_USERS: Final = """
SELECT id, unionid, nickname, avatar_url, phone, roles, status, created_at, last_login_at,
       (SELECT COALESCE(json_agg(json_build_object('app_id', i.app_id, 'openid', i.openid)
                                 ORDER BY i.created_at, i.app_id, i.openid), '[]')
          FROM identities i WHERE i.user_id = users.id) AS identities
  FROM users
"""
# A nickname is looked for in one user after the other, the newest first: 50 ms where none of 200,000 fits. Only an
# extension that not every host allows would index it, and beside it an index on the openid would save nothing.
_CONDITIONS: Final = {
    "text": """(
        strpos(lower(nickname), lower(:text)) > 0
        OR unionid = :text
        OR phone IN (:text, '+' || :text)
        OR id = ANY (ARRAY(SELECT user_id FROM identities WHERE openid = :text))
        OR CAST(id AS text) = lower(:text)
    )""",
    "status": "status = :status",
    "role": ":role = ANY (roles)",
    "app_id": "EXISTS (SELECT FROM identities i WHERE i.user_id = users.id AND i.app_id = :app_id)",
    "user_id": "id = :user_id",
    "before": "id < :before",
}
_CHANGE_PROFILE: Final = """
UPDATE users SET nickname = CASE WHEN $2 THEN $3 ELSE nickname END,
                 avatar_url = CASE WHEN $4 THEN $5 ELSE avatar_url END
 WHERE id = $1
RETURNING id, unionid, nickname, avatar_url, phone, roles, status, created_at, last_login_at
"""
# All of them, so that of two who remove each other at once the second waits, and sees who is left.
_LOCK_ADMINISTRATORS: Final = text("""
    SELECT id FROM users WHERE 'admin' = ANY (roles) AND status = 'active' ORDER BY id FOR UPDATE
""")
_LOCK_STANDING: Final = text("SELECT status, roles FROM users WHERE id = :user_id FOR UPDATE")
_SET_STANDING: Final = text("UPDATE users SET status = :status, roles = :roles WHERE id = :user_id")
_USER_OF: Final = text("SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid")
_CLEAR: Final = text("""
    UPDATE users SET nickname = CASE WHEN 'nickname' = ANY (CAST(:fields AS text[])) THEN NULL ELSE nickname END,
                     avatar_url = CASE WHEN 'avatar_url' = ANY (CAST(:fields AS text[])) THEN NULL ELSE avatar_url END,
                     phone = CASE WHEN 'phone' = ANY (CAST(:fields AS text[])) THEN NULL ELSE phone END
     WHERE id = :user_id
""")
_ERASE: Final = text("DELETE FROM users WHERE id = :user_id RETURNING id")


async def find_users(
    database: Database, search: UserSearch, *, before: UUID | None, limit: int
) -> Sequence[Mapping[str, Any]]:
    """The newest users who are wanted, of those before this one, with their identities. Raises: StorageUnavailable."""
    return await _read_users(database, {**asdict(search), "before": before}, limit=limit)


async def read_user(database: Database, user_id: UUID) -> Mapping[str, Any] | None:
    """A user with all identities, or None where there is none. Raises: StorageUnavailable."""
    found = await _read_users(database, {"user_id": user_id}, limit=1)
    return found[0] if found else None


async def lock_standing(transaction: AsyncConnection, user_id: UUID) -> Standing | None:
    """How a user stands, which nobody else changes until the end of the transaction; None where there is none."""
    row = (await transaction.execute(_LOCK_STANDING, {"user_id": user_id})).one_or_none()
    return None if row is None else Standing(UserStatus(row.status), tuple(row.roles))


async def set_standing(transaction: AsyncConnection, user_id: UUID, standing: Standing) -> None:
    """Let a user whose standing is locked stand like this."""
    values = {"user_id": user_id, "status": standing.status, "roles": list(standing.roles)}
    await transaction.execute(_SET_STANDING, values)


async def change_profile(
    database: Database, user_id: UUID, changes: Mapping[str, str | None]
) -> Mapping[str, Any] | None:
    """Set `nickname` and `avatar_url` where they are named; the user as it is then, None where it is gone.

    Raises: StorageUnavailable.
    """
    return await database.fetchrow(
        _CHANGE_PROFILE,
        user_id,
        "nickname" in changes,
        changes.get("nickname"),
        "avatar_url" in changes,
        changes.get("avatar_url"),
    )


async def lock_user_of(transaction: AsyncConnection, *, app_id: str, openid: str) -> UUID | None:
    """The user who has this identity, until the end of the transaction; None where nobody has."""
    identity = {"app_id": app_id, "openid": openid}
    user_id: UUID | None = (await transaction.execute(_USER_OF, identity)).scalar()
    while user_id is not None:
        await transaction.execute(_LOCK_STANDING, {"user_id": user_id})
        owner_id: UUID | None = (await transaction.execute(_USER_OF, identity)).scalar()
        if owner_id == user_id:
            break
        user_id = owner_id  # it has been linked to another user, or has gone, while we waited
    return user_id


async def clear_fields(transaction: AsyncConnection, user_id: UUID, fields: Sequence[str]) -> None:
    """Forget what is named of `nickname`, `avatar_url` and `phone`."""
    await transaction.execute(_CLEAR, {"user_id": user_id, "fields": list(fields)})


async def erase_user(database: Database, user_id: UUID, *, actor: str, now: datetime, ip: str | None = None) -> bool:
    """Erase a person everywhere, leaving an event that says no more than that; whether there was one.

    `ip` is an administrator's. The person's own address is erased with them.

    Raises: LastAdmin, StorageUnavailable.
    """
    async with database.begin() as transaction:
        await keep_an_administrator(transaction, user_id)
        return await erase_whoever(transaction, user_id, actor=actor, now=now, ip=ip)


async def erase_whoever(
    transaction: AsyncConnection, user_id: UUID, *, actor: str, now: datetime, ip: str | None = None
) -> bool:
    """As `erase_user`, the last administrator too."""
    erased = (await transaction.execute(_ERASE, {"user_id": user_id})).first()
    if erased is None:
        return False
    await forget_person(transaction, user_id)
    event = NewEvent(type=EventType.USER_ERASED, at=now, actor=actor, user_id=user_id, ip=ip)
    await record_event(transaction, event)
    return True


async def keep_an_administrator(transaction: AsyncConnection, user_id: UUID) -> None:
    """See that this user is not the only active administrator. Raises: LastAdmin."""
    if await lock_administrators(transaction) == [user_id]:
        raise LastAdmin("this is the only administrator: make another one first")


async def lock_administrators(transaction: AsyncConnection) -> Sequence[UUID]:
    """The active administrators, who stay so until the transaction ends."""
    return (await transaction.execute(_LOCK_ADMINISTRATORS)).scalars().all()


async def _read_users(database: Database, values: Mapping[str, Any], *, limit: int) -> Sequence[Mapping[str, Any]]:
    where = " AND ".join(_CONDITIONS[name] for name, value in values.items() if value is not None) or "TRUE"
    statement = text(f"{_USERS} WHERE {where} ORDER BY id DESC LIMIT :limit")
    async with database.begin() as transaction:
        rows = await transaction.execute(statement, {**values, "limit": limit})
        return [row._asdict() for row in rows]
