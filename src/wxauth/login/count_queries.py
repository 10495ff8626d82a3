"""The table and statements for the hourly counts of logins, and the totals of users and sessions.

The rows of a result are also parts of the response that shows them, so their fields have descriptions and examples.
"""

from datetime import date, datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

from sqlalchemy import BigInteger, DateTime
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database
from wxauth.core.ids import first_id_at
from wxauth.core.statements import Nothing, Statement, fragment

Day = date  # another name, because a field is called `date`
ALL_PROCESSES: Final = UUID(int=0)
"""The value of `process` in the row with the sums of all processes, which replaces their rows for an old hour."""


class HourlyNumbers(SQLModel, table=True):
    """The table of the numbers of new users and logins that each process counts in each hour.

    An old hour has only one row, with the process id `ALL_PROCESSES`.
    """

    __tablename__ = "hourly_numbers"

    hour: datetime = Field(sa_type=DateTime(timezone=True), primary_key=True)
    process: UUID = Field(primary_key=True)
    new_users: int = Field(sa_type=BigInteger)
    logins: int = Field(sa_type=BigInteger)


class DayRow(SQLModel):
    """The numbers of new users and logins on one day."""

    date: Day = Field(schema_extra={"examples": ["2026-11-20"]})
    new_users: int = Field(schema_extra={"examples": [12]})
    logins: int = Field(description="Successful logins, without refreshes.", schema_extra={"examples": [401]})


class TotalsRow(SQLModel):
    """The numbers of users and of open sessions.

    A user is active in a period if the user has logged in or refreshed tokens during this period. A user with several
    devices counts once.
    """

    users: int = Field(schema_extra={"examples": [52310]})
    sessions: int = Field(description="Open sessions.", schema_extra={"examples": [60122]})
    active_day: int = Field(
        description="Users active in the last 24 hours.",
        schema_extra={"examples": [3105]},
    )
    active_week: int = Field(description="Users active in the last 7 days.", schema_extra={"examples": [11870]})
    active_month: int = Field(description="Users active in the last 30 days.", schema_extra={"examples": [28402]})
    estimated: list[str] = Field(
        description="The numbers that are estimates, accurate to within a few percent. Only numbers from large "
        "tables are estimates.",
        schema_extra={"examples": [["users", "sessions"]]},
    )


class Overview(TotalsRow):
    """The response with the totals, and with the counts of each day."""

    days: list[DayRow] = Field(description="One entry for each day. The last entry is today.")


STORE_COUNTS: Final = Statement[Nothing]("""
INSERT INTO hourly_numbers (hour, process, new_users, logins)
SELECT hour, :process, new_users, logins
  FROM unnest(:hours::timestamptz[], :new_users::bigint[], :logins::bigint[]) AS counted (hour, new_users, logins)
ON CONFLICT (hour, process) DO UPDATE SET new_users = excluded.new_users, logins = excluded.logins
""")
"""The statement that stores a process's totals for several hours.

The values are totals and not increments, so that storing them twice changes nothing.
"""
# `period` contains the moments at which the first day begins and the last day ends in the requested time zone. An hour
# belongs to the day in which it begins in this time zone. The result has a row for every day, including days without
# logins.
_DAYS: Final = Statement[DayRow]("""
WITH period AS (
    SELECT :first::date::timestamp AT TIME ZONE 'UTC' - :utc_offset::interval AS begins_at,
           (:last::date + 1)::timestamp AT TIME ZONE 'UTC' - :utc_offset::interval AS ends_at
), counted AS (
    SELECT (hour AT TIME ZONE 'UTC' + :utc_offset::interval)::date AS day,
           sum(new_users)::bigint AS new_users, sum(logins)::bigint AS logins
      FROM hourly_numbers, period
     WHERE hour >= begins_at AND hour < ends_at
     GROUP BY 1
)
SELECT midnight::date AS date, COALESCE(new_users, 0) AS new_users, COALESCE(logins, 0) AS logins
  FROM generate_series(:first::date::timestamp, :last::date::timestamp, interval '1 day') AS midnight
  LEFT JOIN counted ON day = midnight::date
 ORDER BY midnight
""")
MERGE_HOURS: Final = Statement[Nothing]("""
WITH deleted AS (
    DELETE FROM hourly_numbers WHERE hour < :before AND process <> :all_processes RETURNING hour, new_users, logins
)
INSERT INTO hourly_numbers (hour, process, new_users, logins)
SELECT hour, :all_processes, sum(new_users), sum(logins) FROM deleted GROUP BY hour
ON CONFLICT (hour, process) DO UPDATE
   SET new_users = hourly_numbers.new_users + excluded.new_users, logins = hourly_numbers.logins + excluded.logins
""")
"""The statement that merges the rows of all processes for each old hour into one row, that of `ALL_PROCESSES`."""

_SAMPLE_MEBIBYTES: Final = "16"
"""The size, in mebibytes, up to which a query reads a whole table. It is a string because it becomes a part of SQL."""


def _estimate_of(table: LiteralString, condition: LiteralString) -> LiteralString:
    """Return a scalar query that counts, or estimates, the rows of a table that meet a condition.

    The query reads up to `_SAMPLE_MEBIBYTES` of the table. If the table is larger, the query reads a fixed sample of
    its pages, and the estimate is accurate to within a few percent.
    """
    share = _share_of(table, mebibytes=_SAMPLE_MEBIBYTES)
    return f"SELECT (count(*) / {share})::bigint FROM {_sample(table, share)} WHERE {condition}"


def _share_of(table: LiteralString, *, mebibytes: LiteralString) -> LiteralString:
    """Return the SQL expression for the share of a table, from 0 to 1, that a sample of this size contains."""
    return f"LEAST(1.0, {mebibytes} * 1048576.0 / GREATEST(pg_relation_size('{table}'), 1))"


def _sample(table: LiteralString, share: LiteralString) -> LiteralString:
    """Return the SQL of a sample that contains this share of a table's pages. Each query samples the same pages."""
    return f"{table} TABLESAMPLE SYSTEM (100 * {share}) REPEATABLE (0)"


OPEN_SESSIONS_FRAGMENT: Final = _estimate_of("sessions", "revoked_at IS NULL AND expires_at > :now")
"""The SQL of a scalar query that counts, or estimates, the open sessions."""

_USERS_SHARE: Final = _share_of("users", mebibytes="4")
"""The SQL expression for the share of all users that the sample in `_TOTALS` contains.

From this sample, the query estimates the numbers of active users. The sample is smaller than the sample in
`_estimate_of`, because the query also reads the sessions of each user in the sample.
"""
_ACTIVE_PERIODS: Final = (("active_day", "1d"), ("active_week", "7d"), ("active_month", "30d"))
"""The fields of `TotalsRow` for active users, and the period of each as a PostgreSQL interval."""
_MAX_SESSIONS_READ: Final = 20_000
"""The largest number of sessions that the query reads to count the users who logged in during the last 24 hours."""
# Each number of active users is the number of all users, multiplied by the share of active users in the sample. This
# share varies less from sample to sample than the number of active users does. A sample might miss the few users who
# have logged in during the last 24 hours, so each number is at least `logged_in_today`.
_ACTIVE_FRAGMENT: Final = ", ".join(
    f"GREATEST(users * count(*) FILTER (WHERE seen_at > :now - interval '{fragment(period)}')"
    f" / GREATEST(count(*), 1), logged_in_today) AS {fragment(name)}"
    for name, period in _ACTIVE_PERIODS
)
# An array with the names of the numbers that are estimates. A number is an estimate if its sample is smaller than the
# table. Concatenation ignores a CASE that is null.
_ESTIMATED_FRAGMENT: Final = f"""
    CASE WHEN {_share_of("users", mebibytes=_SAMPLE_MEBIBYTES)} < 1 THEN ARRAY['users'] END
    || CASE WHEN {_share_of("sessions", mebibytes=_SAMPLE_MEBIBYTES)} < 1 THEN ARRAY['sessions'] END
    || CASE WHEN {_USERS_SHARE} < 1 THEN ARRAY['active_day', 'active_week', 'active_month'] END"""
# `total` contains the number of all users, which is an estimate if the table is large. `recent` contains the number of
# users who have opened a session in the last 24 hours. It reads at most the newest `:max_sessions` of these sessions.
# `sampled` contains one row for each user in the sample, with the time of the user's last login or refresh. The outer
# join keeps one row if the sample is empty. `users` and `logged_in_today` are the same in every row, so GROUP BY makes
# one group.
_TOTALS: Final = Statement[TotalsRow](f"""
SELECT users, ({OPEN_SESSIONS_FRAGMENT}) AS sessions, {_ACTIVE_FRAGMENT},
       COALESCE({_ESTIMATED_FRAGMENT}, '{{}}') AS estimated
  FROM ({_estimate_of("users", "true")}) AS total (users)
 CROSS JOIN (
       SELECT count(DISTINCT user_id) AS logged_in_today
         FROM (SELECT user_id FROM sessions WHERE id > :day_ago ORDER BY id DESC LIMIT :max_sessions) AS opened
       ) AS recent
  LEFT JOIN (
       SELECT GREATEST(last_login_at, (SELECT max(last_used_at) FROM sessions WHERE user_id = users.id)) AS seen_at
         FROM {_sample("users", _USERS_SHARE)}) AS sampled ON true
 GROUP BY users, logged_in_today
""")


async def overview_of(database: Database, *, first: date, last: date, utc_offset: timedelta, now: datetime) -> Overview:
    """Return the totals, and the counts of all processes for each day from `first` to `last`.

    The days begin at midnight in the time zone with this offset from UTC.
    """
    day_ago = first_id_at(now - timedelta(days=1))
    totals = await database.one(_TOTALS, now=now, day_ago=day_ago, max_sessions=_MAX_SESSIONS_READ)
    days = await database.rows(_DAYS, first=first, last=last, utc_offset=utc_offset)
    return Overview(**dict(totals), days=list(days))
