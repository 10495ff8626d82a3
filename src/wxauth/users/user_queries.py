"""The statements that find a user by an identity or an id, list the user's ids, and change the user's data."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from pydantic import BaseModel, Field

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import MERGEABLE_FIELDS, PROFILE_FIELDS, USER_IN_SESSION, UserInSession
from wxauth.errors import NotFound, no_such
from wxauth.limits.queries import PROFILE_CHANGES

UNKNOWN_USER: Final = no_such("user")


class OwnIdentity(BaseModel):
    """One openid in one app, with the fields that its user sees."""

    app_id: str = Field(examples=["wx1a2b3c4d5e6f7a8b"])
    openid: str = Field(examples=["o6_bmjrPTlm6_2sgVt7hMZOPfL2M"])
    created_at: datetime


IDENTITIES_OF_USER: Final = Statement[OwnIdentity]("""
SELECT app_id, openid, created_at FROM identities WHERE user_id = :user_id ORDER BY created_at, app_id, openid
""")
CURRENT_USER_ID: Final = Statement[UUID]("""
SELECT id FROM users WHERE id = :user_id
 UNION ALL
SELECT user_id FROM former_users WHERE id = :user_id
 LIMIT 1
""")
# Former external ids come from users who were merged into this one, or from an import.
FORMER_EXTERNAL_IDS: Final = Statement[str](
    "SELECT external_id FROM former_external_ids WHERE user_id = :user_id ORDER BY external_id"
)
FORMER_IDS: Final = Statement[UUID]("SELECT id FROM former_users WHERE user_id = :user_id ORDER BY merged_at, id")
USER_OF_IDENTITY: Final = Statement[UUID]("SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid")
_LOCK_USER: Final = Statement[UUID]("SELECT id FROM users WHERE id = :user_id FOR UPDATE")
# The numbers in the deleted responses are never bound, even if a code is sent again.
DELETE_PHONE_ANSWERS: Final = Statement[Nothing]("""
DELETE FROM phone_answers USING identities i
 WHERE i.user_id = :user_id AND phone_answers.app_id = i.app_id AND phone_answers.openid = i.openid
""")
_READ_ATTRIBUTES: Final = Statement[dict[str, Any] | None]("SELECT attributes FROM users WHERE id = :user_id")
# Most users have no attributes, and each login reads the column, which takes no time if it is null.
WRITE_ATTRIBUTES: Final = Statement[Nothing](
    "UPDATE users SET attributes = NULLIF(:attributes::jsonb, '{}') WHERE id = :user_id"
)

# The statement returns no row if the id does not change, and fails with a conflict if another user has the id.
SET_EXTERNAL_ID: Final = Statement[UUID]("""
WITH former AS (
    DELETE FROM former_external_ids WHERE external_id = :external_id AND user_id = :user_id
)
UPDATE users SET external_id = :external_id
 WHERE id = :user_id AND external_id IS DISTINCT FROM :external_id
RETURNING id
""")
# This query must run after `SET_EXTERNAL_ID`. While another user has the id, `SET_EXTERNAL_ID` fails with a conflict.
# If a merge is just making the id a former one, `SET_EXTERNAL_ID` waits for the merge, so this query sees its result.
IS_FORMER_EXTERNAL_ID: Final = Statement[bool](
    "SELECT EXISTS (SELECT FROM former_external_ids WHERE external_id = :external_id)"
)

# USER_IN_SESSION contains the parameters :app_id and :openid.
_LOCK_PROFILE: Final = Statement[UserInSession](
    f"SELECT {USER_IN_SESSION} FROM users WHERE id = :user_id FOR NO KEY UPDATE"
)


def ids_fragment(user_id: LiteralString) -> LiteralString:
    """Return the SQL of an array of a user's present and former ids. `user_id` is SQL, for example `users.id`."""
    return (
        f"ARRAY (SELECT {user_id} UNION ALL SELECT former.id FROM former_users former WHERE former.user_id = {user_id})"
    )


def _cleared_fragment(name: LiteralString, column: LiteralString) -> LiteralString:
    return f"{column} = CASE WHEN '{name}' = ANY (:fields::text[]) THEN NULL ELSE users.{column} END"


_CLEAR_FIELDS: Final = Statement[list[str]](f"""
WITH before AS (
    SELECT * FROM users WHERE id = :user_id
)
UPDATE users SET {", ".join(_cleared_fragment(name, name) for name in MERGEABLE_FIELDS)},
                 {_cleared_fragment("phone", "phone_verified_at")}
  FROM before
 WHERE users.id = before.id
RETURNING array_remove(ARRAY[
    {", ".join(f"CASE WHEN before.{name} IS DISTINCT FROM users.{name} THEN '{name}' END" for name in MERGEABLE_FIELDS)}
], NULL)
""")


def _changed_fragment(name: LiteralString) -> LiteralString:
    has_changed: LiteralString = f"'{name}' = ANY (:changed::text[])"
    new_value: LiteralString = f"(jsonb_populate_record(users, :changes)).{name}"
    return f"{name} = CASE WHEN {has_changed} THEN {new_value} ELSE {name} END"


# An empty :changed only returns the user.
_CHANGE: Final = Statement[UserInSession](f"""
UPDATE users SET {", ".join(map(_changed_fragment, PROFILE_FIELDS))} WHERE id = :user_id RETURNING {USER_IN_SESSION}
""")


async def current_user_id(database: Database | Transaction, user_id: UUID) -> UUID:
    """Return the present id of the user who has, or had, this id. Raises: NotFound."""
    current_id = await database.value(CURRENT_USER_ID, user_id=user_id)
    if current_id is None:
        raise NotFound(UNKNOWN_USER)
    return current_id


async def lock_user_of_identity(transaction: Transaction, *, app_id: str, openid: str) -> UUID | None:
    """Lock the user who has this identity, which stays with the user until the transaction ends."""
    user_id = await transaction.value(USER_OF_IDENTITY, app_id=app_id, openid=openid)
    while user_id is not None:
        # Whatever moves or deletes an identity locks its user first.
        await transaction.run(_LOCK_USER, user_id=user_id)
        owner_id = await transaction.value(USER_OF_IDENTITY, app_id=app_id, openid=openid)
        if owner_id == user_id:
            break
        # During the wait, the identity was moved to another user, or deleted.
        user_id = owner_id
    return user_id


async def clear_fields(transaction: Transaction, user_id: UUID, fields: Collection[str]) -> Sequence[str]:
    """Clear some `MERGEABLE_FIELDS` of a locked user. Return the fields that had a value."""
    return await transaction.value(_CLEAR_FIELDS, user_id=user_id, fields=list(fields)) or ()


async def remove_phone(
    transaction: Transaction, user_id: UUID, *, by: Actor, app_id: str | None = None, now: datetime
) -> bool:
    """Remove a locked user's number, and responses with numbers to bind. Return whether there was a number."""
    await transaction.run(DELETE_PHONE_ANSWERS, user_id=user_id)
    if not await clear_fields(transaction, user_id, ["phone"]):
        return False
    await record_event(transaction, EventType.PHONE_REMOVED, by=by, at=now, user_id=user_id, app_id=app_id)
    return True


async def read_attributes(transaction: Transaction, user_id: UUID) -> Mapping[str, Any]:
    """Return the attributes of a user, or an empty mapping if the user does not exist."""
    return await transaction.value(_READ_ATTRIBUTES, user_id=user_id) or {}


async def store_profile(
    database: Database, user: UserInSession, changes: Mapping[str, str | None], *, now: datetime
) -> UserInSession | None:
    """Change and record the profile. None clears a field, even `phone`. Return None if the user was merged or erased.

    Raises: RateLimited, if the user has changed the profile too often.
    """
    # This transaction is never retried after a lost connection, because the retry could overwrite a later change.
    async with database.begin() as transaction:
        locked = await transaction.row(_LOCK_PROFILE, user_id=user.id, app_id=user.app_id, openid=user.openid)
        if locked is None:
            return None
        if "phone" in changes:  # always as None, because users bind a number in another way
            await remove_phone(transaction, user.id, by=Actor(str(user.id)), app_id=user.app_id, now=now)
        return await change_profile_of(transaction, locked, changes, now=now)


async def change_profile_of(
    transaction: Transaction,
    user: UserInSession,
    changes: Mapping[str, str | None],
    *,
    ip: str | None = None,
    now: datetime,
) -> UserInSession:
    """Set the given fields of a locked user, and record those that differ from `user`, the user before the change.

    All differences together count as one change towards the rate limit.

    Raises: RateLimited. The profile is then unchanged.
    """
    changed = [name for name in PROFILE_FIELDS if name in changes and changes[name] != getattr(user, name)]
    if changed:
        await PROFILE_CHANGES.count_user(transaction, user, now=now)
        by = Actor(str(user.id), ip)
        data = {"fields": changed}
        await record_event(
            transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=user.id, app_id=user.app_id, data=data
        )
    identity = {"app_id": user.app_id, "openid": user.openid}
    return await transaction.one(_CHANGE, user_id=user.id, changed=changed, changes=changes, **identity)
