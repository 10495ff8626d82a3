"""Statements for the counts of users, sessions and logins. None of them reads a whole large table."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlmodel import Field, SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement

Day = date  # whose name is a field's
SUMS: Final = UUID(int=0)
"""The process id in the merged row of an old hour."""


class DayRow(SQLModel):
    """The counts of a day."""

    date: Day = Field(schema_extra={"examples": ["2026-11-20"]})
    new_users: int = Field(schema_extra={"examples": [12]})
    logins: int = Field(description="Successful logins, without refreshes.", schema_extra={"examples": [401]})


class TotalsRow(SQLModel):
    """The numbers of users and of open sessions. Large numbers are estimates.

    An active user has logged in or refreshed within that time, on however many devices.
    """

    users: int = Field(description="An estimate above some 50,000.", schema_extra={"examples": [52310]})
    sessions: int = Field(
        description="Open sessions; an estimate above some 50,000.", schema_extra={"examples": [60122]}
    )
    active_day: int = Field(
        description="Users active in the last 24 hours; an estimate above some 15,000 users.",
        schema_extra={"examples": [3105]},
    )
    active_week: int = Field(description="The same for 7 days.", schema_extra={"examples": [11870]})
    active_month: int = Field(description="The same for 30 days.", schema_extra={"examples": [28402]})


class Overview(TotalsRow):
    """Totals, and counts for each day."""

    days: list[DayRow] = Field(description="Every day, today being the last one.")


def estimate_of(table: str, condition: str) -> str:
    """A scalar query that counts, or estimates, the rows of a table that meet a condition.

    It reads at most 16 MiB. Of a larger table it reads a fixed sample of pages, and its estimate is accurate to within
    a few percent.
    """
    share = _share_of(table, mebibytes=16)
    return f"SELECT (count(*) / {share})::bigint FROM {_sample(table, share)} WHERE {condition}"  # noqa: S608 - of constants


def _share_of(table: str, *, mebibytes: int) -> str:
    return f"LEAST(1.0, {mebibytes} * 1048576.0 / GREATEST(pg_relation_size('{table}'), 1))"


def _sample(table: str, share: str) -> str:
    return f"{table} TABLESAMPLE SYSTEM (100 * {share}) REPEATABLE (0)"


OPEN_SESSIONS_PART: Final = estimate_of("sessions", "revoked_at IS NULL AND expires_at > :now")
"""A scalar query for the number of open sessions."""

_USERS_SHARE: Final = _share_of("users", mebibytes=4)  # less, because it also reads the sessions of each
_ACTIVE_PART: Final = ", ".join(
    f"(count(*) FILTER (WHERE seen_at > :now - interval '{days} days') / {_USERS_SHARE})::bigint AS {name}"
    for name, days in (("active_day", 1), ("active_week", 7), ("active_month", 30))
)
_TOTALS: Final = Statement[TotalsRow](f"""
SELECT ({estimate_of("users", "true")}) AS users, ({OPEN_SESSIONS_PART}) AS sessions, {_ACTIVE_PART}
  FROM (SELECT GREATEST(last_login_at, (SELECT max(last_used_at) FROM sessions WHERE user_id = users.id)) AS seen_at
          FROM {_sample("users", _USERS_SHARE)}) AS person
""")  # noqa: S608 - put together from constants
# Stores a process's total for each hour, not an increment, so that storing it twice changes nothing.
_STORE: Final = Statement[Nothing]("""
INSERT INTO hourly_numbers (hour, process, new_users, logins)
SELECT hour, :process, new_users, logins
  FROM unnest(:hours::timestamptz[], :new_users::bigint[], :logins::bigint[]) AS counted (hour, new_users, logins)
ON CONFLICT (hour, process) DO UPDATE SET new_users = excluded.new_users, logins = excluded.logins
""")
# Returns a row for every day, even without logins.
_DAYS: Final = Statement[DayRow]("""
WITH bounds AS (
    SELECT :first::date::timestamp AT TIME ZONE 'UTC' - :utc_offset::interval AS first,
           (:last::date + 1)::timestamp AT TIME ZONE 'UTC' - :utc_offset::interval AS after_last
), counted AS (
    SELECT (hour AT TIME ZONE 'UTC' + :utc_offset::interval)::date AS day,
           sum(new_users)::bigint AS new_users, sum(logins)::bigint AS logins
      FROM hourly_numbers, bounds
     WHERE hour >= bounds.first AND hour < after_last
     GROUP BY 1
)
SELECT d::date AS date, COALESCE(new_users, 0) AS new_users, COALESCE(logins, 0) AS logins
  FROM generate_series(:first::date::timestamp, :last::date::timestamp, interval '1 day') AS d
  LEFT JOIN counted ON day = d::date
 ORDER BY d
""")
_SUM_UP: Final = Statement[Nothing]("""
WITH gone AS (
    DELETE FROM hourly_numbers WHERE hour < :before AND process <> :sums RETURNING hour, new_users, logins
)
INSERT INTO hourly_numbers (hour, process, new_users, logins)
SELECT hour, :sums, sum(new_users), sum(logins) FROM gone GROUP BY hour
ON CONFLICT (hour, process) DO UPDATE
   SET new_users = hourly_numbers.new_users + excluded.new_users, logins = hourly_numbers.logins + excluded.logins
""")


async def totals(database: Database, *, now: datetime) -> TotalsRow:
    """The numbers of users and open sessions."""
    row = await database.row(_TOTALS, now=now)
    assert row is not None
    return row


async def store_numbers(
    database: Database, process: UUID, *, hours: Sequence[datetime], new_users: Sequence[int], logins: Sequence[int]
) -> None:
    """Store a process's totals for these hours."""
    await database.run(_STORE, process=process, hours=hours, new_users=new_users, logins=logins)


async def numbers_of(database: Database, *, first: date, last: date, utc_offset: timedelta) -> Sequence[DayRow]:
    """The counts of all processes for each of these days at that offset."""
    return await database.rows(_DAYS, first=first, last=last, utc_offset=utc_offset)


async def merge_hours(database: Database, *, before: datetime) -> None:
    """Merge the rows of all processes for each hour before a time into one row."""
    async with database.begin() as transaction:
        await transaction.run(_SUM_UP, before=before, sums=SUMS)
