"""Work beside requests: after an answer, again and again, collected for later, or tried again after an outage."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Gauge
from wxauth.core.outages import outage_log
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable

FINISH_SECONDS: Final = 1.0
"""How long unfinished work may take when the service ends."""

LAST_STORE_SECONDS: Final = 2.0
"""How long the last store may take when the service ends."""
MAX_RETRIES: Final = 10_000
"""How many are kept. Any more are lost, which is logged."""
RETRY_PAUSE_SECONDS: Final = 0.25
"""Between two rounds of retries."""
LAST_ROUND_SECONDS: Final = 2.0
"""How long a last round may take when the service ends."""
PUT_OFF: Final = Gauge(
    "wxauth_put_off",
    "Writes queued for retry while the database is unavailable, by kind.",
    "what",
    multiprocess_mode="livesum",
)

log = get_logger()

T = TypeVar("T")
Key = TypeVar("Key")
Made = TypeVar("Made")


@part
class Background:
    """Runs work even if the request that started it is cancelled.

    When the service ends, unfinished work gets `farewell` seconds.
    """

    farewell: float = FINISH_SECONDS
    _started: set[asyncio.Task[Any]] = field(init=False, default_factory=set)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start work that must outlive its request. It is never refused. To await the task, use asyncio.shield."""
        task = asyncio.create_task(work, name=name)
        self._started.add(task)  # the event loop keeps only weak references, so the task might be collected
        task.add_done_callback(self._started.discard)
        task.add_done_callback(_retrieve)
        return task

    async def drain(self) -> None:
        """Wait until all work is done."""
        while self._started:
            await asyncio.wait(self._started)

    async def aclose(self) -> None:
        """Cancel the work that has not ended within `farewell` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.farewell):
                await self.drain()
        left = [*self._started]
        await cancel(left)
        if left:
            log.warning("background_work_left", pieces=len(left), reason="the service has ended")


async def keep_doing(chore: Callable[[], Awaitable[object]], *, pause: float, failed: str) -> NoReturn:
    """Do a chore forever, with a pause of so many seconds after each time.

    Failures are logged as by `attempt`.
    """
    while True:
        await attempt(chore, failed=failed)
        await asyncio.sleep(pause)


async def attempt(chore: Callable[[], Awaitable[object]], *, failed: str) -> None:
    """Do a chore once. An error is logged as `failed`, an outage at intervals for all that the service does."""
    try:
        await chore()
    except StorageUnavailable as exc:
        outage_log.note(exc)
    except Exception:
        log.exception(failed)


@part
class WriteBuffer(ABC):
    """What one process has collected since the last store."""

    failed: ClassVar[str]
    """The event that is logged once per database outage, and for each other error."""
    store_pause: ClassVar[float]
    """Seconds between two stores."""
    database: Database
    clock: Clock
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def store(self) -> None:
        """Store everything collected since the last store."""
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


@dataclass(frozen=True, slots=True)
class _Retry:
    do: Callable[[], Awaitable[object]]
    until: float
    """When the retry is given up, in the event loop's monotonic time."""
    fields: dict[str, Any]


@part
class Retries:
    """Tries each retry in rounds, the oldest first. A round ends early if the database is unavailable.

    A retry, in log lines a promise, is work that must survive an outage, kept in memory. It ends when it succeeds, when
    its time is up, or when the service ends. If the process is killed, it is lost.
    """

    pause: float = RETRY_PAUSE_SECONDS
    _retries: dict[tuple[str, Hashable], _Retry] = field(init=False, default_factory=dict)
    _numbers: Counter[str] = field(init=False, default_factory=Counter)
    _keeping: asyncio.Task[None] | None = field(init=False, default=None)
    _is_closing: bool = field(init=False, default=False)

    def put_off(
        self,
        what: str,
        key: Hashable,
        do: Callable[[], Awaitable[object]],
        *,
        failure: BaseException,
        patience: float,
        **fields: Any,
    ) -> None:
        """Retry until it succeeds. If a retry of the same kind and key is waiting already, that one stays.

        `do` may be called several times, for `patience` seconds. The fields are for the log lines: enough to repair a
        lost retry by hand.
        """
        if (what, key) in self._retries:
            return
        if len(self._retries) >= MAX_RETRIES:
            log.error("promise_lost", what=what, reason="too many have been put off", **fields)
            return
        is_fault = not isinstance(failure, StorageUnavailable | asyncio.CancelledError)
        log.error(
            "promise_put_off",
            what=what,
            reason=type(failure).__name__,
            exc_info=failure if is_fault else None,
            **fields,
        )
        self._retries[what, key] = _Retry(do, _now() + patience, fields)
        self._count(what, 1)
        if not self._is_closing and (self._keeping is None or self._keeping.done()):
            self._keeping = asyncio.create_task(self._keep_trying(), name="promises")

    async def keep(self, what: str, key: Hashable) -> None:
        """Try this retry now, if it is waiting. Raises: the errors of its `do`."""
        if retry := self._retries.get((what, key)):
            await retry.do()
            self.note_kept(what, key)

    def note_kept(self, what: str, key: Hashable) -> None:
        """Forget this retry, which has been kept elsewhere, or just now."""
        if (retry := self._retries.pop((what, key), None)) is not None:
            log.info("promise_kept", what=what, **retry.fields)
            self._count(what, -1)

    async def drain(self) -> None:
        """Wait until no retry is waiting."""
        if self._keeping is not None:
            await asyncio.shield(self._keeping)

    async def aclose(self) -> None:
        """Try one last round, for at most `LAST_ROUND_SECONDS`. Retries that still fail are lost."""
        self._is_closing = True
        if self._keeping is not None:
            await cancel([self._keeping])
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_ROUND_SECONDS):
                await self._keep_all()
        for what, key in list(self._retries):
            self._lose(what, key, "the service has ended")

    async def _keep_trying(self) -> None:
        while self._retries:
            await asyncio.sleep(self.pause)
            await self._keep_all()
            for (what, key), retry in list(self._retries.items()):
                if _now() > retry.until:
                    self._lose(what, key, "the database was away for too long")

    async def _keep_all(self) -> None:
        for what, key in list(self._retries):
            try:
                await self.keep(what, key)
            except StorageUnavailable:
                return
            except Exception as exc:
                log.debug("promise_put_off_again", what=what, reason=type(exc).__name__)

    def _lose(self, what: str, key: Hashable, reason: str) -> None:
        retry = self._retries.pop((what, key))
        log.error("promise_lost", what=what, reason=reason, **retry.fields)
        self._count(what, -1)

    def _count(self, what: str, more: int) -> None:
        self._numbers[what] += more
        PUT_OFF.set(self._numbers[what], what)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these tasks, and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def once(
    under_way: dict[Key, asyncio.Task[Made]], key: Key, make: Callable[[], Coroutine[Any, Any, Made]]
) -> Made:
    """What `make` makes. Of many who ask for it at once, one makes it."""
    return await asyncio.shield(begun(under_way, key, make))  # others may wait for it after this request is cancelled


def begun(
    under_way: dict[Key, asyncio.Task[Made]], key: Key, make: Callable[[], Coroutine[Any, Any, Made]]
) -> asyncio.Task[Made]:
    """The task that makes it, which is started if there is none."""
    making = under_way.get(key)
    if making is None:
        making = under_way[key] = asyncio.create_task(make())
        making.add_done_callback(lambda _: under_way.pop(key))
        making.add_done_callback(_retrieve)
    return making


def _retrieve(done: asyncio.Task[Any]) -> None:
    if not done.cancelled():
        done.exception()  # or asyncio logs an exception that was never retrieved
