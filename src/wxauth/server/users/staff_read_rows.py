"""The statement that stores what staff have read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import EventType


@dataclass(frozen=True, slots=True)
class StaffRead:
    """An event of the trail: a member of staff has read something."""

    id: UUID
    kind: EventType
    at: datetime
    actor: str
    user_id: UUID | None
    ip: str | None
    data: Mapping[str, Any]


# The address of a member of staff who has just been erased is not stored: an erasure under way holds a lock on the
# user, and this statement waits for it. Users are locked in the order of their ids, against deadlocks. An event may be
# there already: a store whose answer was lost is repeated.
_STORE: Final = Statement[Nothing]("""
WITH there AS (
    SELECT id FROM users WHERE id = ANY (:actors::text[]::uuid[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT noted.id, kind, at, actor, user_id, CASE WHEN there.id IS NOT NULL THEN ip::inet END, data::jsonb
  FROM unnest(:ids::uuid[], :kinds::text[], :times::timestamptz[], :actors::text[], :user_ids::uuid[], :ips::text[],
              :data::text[]) AS noted (id, kind, at, actor, user_id, ip, data)
  LEFT JOIN there ON there.id = actor::uuid
 ORDER BY noted.id
ON CONFLICT (id) DO NOTHING
""")


async def store_reads(database: Database, reads: Sequence[StaffRead]) -> None:
    """Store events of what staff have read."""
    await database.run(
        _STORE,
        ids=[each.id for each in reads],
        kinds=[each.kind.value for each in reads],
        times=[each.at for each in reads],
        actors=[each.actor for each in reads],
        user_ids=[each.user_id for each in reads],
        ips=[each.ip for each in reads],
        data=[to_json(each.data).decode() for each in reads],
    )
