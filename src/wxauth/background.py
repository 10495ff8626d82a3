"""Work that nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from wxauth.logs import get_logger

AT_ONCE: Final = 32
"""Under way at once, so that connections to WeChat are left for phone numbers."""
AT_MOST: Final = 256
"""Taken; then no more is."""
FAREWELL: Final = 1.0
"""Seconds for what is still to do when the service ends."""

log = get_logger()

T = TypeVar("T")


class Background:
    """Does what it is given after the answer to the request that gave it.

    Args:
        patience: Seconds for each piece of work, from when it begins.
        farewell: Seconds for what is still to do when the service ends.
    """

    def __init__(self, *, patience: float, farewell: float = FAREWELL) -> None:
        self._patience = patience
        self._farewell = farewell
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    def start(self, work: Callable[[], Awaitable[None]], *, name: str) -> bool:
        """Whether the work is taken: not where there is too much of it, or the service ends."""
        if self._is_closing or len(self._tasks) >= AT_MOST:
            return False
        task = asyncio.create_task(self._do(work, name), name=name)
        self._tasks.add(task)  # the loop itself would let it be collected
        task.add_done_callback(self._tasks.discard)
        return True

    def begin(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Work that somebody may wait for, by a shield, and that goes on where they are gone. It is taken always."""
        task = asyncio.create_task(work, name=name)
        self._begun.add(task)
        task.add_done_callback(self._forget)
        return task

    async def drain(self) -> None:
        """Wait until all is done."""
        while tasks := self._tasks | self._begun:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Take no more, and leave what is not done in a moment."""
        self._is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._farewell):
                await self.drain()
        left = [*self._tasks, *self._begun]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            log.warning("background_work_left", pieces=len(left), reason="the service has ended")

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, for nobody may be waiting for it any more

    async def _do(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        try:
            async with self._slots, asyncio.timeout(self._patience):
                await work()
        except Exception:
            log.exception("background_work_failed", work=name)
