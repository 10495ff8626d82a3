"""The stored users: searching, reading and deleting them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain, repeat
from time import monotonic
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field
from sqlmodel import SQLModel
from typing_extensions import TypedDict

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import LAST_ID
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.server.core.users import USER, Person, UserFields, UserStatus
from wxauth.server.users.search_terms import id_in
from wxauth.server.users.standing import ADMIN


class IdentityJson(TypedDict):
    """One openid in one app."""

    app_id: Annotated[str, Field(examples=["wx1a2b3c4d5e6f7a8b"])]
    openid: Annotated[str, Field(examples=["o6_bmjrPTlm6_2sgVt7hMZOPfL2M"])]


class OwnIdentity(SQLModel):
    """One openid in one app, as its user sees it."""

    app_id: str
    openid: str
    created_at: datetime


class UserWithIdentities(UserFields):
    """A user, with all identities, the oldest first."""

    identities: list[IdentityJson]


class ListedUser(UserWithIdentities):
    """A user, as staff sees it."""

    ban_reason: str | None
    banned_until: datetime | None


@dataclass(frozen=True, slots=True)
class FoundUsers:
    """The result of a search."""

    users: Sequence[ListedUser]
    stopped_at: UUID | None = None
    """The id at which the search stopped because of its time limit; None if it is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSearch:
    """Criteria for users. One that is None does not apply."""

    text: str | None = None
    """A complete openid, unionid, external id, phone number or id; or else, unless the text can only be such a value,
    part of a nickname, in any case."""
    is_exact: bool = False
    """Whether only the whole text can match: see `search_terms.py`."""
    phones: Sequence[str] = ()
    """The phone numbers that the text may mean, in E.164."""
    status: UserStatus | None = None
    role: str | None = None
    app_id: str | None = None


WINDOWS: Final = (1_000, 100_000)
"""How many users the first statement of a search examines, and each further one. 100,000 take 30 to 100 ms."""
INDEXED_FROM: Final = 2
"""Characters of the shortest part of a nickname that the index finds."""
SEARCH_SECONDS: Final = 1.0
"""The time after which a search starts no further statement."""

_WITH_IDENTITIES: Final = f"""
SELECT {USER}, ban_reason, banned_until, (
    SELECT COALESCE(jsonb_agg(jsonb_build_object('app_id', i.app_id, 'openid', i.openid)
                              ORDER BY i.created_at, i.app_id, i.openid), '[]')
      FROM identities i WHERE i.user_id = users.id
) AS identities FROM users"""  # noqa: S608 - put together from constants
_USER_BY_ID: Final = Statement[ListedUser](f"{_WITH_IDENTITIES} WHERE users.id = :user_id")

# The conditions of a search. Only those whose parameter is given are used. The users with a rare part are read by their
# ids, not joined: PostgreSQL expects one in a thousand to have it, and would walk through ten million to find fifty.
_CONDITIONS: Final = {
    "named": "users.id = ANY (:named)",
    "part": "strpos(lower(users.nickname), lower(:part)) > 0",
    "rare_part": """users.id = ANY (ARRAY(WITH fitting AS MATERIALIZED (
        SELECT u.id FROM users u
         WHERE u.nickname IS NOT NULL AND nickname_bigrams(u.nickname) @> nickname_bigrams(:rare_part)
           AND strpos(lower(u.nickname), lower(:rare_part)) > 0)
        SELECT id FROM fitting WHERE id < :before AND id >= :floor ORDER BY id DESC LIMIT :limit))""",
    "status": "users.status = :status",
    "role": ":role = ANY (users.roles)",
    "app_id": "EXISTS (SELECT FROM identities i WHERE i.user_id = users.id AND i.app_id = :app_id)",
}
_FLOOR: Final = Statement[UUID]("SELECT id FROM users WHERE id < :before ORDER BY id DESC OFFSET :size LIMIT 1")
_LOWEST: Final = UUID(int=0)

# Uses indexes only. Openids have no index of their own, which would slow each first login. So an openid is looked up in
# each app. The apps are read one by one from the primary key, whose first column is the app.
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
SELECT id FROM users WHERE phone = ANY (:phones)
 UNION
SELECT id FROM users WHERE id = :id
 UNION
SELECT user_id FROM former_users WHERE id = :id
 UNION
SELECT i.user_id FROM apps JOIN identities i ON i.app_id = apps.app_id AND i.openid = :text
""")
_IDENTITIES_OF: Final = Statement[OwnIdentity]("""
SELECT app_id, openid, created_at FROM identities WHERE user_id = :user_id ORDER BY created_at, app_id, openid
""")
_USER_OF: Final = Statement[UUID]("SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid")
_LOCK: Final = Statement[UUID]("SELECT id FROM users WHERE id = :user_id FOR UPDATE")
_CLEAR: Final = Statement[list[str]]("""
WITH before AS (
    SELECT id, nickname, avatar_url, phone FROM users WHERE id = :user_id
)
UPDATE users SET nickname = CASE WHEN 'nickname' = ANY (:fields::text[]) THEN NULL ELSE users.nickname END,
                 avatar_url = CASE WHEN 'avatar_url' = ANY (:fields::text[]) THEN NULL ELSE users.avatar_url END,
                 phone = CASE WHEN 'phone' = ANY (:fields::text[]) THEN NULL ELSE users.phone END,
                 phone_verified_at = CASE WHEN 'phone' = ANY (:fields::text[]) THEN NULL ELSE phone_verified_at END
  FROM before
 WHERE users.id = before.id
RETURNING array_remove(ARRAY[
    CASE WHEN before.nickname IS DISTINCT FROM users.nickname THEN 'nickname' END,
    CASE WHEN before.avatar_url IS DISTINCT FROM users.avatar_url THEN 'avatar_url' END,
    CASE WHEN before.phone IS DISTINCT FROM users.phone THEN 'phone' END], NULL)
""")
_DELETE: Final = Statement[UUID]("DELETE FROM users WHERE id = :user_id RETURNING id")
log = get_logger()
_READ: Final = Statement[dict[str, Any] | None]("SELECT attributes FROM users WHERE id = :user_id")
# Null means the same as empty: most users have none, and a null costs a login nothing.
_WRITE: Final = Statement[Nothing]("UPDATE users SET attributes = NULLIF(:attributes::jsonb, '{}') WHERE id = :user_id")


async def find_users(
    database: Database,
    search: UserSearch,
    *,
    before: UUID | None,
    limit: int,
    seconds: float,
) -> FoundUsers:
    """The users that match, the newest first, before the id `before`, with their identities.

    Whether the text is an id or part of a nickname is decided without the other criteria and the cursor, so that all
    pages have the same kind of search. Nicknames are searched in windows of users, the newest first, until the page is
    full or `seconds` have passed.
    """
    filters: dict[str, object] = {"status": search.status, "role": search.role, "app_id": search.app_id}
    filters = {name: value for name, value in filters.items() if value is not None}
    part = None
    if search.text is not None:
        named = await database.values(_WHOM_IT_NAMES, text=search.text, phones=search.phones, id=id_in(search.text))
        if search.is_exact and not named:
            return FoundUsers(())
        part = None if named else search.text
        filters |= {"named": named} if named else {"part": part}

    async def search_above(*, floor: UUID) -> None:
        statement = _search(frozenset(filters), is_admin=search.role == ADMIN)
        found.extend(await database.rows(statement, **filters, before=before, floor=floor, limit=limit - len(found)))

    found: list[ListedUser] = []
    before = before or LAST_ID
    if "named" in filters or search.role == ADMIN:  # found through an index
        await search_above(floor=_LOWEST)
        return FoundUsers(found)
    began = monotonic()
    for size in chain(WINDOWS, repeat(WINDOWS[-1])):
        floor = await database.value(_FLOOR, before=before, size=size)
        await search_above(floor=floor or _LOWEST)
        if floor is None or len(found) == limit:
            break
        before = floor
        is_over = monotonic() - began > seconds
        if (is_over or size == WINDOWS[-1]) and part is not None and len(filters) == 1 and len(part) >= INDEXED_FROM:
            # The text is rare in nicknames, because otherwise these windows would have filled the page.
            del filters["part"]
            filters["rare_part"] = part
            await search_above(floor=_LOWEST)
            break
        if is_over:
            return FoundUsers(found, stopped_at=floor)
    return FoundUsers(found)


async def read_user(database: Database, user_id: UUID) -> ListedUser | None:
    """A user with all identities; None if there is no such user."""
    return await database.row(_USER_BY_ID, user_id=user_id)


async def identities_of(database: Database, user_id: UUID) -> Sequence[OwnIdentity]:
    """A user's identities, the oldest first."""
    return await database.rows(_IDENTITIES_OF, user_id=user_id)


async def user_of(transaction: Transaction, *, app_id: str, openid: str) -> UUID | None:
    """The user who has this identity now, without a lock; None if nobody has it."""
    return await transaction.value(_USER_OF, app_id=app_id, openid=openid)


async def lock_user_of(transaction: Transaction, *, app_id: str, openid: str) -> UUID | None:
    """Lock the user who has this identity, until the transaction ends; None if nobody has it."""
    user_id: UUID | None = await transaction.value(_USER_OF, app_id=app_id, openid=openid)
    while user_id is not None:
        await transaction.run(_LOCK, user_id=user_id)
        owner_id: UUID | None = await transaction.value(_USER_OF, app_id=app_id, openid=openid)
        if owner_id == user_id:
            break
        user_id = owner_id  # meanwhile the identity was moved to another user, or erased
    return user_id


async def delete_user(transaction: Transaction, user_id: UUID) -> bool:
    """Delete a user, and by foreign keys what is theirs alone. Returns False if there is none with this id."""
    return await transaction.value(_DELETE, user_id=user_id) is not None


async def clear_fields(transaction: Transaction, user_id: UUID, fields: Collection[str]) -> Sequence[str]:
    """Clear those of `nickname`, `avatar_url` and `phone` of a locked user that are named. Returns which were there."""
    return await transaction.value(_CLEAR, user_id=user_id, fields=list(fields)) or ()


async def record_profile_change(
    transaction: Transaction, user_id: UUID, fields: Sequence[str], *, app_id: str, ip: str | None = None, now: datetime
) -> None:
    """Record which of `nickname` and `avatar_url` a person has changed."""
    await record_event(
        transaction,
        EventType.PROFILE_CHANGED,
        by=Actor(str(user_id), ip),
        at=now,
        user_id=user_id,
        app_id=app_id,
        data={"fields": fields},
    )


@cache
def _search(conditions: frozenset[str], *, is_admin: bool) -> Statement[ListedUser]:
    """The statement of a search with these conditions, among users between two ids."""
    fits = "".join(f" AND {_CONDITIONS[name]}" for name in sorted(conditions))
    if is_admin:
        fits += " AND 'admin' = ANY (users.roles)"  # a literal, so that the partial index is used
    return Statement[ListedUser](
        f"{_WITH_IDENTITIES} WHERE users.id < :before AND users.id >= :floor{fits} ORDER BY users.id DESC LIMIT :limit"
    )


async def record_flag(
    database: Database, person: Person, kind: EventType, data: Mapping[str, Any], *, now: datetime
) -> None:
    """Record an event about the identity's user, unless they have been erased.

    If the database is unavailable, only the log has it.
    """
    log.warning(kind.logged, user_id=person.user_id, app_id=person.app_id, **data)
    try:
        async with database.begin() as transaction:
            # Whose the identity is now: the user may have been merged meanwhile.
            user_id = await lock_user_of(transaction, app_id=person.app_id, openid=person.openid)
            if user_id is not None:
                await record_event(
                    transaction, kind, by=SYSTEM, at=now, user_id=user_id, app_id=person.app_id, data=data
                )
    except StorageUnavailable:
        log.error("event_not_recorded", type=kind, user_id=person.user_id, reason=StorageUnavailable.code)


async def read_attributes(transaction: Transaction, user_id: UUID) -> Mapping[str, Any]:
    """The attributes of a user; none if there is no such user."""
    return await transaction.value(_READ, user_id=user_id) or {}


async def write_attributes(transaction: Transaction, user_id: UUID, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a user."""
    await transaction.run(_WRITE, user_id=user_id, attributes=attributes)
