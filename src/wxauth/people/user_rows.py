"""Users: who is wanted, who somebody is, and their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, String, any_, cast, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlmodel import col

from wxauth.core.database import Database, Transaction
from wxauth.core.tables import Identity, User, UserRow, UserStatus
from wxauth.core.trail import Actor, EventType, forget_person, record_event


class IdentityRow(TypedDict):
    """One openid in one app."""

    app_id: str
    openid: str


class UserWithIdentities(UserRow):
    """A user, with all identities, the oldest first."""

    identities: list[IdentityRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSearch:
    """Which users are wanted; what is None does not matter."""

    text: str | None = None
    """Part of the nickname in any case, or the whole openid, unionid, phone number or id."""
    status: UserStatus | None = None
    role: str | None = None
    app_id: str | None = None


_IDENTITIES: Final = (
    select(
        func.coalesce(
            func.jsonb_agg(
                aggregate_order_by(
                    func.jsonb_build_object("app_id", Identity.app_id, "openid", Identity.openid),
                    col(Identity.created_at),
                    col(Identity.app_id),
                    col(Identity.openid),
                )
            ),
            func.jsonb_build_array(),
        )
    )
    .where(col(Identity.user_id) == col(User.id))
    .scalar_subquery()
    .label("identities")
)
_USERS: Final = select(*(User.__table__.columns[name] for name in UserRow.__annotations__), _IDENTITIES)  # type: ignore[attr-defined]  # SQLModel adds the table

# $1 app_id  $2 openid
_USER_OF: Final = "SELECT user_id FROM identities WHERE app_id = $1 AND openid = $2"
_LOCK: Final = "SELECT id FROM users WHERE id = $1 FOR UPDATE"
_ERASE: Final = "DELETE FROM users WHERE id = $1 RETURNING id"


async def find_users(
    database: Database, search: UserSearch, *, before: UUID | None, limit: int
) -> Sequence[UserWithIdentities]:
    """The newest users who are wanted, of those before this one, with their identities. Raises: StorageUnavailable."""
    wanted = _USERS.order_by(col(User.id).desc()).limit(limit)
    if search.text is not None:
        wanted = wanted.where(_is_about(search.text))
    if search.status is not None:
        wanted = wanted.where(col(User.status) == search.status)
    if search.role is not None:
        wanted = wanted.where(literal(search.role) == any_(col(User.roles)))
    if search.app_id is not None:
        wanted = wanted.where(
            exists().where(col(Identity.user_id) == col(User.id), col(Identity.app_id) == search.app_id)
        )
    if before is not None:
        wanted = wanted.where(col(User.id) < before)
    found: Sequence[UserWithIdentities] = await database.fetch(wanted)
    return found


async def read_user(database: Database, user_id: UUID) -> UserWithIdentities | None:
    """A user with all identities, or None where there is none. Raises: StorageUnavailable."""
    found: UserWithIdentities | None = await database.fetchrow(_USERS.where(col(User.id) == user_id))
    return found


async def lock_user_of(transaction: Transaction, *, app_id: str, openid: str) -> UUID | None:
    """The user who has this identity, until the transaction ends; None where nobody has."""
    user_id: UUID | None = await transaction.fetchval(_USER_OF, app_id, openid)
    while user_id is not None:
        await transaction.execute(_LOCK, user_id)
        owner_id: UUID | None = await transaction.fetchval(_USER_OF, app_id, openid)
        if owner_id == user_id:
            break
        user_id = owner_id  # while we waited, the identity was linked to another user, or erased
    return user_id


async def erase_user(transaction: Transaction, user_id: UUID, *, by: Actor, now: datetime) -> bool:
    """Erase a person everywhere, leaving an event that says no more than that; whether there was one.

    The address in that event is an administrator's. The person's own is erased with them.
    """
    if await transaction.fetchval(_ERASE, user_id) is None:
        return False
    await forget_person(transaction, user_id)
    await record_event(transaction, EventType.USER_ERASED, by=by, at=now, user_id=user_id)
    return True


def _is_about(text: str) -> ColumnElement[bool]:
    # A nickname is looked for in one user after the other, the newest first: 50 ms where none of 200,000 fits. Only an
    # extension that not every host allows would index it, and beside it an index on the openid would save nothing.
    with_openid = select(col(Identity.user_id)).where(col(Identity.openid) == text)
    return or_(
        func.strpos(func.lower(User.nickname), func.lower(text)) > 0,
        col(User.unionid) == text,
        col(User.phone).in_([text, f"+{text}"]),
        col(User.id).in_(with_openid),
        cast(col(User.id), String) == text.lower(),
    )
