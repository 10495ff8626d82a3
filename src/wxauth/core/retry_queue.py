"""The queue of failed writes, which wxauth retries until they succeed, for example after a database outage."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from wxauth.core.logs import get_logger
from wxauth.core.metrics import Gauge
from wxauth.core.retrying import PREVENTED_BY_OTHERS
from wxauth.core.services import part
from wxauth.core.tasks import cancel
from wxauth.errors import StorageUnavailable

MAX_RETRIES: Final = 10_000
"""The largest number of retries that are kept in memory.

If this many retries are waiting, wxauth drops any further retry, and logs the fields of its write.
"""
RETRY_PAUSE_SECONDS: Final = 0.25
"""The pause, in seconds, between two rounds of retries."""
LAST_ROUND_SECONDS: Final = 2.0
"""The time, in seconds, that the last round of retries may take when the service ends."""
PUT_OFF: Final = Gauge(
    "wxauth_put_off",
    "Failed writes queued for retry, by kind.",
    "what",
    multiprocess_mode="livesum",
)
"""The metric of the writes that wait in `Retries`."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Retry:
    """A failed write, and the time until which wxauth retries it."""

    write: Callable[[], Awaitable[object]]
    until: float
    """The time at which wxauth gives up the retry, in the event loop's time."""
    fields: dict[str, Any]
    """The fields of the log lines that say that the retry was queued, has succeeded or was lost."""


@part
class Retries:
    """A queue in memory of failed writes, which wxauth retries in rounds until they succeed.

    Each round begins with the oldest retry, and ends early if the database is unavailable. A retry ends when it
    succeeds, when its time is up, or when the service ends. If the process is killed, all its retries are lost.
    """

    pause: float = RETRY_PAUSE_SECONDS
    _retries: dict[tuple[str, Hashable], _Retry] = field(init=False, default_factory=dict)
    _waiting_by_kind: Counter[str] = field(init=False, default_factory=Counter)
    _rounds: asyncio.Task[None] | None = field(init=False, default=None)
    """The task that runs the rounds. It ends when no retry is waiting; None before the first retry."""
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
        """Retry `write`, a write of this kind, until it succeeds, for at most `patience` seconds.

        If a retry of the same kind and key is already waiting, that retry continues, and `write` is ignored. If
        `MAX_RETRIES` retries are waiting, `write` is dropped, and `fields` are logged. `write` may be called several
        times. `failure` is the error of the first attempt. The log lines contain `fields`, which must be enough for an
        operator to repeat a lost write by hand. After `aclose` has begun, its last round is the only round that may
        still call `write`.
        """
        if (kind, key) in self._retries:
            return
        if len(self._retries) >= MAX_RETRIES:
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
        self._retries[kind, key] = _Retry(write, _now() + patience, fields)
        self._count(kind, 1)
        if not self._is_closing and (self._rounds is None or self._rounds.done()):
            self._rounds = asyncio.create_task(self._run_rounds(), name="retries")

    async def run_now(self, kind: str, key: Hashable) -> None:
        """Run the retry of this kind and key now, if one is waiting. Raises: any error of the write."""
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
        """Wait until every retry has ended."""
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
        """Run rounds of retries, with a pause before each, until no retry is waiting."""
        while self._retries:
            await asyncio.sleep(self.pause)
            await self._run_all()
            for (kind, key), retry in list(self._retries.items()):
                if _now() > retry.until:
                    self._lose(kind, key, "the write did not succeed in time")

    async def _run_all(self) -> None:
        """Run each waiting retry once, the oldest first.

        Stop when the database is unavailable for one of them, because the others would probably fail, too. A conflict
        concerns only the rows of one retry, so the others continue.
        """
        for kind, key in list(self._retries):
            try:
                await self.run_now(kind, key)
            except Exception as exc:  # `put_off` has logged the first failure
                if isinstance(exc, StorageUnavailable) and not isinstance(exc, PREVENTED_BY_OTHERS):
                    return
                log.debug("retry_failed", what=kind, reason=type(exc).__name__)

    def _lose(self, kind: str, key: Hashable, reason: str) -> None:
        """Give up a retry, and log its fields."""
        retry = self._retries.pop((kind, key))
        log.error("retry_lost", what=kind, reason=reason, **retry.fields)
        self._count(kind, -1)

    def _count(self, kind: str, change: int) -> None:
        """Add `change` to the number of waiting retries of this kind, and update the metric."""
        self._waiting_by_kind[kind] += change
        PUT_OFF.set(self._waiting_by_kind[kind], kind)


def _now() -> float:
    """Return the present time of the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
