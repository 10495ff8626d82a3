"""The statements that look users up, and record which client was given an app's WeChat token."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import Actor, EventType
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
# The id is derived from client, app and day, so that a second event on the same day conflicts and is not stored.
_RECORD_READING: Final = Statement[Nothing]("""
INSERT INTO events (id, type, at, actor, app_id, ip) VALUES (:id, :type, :now, :client_id, :app_id, :ip::text::inet)
ON CONFLICT (id) DO NOTHING
""")


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


async def record_reading(database: Database, by: Actor, *, app_id: str, now: datetime) -> None:
    """Record, at most once a day, that a service client was given an app's WeChat token."""
    await database.run(
        _RECORD_READING,
        id=_id_of_reading(by.name, app_id, now),
        type=EventType.WECHAT_TOKEN_READ.value,
        now=now,
        client_id=by.name,
        app_id=app_id,
        ip=by.ip,
    )


def _id_of_reading(client_id: str, app_id: str, now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) of the start of the day, with a hash of both names as its random bits."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    milliseconds = int(day.timestamp() * 1000).to_bytes(6, "big")
    names = sha256("\0".join((client_id, app_id)).encode()).digest()[:10]
    return UUID(bytes=milliseconds + bytes([0x70 | names[0] & 0x0F, names[1], 0x80 | names[2] & 0x3F]) + names[3:])
