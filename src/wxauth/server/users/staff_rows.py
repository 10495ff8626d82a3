"""What staff list, logins and names of people, and the trail of what they have read.

What was read is collected in memory, and stored once a second, so that no answer waits for the database because of it.
Each member of staff has a hundred places for searches, and a hundred for reads, until the next store. Further searches
are only counted; further reads are refused, because each is recorded. A process that is killed loses its last second.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, repeat
from time import monotonic
from typing import Any, Final, LiteralString
from uuid import UUID

from sqlmodel import Field, SQLModel

from wxauth.errors import RateLimited
from wxauth.server.core.addresses import IpNetwork
from wxauth.server.core.background import Gathering
from wxauth.server.core.clock import id_range, new_id
from wxauth.server.core.database import Database
from wxauth.server.core.models import Address
from wxauth.server.core.services import part
from wxauth.server.core.statements import Nothing, Statement, one_and_id
from wxauth.server.core.trail import Actor, EventType
from wxauth.server.sessions.devices import DescribedDevice
from wxauth.server.sessions.rows import OPENED
from wxauth.server.users.search_rows import Term
from wxauth.server.web.bodies import Page, cursor_at

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
# The address of a member of staff who has just been erased is not stored: an erasure under way holds a lock on the
# user, and this statement waits for it. Users are locked in the order of their ids, against deadlocks. An event may be
# there already: a store whose answer was lost is repeated.
_STORE: Final = Statement[Nothing]("""
WITH noted AS (
    SELECT * FROM jsonb_populate_recordset(NULL::events, :events)
), there AS (
    SELECT id FROM users WHERE id IN (SELECT actor::uuid FROM noted) ORDER BY id FOR KEY SHARE
)
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT noted.id, type, at, actor, user_id, CASE WHEN there.id IS NOT NULL THEN ip END, data
  FROM noted LEFT JOIN there ON there.id = actor::uuid
 ORDER BY noted.id
ON CONFLICT (id) DO NOTHING
""")
STORE_PAUSE_SECONDS: Final = 1.0
"""Seconds between two stores."""
PLACES: Final = 100
"""How many searches of one member of staff may wait for the next store, and how many reads."""
SAME_LIST: Final = timedelta(minutes=1)
"""How long a list counts as read: who pages through it, or follows it, reads it once."""


class Read(StrEnum):
    """What was read of a person."""

    USER = "user"
    PHONE = "phone"
    EXPORT = "export"
    NAMES = "names"
    LOGINS = "logins"
    EVENTS = "events"
    REFUSALS = "refusals"


_LISTS: Final = (Read.LOGINS, Read.EVENTS, Read.REFUSALS)


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
    found: list[ListedLogin] = []

    async def search_above(floor: UUID) -> None:
        rows = await database.rows(
            _OF_ALL if user_id is None else _OF_USER,
            user_id=user_id,
            app_id=app_id,
            network=None if network is None else str(network),
            before=before,
            floor=floor,
            limit=limit + 1 - len(found),
        )
        found.extend(rows)

    if user_id is not None or (app_id is None and network is None):
        await search_above(lowest)
        return Page.of(found, limit)
    began = monotonic()
    for size in chain(WINDOWS, repeat(WINDOWS[-1])):
        floor = await database.value(_FLOOR, before=before, size=size)
        await search_above(max(floor or lowest, lowest))
        if floor is None or floor <= lowest or len(found) > limit:
            break
        before = floor
        if monotonic() - began > SEARCH_SECONDS:
            return Page(found, cursor_at(floor), is_incomplete=True)
    return Page.of(found, limit)


@part
class StaffReads(Gathering):
    """What staff have read, in one process. `is_on`: whether reading is recorded at all."""

    failed = "staff_reads_not_stored"
    is_on: bool
    store_pause: float = STORE_PAUSE_SECONDS
    _waiting: list[dict[str, Any]] = field(init=False, default_factory=list)
    _taken: Counter[tuple[EventType, str]] = field(init=False, default_factory=Counter)
    _counted: dict[str, dict[str, int]] = field(init=False, default_factory=dict)
    _lists: dict[tuple[str, UUID, Read], datetime] = field(init=False, default_factory=dict)

    def note_search(self, by: Actor, *, term: Term, found: int) -> None:
        """Note a search: what kind of term it had, never the term itself."""
        if self._has_place(EventType.STAFF_SEARCHED, by):
            self._note(EventType.STAFF_SEARCHED, by, None, {"term": term.value, "found": found})
        elif by.name in self._counted:
            self._counted[by.name]["count"] += 1
        else:
            self._counted[by.name] = {"count": 1}
            self._note(EventType.STAFF_SEARCHED, by, None, self._counted[by.name])

    def note_read(self, by: Actor, what: Read, *user_ids: UUID) -> None:
        """Note that something was read of these users. Raises: RateLimited, if it cannot be recorded soon."""
        now, read = self.clock(), (by.name, user_ids[0], what)
        if read in self._lists and now < self._lists[read] + SAME_LIST:
            return
        if not self._has_place(EventType.STAFF_READ, by):
            raise RateLimited("this member of staff reads more than the audit trail can record", retry_after=1)
        if what in _LISTS:
            self._lists[read] = now
        if len(user_ids) == 1:
            self._note(EventType.STAFF_READ, by, user_ids[0], {"what": what.value})
        else:
            self._note(EventType.STAFF_READ, by, None, {"what": what.value, "user_ids": user_ids})

    async def _store(self) -> None:
        """On failure, it waits for the next store."""
        stored, self._counted = list(self._waiting), {}
        if stored:
            await self.database.run(_STORE, events=stored)
        del self._waiting[: len(stored)]
        self._taken = Counter((each["type"], each["actor"]) for each in self._waiting)
        self._lists = {read: at for read, at in self._lists.items() if at + SAME_LIST > self.clock()}

    def _has_place(self, kind: EventType, by: Actor) -> bool:
        return self._taken[kind, by.name] < PLACES

    def _note(self, kind: EventType, by: Actor, user_id: UUID | None, data: Mapping[str, Any]) -> None:
        if self.is_on:
            now = self.clock()
            self._taken[kind, by.name] += 1
            told = {"id": new_id(now), "type": kind, "at": now, "actor": by.name, "user_id": user_id, "ip": by.ip}
            self._waiting.append({**told, "data": data})
