"""Logins as staff list them, and the newest one of each user."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from sqlmodel import Field, SQLModel

from wxauth.server.core.addresses import IpNetwork
from wxauth.server.core.clock import id_range
from wxauth.server.core.database import Database
from wxauth.server.core.models import Address
from wxauth.server.core.statements import Statement, one_and_id
from wxauth.server.sessions.devices import DescribedDevice
from wxauth.server.sessions.rows import OPENED
from wxauth.server.users.search_rows import search_in_windows
from wxauth.server.web.bodies import Page

_USER_ID: Final = Field(schema_extra={"examples": ["01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"]})
_NICKNAME: Final = Field(schema_extra={"examples": ["小明"]})
_DEVICE: Final = {"examples": ["iOS 17.1, WeChat 8.0.44"]}
_IP: Final = {"examples": ["203.0.113.7"]}


class ListedLogin(SQLModel):
    """A login, as it was when its session was opened."""

    session_id: UUID = Field(schema_extra={"examples": ["01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2"]})
    at: datetime = Field(schema_extra={"examples": ["2026-11-20T10:02:00Z"]})
    user_id: UUID = _USER_ID
    nickname: str | None = _NICKNAME
    app_id: str = Field(schema_extra={"examples": ["wx1a2b3c4d5e6f7a8b"]})
    client_id: str | None = Field(description="The website; null for a login in the mini-program.")
    device: DescribedDevice = Field(description="Operating system, and WeChat or browser.", schema_extra=_DEVICE)
    ip: Address = Field(description="The IP address; its network if it is old.", schema_extra=_IP)
    ended_at: datetime | None = Field(description="When the session was ended; null if it was not.")

    @property
    def id(self) -> UUID:
        """The session's id, by which logins are sorted."""
        return self.session_id


class Glimpse(SQLModel):
    """Who somebody is, in a line."""

    id: UUID = _USER_ID
    nickname: str | None = _NICKNAME
    avatar_url: str | None = Field(schema_extra={"examples": ["https://example.com/avatars/1.png"]})
    app_id: str | None = Field(description="The app of the newest session; null if there is none.")
    device: DescribedDevice = Field(description="The device of the newest session.", schema_extra=_DEVICE)
    ip: Address = Field(description="The address of its last use.", schema_extra=_IP)
    last_login_at: datetime | None


WINDOWS: Final = (1_000, 50_000)
"""How many sessions the first statement of a search examines, and each further one."""
SEARCH_SECONDS: Final = 1.0
"""The time after which a search starts no further statement."""

_FLOOR: Final = Statement[UUID]("SELECT id FROM sessions WHERE id < :before ORDER BY id DESC OFFSET :size LIMIT 1")
GLIMPSES: Final = Statement[Glimpse](f"""
SELECT users.id, nickname, avatar_url, newest.app_id, newest.user_agent AS device, newest.ip, last_login_at
  FROM users LEFT JOIN LATERAL (
    SELECT app_id, user_agent, ip FROM sessions
     WHERE {one_and_id("sessions.user_id", "users.id")} ORDER BY user_id DESC, id DESC LIMIT 1
  ) AS newest ON true
 WHERE users.id = ANY (:ids::uuid[])
""")
"""Who these users are, in no order. Ids of nobody are left out."""


def _finding(condition: LiteralString, order: LiteralString) -> Statement[ListedLogin]:
    return Statement[ListedLogin](f"""
SELECT login.id AS session_id, login.created_at AS at, user_id, users.nickname, app_id, client_id,
       opened_user_agent AS device, opened_ip AS ip, revoked_at AS ended_at
  FROM (SELECT id, user_id, app_id, client_id, {OPENED}, created_at, revoked_at FROM sessions) AS login
  JOIN users ON users.id = user_id
 WHERE {condition}
   AND (:app_id::text IS NULL OR app_id = :app_id) AND (:network::inet IS NULL OR opened_ip && :network::inet)
 ORDER BY {order} LIMIT :limit
""")


_OF_USER: Final = _finding(
    one_and_id("login.user_id", ":user_id", after=":floor", before=":before"), "login.user_id DESC, login.id DESC"
)


_OF_ALL: Final = _finding(
    "login.id < :before AND login.id >= :floor AND (:user_id::uuid IS NULL OR user_id = :user_id)", "login.id DESC"
)


async def find_logins(
    database: Database,
    *,
    user_id: UUID | None,
    app_id: str | None,
    network: IpNetwork | None,
    since: datetime | None,
    until: datetime | None,
    before: UUID | None,
    limit: int,
) -> Page[ListedLogin]:
    """A page of the newest logins that match all that is not None, older than `before`.

    An address is in the network, or was truncated to one that contains it.

    Only the ids are indexed, which begin with their times, and those of one user. Otherwise sessions are searched in
    windows, the newest first, until the page is full or `SEARCH_SECONDS` have passed.
    """
    lowest, before = id_range(since, until, before)
    statement = _OF_ALL if user_id is None else _OF_USER
    networks = None if network is None else str(network)

    async def among(before: UUID, floor: UUID, limit: int) -> Sequence[ListedLogin]:
        filters = {"user_id": user_id, "app_id": app_id, "network": networks}
        return await database.rows(statement, **filters, before=before, floor=floor, limit=limit)

    if user_id is not None or (app_id is None and network is None):
        return Page.of(await among(before, lowest, limit + 1), limit)
    return await search_in_windows(
        database,
        _FLOOR,
        among,
        before=before,
        lowest=lowest,
        limit=limit,
        windows=WINDOWS,
        seconds=SEARCH_SECONDS,
    )
