"""Promises: work that must survive a database outage, kept in memory and retried until it succeeds.

A promise ends when it succeeds, when its time is up, or when the service ends. If the process is killed, it is lost.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from wxauth.errors import StorageUnavailable
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Gauge
from wxauth.server.core.parts import part

MAX_PROMISES: Final = 10_000
"""How many promises are kept. Any more are lost, which is logged."""
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


@dataclass(frozen=True, slots=True)
class _Promise:
    do: Callable[[], Awaitable[object]]
    until: float
    """When the promise is given up, in the event loop's monotonic time."""
    fields: dict[str, Any]


@part
class Promises:
    """Retries all promises in rounds, the oldest first. A round ends early if the database is unavailable.

    Args:
        pause: Seconds between two rounds.
    """

    pause: float = RETRY_PAUSE_SECONDS
    _promises: dict[tuple[str, Hashable], _Promise] = field(init=False, default_factory=dict)
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
        """Retry until it succeeds. If a promise of the same kind and key is waiting already, that one stays.

        Args:
            what: The kind, for logs and metrics.
            key: Identifies the promise within its kind.
            do: The work. It may be called several times.
            failure: Why the first try failed.
            patience: Seconds after which the promise is given up.
            fields: For the log lines: enough to repair a lost promise by hand.
        """
        if (what, key) in self._promises:
            return
        if len(self._promises) >= MAX_PROMISES:
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
        self._promises[what, key] = _Promise(do, _now() + patience, fields)
        self._count(what, 1)
        if not self._is_closing and (self._keeping is None or self._keeping.done()):
            self._keeping = asyncio.create_task(self._keep_trying(), name="promises")

    async def keep(self, what: str, key: Hashable) -> None:
        """Try this promise now, if it is waiting. Raises: the errors of its `do`."""
        if promise := self._promises.get((what, key)):
            await promise.do()
            self.note_kept(what, key)

    def note_kept(self, what: str, key: Hashable) -> None:
        """Forget this promise, which has been kept elsewhere, or just now."""
        if (promise := self._promises.pop((what, key), None)) is not None:
            log.info("promise_kept", what=what, **promise.fields)
            self._count(what, -1)

    async def drain(self) -> None:
        """Wait until no promise is waiting."""
        if self._keeping is not None:
            await asyncio.shield(self._keeping)

    async def aclose(self) -> None:
        """Try one last round, for at most `LAST_ROUND_SECONDS`. Promises that still fail are lost."""
        self._is_closing = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_ROUND_SECONDS):
                await self._keep_all()
        for what, key in list(self._promises):
            self._lose(what, key, "the service has ended")

    async def _keep_trying(self) -> None:
        while self._promises:
            await asyncio.sleep(self.pause)
            await self._keep_all()
            for (what, key), promise in list(self._promises.items()):
                if _now() > promise.until:
                    self._lose(what, key, "the database was away for too long")

    async def _keep_all(self) -> None:
        for what, key in list(self._promises):
            try:
                await self.keep(what, key)
            except StorageUnavailable:
                return
            except Exception as exc:
                log.debug("promise_put_off_again", what=what, reason=type(exc).__name__)

    def _lose(self, what: str, key: Hashable, reason: str) -> None:
        promise = self._promises.pop((what, key))
        log.error("promise_lost", what=what, reason=reason, **promise.fields)
        self._count(what, -1)

    def _count(self, what: str, more: int) -> None:
        self._numbers[what] += more
        PUT_OFF.set(self._numbers[what], what)


def _now() -> float:
    return asyncio.get_running_loop().time()
