"""The tables and statements for the records of logins, which are the hourly counts and the refused logins.

The records are also the responses of the routes that show them, so their fields have descriptions and examples.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final, LiteralString
from uuid import UUID

import pydantic
from sqlalchemy import BigInteger, DateTime, Text
from sqlalchemy.dialects.postgresql import CIDR
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database
from wxauth.core.ids import first_id_at
from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement, fragment, pair_range
from wxauth.core.upkeep import Sweep
from wxauth.settings.addresses import TRUNCATED
from wxauth.users.history_queries import HistoryQuery
from wxauth.web.schemas import Network, OrEmpty, Page, StoredText

Day = date  # another name, because a field is called `date`
MAX_REQUEST_ID: Final = 64
"""The largest number of characters of a request id that wxauth stores and compares.

A request id that a client chooses can have up to 128 characters. A request id that wxauth creates has 32 characters.
"""
ALL_PROCESSES: Final = UUID(int=0)
"""The value of `process` in the row with the sums of all processes, which replaces their rows for an old hour."""
_MIN_PREFIX_LENGTHS: Final = {4: 16, 6: 32}
"""The shortest prefix length of a network, for each version of IP, that a search finds with the index.

Networks with shorter prefixes have too many rows to sort.
"""


class Refusal(SQLModel):
    """A refused login or refresh, or several within one minute.

    The fields except `count` describe the first of them. An entry that counts refusals of many users or networks has
    neither `user_id` nor `network`.
    """

    id: UUID = Field(primary_key=True, exclude=True)
    at: datetime = Field(sa_type=TIME, schema_extra={"examples": ["2026-11-20T10:02:00Z"]})
    code: str = Field(sa_type=Text, schema_extra={"examples": ["account_disabled"]})
    wechat_errcode: int | None = Field(description="WeChat's errcode, if it gave one.")
    app_id: str | None = Field(
        sa_type=Text, description="Null if unknown.", schema_extra={"examples": ["wx1a2b3c4d5e6f7a8b"]}
    )
    user_id: UUID | None = Field(
        description="Null if unknown, or if the entry counts refusals of many users or networks.",
        schema_extra={"examples": ["01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"]},
    )
    """The user whose login was refused.

    The column is not a foreign key, because a user can have more rows than an erasure can delete in one transaction.
    """
    network: str | None = Field(
        sa_type=CIDR,
        description="The /24 or /48 of the address. Null if unknown, or if the entry counts refusals of many users or "
        "networks.",
        schema_extra={"examples": ["203.0.113.0/24"]},
    )
    request_id: str = Field(
        sa_type=Text,
        description="At most 64 characters.",
        schema_extra={"examples": ["0f8fad5bd9cb469fa16570867728950e"]},
    )
    count: int = Field(
        description="The number of refusals in this entry: those of this user or network with this `code`, from `at` "
        "to the end of its minute. The other fields are those of the first. An entry without a user and a network "
        "counts refusals of many.",
        schema_extra={"examples": [1]},
    )


class RefusedLogin(Refusal, table=True):
    """The table of refused logins with `POST /v1/login`, and of refreshes that were refused because the user is banned.

    Refused logins to sites are not stored.
    """

    __tablename__ = "refusals"


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
STORE_REFUSALS: Final = Statement[Nothing]("""
WITH refused AS (
    SELECT * FROM jsonb_populate_recordset(NULL::refusals, :refusals::jsonb)
), locked AS (
    SELECT id FROM users WHERE id = ANY (ARRAY(SELECT user_id FROM refused)) ORDER BY id FOR KEY SHARE
)
INSERT INTO refusals
SELECT refused.* FROM refused LEFT JOIN locked ON locked.id = refused.user_id
 WHERE refused.user_id IS NULL OR locked.id IS NOT NULL
ON CONFLICT (id) DO UPDATE SET count = excluded.count
""")
"""The statement that stores refused logins, except those of users who no longer exist.

An erasure locks the user, so this statement waits until the erasure ends, and then does not find the user. The
statement locks users in the order of their ids, to avoid deadlocks.

A process stores a row again when the row's count has grown. The count is a total, so that storing a row twice changes
nothing.
"""
# The ids begin with the time, so the sweep can compare ids instead of times.
sweep_refusals: Final = Sweep.of("refusals", key="id", by="id")

_SAMPLE_MEBIBYTES: Final = "16"
"""The size, in mebibytes, up to which a query reads a whole table. It is a string because it becomes a part of SQL."""


def estimate_of(table: LiteralString, condition: LiteralString) -> LiteralString:
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


OPEN_SESSIONS_FRAGMENT: Final = estimate_of("sessions", "revoked_at IS NULL AND expires_at > :now")
"""The SQL of a scalar query that counts, or estimates, the open sessions."""

_USERS_SHARE: Final = _share_of("users", mebibytes="4")
"""The SQL expression for the share of all users that the sample in `_TOTALS` contains.

From this sample, the query estimates the numbers of active users. The sample is smaller than the sample in
`estimate_of`, because the query also reads the sessions of each user in the sample.
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
  FROM ({estimate_of("users", "true")}) AS total (users)
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


class RefusalSearch(HistoryQuery):
    """The filters for refused logins, in addition to those of `HistoryQuery` (the user and the range of time)."""

    request_id: StoredText | None = pydantic.Field(
        default=None, description="List only refusals of the request with this id, which the phone shows."
    )
    code: StoredText | None = pydantic.Field(
        default=None, description="List only refusals with this error code, such as `account_disabled`."
    )
    app_id: StoredText | None = pydantic.Field(default=None, description="List only refusals in this app.")
    network: Annotated[Network | None, OrEmpty] = pydantic.Field(
        default=None,
        description="List only refusals from this network, such as `203.0.113.0/24`. An address stands for its /24 "
        "or /48.",
    )


_CONDITIONS: Final[Mapping[LiteralString, LiteralString]] = {
    "request_id": "refusals.request_id = :request_id::text",
    "user_id": "refusals.user_id = :user_id::uuid",
    # `<<=` would also find the networks in :network, but PostgreSQL cannot use the index on `network` for it. The index
    # sorts these networks between :network itself and the last address in :network, so BETWEEN finds them.
    "network": "refusals.network BETWEEN :network::inet AND host(broadcast(:network::inet))::inet",
    "code": "refusals.code = :code::text",
    "app_id": "refusals.app_id = :app_id::text",
}
"""The SQL condition for each filter."""
_IN_ID_RANGE: Final = "id >= :lowest AND id < :before"


def _search(
    index_condition: LiteralString, *, indexed_filter: str | None = None, order: LiteralString = "id DESC"
) -> Statement[Refusal]:
    """Return the search for the refusals that meet `index_condition` and match all filters, sorted by `order`.

    `indexed_filter` is the filter that `index_condition` already contains. The search does not contain this filter
    again, because PostgreSQL might then read all rows in the order of their ids instead of using the filter's index.
    """
    filters = " AND ".join(
        f"({condition} OR :{name} IS NULL)" for name, condition in _CONDITIONS.items() if name != indexed_filter
    )
    # An erasure deletes the user's refusals in pages. The search hides the refusals that are still stored.
    return Statement[Refusal](f"""
SELECT id, at, code, wechat_errcode, app_id, user_id, network::text AS network, request_id, count
  FROM refusals
 WHERE {index_condition} AND {filters}
   AND NOT EXISTS (SELECT FROM erasures WHERE erasures.user_id = refusals.user_id)
 ORDER BY {order} LIMIT :limit
""")


def _search_in_order(column: LiteralString) -> Statement[Refusal]:
    """Return the search for the rows with one value of a column. It uses the index on this column and the id.

    The index returns these rows in the order of their ids, so the search stops when the page is full.
    """
    index_range = pair_range(f"refusals.{column}", f":{column}", after=":lowest", before=":before")
    # Most of these indexes contain only the rows with a value. PostgreSQL uses such an index only if the query says so.
    return _search(
        f"refusals.{column} IS NOT NULL AND {index_range}",
        indexed_filter=column,
        order=f"refusals.{column} DESC, id DESC",
    )


def _search_and_sort(column: LiteralString) -> Statement[Refusal]:
    """Return the search that reads all rows that match the filter on a column, and then sorts them by their ids."""
    return _search(f"{_CONDITIONS[column]} AND {_IN_ID_RANGE}", indexed_filter=column)


_WIDE_NETWORK: Final = "wide_network"
"""The key of the search for a network that contains several of the stored networks, such as a /16.

Stored networks are a /24 of IPv4, or a /48 of IPv6.
"""
_SEARCHES: Final[Mapping[str | None, Statement[Refusal]]] = {
    "request_id": _search_and_sort("request_id"),
    "user_id": _search_in_order("user_id"),
    "network": _search_in_order("network"),
    _WIDE_NETWORK: _search_and_sort("network"),
    "code": _search_in_order("code"),
    "app_id": _search_in_order("app_id"),
    None: _search(_IN_ID_RANGE),
}
"""The searches, by the filter whose index a search uses. The search for None uses only the ids."""


async def list_refusals(database: Database, search: RefusalSearch) -> Page[Refusal]:
    """Return a page of the refusals that match a search, newest first."""
    network = None if search.network is None else TRUNCATED.widened(search.network)
    rows = await database.rows(
        _SEARCHES[_key_of_search(search, network)],
        request_id=None if search.request_id is None else search.request_id[:MAX_REQUEST_ID],
        user_id=search.user_id,
        network=None if network is None else str(network),
        code=search.code,
        app_id=search.app_id,
        **search.page_parameters,
    )
    return Page.of(rows, search.limit)


def _key_of_search(search: RefusalSearch, network: IPv4Network | IPv6Network | None) -> str | None:
    """Return the key of the search that examines the fewest rows.

    `network` is the network of the search, widened to a /24 or /48 if it is smaller.
    """
    is_stored_network = network is not None and network.prefixlen == TRUNCATED.length_of(network)
    is_sortable = network is not None and network.prefixlen >= _MIN_PREFIX_LENGTHS[network.version]
    # The filters are in order: a value of the first filter matches the fewest rows, and a value of the last filter the
    # most. If no filter can use an index, the search examines the newest refusals.
    usable: dict[str, bool] = {
        "request_id": search.request_id is not None,
        "user_id": search.user_id is not None,
        "network": is_stored_network,
        _WIDE_NETWORK: is_sortable,
        "code": search.code is not None,
        "app_id": search.app_id is not None,
    }
    return next((key for key, is_usable in usable.items() if is_usable), None)
