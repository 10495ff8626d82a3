"""The table and statements for refused logins.

A row is also an item of the response that lists refusals, so its fields have descriptions and examples.
"""

from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final, LiteralString
from uuid import UUID

import pydantic
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import CIDR
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database
from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement, pair_range
from wxauth.core.upkeep import Sweep
from wxauth.settings.addresses import TRUNCATED
from wxauth.users.history_queries import HistoryQuery
from wxauth.web.pages import Page
from wxauth.web.schemas import Network, OrEmpty, StoredText

# A client may choose an id of up to 128 characters, of which wxauth stores the beginning. wxauth's own ids have 32.
MAX_REQUEST_ID: Final = 64


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
    """Not a foreign key, because a user can have more rows than an erasure can delete in one transaction."""
    network: str | None = Field(
        sa_type=CIDR,
        description="The /24 or /48 of the address. Null if unknown, or if the entry counts refusals of many users or "
        "networks.",
        schema_extra={"examples": ["203.0.113.0/24"]},
    )
    request_id: str = Field(
        sa_type=Text,
        description=f"At most {MAX_REQUEST_ID} characters.",
        schema_extra={"examples": ["0f8fad5bd9cb469fa16570867728950e"]},
    )
    count: int = Field(
        description="The number of refusals in this entry: those of this user or network with this `code`, from `at` "
        "to the end of its minute. The other fields are those of the first. An entry without a user and a network "
        "counts refusals of many.",
        schema_extra={"examples": [1]},
    )


class RefusedLogin(Refusal, table=True):
    """Refused logins with `POST /v1/login`, and refreshes refused because of a ban, but not refused logins to sites."""

    __tablename__ = "refusals"


STORE_REFUSALS: Final = Statement[Nothing]("""
WITH refused AS (
    SELECT * FROM jsonb_populate_recordset(NULL::refusals, :refusals::jsonb)
), locked AS (
    -- an erasure locks the user, so this waits until the erasure ends, and then does not find the user; in the order of
    -- their ids, to avoid deadlocks
    SELECT id FROM users WHERE id = ANY (ARRAY(SELECT user_id FROM refused)) ORDER BY id FOR KEY SHARE
)
INSERT INTO refusals
SELECT refused.* FROM refused LEFT JOIN locked ON locked.id = refused.user_id
 -- not of users who no longer exist
 WHERE refused.user_id IS NULL OR locked.id IS NOT NULL
-- the row's count has grown: it is a total, so that storing a row twice changes nothing
ON CONFLICT (id) DO UPDATE SET count = excluded.count
""")
# The ids begin with the time, so the sweep can compare ids instead of times.
sweep_refusals: Final = Sweep.of("refusals", key="id", by="id")


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
_IN_ID_RANGE: Final = "id >= :lowest AND id < :before"


def _search(
    index_condition: LiteralString, *, indexed_filter: str | None = None, order: LiteralString = "id DESC"
) -> Statement[Refusal]:
    """Return the search for the refusals that meet `index_condition` and match all filters.

    `indexed_filter` is in `index_condition` already. With the filter twice, PostgreSQL might read all rows by
    their ids.
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
    """The index returns the rows in the order of their ids, so the search stops when the page is full."""
    index_range = pair_range(f"refusals.{column}", f":{column}", after=":lowest", before=":before")
    # Most of these indexes contain only the rows with a value. PostgreSQL uses such an index only if the query says so.
    return _search(
        f"refusals.{column} IS NOT NULL AND {index_range}",
        indexed_filter=column,
        order=f"refusals.{column} DESC, id DESC",
    )


def _search_and_sort(column: LiteralString) -> Statement[Refusal]:
    return _search(f"{_CONDITIONS[column]} AND {_IN_ID_RANGE}", indexed_filter=column)


# The keys are the versions of IP. Networks with shorter prefixes have too many rows to sort.
_MIN_SORTABLE_PREFIX_LENGTHS: Final = {4: 16, 6: 32}
# A wide network, such as a /16, contains several of the stored networks (a /24, or a /48 of IPv6).
_WIDE_NETWORK: Final = "wide_network"
# The keys are the filters whose index the search uses. The search for None uses the ids.
_SEARCHES: Final[Mapping[str | None, Statement[Refusal]]] = {
    "request_id": _search_and_sort("request_id"),
    "user_id": _search_in_order("user_id"),
    "network": _search_in_order("network"),
    _WIDE_NETWORK: _search_and_sort("network"),
    "code": _search_in_order("code"),
    "app_id": _search_in_order("app_id"),
    None: _search(_IN_ID_RANGE),
}


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
    """Return the key of the search that examines the fewest rows."""
    is_stored_network = network is not None and network.prefixlen == TRUNCATED.length_of(network)
    is_sortable = network is not None and network.prefixlen >= _MIN_SORTABLE_PREFIX_LENGTHS[network.version]
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
