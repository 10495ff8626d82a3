"""The audit trail of the data that staff have read.

A process collects the reads in memory and stores them about once a second, so that no response waits for this storage.
Until the next write of a process, each member of staff can make a hundred searches and a hundred reads in this process.
The process counts further searches without the details of each. It refuses further reads, because the audit trail must
contain each of them. A process that is killed, or that ends while the database is unavailable, loses the reads since
its last write.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from wxauth.core.ids import new_id
from wxauth.core.services import part
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import Actor, EventType
from wxauth.core.write_buffer import WriteBuffer
from wxauth.errors import RateLimited
from wxauth.users.search_queries import TermKind

# The statement does not store the address of a member of staff who was erased, or merged into another user. An erasure
# locks the user, so this statement waits until the erasure ends, and then does not find the user. The statement locks
# users in the order of their ids, to avoid deadlocks. It ignores events that are already stored, because a process
# stores its events again if PostgreSQL's response was lost.
_STORE: Final = Statement[Nothing]("""
WITH noted AS (
    SELECT * FROM jsonb_populate_recordset(NULL::events, :events)
), existing_actors AS (
    SELECT id FROM users WHERE id IN (SELECT actor::uuid FROM noted) ORDER BY id FOR KEY SHARE
)
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT noted.id, type, at, actor, user_id, CASE WHEN existing_actors.id IS NOT NULL THEN ip END, data
  FROM noted LEFT JOIN existing_actors ON existing_actors.id = actor::uuid
 ORDER BY noted.id
ON CONFLICT (id) DO NOTHING
""")
STORE_PAUSE_SECONDS: Final = 1
"""The pause, in seconds, between two writes to the database."""
MAX_WAITING: Final = 100
"""The largest number of events of one type by one member of staff that wait for the next write of a process.

The event that counts further searches comes in addition.
"""
SAME_LIST: Final = timedelta(minutes=1)
"""The time during which other pages of the same list, and reloads of the list, count as the same read.

Each process remembers only its own reads, so several processes can each record a read of the list in this time.
"""


class Read(StrEnum):
    """The kinds of data about users that staff can read."""

    USER = "user"
    PHONE = "phone"
    EXPORT = "export"
    NAMES = "names"
    LOGINS = "logins"
    EVENTS = "events"
    REFUSALS = "refusals"


_LISTS: Final = (Read.LOGINS, Read.EVENTS, Read.REFUSALS)
"""The kinds of data that are lists, so that `SAME_LIST` applies to them."""


@part
class StaffReads(WriteBuffer):
    """The reads of staff in one process.

    If the setting `STAFF_READS` is off, `is_on` is False, and nothing is recorded.
    """

    failure_event = "staff_reads_not_stored"
    store_pause = STORE_PAUSE_SECONDS
    is_on: bool
    _waiting: list[dict[str, Any]] = field(init=False, default_factory=list)
    """The events that wait for the next write, the oldest first."""
    _places_taken: Counter[tuple[EventType, str]] = field(init=False, default_factory=Counter)
    """The number of waiting events, by type of event and name of the member of staff."""
    _further_searches: dict[str, dict[str, int]] = field(init=False, default_factory=dict)
    """The data of the waiting event that counts further searches, by name of the member of staff who makes them.

    The event in `_waiting` contains the same dictionary, so that each further search raises the count in the event.
    """
    _list_read_at: dict[tuple[str, UUID, Read], datetime] = field(init=False, default_factory=dict)
    """The time of the last recorded read of each list, by member of staff, user whose list it is, and kind of list."""

    def note_search(self, by: Actor, *, term_kind: TermKind, found: int) -> None:
        """Record that a member of staff has searched, with the kind of the search term and the number of users found.

        The term itself is never recorded, because it may be personal data such as a phone number. If `MAX_WAITING`
        searches already wait for the next write, this search is only counted.
        """
        if self._has_place(EventType.STAFF_SEARCHED, by):
            self._note(EventType.STAFF_SEARCHED, by, {"term": term_kind.value, "found": found}, now=self.clock())
        elif by.name in self._further_searches:
            self._further_searches[by.name]["count"] += 1
        else:
            self._further_searches[by.name] = {"count": 1}
            self._note(EventType.STAFF_SEARCHED, by, self._further_searches[by.name], now=self.clock())

    def note_read(self, by: Actor, what: Read, *user_ids: UUID) -> None:
        """Record that a member of staff has read data of one or more users.

        The data can be a list that belongs to one user (see `_LISTS`). If the same member of staff reads the same list
        again within `SAME_LIST`, this process does not record the second read. One event records the whole read: with
        one user, the event is about that user, and with several, its data contains their ids.

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
        """Store the reads. If that fails, the reads wait for the next write."""
        events = list(self._waiting)
        # From now on, a further search begins a new event. The events of this write must not change any more, because
        # the database might have stored them even if the statement fails, and would ignore the changes in the next
        # write.
        self._further_searches = {}
        if events:
            await self.database.run(_STORE, events=events)
        # Only the stored events are removed, because other events may have been added during the write.
        del self._waiting[: len(events)]
        self._places_taken = Counter((event["type"], event["actor"]) for event in self._waiting)
        now = self.clock()
        self._list_read_at = {key: at for key, at in self._list_read_at.items() if at + SAME_LIST > now}

    def _has_place(self, kind: EventType, by: Actor) -> bool:
        """Return whether fewer than `MAX_WAITING` events of this type by this member of staff wait to be stored."""
        return self._places_taken[kind, by.name] < MAX_WAITING

    def _note(
        self, kind: EventType, by: Actor, data: Mapping[str, Any], *, user_id: UUID | None = None, now: datetime
    ) -> None:
        """Add an event to the events that wait for the next write. If `is_on` is False, do nothing."""
        if not self.is_on:
            return
        self._places_taken[kind, by.name] += 1
        event = {
            "id": new_id(now),
            "type": kind,
            "at": now,
            "actor": by.name,
            "user_id": user_id,
            "ip": by.ip,
            "data": data,
        }
        self._waiting.append(event)
