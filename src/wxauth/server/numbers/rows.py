"""The numbers of users, sessions and logins, found without reading all rows."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database

SUMS: Final = UUID(int=0)
"""Stands for all processes, in the one row of a day that is long over."""


class DayRow(TypedDict):
    """What has happened on a day."""

    day: date
    new_users: int
    logins: int


def estimate_of(table: str, condition: str) -> str:
    """A scalar query: how many rows of a table fit.

    At most 16 MiB are read: all of a small table; of a large one some pages, always the same, from which the whole is
    inferred to within some percent. An operator may have cut it into partitions.
    """
    size = (
        f"SELECT sum(pg_relation_size(COALESCE(inhrelid, '{table}'::regclass)))"  # noqa: S608 - of constants
        f" FROM (SELECT) AS one LEFT JOIN pg_inherits ON inhparent = '{table}'::regclass"
    )
    share = f"LEAST(1.0, 16 * 1048576.0 / GREATEST(({size}), 1))"
    return (
        f"SELECT (count(*) / {share})::bigint FROM {table} TABLESAMPLE SYSTEM (100 * {share}) REPEATABLE (0)"  # noqa: S608 - of constants
        f" WHERE {condition}"
    )


OPEN_SESSIONS: Final = estimate_of("sessions", "revoked_at IS NULL AND expires_at > $1")
"""How many sessions are open; $1 now."""

_TOTALS: Final = f"SELECT ({estimate_of('users', 'true')}) AS users, ({OPEN_SESSIONS}) AS sessions"
# Stores a process's whole count of each day, not an increment: written twice, it is the same.
# $1 days  $2 process  $3 new users  $4 logins
_STORE: Final = """
INSERT INTO daily_numbers (day, process, new_users, logins)
SELECT day, $2, new_users, logins
  FROM unnest($1::date[], $3::bigint[], $4::bigint[]) AS counted (day, new_users, logins)
ON CONFLICT (day, process) DO UPDATE SET new_users = excluded.new_users, logins = excluded.logins
"""
# Gives a row for every day, even if nothing has happened. $1 first day  $2 last day
_DAYS: Final = """
SELECT d::date AS day, COALESCE(sum(new_users), 0)::bigint AS new_users, COALESCE(sum(logins), 0)::bigint AS logins
  FROM generate_series($1::date::timestamp, $2::date::timestamp, interval '1 day') AS d
  LEFT JOIN daily_numbers ON day = d::date
 GROUP BY d ORDER BY d
"""
# $1 days before this one  $2 what stands for all processes
_SUM_UP: Final = """
WITH gone AS (
    DELETE FROM daily_numbers WHERE day < $1 AND process <> $2 RETURNING day, new_users, logins
)
INSERT INTO daily_numbers (day, process, new_users, logins)
SELECT day, $2, sum(new_users), sum(logins) FROM gone GROUP BY day
ON CONFLICT (day, process) DO UPDATE
   SET new_users = daily_numbers.new_users + excluded.new_users, logins = daily_numbers.logins + excluded.logins
"""


async def totals(database: Database, *, now: datetime) -> Mapping[str, Any]:
    """`users`, and open `sessions`. Large numbers are estimates. Raises: StorageUnavailable."""
    row: Mapping[str, Any] = await database.fetchrow(_TOTALS, now)
    return row


async def store_numbers(
    database: Database, process: UUID, *, days: Sequence[date], new_users: Sequence[int], logins: Sequence[int]
) -> None:
    """Store all that a process has counted on these days. Raises: StorageUnavailable."""
    await database.fetch(_STORE, days, process, new_users, logins)


async def numbers_of(database: Database, *, first: date, last: date) -> Sequence[DayRow]:
    """What all processes have counted on each of these days. Raises: StorageUnavailable."""
    found: Sequence[DayRow] = await database.fetch(_DAYS, first, last)
    return found


async def sum_up(database: Database, *, before: date) -> None:
    """Make one row of each day's that is long over, however many processes have counted. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        await transaction.execute(_SUM_UP, before, SUMS)
