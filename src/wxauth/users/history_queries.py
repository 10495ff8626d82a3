"""The filters and the statements for the history that staff can list: events, logins, and the users in them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, LiteralString
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from wxauth.core.database import Database
from wxauth.core.ids import id_range
from wxauth.core.models import Address, EventFields
from wxauth.core.statements import Statement, pair_range
from wxauth.core.trail import ERASED_DATA, REPORTS_ERASURE, EventType
from wxauth.sessions.devices import DescribedDevice
from wxauth.sessions.list_queries import OPENED
from wxauth.users.search_queries import as_user_id
from wxauth.users.window_queries import SEARCH_SECONDS, search_in_windows
from wxauth.web.schemas import (
    Network,
    OrEmpty,
    Page,
    PageQuery,
    ShownAppId,
    ShownNickname,
    ShownPictureUrl,
    ShownSessionId,
    ShownUserId,
    StoredText,
    Time,
)

_ACTOR: Final = r"^(client:)?[^\x00-\x1f\x7f]{0,64}$"
"""The pattern of the filter by actor. The name of a service client has up to 64 characters after `client:`."""


class HistoryQuery(PageQuery):
    """The filters that the lists of events, logins and refused logins share."""

    user_id: Annotated[UUID | None, OrEmpty] = Field(default=None, description="List only entries of this user.")
    since: Annotated[Time | None, OrEmpty] = Field(default=None, description="List only entries at or after this time.")
    until: Annotated[Time | None, OrEmpty] = Field(default=None, description="List only entries before this time.")

    @property
    def bounding_ids(self) -> tuple[UUID, UUID]:
        """The lowest id that the list may contain, and the id before which the page begins."""
        return id_range(self.since, self.until, self.cursor)

    @property
    def page_parameters(self) -> dict[str, Any]:
        """The statement parameters for the range of ids, and for the number of rows to read.

        The statement reads one row more than fits on the page. `Page.of` uses this row to tell whether there is a next
        page.
        """
        lowest, before = self.bounding_ids
        return {"lowest": lowest, "before": before, "limit": self.limit + 1}


class EventsQuery(HistoryQuery):
    """The filters for events."""

    actor: Annotated[str, StringConstraints(strip_whitespace=True, pattern=_ACTOR)] | None = Field(
        default=None,
        description="List only events that this actor caused: the ID of a user, the name of a service client "
        "(`client:NAME`, for changes to users that it made with its scope `moderate`), `system`, `operator` or "
        "`wechat`.",
    )
    type: list[StoredText] = Field(
        default=[],
        description="List only events of this type. Repeat the parameter for several types. The types are "
        f"{', '.join(f'`{kind}`' for kind in EventType)}.",
    )


class LoginsQuery(HistoryQuery):
    """The filters for logins."""

    app_id: StoredText | None = Field(default=None, description="List only logins in this app.")
    network: Annotated[Network | None, OrEmpty] = Field(
        default=None, description="List only logins from this network (CIDR) or address, such as `203.0.113.0/24`."
    )


class ListedLogin(BaseModel):
    """A login in a list, with the device and IP address from which the session was opened, and the session's end."""

    session_id: ShownSessionId
    at: datetime = Field(examples=["2026-11-20T10:02:00Z"])
    user_id: ShownUserId
    nickname: ShownNickname
    app_id: ShownAppId
    client_id: str | None = Field(description="The client_id of the website. Null for a login in an app.")
    device: DescribedDevice = Field(description="Operating system, and WeChat or browser.")
    ip: Address = Field(description="The IP address, or only its network if the login is old.")
    ended_at: datetime | None = Field(description="When the session ended. Null if it is open, or has only expired.")

    @property
    def id(self) -> UUID:
        """The id of the session. The pages list logins in the order of these ids."""
        return self.session_id


class UserSummary(BaseModel):
    """The short description of a user, for lists of events, logins and refused logins."""

    id: ShownUserId
    nickname: ShownNickname
    avatar_url: ShownPictureUrl
    app_id: str | None = Field(description="The app of the newest session; null if there is none.")
    device: DescribedDevice = Field(description="The device of the newest session.")
    ip: Address = Field(description="The IP address of that session, from its login or its last refresh.")
    last_login_at: datetime | None


WINDOWS: Final = (1_000, 50_000)
"""The number of sessions that the first statement of a search examines, and the number for each further statement."""

_LOWEST_IN_WINDOW: Final = Statement[UUID](
    "SELECT id FROM sessions WHERE id < :before ORDER BY id DESC OFFSET :size LIMIT 1"
)
"""The query for the lowest id in a window of sessions. It returns no row for the last window."""
USER_SUMMARIES: Final = Statement[UserSummary](f"""
SELECT users.id, nickname, avatar_url, newest.app_id, newest.user_agent AS device, newest.ip, last_login_at
  FROM users LEFT JOIN LATERAL (
    SELECT app_id, user_agent, ip FROM sessions
     WHERE {pair_range("sessions.user_id", "users.id")} ORDER BY user_id DESC, id DESC LIMIT 1
  ) AS newest ON true
 WHERE users.id = ANY (:ids::uuid[])
""")
"""The query for the short descriptions of users, in no particular order. It returns no row for an unknown id."""


def _logins_where(condition: LiteralString, order: LiteralString) -> Statement[ListedLogin]:
    """Return the query for the logins that meet a condition, and that match the filters for app and network.

    `condition` and `order` are SQL about the rows of `login`.
    """
    return Statement[ListedLogin](f"""
SELECT login.id AS session_id, login.created_at AS at, user_id, users.nickname, app_id, client_id,
       opened_user_agent AS device, opened_ip AS ip, revoked_at AS ended_at
  FROM (SELECT id, user_id, app_id, client_id, {OPENED}, created_at, revoked_at FROM sessions) AS login
  JOIN users ON users.id = user_id
 WHERE {condition}
   AND (:app_id::text IS NULL OR app_id = :app_id) AND (:network::inet IS NULL OR opened_ip && :network::inet)
 ORDER BY {order} LIMIT :limit
""")


_LOGINS_OF_USER: Final = _logins_where(
    pair_range("login.user_id", ":user_id", after=":lowest", before=":before"), "login.user_id DESC, login.id DESC"
)
_ALL_LOGINS: Final = _logins_where("login.id < :before AND login.id >= :lowest", "login.id DESC")

# wxauth clears the events of an erased user in pages. Until the last page is cleared, the statements must hide the data
# that is still there.
_IS_ABOUT_ERASED: Final = f"""
(EXISTS (SELECT FROM erasures WHERE erasures.user_id = events.user_id) AND {REPORTS_ERASURE} IS NOT TRUE)"""
_IS_BY_ERASED: Final = "EXISTS (SELECT FROM erasures WHERE erasures.user_id::text = events.actor)"
_EVENTS: Final = f"""
SELECT events.id, events.type, events.at, events.actor, events.user_id, events.app_id,
       CASE WHEN NOT ({_IS_ABOUT_ERASED} OR {_IS_BY_ERASED}) THEN events.ip END AS ip,
       CASE WHEN {_IS_ABOUT_ERASED} THEN {ERASED_DATA} ELSE events.data END AS data
  FROM events"""
# The statements compare ids instead of times, because the indexes contain ids and no times. An id begins with the time
# of its event.
_NEWEST_IN_RANGE: Final = "events.id >= :lowest AND events.id < :before ORDER BY events.id DESC LIMIT :limit"
_ALL_EVENTS: Final = Statement[EventFields](f"{_EVENTS} WHERE {_NEWEST_IN_RANGE}")
_EVENTS_OF_TYPES: Final = Statement[EventFields](f"""
SELECT found.* FROM unnest(:types::text[]) AS kind
 CROSS JOIN LATERAL ({_EVENTS} WHERE events.type = kind AND {_NEWEST_IN_RANGE}) AS found
 ORDER BY found.id DESC LIMIT :limit
""")
"""The query for the newest events of these types.

For each type, it reads the newest events from the index, because PostgreSQL would otherwise sort all events of these
types.
"""
_ORDER_OF_USER: Final = "ORDER BY events.user_id DESC, events.id DESC LIMIT :limit"


def _events_of_user_fragment(user_id: LiteralString) -> LiteralString:
    """Return the SQL that selects the events about a user between two ids."""
    return f"{_EVENTS} WHERE {pair_range('events.user_id', user_id, after=':lowest', before=':before')}"


_EVENTS_OF_USER: Final = Statement[EventFields](f"""
{_events_of_user_fragment(":user_id")} AND (:actor::text IS NULL OR events.actor = :actor)
   AND (:types::text[] = '{{}}' OR events.type = ANY (:types)) {_ORDER_OF_USER}
""")
# The first part reads the actor's actions, except those on the actor's own account. It reads each type separately,
# because the index of actors contains the type before the id. The second part reads the actor's actions on the actor's
# own account, which this index leaves out. The comparisons of whole rows make PostgreSQL use the indexes, as in
# `pair_range`.
_EVENTS_OF_ACTOR: Final = Statement[EventFields](f"""
(SELECT found.* FROM unnest(:types::text[]) AS kind
  CROSS JOIN LATERAL (
     {_EVENTS} WHERE (events.actor, events.type, events.id) >= (:actor, kind, :lowest)
        AND (events.actor, events.type, events.id) < (:actor, kind, :before) AND (actor = user_id::text) IS NOT TRUE
      ORDER BY events.actor DESC, events.type DESC, events.id DESC LIMIT :limit) AS found)
 UNION ALL
({_events_of_user_fragment(":actor_id")} AND events.actor = :actor AND events.type = ANY (:types) {_ORDER_OF_USER})
 ORDER BY id DESC LIMIT :limit
""")


async def find_logins(database: Database, query: LoginsQuery) -> Page[ListedLogin]:
    """Return a page of the newest logins that match a query.

    The address of a login matches if it is in the requested network. A truncated address stands for a network, and
    matches if the two networks overlap.

    An index finds the newest logins, which have the highest ids, and another index finds the logins of one user. If a
    query filters by app or network, but not by user, the search examines sessions in windows, the newest first, until
    the page is full or `SEARCH_SECONDS` have passed.
    """
    lowest, before = query.bounding_ids
    network = None if query.network is None else str(query.network)
    filters: dict[str, object] = {"app_id": query.app_id, "network": network}
    statement = _ALL_LOGINS
    is_indexed = query.app_id is None and query.network is None
    if query.user_id is not None:
        statement = _LOGINS_OF_USER
        is_indexed = True
        filters["user_id"] = query.user_id
    logins_between = partial(_logins_between, database, statement, filters)
    if is_indexed:
        return Page.of(await logins_between(before, lowest, query.limit + 1), query.limit)
    return await search_in_windows(
        database,
        _LOWEST_IN_WINDOW,
        logins_between,
        before=before,
        lowest=lowest,
        limit=query.limit,
        windows=WINDOWS,
        seconds=SEARCH_SECONDS,
    )


async def _logins_between(
    database: Database,
    statement: Statement[ListedLogin],
    filters: Mapping[str, object],
    before: UUID,
    lowest: UUID,
    limit: int,
) -> Sequence[ListedLogin]:
    """Return up to `limit` logins that match the filters, the newest first.

    Their ids are at least `lowest`, and below `before`.
    """
    return await database.rows(statement, **filters, before=before, lowest=lowest, limit=limit)


async def find_events(database: Database, query: EventsQuery) -> Page[EventFields]:
    """Return a page of the newest events that match a query, without personal data of erased users.

    The query's actor is compared in lower case, because all ids and names of actors are in lower case.
    """
    actor = query.actor.lower() if query.actor else None
    types = list(dict.fromkeys(query.type))
    if query.user_id is not None:
        events = await database.rows(
            _EVENTS_OF_USER, user_id=query.user_id, actor=actor, types=types, **query.page_parameters
        )
    elif actor is not None:
        filters = {"actor": actor, "actor_id": as_user_id(actor), "types": types or list(EventType)}
        events = await database.rows(_EVENTS_OF_ACTOR, **filters, **query.page_parameters)
    elif types:
        events = await database.rows(_EVENTS_OF_TYPES, types=types, **query.page_parameters)
    else:
        events = await database.rows(_ALL_EVENTS, **query.page_parameters)
    return Page.of(events, query.limit)
