"""Counts of a person's actions, such as calls to WeChat, in the database for all replicas."""

from datetime import datetime
from typing import Final

from sqlmodel import SQLModel

from wxauth.server.core.database import Database, Sweep, Transaction
from wxauth.server.core.statements import Nothing, Statement


class _Attempt(SQLModel):
    is_granted: bool
    since_before: datetime | None


# The upsert decides the race of concurrent attempts: the second waits for the first, and increments its count. If the
# limit is reached, it writes nothing.
_TAKE: Final = Statement[_Attempt]("""
WITH granted AS (
    INSERT INTO attempts (key, since, number) VALUES (:key, :now, 1)
    ON CONFLICT (key) DO UPDATE
       SET since = CASE WHEN attempts.since > :began_by THEN attempts.since ELSE excluded.since END,
           number = CASE WHEN attempts.since > :began_by THEN attempts.number + 1 ELSE 1 END
     WHERE attempts.since <= :began_by OR attempts.number < :at_most
    RETURNING since
)
SELECT EXISTS (SELECT FROM granted) AS is_granted, (SELECT since FROM attempts WHERE key = :key) AS since_before
""")
_GIVE_BACK: Final = Statement[Nothing]("UPDATE attempts SET number = number - 1 WHERE key = :key AND number > 0")
sweep_attempts: Final = Sweep.of("attempts", key="key", by="since")


async def take_attempt(
    asked: Database | Transaction, key: bytes, *, at_most: int, began_by: datetime, now: datetime
) -> datetime | None:
    """Count an attempt, and return None. If the limit is reached, count nothing, and return when the window began."""
    row = await asked.row(_TAKE, key=key, now=now, began_by=began_by, at_most=at_most)
    assert row is not None
    return None if row.is_granted else row.since_before or now


async def give_back_attempt(database: Database, key: bytes) -> None:
    """Decrement the count."""
    await database.run(_GIVE_BACK, key=key)
