"""Work beside requests: what goes on after an answer, chores that are done again and again, and what is gathered."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import field
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, troubles
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part

MAX_RUNNING: Final = 32
"""How many tasks that nobody awaits run at once. More would take the connections that phone numbers need."""
MAX_TASKS: Final = 256
"""How many such tasks are accepted, running or waiting. More are refused."""
FINISH_SECONDS: Final = 1.0
"""How long unfinished work may take when the service ends."""

log = get_logger()

T = TypeVar("T")


@part
class Background:
    """Runs work even if the request that started it is cancelled.

    Args:
        patience: Seconds for each task that nobody awaits, from its start.
        farewell: Seconds for unfinished work when the service ends.
    """

    patience: float
    farewell: float = FINISH_SECONDS
    _slots: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(MAX_RUNNING))
    _offered: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _started: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _is_closing: bool = field(init=False, default=False)

    def offer(self, work: Callable[[], Awaitable[None]], *, name: str) -> bool:
        """Start work that nobody awaits. Returns False if there is too much already, or the service ends."""
        if self._is_closing or len(self._offered) >= MAX_TASKS:
            return False
        task = asyncio.create_task(self._do(work, name), name=name)
        self._offered.add(task)  # the event loop keeps only weak references, so the task might be collected
        task.add_done_callback(self._offered.discard)
        return True

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start work that must outlive its request. It is never refused. To await the task, use asyncio.shield."""
        task = asyncio.create_task(work, name=name)
        self._started.add(task)
        task.add_done_callback(self._drop)
        return task

    async def drain(self) -> None:
        """Wait until all work is done."""
        while tasks := self._offered | self._started:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Refuse more work, and cancel what has not ended within `farewell` seconds."""
        self._is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self.farewell):
                await self.drain()
        left = [*self._offered, *self._started]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            log.warning("background_work_left", pieces=len(left), reason="the service has ended")

    def _drop(self, task: asyncio.Task[Any]) -> None:
        self._started.discard(task)
        if not task.cancelled():
            task.exception()  # or asyncio logs an exception that was never retrieved

    async def _do(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        try:
            async with self._slots, asyncio.timeout(self.patience):
                await work()
        except Exception:
            log.exception("background_work_failed", work=name)


async def keep_doing(chore: Callable[[], Awaitable[object]], *, pause: float, failed: str) -> NoReturn:
    """Do a chore forever, with a pause of so many seconds after each time.

    Logs the event `failed` for each error but an outage, which is one event for all that the service does.
    """
    while True:
        try:
            await chore()
        except StorageUnavailable as exc:
            troubles.note(exc)
        except Exception:
            log.exception(failed)
        await asyncio.sleep(pause)


LAST_STORE_SECONDS: Final = 2.0
"""How long the last store may take when the service ends."""


@part
class Gathering(ABC):
    """What one process has gathered since the last store.

    Args:
        database: Where it is stored.
        clock: The time.
        store_pause: Seconds between two stores.
    """

    failed: ClassVar[str]
    """The event that is logged once per database outage, and for each other error."""
    database: Database
    clock: Clock
    store_pause: float
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def store(self) -> None:
        """Store everything gathered since the last store."""
        async with self._storing:
            await self._store()

    @abstractmethod
    async def _store(self) -> None: ...

    async def keep_storing(self) -> NoReturn:
        """Store periodically, forever, through outages."""
        await asyncio.sleep(self.store_pause)
        await keep_doing(self.store, pause=self.store_pause, failed=self.failed)

    async def aclose(self) -> None:
        """Store what is left, unless that takes more than a moment."""
        try:
            async with asyncio.timeout(LAST_STORE_SECONDS):
                await self.store()
        except (TimeoutError, StorageUnavailable):
            log.warning(self.failed, reason="the service has ended")
