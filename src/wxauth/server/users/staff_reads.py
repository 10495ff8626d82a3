"""The trail of what staff read of people: collected in memory, and stored once a second.

No answer waits for the database because of it. A process stores at most a hundred such events a second; one event for
each member of staff counts the others. A process that is killed loses its last second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.ids import new_id
from wxauth.server.core.storing import keep_storing, store_at_shutdown
from wxauth.server.core.trail import Actor, EventType
from wxauth.server.users.search_terms import Term
from wxauth.server.users.staff_read_rows import StaffRead, store_reads

STORE_PAUSE_SECONDS: Final = 1.0
"""Seconds between two stores."""
MAX_OWN_EVENTS: Final = 100
"""How many events of their own begin in a second. The others are counted."""
MAX_IN_MEMORY: Final = 1000
"""How many events may wait in memory while the database is slow. The others are counted."""

_FAILED: Final = "staff_reads_not_stored"


class Read(StrEnum):
    """What was read of a person."""

    USER = "user"
    PHONE = "phone"
    EXPORT = "export"


@dataclass(slots=True)
class _Others:
    at: datetime
    count: int = 0


class StaffReads:
    """What staff have read, in one process.

    Args:
        database: Where the trail is.
        clock: The time.
        is_on: Whether reading is recorded at all.
        store_pause: Seconds between two stores.
    """

    def __init__(
        self, database: Database, clock: Clock, *, is_on: bool, store_pause: float = STORE_PAUSE_SECONDS
    ) -> None:
        self._database = database
        self._clock = clock
        self._is_on = is_on
        self._store_pause = store_pause
        self._storing = asyncio.Lock()
        self._waiting: list[StaffRead] = []
        self._others: dict[tuple[EventType, Actor], _Others] = {}
        self._second = self._begun = 0

    def note_search(self, by: Actor, *, term: Term, found: int) -> None:
        """Note a search: what kind of term it had, never the term itself."""
        self._note(EventType.STAFF_SEARCHED, by, None, {"term": term.value, "found": found})

    def note_read(self, by: Actor, user_id: UUID, what: Read) -> None:
        """Note that something was read of a user."""
        self._note(EventType.STAFF_READ, by, user_id, {"what": what.value})

    async def store(self) -> None:
        """Store what was noted since the last store. On failure it waits for the next."""
        async with self._storing:
            waiting, self._waiting = self._waiting, []
            others, self._others = self._others, {}
            waiting += [
                StaffRead(new_id(each.at), kind, each.at, by.name, None, by.ip, {"count": each.count})
                for (kind, by), each in others.items()
            ]
            if not waiting:
                return
            try:
                await store_reads(self._database, waiting)
            except BaseException:
                self._waiting = [*waiting, *self._waiting][: MAX_IN_MEMORY + len(others)]
                raise

    async def keep_storing(self) -> None:
        """Store periodically, forever, through outages."""
        await keep_storing(self.store, pause=self._store_pause, failed=_FAILED)

    async def aclose(self) -> None:
        """Store the last ones, unless that takes more than a moment."""
        await store_at_shutdown(self.store, failed=_FAILED)

    def _note(self, kind: EventType, by: Actor, user_id: UUID | None, data: Mapping[str, Any]) -> None:
        if not self._is_on:
            return
        now = self._clock()
        if (second := int(now.timestamp())) != self._second:
            self._second, self._begun = second, 0
        if self._begun >= MAX_OWN_EVENTS or len(self._waiting) >= MAX_IN_MEMORY:
            self._others.setdefault((kind, by), _Others(now)).count += 1
            return
        self._begun += 1
        self._waiting.append(StaffRead(new_id(now), kind, now, by.name, user_id, by.ip, data))
