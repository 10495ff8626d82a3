"""Work that goes on after the answer to the request that gave it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from wxauth.server.core.logs import get_logger

AT_ONCE: Final = 32
"""How many unawaited pieces of work run at once. More would take the connections that phone numbers need."""
AT_MOST: Final = 256
"""How many unawaited pieces of work are kept, running or waiting. Any beyond these are refused."""
FAREWELL: Final = 1.0
"""Seconds that unfinished work gets when the service ends."""

log = get_logger()

T = TypeVar("T")


class Background:
    """Does the work that it is given, even if the request that gave it is cancelled.

    Args:
        patience: Seconds for each piece of work that nobody waits for, from when it begins.
        farewell: Seconds for what is still to do when the service ends.
    """

    def __init__(self, *, patience: float, farewell: float = FAREWELL) -> None:
        self._patience = patience
        self._farewell = farewell
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._offered: set[asyncio.Task[None]] = set()
        self._started: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    def offer(self, work: Callable[[], Awaitable[None]], *, name: str) -> bool:
        """Take work that nobody waits for, unless there is too much or the service ends; whether it was taken."""
        if self._is_closing or len(self._offered) >= AT_MOST:
            return False
        task = asyncio.create_task(self._do(work, name), name=name)
        self._offered.add(task)  # the loop holds tasks weakly: an unreferenced one may be collected
        task.add_done_callback(self._offered.discard)
        return True

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start work that outlives its request. Whoever waits for it must use asyncio.shield. Never refused."""
        task = asyncio.create_task(work, name=name)
        self._started.add(task)
        task.add_done_callback(self._forget)
        return task

    async def drain(self) -> None:
        """Wait until all work is done."""
        while tasks := self._offered | self._started:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Take no more work, and give up what does not end within the farewell."""
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

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._started.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio complains of an exception that nobody has retrieved

    async def _do(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        try:
            async with self._slots, asyncio.timeout(self._patience):
                await work()
        except Exception:
            log.exception("background_work_failed", work=name)
