"""The hourly counts of logins, and the totals of users and sessions.

A process holds its counts in memory, and stores them after short pauses, so that no login waits for a row of counts
that another login writes. A process that is killed loses the counts of its last seconds. Each count is for an hour,
because days begin at different hours in different time zones.

The rows of a result are also parts of the response that shows them, so their fields have descriptions and examples.
"""

from collections import Counter
from dataclasses import field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Final, LiteralString
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, DateTime
from sqlmodel import Field, SQLModel

from wxauth.core.background import WriteBuffer
from wxauth.core.clock import first_id_at
from wxauth.core.services import part
from wxauth.core.statements import Nothing, Statement, fragment

Day = date  # another name, because a field is called `date`
# The row with this process has the sums of all processes, and replaces their rows for an old hour.
_ALL_PROCESSES: Final = UUID(int=0)
COUNTS_STORE_SECONDS: Final = 5.0
# By then, no process has counts of the hour that are not stored yet, even if the database was down for days.
_MERGED_AFTER: Final = timedelta(days=7)
# By then, no login that began in the hour is still running.
_FORGET_AFTER: Final = timedelta(days=1)


class HourlyNumbers(SQLModel, table=True):
    """The counts of one process in one hour. An old hour has only one row, with the process `_ALL_PROCESSES`."""

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
    active_day: int = Field(description="Users active in the last 24 hours.", schema_extra={"examples": [3105]})
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


# Each process stores running totals in separate rows, so that storing the same totals twice changes nothing.
STORE_COUNTS: Final = Statement[Nothing]("""
INSERT INTO hourly_numbers (hour, process, new_users, logins)
SELECT hour, :process, new_users, logins
  FROM unnest(:hours::timestamptz[], :new_users::bigint[], :logins::bigint[]) AS counted (hour, new_users, logins)
ON CONFLICT (hour, process) DO UPDATE SET new_users = excluded.new_users, logins = excluded.logins
""")
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

_SAMPLE_MEBIBYTES: Final = "16"  # a string, because it becomes a part of SQL


def _estimate_of(table: LiteralString, condition: LiteralString) -> LiteralString:
    """Return a scalar query that counts the rows of a table that meet a condition.

    If the table is larger than `_SAMPLE_MEBIBYTES`, the query reads a fixed sample of its pages, and estimates the
    number to within a few percent.
    """
    share = _share_of(table, mebibytes=_SAMPLE_MEBIBYTES)
    return f"SELECT (count(*) / {share})::bigint FROM {_sample(table, share)} WHERE {condition}"


def _share_of(table: LiteralString, *, mebibytes: LiteralString) -> LiteralString:
    return f"LEAST(1.0, {mebibytes} * 1048576.0 / GREATEST(pg_relation_size('{table}'), 1))"


def _sample(table: LiteralString, share: LiteralString) -> LiteralString:
    return f"{table} TABLESAMPLE SYSTEM (100 * {share}) REPEATABLE (0)"


OPEN_SESSIONS_FRAGMENT: Final = _estimate_of("sessions", "revoked_at IS NULL AND expires_at > :now")

# The sample is smaller than in `_estimate_of`, because `_TOTALS` also reads the sessions of each user in it.
_USERS_SHARE: Final = _share_of("users", mebibytes="4")
_ACTIVE_PERIODS: Final = (("active_day", "1d"), ("active_week", "7d"), ("active_month", "30d"))
_MAX_SESSIONS_READ: Final = 20_000
# Each number of active users is the number of all users, multiplied by the share of active users in the sample. This
# share varies less from sample to sample than the number of active users does. A sample might miss the few users who
# have logged in during the last 24 hours, so each number is at least `logged_in_today`.
_ACTIVE_FRAGMENT: Final = ", ".join(
    f"GREATEST(users * count(*) FILTER (WHERE seen_at > :now - interval '{fragment(period)}')"
    f" / GREATEST(count(*), 1), logged_in_today) AS {fragment(name)}"
    for name, period in _ACTIVE_PERIODS
)
# The fragment is an array with the names of the numbers that are estimates, because their samples are smaller than the
# table. Concatenation ignores a CASE that is null.
_ESTIMATED_FRAGMENT: Final = f"""
    CASE WHEN {_share_of("users", mebibytes=_SAMPLE_MEBIBYTES)} < 1 THEN ARRAY['users'] END
    || CASE WHEN {_share_of("sessions", mebibytes=_SAMPLE_MEBIBYTES)} < 1 THEN ARRAY['sessions'] END
    || CASE WHEN {_USERS_SHARE} < 1 THEN ARRAY['active_day', 'active_week', 'active_month'] END"""
_TOTALS: Final = Statement[TotalsRow](f"""
SELECT users, ({OPEN_SESSIONS_FRAGMENT}) AS sessions, {_ACTIVE_FRAGMENT},
       COALESCE({_ESTIMATED_FRAGMENT}, '{{}}') AS estimated
  FROM ({_estimate_of("users", "true")}) AS total (users)
 CROSS JOIN (
       -- at most the newest sessions of the last day
       SELECT count(DISTINCT user_id) AS logged_in_today
         FROM (SELECT user_id FROM sessions WHERE id > :day_ago ORDER BY id DESC LIMIT :max_sessions) AS opened
       ) AS recent
  -- outer, to keep one row if the sample is empty
  LEFT JOIN (
       SELECT GREATEST(last_login_at, (SELECT max(last_used_at) FROM sessions WHERE user_id = users.id)) AS seen_at
         FROM {_sample("users", _USERS_SHARE)}) AS sampled ON true
 -- one group, because both are the same in every row
 GROUP BY users, logged_in_today
""")


@part
class LoginCounts(WriteBuffer):
    """The counts of logins of one process."""

    failure_event = "numbers_not_stored"
    store_pause = COUNTS_STORE_SECONDS
    _logins: Counter[datetime] = field(init=False, default_factory=Counter)
    _new_users: Counter[datetime] = field(init=False, default_factory=Counter)
    # The counts of these hours have grown since they were stored.
    _unstored: set[datetime] = field(init=False, default_factory=set)

    def count_login(self, *, is_new: bool, at: datetime) -> None:
        """Count a login in memory."""
        hour = _hour_of(at)
        self._logins[hour] += 1
        self._new_users[hour] += int(is_new)
        self._unstored.add(hour)

    async def overview(self, *, days: int, utc_offset: timedelta) -> Overview:
        """Return the totals, and the counts of the last `days` days, including today."""
        now = self.clock()
        await self.store()  # otherwise the counts would lack the last logins of this process
        last = (now.astimezone(UTC) + utc_offset).date()
        first = last - timedelta(days=days - 1)
        day_ago = first_id_at(now - timedelta(days=1))
        totals = await self.database.one(_TOTALS, now=now, day_ago=day_ago, max_sessions=_MAX_SESSIONS_READ)
        daily = await self.database.rows(_DAYS, first=first, last=last, utc_offset=utc_offset)
        return Overview(**dict(totals), days=list(daily))

    async def merge_hours(self) -> None:
        """Merge the rows of each hour older than `_MERGED_AFTER` into one row."""
        await self.database.run(
            MERGE_HOURS, before=_hour_of(self.clock() - _MERGED_AFTER), all_processes=_ALL_PROCESSES
        )

    @cached_property
    def _process(self) -> UUID:
        # A worker creates the id when it first stores counts. An id from before the fork would be the same in all
        # workers.
        return uuid4()

    async def _store(self) -> None:
        hours, self._unstored = self._unstored, set()
        if not hours:
            return
        try:
            await self.database.run(
                STORE_COUNTS,
                process=self._process,
                hours=list(hours),
                new_users=[self._new_users[hour] for hour in hours],
                logins=[self._logins[hour] for hour in hours],
            )
        except BaseException:
            self._unstored |= hours
            raise
        now = self.clock()
        for hour in self._logins.keys() - self._unstored:
            if now - hour > _FORGET_AFTER:
                del self._logins[hour], self._new_users[hour]


def _hour_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
