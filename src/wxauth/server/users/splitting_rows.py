"""The statements that split a user in two."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement


class SplitIdentity(TypedDict):
    """An identity of the user."""

    app_id: str
    openid: str
    unionid: str | None
    created_at: datetime
    came_from: UUID | None


class FormerId(TypedDict):
    """An id that was merged into the user."""

    id: UUID
    merged_into: UUID | None


_IDENTITIES: Final = Statement[SplitIdentity]("""
SELECT app_id, openid, unionid, created_at, came_from FROM identities WHERE user_id = :user_id
 ORDER BY created_at, app_id, openid
""")
_FORMER_IDS: Final = Statement[FormerId]("SELECT id, merged_into FROM former_users WHERE user_id = :user_id")
_HAS_EXTERNAL_ID: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND external_id = :external_id)
    OR EXISTS (SELECT FROM former_external_ids WHERE user_id = :user_id AND external_id = :external_id)
""")
# The caller has locked the user. The statements below run in this order, so that unique values are removed before they
# are set elsewhere.
_DELETE_FORMER_EXTERNAL_ID: Final = Statement[Nothing](
    "DELETE FROM former_external_ids WHERE external_id = :external_id"
)
# If the present external id moves, a former one replaces it: a user has former external ids only besides a present one.
_GIVE_UP_EXTERNAL_ID: Final = Statement[Nothing]("""
WITH next AS (
    DELETE FROM former_external_ids
     WHERE external_id = (SELECT external_id FROM former_external_ids WHERE user_id = :user_id
                           ORDER BY external_id LIMIT 1)
       AND EXISTS (SELECT FROM users WHERE id = :user_id AND external_id = :external_id)
    RETURNING external_id
)
UPDATE users SET external_id = (SELECT external_id FROM next)
 WHERE id = :user_id AND external_id = :external_id
""")
# The user gets the unionid of the newest identity that stays.
_GIVE_UP_UNIONID: Final = Statement[Nothing]("""
UPDATE users
   SET unionid = (SELECT i.unionid FROM identities i
                   WHERE i.user_id = :user_id AND i.unionid IS NOT NULL
                     AND (i.app_id, i.openid) NOT IN (SELECT * FROM unnest(:app_ids::text[], :openids::text[]))
                   ORDER BY i.created_at DESC LIMIT 1)
 WHERE id = :user_id
   AND (users.unionid = :unionid
        OR users.unionid IN (SELECT unionid FROM unionids
                              WHERE user_id = :user_id AND came_from = ANY (:its_ids::uuid[])))
""")
_ADD: Final = Statement[Nothing]("""
INSERT INTO users (id, unionid, created_at, last_login_at, unjudged_since, external_id)
SELECT :new_user_id, :unionid, :created_at, last_login_at, unjudged_since, :external_id FROM users WHERE id = :user_id
""")
_MOVE_IDENTITIES: Final = Statement[Nothing]("""
UPDATE identities
   SET user_id = :new_user_id, came_from = CASE WHEN came_from = ANY (:former_ids::uuid[]) THEN came_from END
  FROM unnest(:app_ids::text[], :openids::text[]) AS i (app_id, openid)
 WHERE (identities.app_id, identities.openid) = (i.app_id, i.openid)
""")
# The unionid of these identities, and those that came with the former id that is given back, except unionids of
# identities that stay.
_MOVE_UNIONIDS: Final = Statement[Nothing]("""
UPDATE unionids
   SET user_id = :new_user_id, came_from = CASE WHEN came_from = ANY (:former_ids::uuid[]) THEN came_from END
 WHERE user_id = :user_id AND (unionid = :unionid OR came_from = ANY (:its_ids::uuid[]))
   AND NOT EXISTS (SELECT FROM identities i WHERE i.user_id = :user_id AND i.unionid = unionids.unionid)
""")
# Consents stay with the user, including those that were given under a former id that moves.
_KEEP_CONSENTS: Final = Statement[Nothing](
    "UPDATE consents SET user_id = :user_id WHERE user_id = ANY (:its_ids::uuid[])"
)
_TAKE_BACK: Final = Statement[Nothing]("DELETE FROM former_users WHERE id = :new_user_id")
_MOVE_FORMER_IDS: Final = Statement[Nothing](
    "UPDATE former_users SET user_id = :new_user_id WHERE id = ANY (:former_ids::uuid[])"
)


async def identities_to_split(transaction: Transaction, user_id: UUID) -> Sequence[SplitIdentity]:
    """The identities of a locked user, the oldest first."""
    return await transaction.rows(_IDENTITIES, user_id=user_id)


async def merges_into(transaction: Transaction, user_id: UUID) -> dict[UUID, UUID | None]:
    """The former ids of a locked user, each with the id into which it was merged, or None if that is unknown."""
    return {row["id"]: row["merged_into"] for row in await transaction.rows(_FORMER_IDS, user_id=user_id)}


async def has_external_id(transaction: Transaction, user_id: UUID, external_id: str) -> bool:
    """Whether this is the user's present external id, or a former one."""
    return bool(await transaction.value(_HAS_EXTERNAL_ID, user_id=user_id, external_id=external_id))


async def split_user(
    transaction: Transaction,
    user_id: UUID,
    *,
    new_user_id: UUID,
    identities: Collection[tuple[str, str]],
    unionid: str | None,
    former_ids: Collection[UUID],
    external_id: str | None,
    created_at: datetime,
) -> None:
    """Move these identities (app_id, openid) of a locked user, which include all with the unionid, to a new user.

    The new user's id is a former id of the user, or a new one. The `former_ids` that were merged into it move, too, and
    so does the external id, if one is given.
    """
    keys = {"app_ids": [app_id for app_id, _ in identities], "openids": [openid for _, openid in identities]}
    its_ids = {"its_ids": [new_user_id, *former_ids]}
    ids = {"user_id": user_id, "new_user_id": new_user_id}
    if external_id is not None:
        await transaction.run(_DELETE_FORMER_EXTERNAL_ID, external_id=external_id)
        await transaction.run(_GIVE_UP_EXTERNAL_ID, user_id=user_id, external_id=external_id)
    await transaction.run(_GIVE_UP_UNIONID, user_id=user_id, unionid=unionid, **keys, **its_ids)
    await transaction.run(_ADD, **ids, unionid=unionid, external_id=external_id, created_at=created_at)
    await transaction.run(_MOVE_IDENTITIES, new_user_id=new_user_id, former_ids=former_ids, **keys)
    await transaction.run(_MOVE_UNIONIDS, **ids, unionid=unionid, former_ids=former_ids, **its_ids)
    await transaction.run(_KEEP_CONSENTS, user_id=user_id, **its_ids)
    await transaction.run(_TAKE_BACK, new_user_id=new_user_id)
    await transaction.run(_MOVE_FORMER_IDS, new_user_id=new_user_id, former_ids=former_ids)
