"""Work that outlives its request, that requests share, that is repeated, or that is done later."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from wxauth.core.clock import Clock
from wxauth.core.database import PREVENTED_BY_OTHERS, Database
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Gauge
from wxauth.core.outages import outage_log
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable

FAREWELL_SECONDS: Final = 1.0  # for tasks when the service ends
MAX_WAITING_RETRIES: Final = 10_000
RETRY_PAUSE_SECONDS: Final = 0.25  # shorter than `PAUSES_FOR_OTHERS_SECONDS` in `phones/phones.py`
LAST_ROUND_SECONDS: Final = 2.0  # for retries when the service ends
LAST_STORE_SECONDS: Final = 2.0  # for a buffer when the service ends
WRITES_AWAITING_RETRY: Final = Gauge(
    "wxauth_writes_awaiting_retry",
    "Failed writes queued for retry, by kind.",
    "what",
    multiprocess_mode="livesum",
)

log = get_logger()

T = TypeVar("T")
Key = TypeVar("Key")
Value = TypeVar("Value")


@part
class Background:
    """Runs tasks that continue even if the request that started them is cancelled."""

    farewell_seconds: float = FAREWELL_SECONDS
    _started: set[asyncio.Task[Any]] = field(init=False, default_factory=set)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Await the task only through `asyncio.shield`. Otherwise, cancelling the request also cancels the task."""
        task = asyncio.create_task(work, name=name)
        # The event loop keeps only weak references to tasks. Without this reference, the garbage collector might
        # destroy the task.
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        task.add_done_callback(retrieve_exception)
        return task

    async def drain(self) -> None:
        while self._started:
            await asyncio.wait(self._started)

    async def aclose(self) -> None:
        """Cancel the work that does not end within `farewell_seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.farewell_seconds):
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
    """Call `make`, and return its value. Callers that request the same key at the same time share one call."""
    # The task continues if this request is cancelled, because other requests may wait for its value.
    return await asyncio.shield(task_of(under_way, key, make))


def task_of(
    under_way: dict[Key, asyncio.Task[Value]], key: Key, make: Callable[[], Coroutine[Any, Any, Value]]
) -> asyncio.Task[Value]:
    """Return the task that makes the value of a key. If no such task is running, start one."""
    task = under_way.get(key)
    if task is None:
        task = under_way[key] = asyncio.create_task(make())
        task.add_done_callback(lambda _task: under_way.pop(key))
        task.add_done_callback(retrieve_exception)
    return task


def retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from logging a failure that nobody waits for any more. This is a callback for a task's end."""
    if not task.cancelled():
        task.exception()


async def keep_doing(chore: Callable[[], Awaitable[object]], *, pause: float, failure_event: str) -> NoReturn:
    """Call `chore` forever, with a pause after each call. Log failures as `attempt` does."""
    while True:
        await attempt(chore, failure_event=failure_event)
        await asyncio.sleep(pause)


async def attempt(chore: Callable[[], Awaitable[object]], *, failure_event: str) -> None:
    """Call `chore` once. If it fails, log the failure instead of raising it.

    A database outage is logged under a name of its own, and only at intervals for the whole process, however many
    chores fail.
    """
    try:
        await chore()
    except StorageUnavailable as exc:
        outage_log.note(exc)
    except Exception:
        log.exception(failure_event)


@dataclass(frozen=True, slots=True)
class _Retry:
    write: Callable[[], Awaitable[object]]
    until: float  # in the event loop's time
    fields: dict[str, Any]  # of the log lines


@part
class Retries:
    """A queue in memory of failed writes, which wxauth retries in rounds until they succeed.

    Each round begins with the oldest retry, and ends early if the database is unavailable. A retry ends when it
    succeeds, when its time is up, or when the service ends. If the process is killed, all its retries are lost.
    """

    pause: float = RETRY_PAUSE_SECONDS
    _retries: dict[tuple[str, Hashable], _Retry] = field(init=False, default_factory=dict)
    _waiting_by_kind: Counter[str] = field(init=False, default_factory=Counter)
    _rounds: asyncio.Task[None] | None = field(init=False, default=None)  # ends when no retry is waiting
    _is_closing: bool = field(init=False, default=False)

    def put_off(
        self,
        kind: str,
        key: Hashable,
        write: Callable[[], Awaitable[object]],
        *,
        failure: BaseException,
        patience: float,
        **fields: Any,
    ) -> None:
        """Retry a write of this kind until it succeeds, for at most `patience` seconds.

        `failure` is the error of the first attempt. `write` may be called several times. If a retry of the same kind
        and key is already waiting, that retry continues, and `write` is ignored. The log lines contain `fields`, which
        must be enough for an operator to repeat a lost write by hand.
        """
        if (kind, key) in self._retries:
            return
        if len(self._retries) >= MAX_WAITING_RETRIES:
            log.error("retry_lost", what=kind, reason="too many have been put off", **fields)
            return
        # An outage or a cancellation has no cause in the code, so its traceback would not help.
        is_fault = not isinstance(failure, StorageUnavailable | asyncio.CancelledError)
        log.error(
            "retry_queued",
            what=kind,
            reason=type(failure).__name__,
            exc_info=failure if is_fault else None,
            **fields,
        )
        self._retries[kind, key] = _Retry(write, asyncio.get_running_loop().time() + patience, fields)
        self._count(kind, 1)
        if not self._is_closing and (self._rounds is None or self._rounds.done()):
            self._rounds = asyncio.create_task(self._run_rounds(), name="retries")

    async def run_now(self, kind: str, key: Hashable) -> None:
        """Run the retry of this kind and key now, if one is waiting. Errors of the write are raised."""
        retry = self._retries.get((kind, key))
        if retry is not None:
            await retry.write()
            self.note_done(kind, key)

    def note_done(self, kind: str, key: Hashable) -> None:
        """Remove the retry of this kind and key, if one is waiting, because its write has been done."""
        retry = self._retries.pop((kind, key), None)
        if retry is None:
            return
        log.info("retry_done", what=kind, **retry.fields)
        self._count(kind, -1)

    async def drain(self) -> None:
        if self._rounds is not None:
            await asyncio.shield(self._rounds)

    async def aclose(self) -> None:
        """Run a last round, for at most `LAST_ROUND_SECONDS`. Retries that have not succeeded by then are lost."""
        self._is_closing = True
        if self._rounds is not None:
            await cancel([self._rounds])
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_ROUND_SECONDS):
                await self._run_all()
        for kind, key in list(self._retries):
            self._lose(kind, key, "the service has ended")

    async def _run_rounds(self) -> None:
        while self._retries:
            await asyncio.sleep(self.pause)
            await self._run_all()
            for (kind, key), retry in list(self._retries.items()):
                if asyncio.get_running_loop().time() > retry.until:
                    self._lose(kind, key, "the write did not succeed in time")

    async def _run_all(self) -> None:
        for kind, key in list(self._retries):
            try:
                await self.run_now(kind, key)
            except Exception as exc:  # `put_off` has logged the first failure
                if isinstance(exc, StorageUnavailable) and not isinstance(exc, PREVENTED_BY_OTHERS):
                    return
                log.debug("retry_failed", what=kind, reason=type(exc).__name__)

    def _lose(self, kind: str, key: Hashable, reason: str) -> None:
        retry = self._retries.pop((kind, key))
        log.error("retry_lost", what=kind, reason=reason, **retry.fields)
        self._count(kind, -1)

    def _count(self, kind: str, change: int) -> None:
        self._waiting_by_kind[kind] += change
        WRITES_AWAITING_RETRY.set(self._waiting_by_kind[kind], kind)


@part
class WriteBuffer(ABC):
    """The data that a process has collected since it last wrote such data to the database."""

    failure_event: ClassVar[str]  # logged for an outage only if the data is lost when the service ends
    store_pause: ClassVar[float]  # seconds
    database: Database
    clock: Clock
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def store(self) -> None:
        """Store everything collected since the last write."""
        async with self._storing:
            await self._store()

    @abstractmethod
    async def _store(self) -> None:
        """Write the collected data. If that fails, keep the data for the next write or drop the data."""

    async def keep_storing(self) -> NoReturn:
        """Store the data forever, with a pause of `store_pause` seconds before each write."""
        await asyncio.sleep(self.store_pause)
        await keep_doing(self.store, pause=self.store_pause, failure_event=self.failure_event)

    async def aclose(self) -> None:
        """Store the remaining data. If the database is unavailable, or responds too late, the data is lost."""
        try:
            async with asyncio.timeout(LAST_STORE_SECONDS):
                await self.store()
        except (TimeoutError, StorageUnavailable):
            log.warning(self.failure_event, reason="the service has ended")
