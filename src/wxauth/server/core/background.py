"""Work that goes on after its request has been answered."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from wxauth.server.core.logs import get_logger

MAX_RUNNING: Final = 32
"""How many tasks that nobody awaits run at once. More would take the connections that phone numbers need."""
MAX_TASKS: Final = 256
"""How many such tasks are accepted, running or waiting. More are refused."""
FINISH_SECONDS: Final = 1.0
"""How long unfinished work may take when the service ends."""

log = get_logger()

T = TypeVar("T")


class Background:
    """Runs work even if the request that started it is cancelled.

    Args:
        patience: Seconds for each task that nobody awaits, from its start.
        farewell: Seconds for unfinished work when the service ends.
    """

    def __init__(self, *, patience: float, farewell: float = FINISH_SECONDS) -> None:
        self._patience = patience
        self._farewell = farewell
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._offered: set[asyncio.Task[None]] = set()
        self._started: set[asyncio.Task[Any]] = set()
        self._is_closing = False

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
            async with asyncio.timeout(self._farewell):
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
            async with self._slots, asyncio.timeout(self._patience):
                await work()
        except Exception:
            log.exception("background_work_failed", work=name)
