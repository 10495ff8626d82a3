"""Weekly partitions of `sessions`: how a table of billions gets rid of its old rows without deleting one.

`wxauth partitions on` begins with them; housekeeping makes the next weeks, and drops those whose sessions are all over.
See docs/decisions/0011-partitions-of-sessions.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from wxauth.errors import StorageUnavailable
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import Settings
from wxauth.server.sessions.partition_rows import (
    DEFAULT,
    Partition,
    add_weeks,
    check_cut,
    cut_default,
    cut_sessions,
    drop_partition,
    forget_cut,
    join_partitions,
    mark_cut,
    partitions_of_sessions,
    pending_cut,
    prepared_until,
    stop_partitions,
)

T = TypeVar("T")

WEEK: Final = timedelta(weeks=1)
AHEAD: Final = 4 * WEEK
"""How far ahead weeks are prepared."""
TOO_LITTLE_AHEAD: Final = 2 * WEEK
"""With less than this ahead, something keeps housekeeping from it."""
CUT_AHEAD: Final = WEEK
"""The time that a conversion has at least. Until the cut, all new sessions fit in the table as it was."""
FORGOTTEN_BEFORE: Final = timedelta(days=2)
"""How long before its cut a conversion that was stopped is forgotten: after the cut no login would be possible."""
TRIES: Final = 120
TRY_PAUSE_SECONDS: Final = 1.0

log = get_logger()


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How `sessions` is partitioned."""

    partitions: Sequence[Partition]
    """The oldest first; none if it is a plain table."""
    is_on: bool
    """Whether housekeeping prepares weeks."""

    @property
    def end(self) -> datetime | None:
        """The end of the last week that is prepared; None if there is none."""
        return max((partition.end for partition in self.partitions if partition.end), default=None)


async def read_partitioning(database: Database) -> Partitioning:
    """How `sessions` is partitioned. Raises: StorageUnavailable."""
    return Partitioning(await partitions_of_sessions(database), await prepared_until(database) is not None)


async def begin_partitions(database: Database, *, now: datetime) -> Partitioning:
    """Partition `sessions`, or prepare weeks that housekeeping could not, while logins go on.

    It continues what an earlier call began. Raises: StorageUnavailable.
    """
    state = await read_partitioning(database)
    if state.partitions and state.end is None:
        await _patiently(partial(join_partitions, database))
    end, cut = state.end, await _patiently(partial(_usable_cut, database, now=now))
    if cut is None and end is not None:
        weeks = partial(add_weeks, database, max(end, _monday(now)), until=now + AHEAD, now=now)
        if await _patiently(weeks):
            return await read_partitioning(database)
    table = "sessions" if end is None else DEFAULT
    if cut is None:
        cut = _monday(now + CUT_AHEAD + WEEK)
        await _patiently(partial(mark_cut, database, table, cut, since=end))
    await _patiently(partial(check_cut, database, table))
    change = cut_sessions if end is None else partial(cut_default, since=end)
    await _patiently(partial(change, database, cut, until=max(cut + WEEK, now + AHEAD), now=now))
    return await read_partitioning(database)


async def end_partitions(database: Database) -> Partitioning:
    """Have no more weeks prepared, and make `sessions` a plain table as soon as all of its rows are in one partition.

    Raises: StorageUnavailable.
    """
    await _patiently(partial(forget_cut, database))
    await _patiently(partial(stop_partitions, database))
    if (await read_partitioning(database)).partitions:
        await _patiently(partial(join_partitions, database))
    return await read_partitioning(database)


async def keep_partitions(
    database: Database, settings: Settings, *, now: datetime, page_size: int, pause: float
) -> None:
    """Prepare the next weeks, if they are to be; drop those whose sessions are over. Raises: StorageUnavailable."""
    state = await read_partitioning(database)
    await _usable_cut(database, now=now)
    if not state.partitions:
        return
    end, until = state.end or now, now + AHEAD
    if state.is_on and end < until and not await add_weeks(database, max(end, _monday(now)), until=until, now=now):
        log.error("partitions_not_prepared", reason=f"{DEFAULT} has sessions: run 'wxauth partitions on'")
    longest = timedelta(seconds=max(settings.session_max_age, settings.web_session_max_age))
    over = now - longest - timedelta(days=settings.ended_sessions_kept_days)
    for partition in state.partitions:
        if partition.end and partition.end <= over:
            while not await drop_partition(database, partition.name, partition.end, size=page_size):  # noqa: ASYNC110
                await asyncio.sleep(pause)
            log.info("partition_dropped", partition=partition.name)
    if not state.is_on and not any(partition.end for partition in await partitions_of_sessions(database)):
        await join_partitions(database)


async def _usable_cut(database: Database, *, now: datetime) -> datetime | None:
    """The cut of a conversion that is under way, or was stopped and can be continued; one too late is forgotten."""
    cut = await pending_cut(database)
    if cut is None or cut - now >= FORGOTTEN_BEFORE:
        return cut
    await forget_cut(database)
    log.error("partitions_not_begun", reason="'wxauth partitions on' was stopped: run it again")
    return None


def _monday(time: datetime) -> datetime:
    """The beginning of the week (UTC)."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=time.weekday())


async def _patiently(change: Callable[[], Awaitable[T]]) -> T:
    """Make a change that waits for no lock for long, and tries again."""
    for _ in range(TRIES):
        try:
            return await change()
        except StorageUnavailable:
            await asyncio.sleep(TRY_PAUSE_SECONDS)
    return await change()
