"""The numbers of users, sessions and logins, found without reading all rows."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement

SUMS: Final = UUID(int=0)
"""Stands for all processes, in the one row of a day that is long over."""


class DayRow(TypedDict):
    """What has happened on a day."""

    day: date
    new_users: int
    logins: int


class TotalsRow(TypedDict):
    """How many users there are, and open sessions. Large numbers are estimates."""

    users: int
    sessions: int


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


OPEN_SESSIONS_PART: Final = estimate_of("sessions", "revoked_at IS NULL AND expires_at > :now")
"""How many sessions are open."""

_TOTALS: Final = Statement[TotalsRow](
    f"SELECT ({estimate_of('users', 'true')}) AS users, ({OPEN_SESSIONS_PART}) AS sessions"
)
# Stores a process's whole count of each day, not an increment: written twice, it is the same.
_STORE: Final = Statement[Nothing]("""
INSERT INTO daily_numbers (day, process, new_users, logins)
SELECT day, :process, new_users, logins
  FROM unnest(:days::date[], :new_users::bigint[], :logins::bigint[]) AS counted (day, new_users, logins)
ON CONFLICT (day, process) DO UPDATE SET new_users = excluded.new_users, logins = excluded.logins
""")
# Gives a row for every day, even if nothing has happened.
_DAYS: Final = Statement[DayRow]("""
SELECT d::date AS day, COALESCE(sum(new_users), 0)::bigint AS new_users, COALESCE(sum(logins), 0)::bigint AS logins
  FROM generate_series(:first::date::timestamp, :last::date::timestamp, interval '1 day') AS d
  LEFT JOIN daily_numbers ON day = d::date
 GROUP BY d ORDER BY d
""")
_SUM_UP: Final = Statement[Nothing]("""
WITH gone AS (
    DELETE FROM daily_numbers WHERE day < :before AND process <> :sums RETURNING day, new_users, logins
)
INSERT INTO daily_numbers (day, process, new_users, logins)
SELECT day, :sums, sum(new_users), sum(logins) FROM gone GROUP BY day
ON CONFLICT (day, process) DO UPDATE
   SET new_users = daily_numbers.new_users + excluded.new_users, logins = daily_numbers.logins + excluded.logins
""")


async def totals(database: Database, *, now: datetime) -> TotalsRow:
    """The numbers of users and open sessions. Raises: StorageUnavailable."""
    row = await database.row(_TOTALS, now=now)
    assert row is not None
    return row


async def store_numbers(
    database: Database, process: UUID, *, days: Sequence[date], new_users: Sequence[int], logins: Sequence[int]
) -> None:
    """Store all that a process has counted on these days. Raises: StorageUnavailable."""
    await database.run(_STORE, process=process, days=days, new_users=new_users, logins=logins)


async def numbers_of(database: Database, *, first: date, last: date) -> Sequence[DayRow]:
    """What all processes have counted on each of these days. Raises: StorageUnavailable."""
    return await database.rows(_DAYS, first=first, last=last)


async def sum_up(database: Database, *, before: date) -> None:
    """Make one row of each day's that is long over, however many processes have counted. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        await transaction.run(_SUM_UP, before=before, sums=SUMS)
