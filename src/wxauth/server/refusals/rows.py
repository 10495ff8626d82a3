"""The statements for refused logins."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database
from wxauth.server.core.ids import first_id_at
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.refusals.models import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalSearch:
    """A search for refused logins. A field that is None matches everything."""

    request_id: str | None = None
    user_id: UUID | None = None
    code: str | None = None
    since: datetime | None = None
    until: datetime | None = None


# Stores nothing about a user who has just been erased: an erasure under way holds a lock on the user, and this
# statement waits for it. Users are locked in the order of their ids, against deadlocks. A row is stored again when its
# count has grown: the count is the whole one, so that a batch that is sent twice is counted once.
_STORE: Final = Statement[Nothing]("""
WITH there AS (
    SELECT id FROM users WHERE id = ANY (:user_ids::uuid[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO refusals (id, at, code, wechat_errcode, app_id, user_id, network, request_id, count)
SELECT noted.id, at, code, wechat_errcode, app_id, noted.user_id, network::cidr, request_id, count
  FROM unnest(:ids::uuid[], :times::timestamptz[], :codes::text[], :errcodes::integer[], :app_ids::text[],
              :user_ids::uuid[], :networks::text[], :request_ids::text[], :counts::integer[])
       AS noted (id, at, code, wechat_errcode, app_id, user_id, network, request_id, count)
  LEFT JOIN there ON there.id = noted.user_id
 WHERE noted.user_id IS NULL OR there.id IS NOT NULL
ON CONFLICT (id) DO UPDATE SET count = excluded.count
""")
_TYPES: Final = {"request_id": "text", "user_id": "uuid", "code": "text"}


def _finding(by: str | None) -> Statement[Refusal]:
    """The search that uses the index on this column. The other columns are filtered."""
    fits = " AND ".join(
        f"refusals.{name} = :{name}" if name == by else f"(:{name}::{kind} IS NULL OR refusals.{name} = :{name})"
        for name, kind in _TYPES.items()
    )
    return Statement[Refusal](f"""
SELECT id, at, code, wechat_errcode, app_id, user_id, network::text AS network, request_id, count
  FROM refusals
 WHERE {fits} AND id >= :first AND id < :before
   AND NOT EXISTS (SELECT FROM erasures WHERE erasures.user_id = refusals.user_id)
 ORDER BY id DESC LIMIT :limit
""")  # noqa: S608 - put together from constants


_BY_REQUEST: Final = _finding("request_id")
_BY_USER: Final = _finding("user_id")
_BY_CODE: Final = _finding("code")
_OF_ALL: Final = _finding(None)
_SWEEP: Final = Statement[Nothing]("""
DELETE FROM refusals WHERE id = ANY (ARRAY(
    SELECT id FROM refusals WHERE id < :before ORDER BY id LIMIT :size FOR UPDATE SKIP LOCKED))
""")
_LAST_ID: Final = UUID(int=2**128 - 1)


async def store_refusals(database: Database, refusals: Sequence[Refusal]) -> None:
    """Store refused logins, except those of users who no longer exist. Raises: StorageUnavailable."""
    await database.run(
        _STORE,
        ids=[each.id for each in refusals],
        times=[each.at for each in refusals],
        codes=[each.code for each in refusals],
        errcodes=[each.wechat_errcode for each in refusals],
        app_ids=[each.app_id for each in refusals],
        user_ids=[each.user_id for each in refusals],
        networks=[each.network for each in refusals],
        request_ids=[each.request_id for each in refusals],
        counts=[each.count for each in refusals],
    )


async def find_refusals(
    database: Database, search: RefusalSearch, *, before: UUID | None, limit: int
) -> Sequence[Refusal]:
    """The newest refused logins that match the search and are older than `before`. Raises: StorageUnavailable."""
    if search.request_id is not None:
        statement = _BY_REQUEST
    elif search.user_id is not None:
        statement = _BY_USER
    else:
        statement = _OF_ALL if search.code is None else _BY_CODE
    # Compares ids instead of times, because an id begins with its time.
    until = first_id_at(search.until) if search.until is not None else _LAST_ID
    return await database.rows(
        statement,
        request_id=search.request_id,
        user_id=search.user_id,
        code=search.code,
        first=first_id_at(search.since) if search.since is not None else UUID(int=0),
        before=min(until, before or _LAST_ID),
        limit=limit,
    )


async def sweep_refusals(database: Database, *, before: datetime, size: int) -> int:
    """Delete up to `size` refused logins older than a time, oldest first, and return how many.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        return await transaction.run(_SWEEP, before=first_id_at(before), size=size)
