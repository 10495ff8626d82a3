"""The statements for logout tokens that sites have not got yet. A trigger of `sessions` adds the rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement


class LeasedLogout(SQLModel):
    """A logout that this process has leased, and its site as it is now."""

    session_id: UUID
    client_id: str
    user_id: UUID
    attempts: int
    """How often it has been sent before. A lease whose process was killed, or could not sign, does not count."""
    leased_until: datetime
    uri: str | None
    """None if the site is gone, or has no such URI any more."""
    id_token_alg: str | None


# As for deliveries: rows locked by another process are skipped, and a leased one is not due before its lease ends.
_LEASE: Final = Statement[LeasedLogout]("""
WITH due AS (
    SELECT session_id FROM backchannel_logouts
     WHERE client_id = :client_id AND priority = :priority AND next_at <= :now AND user_id <> ALL (:except_of::uuid[])
     ORDER BY next_at LIMIT 1
       FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE backchannel_logouts l SET next_at = :until
      FROM due WHERE l.session_id = due.session_id
    RETURNING l.session_id, l.client_id, l.user_id, l.attempts, l.next_at AS leased_until
)
SELECT leased.*, backchannel_logout_uri AS uri, id_token_alg FROM leased LEFT JOIN clients ON name = client_id
""")
# `next_at` differs if the lease has expired and another process has leased the logout: then nothing is stored.
_FINISH: Final = Statement[Nothing](
    "DELETE FROM backchannel_logouts WHERE session_id = :session_id AND next_at = :leased_until"
)
_PUT_OFF: Final = Statement[Nothing]("""
UPDATE backchannel_logouts SET attempts = attempts + 1, next_at = :next_at
 WHERE session_id = :session_id AND next_at = :leased_until
""")


async def lease_logout(
    database: Database, client_id: str, *, priority: int, except_of: Sequence[UUID], now: datetime, until: datetime
) -> LeasedLogout | None:
    """Lease a site's next due logout of a priority, except of these users: it is this process's until that time."""
    return await database.row(_LEASE, client_id=client_id, priority=priority, except_of=except_of, now=now, until=until)


async def settle_logout(database: Database, logout: LeasedLogout, *, next_at: datetime | None) -> None:
    """Store when the next attempt is due; without one, forget the logout."""
    lease = {"session_id": logout.session_id, "leased_until": logout.leased_until}
    if next_at is None:
        await database.run(_FINISH, **lease)
    else:
        await database.run(_PUT_OFF, **lease, next_at=next_at)
