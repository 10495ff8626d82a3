"""The statements that look up users for other services (siblings), and find the session_keys that sign data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from wxauth.clients.queries import SERVICE_COLUMNS, ServiceClient
from wxauth.core.database import Database
from wxauth.core.statements import Statement
from wxauth.core.users import USER
from wxauth.session_keys.queries import KEY_OF_OPENID_FRAGMENT, KEYS_OF_USER_FRAGMENT, KeyOfLogin
from wxauth.users.search_queries import IDENTITIES_FRAGMENT, UserWithIdentities


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClientWithKey(ServiceClient):
    """A client, and one `KeyOfLogin` that matches its request; the columns below are null if none matches."""

    openid: str | None
    user_id: UUID | None
    status: str | None
    banned_until: datetime | None
    erase_at: datetime | None
    sealed: bytes | None = field(repr=False)


class UserForSiblings(UserWithIdentities):
    former_ids: list[UUID]  # in the order of the merges
    former_external_ids: list[str]  # of merged users and of imports, in alphabetical order
    unionids: list[str]


# The users are in the order of the parameters, each once, at the first place.
LOOK_UP: Final = Statement[UserForSiblings](f"""
WITH asked AS (
    -- a former id or former external id stands for the remaining user
    SELECT COALESCE(f.user_id, a.id) AS user_id, a.place
      FROM unnest(:ids::uuid[]) WITH ORDINALITY a (id, place) LEFT JOIN former_users f ON f.id = a.id
     UNION ALL
    -- an element's place is its number plus the lengths of the earlier parameters
    SELECT i.user_id, cardinality(:ids::uuid[]) + a.place
      FROM unnest(:app_ids::text[], :openids::text[]) WITH ORDINALITY a (app_id, openid, place)
      JOIN identities i ON i.app_id = a.app_id AND i.openid = a.openid
     UNION ALL
    SELECT COALESCE(u.id, f.user_id), cardinality(:ids::uuid[]) + cardinality(:app_ids::text[]) + a.place
      FROM unnest(:external_ids::text[]) WITH ORDINALITY a (external_id, place)
      LEFT JOIN users u ON u.external_id = a.external_id
      LEFT JOIN former_external_ids f ON f.external_id = a.external_id
     UNION ALL
    SELECT n.user_id,
           cardinality(:ids::uuid[]) + cardinality(:app_ids::text[]) + cardinality(:external_ids::text[]) + a.place
      FROM unnest(:unionids::text[]) WITH ORDINALITY a (unionid, place) JOIN unionids n ON n.unionid = a.unionid
), wanted AS (
    SELECT user_id, min(place) AS place FROM asked GROUP BY user_id
)
SELECT {USER},
       ARRAY (SELECT f.id FROM former_users f WHERE f.user_id = users.id ORDER BY f.merged_at, f.id) AS former_ids,
       ARRAY (SELECT f.external_id FROM former_external_ids f WHERE f.user_id = users.id ORDER BY f.external_id)
           AS former_external_ids,
       ARRAY (SELECT n.unionid FROM unionids n WHERE n.user_id = users.id ORDER BY n.unionid) AS unionids,
       {IDENTITIES_FRAGMENT}
  FROM wanted JOIN users ON users.id = wanted.user_id
 ORDER BY wanted.place
""")


def _signer_fragment(keys: LiteralString) -> LiteralString:
    """Return SQL that finds a row for each `KeyOfLogin` that `keys` finds, or a single row if `keys` finds none."""
    return f"""
SELECT {SERVICE_COLUMNS}, keys.* FROM clients LEFT JOIN LATERAL ({keys}) AS keys ON true
 WHERE clients.name = :client_id AND removed_by IS NULL"""


# One query finds both the client and the requested keys. With a second query, a signing request would take 1.5 times as
# long.
_SIGNER_FOR_OPENID: Final = Statement[_ClientWithKey](_signer_fragment(KEY_OF_OPENID_FRAGMENT))
_SIGNER_FOR_USER: Final = Statement[_ClientWithKey](_signer_fragment(KEYS_OF_USER_FRAGMENT))


async def client_and_keys(
    database: Database, client_id: str, *, app_id: str, openid: str | None, user_id: UUID | None
) -> tuple[ServiceClient | None, Sequence[KeyOfLogin]]:
    """Return the client with this id, and the `KeyOfLogin` of each identity that matches.

    Without `openid`, the user's identities in the app match, at most two of them, because two are ambiguous.
    """
    if openid is not None:
        rows = await database.rows(_SIGNER_FOR_OPENID, client_id=client_id, app_id=app_id, openid=openid)
    else:
        rows = await database.rows(_SIGNER_FOR_USER, client_id=client_id, app_id=app_id, user_id=user_id)
    keys = [
        KeyOfLogin(row.openid, row.user_id, row.status, row.banned_until, row.erase_at, row.sealed)
        for row in rows
        # Either all three columns are null, or none of them. mypy needs all three comparisons.
        if row.openid is not None and row.user_id is not None and row.status is not None
    ]
    client = rows[0] if rows else None
    return client, keys
