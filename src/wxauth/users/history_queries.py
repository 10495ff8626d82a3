"""The filters and the statements for the history that staff can list: events, logins, and the users in them."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, LiteralString
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from wxauth.core.clock import id_range
from wxauth.core.database import Database
from wxauth.core.models import Address, EventFields
from wxauth.core.statements import Statement, pair_range
from wxauth.core.trail import ERASED_DATA, OPERATOR, REPORTS_ERASURE, SYSTEM, WECHAT, EventType
from wxauth.sessions.devices import DescribedDevice
from wxauth.sessions.list_queries import OPENED
from wxauth.users.search_queries import as_user_id
from wxauth.users.window_queries import SEARCH_SECONDS, search_in_windows
from wxauth.web.pages import Page, PageQuery
from wxauth.web.schemas import (
    Network,
    OrEmpty,
    ShownAppId,
    ShownNickname,
    ShownPictureUrl,
    ShownSessionId,
    ShownUserId,
    StoredText,
    Time,
)

# The name of a service client has up to 64 characters after `client:`.
_ACTOR: Final = r"^(client:)?[^\x00-\x1f\x7f]{0,64}$"
_ACTORS_WITHOUT_ID: Final = frozenset(actor.name for actor in (SYSTEM, OPERATOR, WECHAT))


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
        lowest, before = self.bounding_ids
        # One row more than fits tells `Page.of` that there is a next page.
        return {"lowest": lowest, "before": before, "limit": self.limit + 1}


class EventsQuery(HistoryQuery):
    actor: Annotated[str, StringConstraints(strip_whitespace=True, pattern=_ACTOR)] | None = Field(
        default=None,
        description="List only events that this actor caused: the ID of a user, the name of a service client "
        "(also as `client:NAME`, which finds the same events), `system`, `operator` or `wechat`.",
    )
    type: list[StoredText] = Field(
        default=[],
        description="List only events of this type. Repeat the parameter for several types. The types are "
        f"{', '.join(f'`{kind}`' for kind in EventType)}.",
    )


class LoginsQuery(HistoryQuery):
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
        """The id by which the list is sorted."""
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


WINDOWS: Final = (1_000, 50_000)  # sessions that the first statement of a search examines, and each further one

_LOWEST_IN_WINDOW: Final = Statement[UUID](
    "SELECT id FROM sessions WHERE id < :before ORDER BY id DESC OFFSET :size LIMIT 1"
)
USER_SUMMARIES: Final = Statement[UserSummary](f"""
SELECT users.id, nickname, avatar_url, newest.app_id, newest.user_agent AS device, newest.ip, last_login_at
  FROM users LEFT JOIN LATERAL (
    SELECT app_id, user_agent, ip FROM sessions
     WHERE {pair_range("sessions.user_id", "users.id")} ORDER BY user_id DESC, id DESC LIMIT 1
  ) AS newest ON true
 WHERE users.id = ANY (:ids::uuid[])
""")


def _logins_where(condition: LiteralString, order: LiteralString) -> Statement[ListedLogin]:
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

# The events of an erased user are cleared in pages. Until the last one, their data must be hidden.
_IS_ABOUT_ERASED: Final = f"""
(EXISTS (SELECT FROM erasures WHERE erasures.user_id = events.user_id) AND {REPORTS_ERASURE} IS NOT TRUE)"""
_IS_BY_ERASED: Final = "EXISTS (SELECT FROM erasures WHERE erasures.user_id::text = events.actor)"
_EVENTS: Final = f"""
SELECT events.id, events.type, events.at, events.actor, events.user_id, events.app_id,
       CASE WHEN NOT ({_IS_ABOUT_ERASED} OR {_IS_BY_ERASED}) THEN events.ip END AS ip,
       CASE WHEN {_IS_ABOUT_ERASED} THEN {ERASED_DATA} ELSE events.data END AS data
  FROM events"""
# The indexes contain ids, which begin with the time, and no times.
_NEWEST_IN_RANGE: Final = "events.id >= :lowest AND events.id < :before ORDER BY events.id DESC LIMIT :limit"
_ALL_EVENTS: Final = Statement[EventFields](f"{_EVENTS} WHERE {_NEWEST_IN_RANGE}")
# LATERAL reads the newest of each type, instead of sorting all events of these types.
_EVENTS_OF_TYPES: Final = Statement[EventFields](f"""
SELECT found.* FROM unnest(:types::text[]) AS kind
 CROSS JOIN LATERAL ({_EVENTS} WHERE events.type = kind AND {_NEWEST_IN_RANGE}) AS found
 ORDER BY found.id DESC LIMIT :limit
""")
_ORDER_OF_USER: Final = "ORDER BY events.user_id DESC, events.id DESC LIMIT :limit"


def _events_of_user_fragment(user_id: LiteralString) -> LiteralString:
    return f"{_EVENTS} WHERE {pair_range('events.user_id', user_id, after=':lowest', before=':before')}"


_EVENTS_OF_USER: Final = Statement[EventFields](f"""
{_events_of_user_fragment(":user_id")} AND (:actors::text[] = '{{}}' OR events.actor = ANY (:actors))
   AND (:types::text[] = '{{}}' OR events.type = ANY (:types)) {_ORDER_OF_USER}
""")
# The comparisons of whole rows make PostgreSQL use the indexes, as in `pair_range`.
_EVENTS_OF_ACTOR: Final = Statement[EventFields](f"""
-- each name and type by itself, because the index of actors contains the type before the id
(SELECT found.* FROM unnest(:actors::text[]) AS name CROSS JOIN unnest(:types::text[]) AS kind
  CROSS JOIN LATERAL (
     {_EVENTS} WHERE (events.actor, events.type, events.id) >= (name, kind, :lowest)
        AND (events.actor, events.type, events.id) < (name, kind, :before) AND (actor = user_id::text) IS NOT TRUE
      ORDER BY events.actor DESC, events.type DESC, events.id DESC LIMIT :limit) AS found)
 UNION ALL
-- the events about the actor's own account, which this index leaves out
({_events_of_user_fragment(":actor_id")} AND events.actor = ANY (:actors) AND events.type = ANY (:types)
 {_ORDER_OF_USER})
 ORDER BY id DESC LIMIT :limit
""")


async def find_logins(database: Database, query: LoginsQuery) -> Page[ListedLogin]:
    """Return a page of the newest logins. A truncated address matches a network that overlaps with it.

    An index finds the newest logins, or those of one user. A search by app or network examines windows of sessions.
    """
    lowest, before = query.bounding_ids
    network = None if query.network is None else str(query.network)
    filters: dict[str, object] = {"app_id": query.app_id, "network": network}
    statement = _ALL_LOGINS
    if query.user_id is not None:
        statement = _LOGINS_OF_USER
        filters["user_id"] = query.user_id
    logins_between = partial(database.rows, statement, **filters)
    if query.user_id is not None or (query.app_id is None and query.network is None):  # an index finds the logins
        return Page.of(await logins_between(before=before, lowest=lowest, limit=query.limit + 1), query.limit)
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


async def find_events(database: Database, query: EventsQuery) -> Page[EventFields]:
    """Return a page of the newest events, without personal data of erased users."""
    actors = _actors_named(query.actor.lower()) if query.actor else []  # all ids and names of actors are in lower case
    types = list(dict.fromkeys(query.type))
    if query.user_id is not None:
        events = await database.rows(
            _EVENTS_OF_USER, user_id=query.user_id, actors=actors, types=types, **query.page_parameters
        )
    elif actors:
        filters = {"actors": actors, "actor_id": as_user_id(actors[0]), "types": types or list(EventType)}
        events = await database.rows(_EVENTS_OF_ACTOR, **filters, **query.page_parameters)
    elif types:
        events = await database.rows(_EVENTS_OF_TYPES, types=types, **query.page_parameters)
    else:
        events = await database.rows(_ALL_EVENTS, **query.page_parameters)
    return Page.of(events, query.limit)


def _actors_named(actor: str) -> list[str]:
    if as_user_id(actor) is not None or actor in _ACTORS_WITHOUT_ID:
        return [actor]
    name = actor.removeprefix("client:")  # the console shows both names alike
    return [name, f"client:{name}"]
