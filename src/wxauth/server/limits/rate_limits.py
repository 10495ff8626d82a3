"""Rate limits, counted in this process, or in Redis for all processes."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_network
from math import ceil
from typing import Final

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter

from wxauth.errors import RateLimited
from wxauth.server.core.clock import Clock, utc_now
from wxauth.server.core.ip_addresses import network_of, plain_address
from wxauth.server.core.logs import get_logger
from wxauth.server.limits.redis import reason_of, redis_storage

PATIENCE: Final = 0.2
"""Seconds for which a login waits for Redis, unless told otherwise."""
PAUSE: Final = 5.0
"""Seconds after a failure in which Redis is not asked."""
MAX_ADDRESSES: Final = 100_000
"""How many counters this process keeps. Beyond that, the oldest is forgotten."""
SITE_FACTOR: Final = 10
"""How many times the limit of one address the /48 around an IPv6 address has."""

_CONNECTIONS: Final = 16
_SUBSCRIBER_BITS: Final = 64
_SITE_BITS: Final = 48

Now = Callable[[], float]
"""The time in seconds."""
Hit = tuple[RateLimitItem, str]
"""Whom to count, and by which rate."""

log = get_logger()


class RateLimiter:
    """Counts what somebody does, in windows that begin with the first time.

    Args:
        rate: Like `600/minute`; empty for no limit.
        what: What is counted; a word, which in Redis keeps it apart from all else.
        redis_url: Where to count for all processes; without one, and while it is away, slow or wrong, each counts for
            itself.
        exempt: Networks whose addresses are not counted.
        clock: The time for what is counted here. Redis has its own.
        patience: Seconds for which somebody waits for Redis.
    """

    def __init__(
        self,
        rate: str,
        *,
        what: str,
        redis_url: str | None = None,
        exempt: Sequence[str] = (),
        clock: Clock = utc_now,
        patience: float = PATIENCE,
    ) -> None:
        self._counter: _Counter | _RedisCounter | None = None
        self._what = what
        self._exempt = [ip_network(network) for network in exempt]
        if not rate:
            return

        def now() -> float:
            return clock().timestamp()

        amount, _, window = rate.partition("/")
        self._rate, self._rate_of_site = parse(rate), parse(f"{int(amount) * SITE_FACTOR}/{window}")
        counter = _Counter(Windows(now), now)
        self._counter = counter if redis_url is None else _RedisCounter(counter, redis_url, now, patience, what)

    async def admit(self, who: str) -> None:
        """Count an action of this client or app. Raises: RateLimited."""
        await self._admit([(self._rate, who)] if self._counter else [])

    async def admit_address(self, ip: str | None) -> None:
        """Count an action from this address, if the address is known and counted. Raises: RateLimited."""
        if self._counter is None or ip is None or self._is_exempt(ip):
            return
        subscriber, site = counted_as(ip)
        hits = [(self._rate, subscriber)]
        if site is not None:
            hits.append((self._rate_of_site, site))
        await self._admit(hits, ip)

    async def aclose(self) -> None:
        """Close the connections."""
        if isinstance(self._counter, _RedisCounter):
            await self._counter.aclose()

    async def _admit(self, hits: Sequence[Hit], ip: str | None = None) -> None:
        seconds = await self._counter.seconds_to_wait(hits) if self._counter else 0
        if seconds > 0:
            if ip is not None:
                log.info("rate_limited", what=self._what, network=network_of(ip))
            raise RateLimited(f"this is done too often: {self._what}", retry_after=seconds)

    def _is_exempt(self, ip: str) -> bool:
        return bool(self._exempt) and any(plain_address(ip) in network for network in self._exempt)


@lru_cache(maxsize=4096)
def counted_as(ip: str) -> tuple[str, str | None]:
    """What an address counts for: itself; an IPv6 address for the /64 of a subscriber and the /48 of a site.

    A site may have 65,536 subscribers' networks, and has them all to itself.
    """
    address = plain_address(ip)
    if isinstance(address, IPv4Address):
        return str(address), None
    subscriber, site = (str(IPv6Network((address, bits), strict=False)) for bits in (_SUBSCRIBER_BITS, _SITE_BITS))
    return subscriber, site


class _Counter:
    def __init__(self, storage: Storage, now: Now) -> None:
        self._storage = storage
        self._limiter = FixedWindowRateLimiter(storage)
        self._now = now

    async def seconds_to_wait(self, hits: Sequence[Hit]) -> int:
        """Count these, up to the first for which there is no room; seconds until there is, or 0."""
        for rate, who in hits:
            if not await self._limiter.hit(rate, who):
                window_end = await self._storage.get_expiry(rate.key_for(who))
                return max(1, ceil(window_end - self._now()))
        return 0


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
    """Counts in Redis. While Redis does not work, `own` counts."""

    def __init__(self, own: _Counter, url: str, now: Now, patience: float, what: str) -> None:
        self._own = own
        self._url = url
        self._what = what
        self._now = now
        self._patience = patience
        self._counter, self._closing = self._connect()
        # First come, first served; redis-py's own pool is not fair.
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._is_away = False
        self._asks_again_at = 0.0

    async def seconds_to_wait(self, hits: Sequence[Hit]) -> int:
        """As `_Counter` does, for all processes if Redis answers in time."""
        seconds = await self._asked(hits)
        return await self._own.seconds_to_wait(hits) if seconds is None else seconds

    async def _asked(self, hits: Sequence[Hit]) -> int | None:
        """What Redis says, or None."""
        finds_out = self._is_away
        if finds_out:
            now = self._now()
            if now < self._asks_again_at:
                return None
            self._asks_again_at = now + PAUSE  # the others do not wait for what this login finds out
        try:
            # The wait for a connection too: behind a slow Redis, the last of many would wait for all before it.
            async with asyncio.timeout(self._patience), self._connections:
                if self._is_away and not finds_out:  # found out meanwhile
                    return None
                if finds_out:
                    await self._connect_anew()
                seconds = await self._counter.seconds_to_wait(hits)
        except Exception as exc:
            self._fail(exc)
            return None
        if finds_out:
            self._is_away = False
            log.info("redis_answers_again")
        return seconds

    async def aclose(self) -> None:
        await self._closing.aclose()

    def _connect(self) -> tuple[_Counter, AsyncExitStack]:
        closing = AsyncExitStack()
        storage = redis_storage(self._url, what=self._what, patience=self._patience, closing=closing)
        return _Counter(storage, time.time), closing

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
        consequence = f"until it answers, each process counts for itself: {self._what}"
        log.warning("redis_failed", reason=reason, consequence=consequence)
