"""The query for an export: every identity with its user, in one snapshot."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import UserFields
from wxauth.server.users.consent_rows import ids_of

_PAGE_SIZE: Final = 1000
_NOT_COPIED: Final = frozenset({"id", "unionid", "external_id", "phone_verified_at", "consents"})
"""The columns that `_ALL` names itself, and one that is not exported."""
_COPIED: Final = ", ".join(f"u.{name}" for name in UserFields.model_fields if name not in _NOT_COPIED)
# A user may have a unionid that none of the user's identities has. It is exported with the first identity without one,
# because an import refuses two openids of an app with one unionid.
# Names are sorted by their bytes (COLLATE "C"), so that the order is the same in every database.
# The columns are those of an exported line, in the order of the guide.
_ALL: Final = Statement[Mapping[str, object]](f"""
SELECT i.app_id, i.openid,
       CASE WHEN i.unionid IS NULL AND u.unionid IS NOT NULL
                 AND NOT EXISTS (SELECT FROM identities other
                                  WHERE other.user_id = u.id
                                    AND (other.unionid = u.unionid
                                         OR other.unionid IS NULL
                                            AND (other.created_at, other.app_id COLLATE "C", other.openid COLLATE "C")
                                              < (i.created_at, i.app_id, i.openid)))
            THEN u.unionid ELSE i.unionid END AS unionid,
       u.external_id, {_COPIED},
       u.id AS user_id, i.created_at AS identity_created_at,
       COALESCE(
           (SELECT jsonb_agg(jsonb_build_object(
                       'document', document, 'version', version,
                       'given_at', (to_jsonb(given_at AT TIME ZONE 'UTC') #>> '{{}}') || 'Z',
                       'withdrawn_at', (to_jsonb(withdrawn_at AT TIME ZONE 'UTC') #>> '{{}}') || 'Z',
                       'app_id', app_id, 'ip', abbrev(ip))
                   ORDER BY given_at, document COLLATE "C", version COLLATE "C", app_id COLLATE "C", ip)
              FROM consents
             WHERE consents.user_id = ANY ({ids_of("u.id")})), '[]') AS consents,
       ARRAY (SELECT id FROM former_users WHERE former_users.user_id = u.id ORDER BY merged_at, id) AS former_ids,
       u.ban_reason, u.banned_until,
       (SELECT array_agg(former.external_id ORDER BY former.external_id COLLATE "C")
          FROM former_external_ids former WHERE former.user_id = u.id) AS former_external_ids
  FROM identities i JOIN users u ON u.id = i.user_id
 ORDER BY i.created_at, i.app_id COLLATE "C", i.openid COLLATE "C"
""")  # noqa: S608 - put together from constants


async def all_identities(database: Database) -> AsyncIterator[Sequence[Mapping[str, object]]]:
    """Every identity with its user, in pages of one snapshot."""
    async with database.snapshot() as state, aclosing(state.pages(_ALL, _PAGE_SIZE)) as pages:
        async for rows in pages:
            yield rows
