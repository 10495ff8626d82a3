"""Users as they are stored: searching, reading and erasing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, any_, exists, func, literal, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlmodel import col

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import UserRow, UserStatus
from wxauth.server.sessions.rows import EndReason, open_session_ids, record_ended
from wxauth.server.users.erasure_rows import forget_person
from wxauth.server.users.merging_rows import former_ids
from wxauth.server.users.tables import Identity, User


class IdentityRow(TypedDict):
    """One openid in one app."""

    app_id: str
    openid: str


class UserWithIdentities(UserRow):
    """A user, with all identities, the oldest first."""

    identities: list[IdentityRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSearch:
    """A search for users. A field that is None does not limit it."""

    text: str | None = None
    """A whole openid, unionid, external id, phone number or id. If it is nobody's, part of a nickname, in any case."""
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

# Uses indexes only. Openids have no index of their own, which would cost each first login. So an openid is looked for
# in each app. The apps are read one by one from the primary key, whose first column they are.
_WHOM_IT_NAMES: Final = Statement[UUID]("""
WITH RECURSIVE apps (app_id) AS (
    (SELECT app_id FROM identities ORDER BY app_id LIMIT 1)
    UNION ALL
    SELECT (SELECT i.app_id FROM identities i WHERE i.app_id > apps.app_id ORDER BY i.app_id LIMIT 1)
      FROM apps WHERE apps.app_id IS NOT NULL
)
SELECT id FROM users WHERE unionid = :text
 UNION
SELECT id FROM users WHERE external_id = :text
 UNION
SELECT user_id FROM former_external_ids WHERE external_id = :text
 UNION
SELECT id FROM users WHERE phone = :text
 UNION
SELECT id FROM users WHERE phone = '+' || :text
 UNION
SELECT id FROM users WHERE id = :id
 UNION
SELECT i.user_id FROM apps JOIN identities i ON i.app_id = apps.app_id AND i.openid = :text
""")
_USER_OF: Final = Statement[UUID]("SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid")
_LOCK: Final = Statement[UUID]("SELECT id FROM users WHERE id = :user_id FOR UPDATE")
_ERASE: Final = Statement[UUID]("DELETE FROM users WHERE id = :user_id RETURNING id")


async def find_users(
    database: Database, search: UserSearch, *, before: UUID | None, limit: int
) -> Sequence[UserWithIdentities]:
    """The newest users that the search finds, older than `before`, with their identities.

    Whom a text names does not depend on what else is asked, nor on the page: all pages of a search search alike.

    Raises: StorageUnavailable.
    """
    wanted = _USERS.order_by(col(User.id).desc()).limit(limit)
    if search.text is not None:
        named = await database.values(_WHOM_IT_NAMES, text=search.text, id=_id_in(search.text))
        wanted = wanted.where(col(User.id).in_(named) if named else _is_in_nickname(search.text))
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
    """A user with all identities; None if there is no such user. Raises: StorageUnavailable."""
    found: UserWithIdentities | None = await database.fetchrow(_USERS.where(col(User.id) == user_id))
    return found


async def user_of(transaction: Transaction, *, app_id: str, openid: str) -> UUID | None:
    """The user who has this identity at this moment, without a lock; None if nobody has it."""
    return await transaction.value(_USER_OF, app_id=app_id, openid=openid)


async def lock_user_of(transaction: Transaction, *, app_id: str, openid: str) -> UUID | None:
    """Lock the user who has this identity, until the transaction ends; None if nobody has it."""
    user_id: UUID | None = await transaction.value(_USER_OF, app_id=app_id, openid=openid)
    while user_id is not None:
        await transaction.run(_LOCK, user_id=user_id)
        owner_id: UUID | None = await transaction.value(_USER_OF, app_id=app_id, openid=openid)
        if owner_id == user_id:
            break
        user_id = owner_id  # while we waited, the identity was linked to another user, or erased
    return user_id


async def erase_user(transaction: Transaction, user_id: UUID, *, by: Actor, now: datetime) -> bool:
    """Erase a person everywhere, leaving events that say no more than by which ids they and their sessions were known.

    The user is locked. The address in these events is an administrator's; the person's own is erased with them, if
    there is much to forget a little later. Whether there was one.
    """
    if by.name == str(user_id):
        by = Actor(by.name)
    former = await former_ids(transaction, user_id)
    sessions = await open_session_ids(transaction, user_id, now=now)
    if await transaction.value(_ERASE, user_id=user_id) is None:
        return False
    await forget_person(transaction, [user_id, *former])
    await record_ended(transaction, user_id, sessions, reason=EndReason.ERASED, by=by, now=now)
    data = {"former_ids": former}
    await record_event(transaction, EventType.USER_ERASED, by=by, at=now, user_id=user_id, data=data)
    return True


def _is_in_nickname(text: str) -> ColumnElement[bool]:
    # Looked for in one user after the other, the newest first: 50 ms where none of 200,000 fits. Only an extension that
    # not every host allows would index it.
    return func.strpos(func.lower(User.nickname), func.lower(text)) > 0


def _id_in(text: str) -> UUID | None:
    """The id that is written as it is answered, in any case."""
    try:
        user_id = UUID(text)
    except ValueError:
        return None
    return user_id if str(user_id) == text.lower() else None
