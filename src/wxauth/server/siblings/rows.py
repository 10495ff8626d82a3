"""The statement that looks users up."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import USER
from wxauth.server.users.user_rows import IdentityJson, UserWithIdentities


class UserForSiblings(UserWithIdentities):
    """A user with all identities and former ids, in the order of the merges."""

    former_ids: list[UUID]
    former_external_ids: list[str]


# A user named twice, by any id or openid, is returned once, at the first position. Each app_id pairs with an openid.
_LOOK_UP: Final = Statement[UserForSiblings](f"""
WITH asked AS (
    SELECT COALESCE(f.user_id, a.id) AS user_id, a.place
      FROM unnest(:ids::uuid[]) WITH ORDINALITY a (id, place) LEFT JOIN former_users f ON f.id = a.id
     UNION ALL
    SELECT i.user_id, cardinality(:ids::uuid[]) + a.place
      FROM unnest(:app_ids::text[], :openids::text[]) WITH ORDINALITY a (app_id, openid, place)
      JOIN identities i ON i.app_id = a.app_id AND i.openid = a.openid
     UNION ALL
    SELECT COALESCE(u.id, f.user_id), cardinality(:ids::uuid[]) + cardinality(:app_ids::text[]) + a.place
      FROM unnest(:external_ids::text[]) WITH ORDINALITY a (external_id, place)
      LEFT JOIN users u ON u.external_id = a.external_id
      LEFT JOIN former_external_ids f ON f.external_id = a.external_id
), wanted AS (
    SELECT user_id, min(place) AS place FROM asked GROUP BY user_id
)
SELECT {USER},
       ARRAY (SELECT f.id FROM former_users f WHERE f.user_id = users.id ORDER BY f.merged_at, f.id) AS former_ids,
       ARRAY (SELECT f.external_id FROM former_external_ids f WHERE f.user_id = users.id ORDER BY f.external_id)
           AS former_external_ids,
       COALESCE((SELECT jsonb_agg(jsonb_build_object('app_id', i.app_id, 'openid', i.openid)
                                  ORDER BY i.created_at, i.app_id, i.openid)
                   FROM identities i WHERE i.user_id = users.id), '[]') AS identities
  FROM wanted JOIN users ON users.id = wanted.user_id
 ORDER BY wanted.place
""")  # noqa: S608 - put together from constants


async def look_up(
    database: Database,
    *,
    ids: Sequence[UUID] = (),
    openids: Sequence[IdentityJson] = (),
    external_ids: Sequence[str] = (),
) -> Sequence[UserForSiblings]:
    """The users found, in the order of the arguments: ids, openids, external ids.

    An id or external id that was merged away finds the remaining user.
    """
    return await database.rows(
        _LOOK_UP,
        ids=list(ids),
        app_ids=[each["app_id"] for each in openids],
        openids=[each["openid"] for each in openids],
        external_ids=list(external_ids),
    )
