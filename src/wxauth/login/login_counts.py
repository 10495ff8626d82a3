"""The counts of logins of one process.

A process holds its counts in memory, and stores them after short pauses, so that no login waits for a row of counts
that another login writes. A process that is killed loses the counts of its last seconds.

Each count is for an hour, because days begin at different hours in different time zones. Each process stores running
totals in separate rows, so that storing the same totals twice changes nothing.
"""

from collections import Counter
from dataclasses import field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final
from uuid import UUID, uuid4

from wxauth.core.services import part
from wxauth.core.write_buffer import WriteBuffer
from wxauth.login import count_queries

COUNTS_STORE_SECONDS: Final = 5.0
"""The pause, in seconds, between two writes of counts to the database."""
_MERGED_AFTER: Final = timedelta(days=7)
"""The age of an hour at which wxauth merges the rows of the hour into one row.

At this age, no process has counts of the hour that are not stored yet, even if the database was down for days.
"""
_FORGET_AFTER: Final = timedelta(days=1)
"""The age of an hour at which a process forgets its totals for the hour. Every login of the hour has ended by then."""


@part
class LoginCounts(WriteBuffer):
    """The counts of logins of one process."""

    failure_event = "numbers_not_stored"
    store_pause = COUNTS_STORE_SECONDS
    _logins: Counter[datetime] = field(init=False, default_factory=Counter)
    _new_users: Counter[datetime] = field(init=False, default_factory=Counter)
    _unstored: set[datetime] = field(init=False, default_factory=set)
    """The hours whose counts have grown since they were stored."""

    def count_login(self, *, is_new: bool, at: datetime) -> None:
        """Count a login, and a new user if `is_new`."""
        hour = _hour_of(at)
        self._logins[hour] += 1
        self._new_users[hour] += int(is_new)
        self._unstored.add(hour)

    async def overview(self, *, days: int, utc_offset: timedelta) -> count_queries.Overview:
        """Return the totals, and the counts of the last `days` days, including today.

        The days begin at midnight in the time zone with this offset from UTC.
        """
        now = self.clock()
        await self.store()  # otherwise the counts would lack the last logins of this process
        last = (now.astimezone(UTC) + utc_offset).date()
        first = last - timedelta(days=days - 1)
        return await count_queries.overview_of(self.database, first=first, last=last, utc_offset=utc_offset, now=now)

    async def merge_hours(self) -> None:
        """Merge the rows of each hour older than `_MERGED_AFTER` into one row."""
        await self.database.run(
            count_queries.MERGE_HOURS,
            before=_hour_of(self.clock() - _MERGED_AFTER),
            all_processes=count_queries.ALL_PROCESSES,
        )

    @cached_property
    def _process(self) -> UUID:
        """The id under which this process stores its counts."""
        # A worker creates the id when it first stores counts. An id from before the fork would be the same in all
        # workers.
        return uuid4()

    async def _store(self) -> None:
        """Store the counts that have grown. If that fails, the next call stores them. Otherwise, forget old counts."""
        hours, self._unstored = self._unstored, set()
        if not hours:
            return
        try:
            await self.database.run(
                count_queries.STORE_COUNTS,
                process=self._process,
                hours=list(hours),
                new_users=[self._new_users[hour] for hour in hours],
                logins=[self._logins[hour] for hour in hours],
            )
        except BaseException:
            self._unstored |= hours
            raise
        now = self.clock()
        for hour in self._logins.keys() - self._unstored:
            if now - hour > _FORGET_AFTER:
                del self._logins[hour], self._new_users[hour]


def _hour_of(time: datetime) -> datetime:
    """Return the start of the hour in UTC."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
