"""What a person does, such as questions to WeChat, counted in the database for all replicas."""

from datetime import datetime
from typing import Final

from wxauth.server.core.database import Database, Transaction


def taking_part(selected: str, *, began_by: str, at_most: str) -> str:
    """SQL that counts an attempt, and returns no row if there is no room for it; then it writes nothing.

    The upsert settles the race of two attempts at once: the second waits for the first, and counts on from it.

    Args:
        selected: The key, the time and 1, as a query selects them.
        began_by: A window that began by this time is over.
        at_most: How many attempts a window may have.
    """
    return f"""
    INSERT INTO attempts (key, since, number) SELECT {selected}
    ON CONFLICT (key) DO UPDATE
       SET since = CASE WHEN attempts.since > {began_by} THEN attempts.since ELSE excluded.since END,
           number = CASE WHEN attempts.since > {began_by} THEN attempts.number + 1 ELSE 1 END
     WHERE attempts.since <= {began_by} OR attempts.number < {at_most}
    RETURNING since"""  # noqa: S608 - put together from constants


# $1 key  $2 now  $3 a window that began by this time is over  $4 how many attempts a window may have
_TAKE: Final = f"""
WITH taken AS ({taking_part("$1, $2, 1", began_by="$3", at_most="$4")}
)
SELECT EXISTS (SELECT FROM taken) AS is_taken, (SELECT since FROM attempts WHERE key = $1) AS since_before
"""  # noqa: S608 - put together from constants
_GIVE_BACK: Final = "UPDATE attempts SET number = number - 1 WHERE key = $1 AND number > 0"
_SWEEP: Final = """
DELETE FROM attempts WHERE key IN (
    SELECT key FROM attempts WHERE since < $1 ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


async def take_attempt(
    asked: Database | Transaction, key: bytes, *, at_most: int, began_by: datetime, now: datetime
) -> datetime | None:
    """Count an attempt, and return None. If the window is full, count nothing, and return when the window began.

    Raises: StorageUnavailable, where a database is asked.
    """
    row = await asked.fetchrow(_TAKE, key, now, began_by, at_most)
    return None if row["is_taken"] else row["since_before"] or now


async def give_back_attempt(database: Database, key: bytes) -> None:
    """Take one attempt off the count. Raises: StorageUnavailable."""
    await database.fetchrow(_GIVE_BACK, key)


async def sweep_attempts(database: Database, *, began_before: datetime, size: int) -> int:
    """Delete the counts that began before a time, the oldest first; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.execute(_SWEEP, began_before, size)
