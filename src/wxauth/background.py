"""Work that nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from wxauth.logs import get_logger

AT_ONCE: Final = 32
"""Under way at once, so that most of the connections to WeChat stay with the logins."""
AT_MOST: Final = 256
"""Taken; then no more is."""
FAREWELL: Final = 1.0
"""Seconds for what is still to do when the service ends."""

log = get_logger()


class Background:
    """Does what it is given after the answer to the request that gave it.

    Args:
        patience: Seconds for each piece of work, from when it begins.
    """

    def __init__(self, *, patience: float) -> None:
        self._patience = patience
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def start(self, work: Callable[[], Awaitable[None]], *, name: str) -> bool:
        """Whether the work is taken: not where there is too much of it, or the service ends."""
        if self._is_closing or len(self._tasks) >= AT_MOST:
            return False
        task = asyncio.create_task(self._do(work, name), name=name)
        self._tasks.add(task)  # the loop itself would let it be collected
        task.add_done_callback(self._tasks.discard)
        return True

    async def drain(self) -> None:
        """Wait until all is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Take no more, and leave what is not done in a moment."""
        self._is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self.drain()
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            log.warning("background_work_left", pieces=len(left), reason="the service has ended")

    async def _do(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        try:
            async with self._slots, asyncio.timeout(self._patience):
                await work()
        except Exception:
            log.exception("background_work_failed", work=name)
