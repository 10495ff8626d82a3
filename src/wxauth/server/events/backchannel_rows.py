"""The statements for logout tokens that sites have not got yet. A trigger of `sessions` adds the rows."""

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
    uri: str | None
    """None if the site is gone, or has no such URI any more."""
    id_token_alg: str | None


# As for deliveries: rows locked by another process are skipped, and a leased one is not due before its lease ends.
_LEASE: Final = Statement[LeasedLogout]("""
WITH due AS (
    SELECT session_id FROM backchannel_logouts WHERE client_id = :client_id AND next_at <= :now
     ORDER BY next_at LIMIT 1
       FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE backchannel_logouts l SET attempts = attempts + 1, next_at = :until
      FROM due WHERE l.session_id = due.session_id
    RETURNING l.session_id, l.client_id, l.user_id, l.attempts
)
SELECT leased.*, backchannel_logout_uri AS uri, id_token_alg FROM leased LEFT JOIN clients ON name = client_id
""")
# `attempts` differs if the lease has expired and another process has leased the logout: then nothing is stored.
_FINISH: Final = Statement[Nothing](
    "DELETE FROM backchannel_logouts WHERE session_id = :session_id AND attempts = :attempts"
)
_PUT_OFF: Final = Statement[Nothing](
    "UPDATE backchannel_logouts SET next_at = :next_at WHERE session_id = :session_id AND attempts = :attempts"
)


async def lease_logout(database: Database, client_id: str, *, now: datetime, until: datetime) -> LeasedLogout | None:
    """Lease a site's next due logout: it is this process's alone until that time."""
    return await database.row(_LEASE, client_id=client_id, now=now, until=until)


async def settle_logout(database: Database, logout: LeasedLogout, *, next_at: datetime | None) -> None:
    """Store when the next attempt is due; without one, forget the logout."""
    attempt = {"session_id": logout.session_id, "attempts": logout.attempts}
    if next_at is None:
        await database.run(_FINISH, **attempt)
    else:
        await database.run(_PUT_OFF, **attempt, next_at=next_at)
