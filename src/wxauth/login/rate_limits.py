"""Rate limits, counted in this process, or in Redis for all processes."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network
from math import ceil
from typing import Final

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter

from wxauth.core.addresses import plain_address
from wxauth.core.clock import Clock, utc_now
from wxauth.core.logs import get_logger
from wxauth.errors import RateLimited
from wxauth.login.redis import reason_of, redis_storage

PATIENCE: Final = 0.2
"""Seconds for which a login waits for Redis, unless told otherwise."""
PAUSE: Final = 5.0
"""Seconds after a failure in which Redis is not asked."""
MAX_ADDRESSES: Final = 100_000
"""How many counters this process keeps. Beyond that, the oldest is forgotten."""

_CONNECTIONS: Final = 16
_SUBSCRIBER_BITS: Final = 64

Now = Callable[[], float]
"""The time in seconds."""

log = get_logger()


class RateLimiter:
    """Counts what somebody does, in windows that begin with the first time.

    Args:
        rate: Like `600/minute`; empty for no limit.
        what: What is counted; a word, which in Redis keeps it apart from all else.
        redis_url: Where to count for all processes; each counts for itself without one. A Redis that is
            away, slow or wrong limits nobody.
        clock: The time for what is counted here. Redis has its own.
        patience: Seconds for which somebody waits for Redis.
    """

    def __init__(
        self,
        rate: str,
        *,
        what: str,
        redis_url: str | None = None,
        clock: Clock = utc_now,
        patience: float = PATIENCE,
    ) -> None:
        self._counter: _Counter | _RedisCounter | None = None
        self._what = what
        if not rate:
            return

        def now() -> float:
            return clock().timestamp()

        if redis_url is None:
            self._counter = _Counter(parse(rate), Windows(now), now)
        else:
            self._counter = _RedisCounter(parse(rate), redis_url, now, patience, what)

    async def admit(self, who: str) -> None:
        """Count an action of this subscriber. Raises: RateLimited."""
        if self._counter is None:
            return
        seconds = await self._counter.seconds_to_wait(who)
        if seconds > 0:
            raise RateLimited(f"this is done too often: {self._what}", retry_after=seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        if isinstance(self._counter, _RedisCounter):
            await self._counter.aclose()


class LoginLimiter:
    """Counts logins by address, as `RateLimiter` does."""

    def __init__(
        self, rate: str, *, redis_url: str | None = None, clock: Clock = utc_now, patience: float = PATIENCE
    ) -> None:
        self._limiter = RateLimiter(rate, what="login", redis_url=redis_url, clock=clock, patience=patience)

    async def admit(self, ip: str | None) -> None:
        """Count a login from this address, if the address is known. Raises: RateLimited."""
        if ip is not None:
            await self._limiter.admit(subscriber_of(ip))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._limiter.aclose()


@lru_cache(maxsize=4096)
def subscriber_of(ip: str) -> str:
    """The subscriber that an address counts for: an IPv4 address, or the /64 that an IPv6 subscriber has."""
    address = plain_address(ip)
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _SUBSCRIBER_BITS), strict=False))


class _Counter:
    def __init__(self, rate: RateLimitItem, storage: Storage, now: Now) -> None:
        self._rate = rate
        self._storage = storage
        self._limiter = FixedWindowRateLimiter(storage)
        self._now = now

    async def seconds_to_wait(self, subscriber: str) -> int:
        """Seconds until there is room for a login; 0 if this one was counted."""
        if await self._limiter.hit(self._rate, subscriber):
            return 0
        window_end = await self._storage.get_expiry(self._rate.key_for(subscriber))
        return max(1, ceil(window_end - self._now()))


class Windows(MemoryStorage):
    """The storage of `limits` in memory, with its windows in the order in which they end.

    In `limits` 5.8 each hit looks through all windows for those that have ended: 8 ms where there are 100,000.
    """

    def __init__(self, now: Now, *, at_most: int = MAX_ADDRESSES) -> None:
        super().__init__()
        self.expirations = OrderedDict[str, float]()
        self._now = now
        self._at_most = at_most

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and forget the windows that have ended."""
        now = self._now()
        while self.expirations:
            first, end = next(iter(self.expirations.items()))
            if end > now and len(self.expirations) < self._at_most:
                break
            del self.expirations[first], self.storage[first]
        self.expirations.setdefault(key, now + expiry)
        self.storage[key] += amount
        return self.storage[key]


class _RedisCounter:
    """Counts in Redis. While Redis does not work, every login is let through."""

    def __init__(self, rate: RateLimitItem, url: str, now: Now, patience: float, what: str) -> None:
        self._rate = rate
        self._url = url
        self._what = what
        self._now = now
        self._patience = patience
        self._counter, self._closing = self._connect()
        # First come, first served; redis-py's own pool is not fair.
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._is_away = False
        self._asks_again_at = 0.0

    async def seconds_to_wait(self, subscriber: str) -> int:
        """Seconds until there is room for a login; 0 if this one was counted, or Redis could not tell."""
        finds_out = self._is_away
        if finds_out:
            now = self._now()
            if now < self._asks_again_at:
                return 0
            self._asks_again_at = now + PAUSE  # the others do not wait for what this login finds out
        try:
            # The wait for a connection too: behind a slow Redis, the last of many would wait for all before it.
            async with asyncio.timeout(self._patience), self._connections:
                if self._is_away and not finds_out:  # found out meanwhile
                    return 0
                if finds_out:
                    await self._connect_anew()
                seconds = await self._counter.seconds_to_wait(subscriber)
        except Exception as exc:
            self._fail(exc)
            return 0
        if finds_out:
            self._is_away = False
            log.info("redis_answers_again")
        return seconds

    async def aclose(self) -> None:
        await self._closing.aclose()

    def _connect(self) -> tuple[_Counter, AsyncExitStack]:
        closing = AsyncExitStack()
        storage = redis_storage(self._url, what=self._what, patience=self._patience, closing=closing)
        return _Counter(self._rate, storage, time.time), closing

    async def _connect_anew(self) -> None:
        """A client of a cluster keeps each connection that failed, and takes no more after a thousand."""
        former = self._closing
        self._counter, self._closing = self._connect()
        await former.aclose()

    def _fail(self, exc: Exception) -> None:
        if self._is_away:
            return
        self._is_away = True
        self._asks_again_at = self._now() + PAUSE
        reason = f"{type(exc).__name__}: {reason_of(exc)}"
        log.warning("redis_failed", reason=reason, consequence=f"{self._what} is not limited until it answers")
