"""The database statistics for the metrics."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement
from wxauth.server.numbers.rows import OPEN_SESSIONS_PART


class Statistics(SQLModel):
    """The metrics that come from the database."""

    open_sessions: int
    key_signs_since: datetime | None
    """When the newest signing key began to sign."""
    webhooks_wait_since: datetime | None
    erasures: int
    sweep_due_at: datetime | None
    """When the first of these sweeps is due, or was."""


_STATISTICS: Final = Statement[Statistics](f"""
SELECT ({OPEN_SESSIONS_PART}) AS open_sessions,
       (SELECT max(activates_at) FROM signing_keys WHERE alg = 'ES256' AND activates_at <= :now) AS key_signs_since,
       (SELECT min(oldest.at) FROM webhooks w CROSS JOIN LATERAL (
               SELECT at FROM deliveries d
                WHERE d.webhook_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) oldest
         WHERE w.is_enabled) AS webhooks_wait_since,
       (SELECT count(*) FROM erasures) AS erasures,
       (SELECT min(due_at) FROM sweeps WHERE name = ANY (:sweeps)) AS sweep_due_at
""")  # noqa: S608 - put together from constants


async def statistics(database: Database, *, sweeps: Sequence[str], now: datetime) -> Statistics:
    """The metrics that come from the database."""
    row = await database.row(_STATISTICS, sweeps=sweeps, now=now)
    assert row is not None
    return row
