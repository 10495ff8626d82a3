"""Attempts of a person, such as questions to WeChat, counted in the database for all replicas."""

from datetime import datetime
from typing import Final

from wxauth.core.database import Database

# The upsert settles the race of two attempts at once: the second waits for the first, and counts on from it. A refused
# attempt writes nothing.
# $1 key  $2 now  $3 a window that began by this time is over  $4 how many attempts a window may have
_TAKE: Final = """
WITH taken AS (
    INSERT INTO attempts (key, since, number) VALUES ($1, $2, 1)
    ON CONFLICT (key) DO UPDATE
       SET since = CASE WHEN attempts.since > $3 THEN attempts.since ELSE excluded.since END,
           number = CASE WHEN attempts.since > $3 THEN attempts.number + 1 ELSE 1 END
     WHERE attempts.since <= $3 OR attempts.number < $4
    RETURNING since
)
SELECT EXISTS (SELECT FROM taken) AS is_taken, (SELECT since FROM attempts WHERE key = $1) AS since_before
"""
_GIVE_BACK: Final = "UPDATE attempts SET number = number - 1 WHERE key = $1 AND number > 0"
_SWEEP: Final = """
DELETE FROM attempts WHERE key IN (
    SELECT key FROM attempts WHERE since < $1 ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


async def take_attempt(
    database: Database, key: bytes, *, at_most: int, began_by: datetime, now: datetime
) -> datetime | None:
    """Count an attempt, and return None. If the window is full, count nothing, and return when the window began.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_TAKE, key, now, began_by, at_most)
    return None if row["is_taken"] else row["since_before"] or now


async def give_back_attempt(database: Database, key: bytes) -> None:
    """Take one attempt off the count. Raises: StorageUnavailable."""
    await database.fetchrow(_GIVE_BACK, key)


async def sweep_attempts(database: Database, *, began_before: datetime, size: int) -> int:
    """Delete the counts that began before a time, the oldest first; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.execute(_SWEEP, began_before, size)
