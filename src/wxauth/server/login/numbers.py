"""Logins and new users per hour: counted in memory, and stored every few seconds.

Counts are per hour because readers in different time zones begin their days at different hours.

No login writes, or waits for, a row that another login writes. Each process stores its running totals in rows of its
own, so storing the same totals twice changes nothing. A process that is killed loses its last few seconds.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final
from uuid import UUID, uuid4

from wxauth.server.core.background import Gathering
from wxauth.server.core.services import part
from wxauth.server.login.number_rows import Overview, merge_hours, numbers_of, store_numbers, totals

STORE_PAUSE_SECONDS: Final = 5.0
"""Seconds between two stores."""
SUMMED_UP_AFTER: Final = timedelta(days=7)
"""Age at which an hour's rows are merged into one. No process still counts it, even after days without a database."""


@dataclass(slots=True)
class _Hour:
    new_users: int = 0
    logins: int = 0
    is_stored: bool = False


@part
class Numbers(Gathering):
    """The counts of one process."""

    failed = "numbers_not_stored"
    store_pause: float = STORE_PAUSE_SECONDS
    _hours: dict[datetime, _Hour] = field(init=False, default_factory=dict)

    def count_login(self, *, is_new: bool, at: datetime) -> None:
        """Count a login, and a new user if it is one."""
        this_one = _hour_of(at)
        hour = self._hours.get(this_one)
        if hour is None:
            hour = self._hours[this_one] = _Hour()
        hour.logins += 1
        hour.new_users += is_new
        hour.is_stored = False

    async def overview(self, *, days: int, utc_offset: timedelta) -> Overview:
        """The totals, and the counts of the last `days` days up to today at that offset."""
        now = self.clock()
        await self.store()
        there_are = await totals(self.database, now=now)
        last = (now.astimezone(UTC) + utc_offset).date()
        first = last - timedelta(days=days - 1)
        found = await numbers_of(self.database, first=first, last=last, utc_offset=utc_offset)
        return Overview(**dict(there_are), days=list(found))

    async def merge_hours(self) -> None:
        """Merge the rows of each hour older than `SUMMED_UP_AFTER` into one."""
        await merge_hours(self.database, before=_hour_of(self.clock() - SUMMED_UP_AFTER))

    @cached_property
    def _process(self) -> UUID:
        # Made with the first store, which is a worker's: whatever is made before the fork is the same in all workers.
        return uuid4()

    async def _store(self) -> None:
        counted = {hour: it for hour, it in self._hours.items() if not it.is_stored}
        if not counted:
            return
        for it in counted.values():
            it.is_stored = True  # a login counted during the store resets this
        try:
            await store_numbers(
                self.database,
                self._process,
                hours=list(counted),
                new_users=[it.new_users for it in counted.values()],
                logins=[it.logins for it in counted.values()],
            )
        except BaseException:
            for it in counted.values():
                it.is_stored = False
            raise
        now = self.clock()
        for hour in [hour for hour, it in self._hours.items() if it.is_stored and now - hour > timedelta(days=1)]:
            del self._hours[hour]


def _hour_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
