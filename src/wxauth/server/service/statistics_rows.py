"""The metrics that come from the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Field, SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement
from wxauth.server.login.number_rows import OPEN_SESSIONS_PART


class Statistics(SQLModel):
    """The metrics, by their names without `wxauth_`, and what operators read about them."""

    sessions: int = Field(description="Open sessions; an estimate if there are many.")
    webhook_oldest_pending_seconds: float = Field(
        description="Age of the oldest delivery that an enabled webhook has not accepted; 0 if none is pending."
    )
    erasures_waiting: int = Field(description="Erased users whose data is not completely removed yet.")
    sweep_overdue_seconds: float = Field(
        description="For how long the oldest daily sweep has been overdue; 0 if none is."
    )
    signing_key_age_seconds: float | None = Field(description="Age of the current signing key.")


_STATISTICS: Final = Statement[Statistics](f"""
SELECT ({OPEN_SESSIONS_PART}) AS sessions,
       (SELECT count(*) FROM erasures) AS erasures_waiting,
       extract(epoch FROM greatest(:now - (SELECT min(oldest.at) FROM webhooks w CROSS JOIN LATERAL (
               SELECT at FROM deliveries d
                WHERE d.webhook_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) oldest
         WHERE w.is_enabled), interval '0'))::float AS webhook_oldest_pending_seconds,
       extract(epoch FROM greatest(:now - (SELECT min(due_at) FROM sweeps WHERE name = ANY (:sweeps)), interval '0'))
           ::float AS sweep_overdue_seconds,
       extract(epoch FROM :now - (SELECT max(activates_at) FROM signing_keys
                                   WHERE alg = 'ES256' AND activates_at <= :now))::float AS signing_key_age_seconds
""")  # noqa: S608 - put together from constants


async def statistics(database: Database, *, sweeps: Sequence[str], now: datetime) -> Statistics:
    """The metrics that come from the database."""
    row = await database.row(_STATISTICS, sweeps=sweeps, now=now)
    assert row is not None
    return row
