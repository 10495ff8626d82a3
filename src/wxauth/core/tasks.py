"""Tasks that outlive the request that started them, and tasks whose value several requests share."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import field
from typing import Any, Final, TypeVar

from wxauth.core.logs import get_logger
from wxauth.core.services import part

FINISH_SECONDS: Final = 1.0
"""The time, in seconds, for which unfinished work may continue when the service ends."""

log = get_logger()

T = TypeVar("T")
Key = TypeVar("Key")
Value = TypeVar("Value")


@part
class Background:
    """A runner of tasks that continue even if the request that started them is cancelled.

    When the service ends, unfinished tasks may continue for `farewell` seconds. After that, they are cancelled.
    """

    farewell: float = FINISH_SECONDS
    _started: set[asyncio.Task[Any]] = field(init=False, default_factory=set)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start work that must continue even if the request that started it is cancelled.

        Await the task only through `asyncio.shield`. Otherwise, cancelling the request would also cancel the task.
        """
        task = asyncio.create_task(work, name=name)
        # The event loop keeps only weak references to tasks. Without this reference, the garbage collector might
        # destroy the task.
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        task.add_done_callback(_retrieve_exception)
        return task

    async def drain(self) -> None:
        """Wait until all work is done."""
        while self._started:
            await asyncio.wait(self._started)

    async def aclose(self) -> None:
        """Cancel the work that does not end within `farewell` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.farewell):
                await self.drain()
        unfinished = [*self._started]
        await cancel(unfinished)
        if unfinished:
            log.warning("background_work_left", pieces=len(unfinished), reason="the service has ended")


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def once(
    under_way: dict[Key, asyncio.Task[Value]], key: Key, make: Callable[[], Coroutine[Any, Any, Value]]
) -> Value:
    """Call `make`, and return its value. Callers that request the same key at the same time share one call.

    `under_way` contains the running tasks by their keys.

    Raises: any error of `make`, in each of these callers.
    """
    # The task continues if this request is cancelled, because other requests may wait for its value.
    return await asyncio.shield(task_of(under_way, key, make))


def task_of(
    under_way: dict[Key, asyncio.Task[Value]], key: Key, make: Callable[[], Coroutine[Any, Any, Value]]
) -> asyncio.Task[Value]:
    """Return the task that makes the value of a key. If no such task is running, start one.

    `under_way` contains the running tasks by their keys.
    """
    task = under_way.get(key)
    if task is None:
        task = under_way[key] = asyncio.create_task(make())
        task.add_done_callback(lambda _task: under_way.pop(key))
        task.add_done_callback(_retrieve_exception)
    return task


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a task. Otherwise, asyncio would log that nobody has retrieved it."""
    if not task.cancelled():
        task.exception()
