"""The audit trail of the data that staff have read, which a process stores about once a second.

Of all responses, only the list of events waits for this storage. A process that is killed, or ends without a database,
loses the reads since its last write. Until the next write, each member of staff can make a hundred searches and a
hundred reads in a process. Further searches are only counted, but further reads are refused, because the audit trail
must contain each read.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from wxauth.core.background import WriteBuffer
from wxauth.core.services import part
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import Actor, EventType, event
from wxauth.errors import RateLimited
from wxauth.users.search_queries import TermKind

_STORE: Final = Statement[Nothing]("""
WITH noted AS (
    SELECT * FROM jsonb_populate_recordset(NULL::events, :events)
), existing_actors AS (
    -- waits for an erasure or a merge, and then finds no user, so the address of such staff is not stored
    SELECT id FROM users WHERE id IN (SELECT actor::uuid FROM noted) ORDER BY id FOR KEY SHARE
)
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT noted.id, type, at, actor, user_id, CASE WHEN existing_actors.id IS NOT NULL THEN ip END, data
  FROM noted LEFT JOIN existing_actors ON existing_actors.id = actor::uuid
 ORDER BY noted.id
-- a process stores its events again if PostgreSQL's response was lost
ON CONFLICT (id) DO NOTHING
""")
STORE_PAUSE_SECONDS: Final = 1
MAX_WAITING: Final = 100  # of one type and member of staff; the count of further searches comes in addition
# Other pages and reloads of a list in this time, in this process, are the same read.
SAME_LIST: Final = timedelta(minutes=1)


class Read(StrEnum):
    """What staff can read about users."""

    USER = "user"
    PHONE = "phone"
    EXPORT = "export"
    NAMES = "names"
    LOGINS = "logins"
    EVENTS = "events"
    REFUSALS = "refusals"


_LISTS: Final = (Read.LOGINS, Read.EVENTS, Read.REFUSALS)


@part
class StaffReads(WriteBuffer):
    """The reads of staff in one process. If `is_on` is False, nothing is recorded."""

    failure_event = "staff_reads_not_stored"
    store_pause = STORE_PAUSE_SECONDS
    is_on: bool
    _waiting: list[dict[str, Any]] = field(init=False, default_factory=list)
    _places_taken: Counter[tuple[EventType, str]] = field(init=False, default_factory=Counter)
    """The number of waiting events of a type and a member of staff."""
    _further_searches: dict[str, dict[str, int]] = field(init=False, default_factory=dict)
    """Each member of staff has the very dictionary that the waiting event contains."""
    _list_read_at: dict[tuple[str, UUID, Read], datetime] = field(init=False, default_factory=dict)
    """The keys are a member of staff, a user and a kind of list."""

    def note_search(self, by: Actor, *, term_kind: TermKind, found: int) -> None:
        """Record a search without the term, which may be personal, such as a phone number."""
        if self._has_place(EventType.STAFF_SEARCHED, by):
            self._note(EventType.STAFF_SEARCHED, by, {"term": term_kind.value, "found": found}, now=self.clock())
        elif by.name in self._further_searches:
            self._further_searches[by.name]["count"] += 1
        else:
            self._further_searches[by.name] = {"count": 1}
            self._note(EventType.STAFF_SEARCHED, by, self._further_searches[by.name], now=self.clock())

    def note_read(self, by: Actor, what: Read, *user_ids: UUID) -> None:
        """Record a read of data of one or more users in one event, unless it repeats the read of a list (`SAME_LIST`).

        Raises: RateLimited, if too many reads wait for the next write.
        """
        now = self.clock()
        key = (by.name, user_ids[0], what)
        last_read_at = self._list_read_at.get(key)  # None also for data that is not a list
        if last_read_at is not None and now < last_read_at + SAME_LIST:
            return
        if not self._has_place(EventType.STAFF_READ, by):
            raise RateLimited(
                "this staff member reads more than the audit trail can record", retry_after=STORE_PAUSE_SECONDS
            )
        if what in _LISTS:
            self._list_read_at[key] = now
        if len(user_ids) == 1:
            self._note(EventType.STAFF_READ, by, {"what": what.value}, user_id=user_ids[0], now=now)
        else:
            self._note(EventType.STAFF_READ, by, {"what": what.value, "user_ids": user_ids}, now=now)

    async def _store(self) -> None:
        events = list(self._waiting)
        # A further search begins a new event, because the database might store this one even if the statement fails,
        # and would then ignore its changes.
        self._further_searches = {}
        if events:
            await self.database.run(_STORE, events=events)
        # Only the stored events are removed, because other events may have been added during the write.
        del self._waiting[: len(events)]
        self._places_taken = Counter((each["type"], each["actor"]) for each in self._waiting)
        now = self.clock()
        self._list_read_at = {key: at for key, at in self._list_read_at.items() if at + SAME_LIST > now}

    def _has_place(self, kind: EventType, by: Actor) -> bool:
        return self._places_taken[kind, by.name] < MAX_WAITING

    def _note(
        self, kind: EventType, by: Actor, data: Mapping[str, Any], *, user_id: UUID | None = None, now: datetime
    ) -> None:
        if not self.is_on:
            return
        self._places_taken[kind, by.name] += 1
        self._waiting.append(event(kind, by=by, at=now, user_id=user_id, data=data))
