"""The statements for refused logins."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.addresses import TRUNCATED, IpNetwork
from wxauth.server.core.clock import id_range
from wxauth.server.core.database import Database, Sweep
from wxauth.server.core.statements import Nothing, Statement, one_and_id
from wxauth.server.login.models import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalSearch:
    """A search for refused logins. A field that is None matches everything."""

    request_id: str | None = None
    user_id: UUID | None = None
    code: str | None = None
    app_id: str | None = None
    network: IpNetwork | None = None
    """A network that those stored are in, or that is in one of them."""
    since: datetime | None = None
    until: datetime | None = None


# Stores nothing about a user who has just been erased: an erasure under way holds a lock on the user, and this
# statement waits for it. Users are locked in the order of their ids, against deadlocks. A row is stored again when its
# count has grown: the count is the whole one, so that a batch that is sent twice is counted once.
_STORE: Final = Statement[Nothing]("""
WITH there AS (
    SELECT id FROM users WHERE id = ANY (:user_ids::uuid[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO refusals (id, at, code, wechat_errcode, app_id, user_id, network, request_id, count)
SELECT noted.id, at, code, wechat_errcode, app_id, noted.user_id, network::cidr, request_id, count
  FROM unnest(:ids::uuid[], :times::timestamptz[], :codes::text[], :errcodes::integer[], :app_ids::text[],
              :user_ids::uuid[], :networks::text[], :request_ids::text[], :counts::integer[])
       AS noted (id, at, code, wechat_errcode, app_id, user_id, network, request_id, count)
  LEFT JOIN there ON there.id = noted.user_id
 WHERE noted.user_id IS NULL OR there.id IS NOT NULL
ON CONFLICT (id) DO UPDATE SET count = excluded.count
""")
_TYPES: Final = {"request_id": "text", "user_id": "uuid", "app_id": "text", "code": "text"}
_NETWORKS: Final = "networks"
_WITH_IDS: Final = ("user_id", "app_id", "code", "network")
"""The columns that an index has together with the id."""
_BOUNDED: Final = "refusals.network BETWEEN :first_network::inet AND :last_network::inet"
_SEARCHED_BY_NETWORK: Final = {4: 16, 6: 32}
"""Networks shorter than this, by version of IP, are not searched by their index: they have too many rows to sort."""


def _finding(by: str | None) -> Statement[Refusal]:
    """The search that uses the index on this column. The other columns are filtered.

    The entries of `networks`, which are several, are found through the index and then sorted.
    """
    fits = " AND ".join(
        f"refusals.{name} = :{name}" if name == by else f"(:{name}::{kind} IS NULL OR refusals.{name} = :{name})"
        for name, kind in _TYPES.items()
        if name != by or name == "request_id"
    )
    value, bounds, order = f":{by}", "id >= :first AND id < :before", "id DESC"
    if by == "network":  # one, so that its index also sorts
        value = ":first_network::inet"
        fits += " AND :last_network::inet IS NOT NULL"
    else:
        fits += f" AND {_BOUNDED if by == _NETWORKS else f'(:first_network::inet IS NULL OR {_BOUNDED})'}"
    if by in _WITH_IDS:
        bounds = one_and_id(f"refusals.{by}", value, after=":first", before=":before")
        bounds, order = f"refusals.{by} IS NOT NULL AND {bounds}", f"refusals.{by} DESC, id DESC"
    return Statement[Refusal](f"""
SELECT id, at, code, wechat_errcode, app_id, user_id, network::text AS network, request_id, count
  FROM refusals
 WHERE {fits} AND {bounds}
   AND NOT EXISTS (SELECT FROM erasures WHERE erasures.user_id = refusals.user_id)
 ORDER BY {order} LIMIT :limit
""")  # noqa: S608 - put together from constants


_BY_REQUEST: Final = _finding("request_id")
_BY_USER: Final = _finding("user_id")
_BY_CODE: Final = _finding("code")
_BY_APP: Final = _finding("app_id")
_BY_NETWORK: Final = _finding("network")
_BY_NETWORKS: Final = _finding(_NETWORKS)
_OF_ALL: Final = _finding(None)
sweep_refusals: Final = Sweep.of("refusals", key="id", by="id")


async def store_refusals(database: Database, refusals: Sequence[Refusal]) -> None:
    """Store refused logins, except those of users who no longer exist."""
    await database.run(
        _STORE,
        ids=[each.id for each in refusals],
        times=[each.at for each in refusals],
        codes=[each.code for each in refusals],
        errcodes=[each.wechat_errcode for each in refusals],
        app_ids=[each.app_id for each in refusals],
        user_ids=[each.user_id for each in refusals],
        networks=[each.network for each in refusals],
        request_ids=[each.request_id for each in refusals],
        counts=[each.count for each in refusals],
    )


async def find_refusals(
    database: Database, search: RefusalSearch, *, before: UUID | None, limit: int
) -> Sequence[Refusal]:
    """The newest refused logins that match the search and are older than `before`."""
    network = None if search.network is None else TRUNCATED.widened(search.network)
    first, end = id_range(search.since, search.until, before)
    return await database.rows(
        _statement(search, network),
        request_id=search.request_id,
        user_id=search.user_id,
        app_id=search.app_id,
        code=search.code,
        first_network=None if network is None else str(network),
        last_network=None if network is None else str(network.broadcast_address),
        first=first,
        before=end,
        limit=limit,
    )


def _statement(search: RefusalSearch, network: IpNetwork | None) -> Statement[Refusal]:
    """The search by the column with the fewest rows."""
    if search.request_id is not None:
        return _BY_REQUEST
    if search.user_id is not None:
        return _BY_USER
    if network is not None and network.prefixlen == TRUNCATED.length_of(network):
        return _BY_NETWORK
    if network is not None and network.prefixlen >= _SEARCHED_BY_NETWORK[network.version]:
        return _BY_NETWORKS
    if search.code is not None:
        return _BY_CODE
    return _OF_ALL if search.app_id is None else _BY_APP
