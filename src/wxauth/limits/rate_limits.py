"""Rate limits, for example for addresses, clients and apps, counted in this process, or in Redis for all processes."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_network
from math import ceil
from typing import Final, NamedTuple

from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.errors import RateLimited
from wxauth.limits.redis import RedisCounts, redis_reason
from wxauth.settings.addresses import TRUNCATED, plain_address

REDIS_TIMEOUT_SECONDS: Final = 0.2  # each login waits for Redis
_LATE_SECONDS: Final = 0.05  # by which this process may be late and still blame Redis
REDIS_RETRY_SECONDS: Final = 5.0  # so that few logins wait for a Redis that does not respond
_MAX_COUNTERS: Final = 100_000  # limits the memory that an attacker with many addresses can fill

_MAX_CONNECTIONS: Final = 16  # to Redis
_SUBSCRIBER_BITS: Final = 64  # a /64 is one subscriber's network
_WIDE_NETWORK_BITS: Final = 48  # a /48 contains 65,536 networks of subscribers
_WINDOW_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

log = get_logger()


class Limit(NamedTuple):
    at_most: int
    seconds: int

    @classmethod
    def of(cls, rate: str, factor: int = 1) -> "Limit":
        """Parse a text such as `600/minute`, and multiply the number of actions by a factor."""
        number, _, window = rate.partition("/")
        return cls(int(number) * factor, _WINDOW_SECONDS[window])


LimitAndName = tuple[Limit, str]  # the name is an address, a network, or the `name` of `admit`


class RateLimiter:
    """A limiter that counts actions in fixed windows. A window begins with its first action.

    Without Redis, and while Redis is unavailable, slow or misconfigured, each process counts separately.

    Args:
        rate: For example `600/minute`. If empty, there is no limit.
        what: One word for the kind of action, which is part of the keys in Redis.
        exempt: The networks whose addresses are not counted.
        patience: The seconds for counting an action in Redis, and also for the wait for a connection before.
        wide_factor: The limit of an IPv6 /48, as a multiple of the limit of one /64.
    """

    def __init__(
        self,
        rate: str,
        *,
        what: str,
        clock: Clock,
        redis_url: str | None = None,
        exempt: Sequence[str] = (),
        patience: float = REDIS_TIMEOUT_SECONDS,
        wide_factor: int = 10,
    ) -> None:
        self._what = what
        self._exempt = [ip_network(network) for network in exempt]
        # The first limit is that of an address or a name, and the second that of a /48.
        self._limits = (Limit.of(rate), Limit.of(rate, wide_factor)) if rate else ()
        self._clock = clock
        self._windows = Windows()
        self._redis = _Redis(redis_url, clock, patience, what) if rate and redis_url is not None else None

    async def admit(self, name: str) -> None:
        """Count an action of a client, an app or a browser's login; "" is for a limit on all together."""
        await self._admit([name])

    async def admit_address(self, ip: str | None) -> None:
        """Count an action from an address, unless the address is None or exempt."""
        if not self._limits or ip is None:
            return
        if not (self._exempt and any(plain_address(ip) in network for network in self._exempt)):
            await self._admit(counted_as(ip), ip)

    async def aclose(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()

    async def _admit(self, names: Sequence[str], ip: str | None = None) -> None:
        # Only an IPv6 address has a second name, for the second limit.
        limits_and_names = list(zip(self._limits, names, strict=False))
        seconds = None if self._redis is None else await self._redis.count(limits_and_names)
        if seconds is None:
            now = self._clock().timestamp()
            for limit, name in limits_and_names:
                seconds = self._windows.count(limit, name, now=now)
                if seconds:
                    break  # a refused action doesn't count towards the next limit
        if seconds:
            if ip is not None:
                log.info("rate_limited", what=self._what, network=TRUNCATED.network_of(ip))
            raise RateLimited(f"rate limit exceeded: {self._what}", retry_after=seconds)


@lru_cache(maxsize=4096)
def counted_as(ip: str) -> Sequence[str]:
    """Return the names under which an action is counted: the IPv4 address, or the IPv6 address's /64 and /48."""
    address = plain_address(ip)
    if isinstance(address, IPv4Address):
        return (str(address),)
    return tuple(str(IPv6Network((address, bits), strict=False)) for bits in (_SUBSCRIBER_BITS, _WIDE_NETWORK_BITS))


class Windows:
    """The counts of one limiter in this process.

    All limits must have the same `seconds`, because the windows must end in the order in which they began.
    """

    def __init__(self, *, max_counters: int = _MAX_COUNTERS) -> None:
        # The values are the number of actions and the window's end in epoch seconds.
        self._windows = OrderedDict[str, tuple[int, float]]()
        self._max_counters = max_counters

    def __len__(self) -> int:
        return len(self._windows)

    def count(self, limit: Limit, name: str, *, now: float) -> int:
        """Count an action. If it exceeds the limit, return the seconds until the window ends; otherwise 0."""
        windows = self._windows
        self._drop_ended(now, limit.seconds)
        number, end = windows.get(name, (0, now + limit.seconds))
        windows[name] = number + 1, end
        return 0 if number < limit.at_most else max(1, ceil(end - now))

    def _drop_ended(self, now: float, seconds: int) -> None:
        """Drop the windows that have ended. If there are still too many, also drop those that end first."""
        windows = self._windows
        if windows:
            _number, latest_end = next(reversed(windows.values()))
            # If a window ends so late, the clock was set back by more than the length of a window.
            if latest_end > now + 2 * seconds:
                windows.clear()
        while windows:
            name, (_, end) = next(iter(windows.items()))
            if end > now and len(windows) < self._max_counters:  # strictly fewer, because the caller may add one
                break
            del windows[name]


class _Redis:
    def __init__(self, url: str, clock: Clock, patience: float, what: str) -> None:
        self._url = url
        self._what = what
        self._clock = clock
        self._patience = patience
        self._counts = self._new_counts()
        # The semaphore serves waiting requests in order. redis-py's own pool does not.
        self._connections = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._is_down = False
        self._retry_at = 0.0  # epoch seconds

    async def count(self, limits_and_names: Sequence[LimitAndName]) -> int | None:
        """Count an action towards each limit, up to the first limit that the action exceeds.

        Return the seconds until the window of the exceeded limit ends, 0 if no limit is exceeded, or None if Redis has
        not counted the action.
        """
        loop = asyncio.get_running_loop()
        # During an outage, one request after each pause probes Redis.
        is_probe = self._is_down
        if is_probe:
            now = self._clock().timestamp()
            if now < self._retry_at:
                return None
            self._retry_at = now + REDIS_RETRY_SECONDS  # until then, other requests do not try Redis
        try:
            # The wait for a connection is limited, too. Otherwise, if Redis is slow, the last of many requests would
            # wait for all others. It is no failure of Redis.
            async with asyncio.timeout(self._patience):
                await self._connections.acquire()
        except TimeoutError:
            return None
        until = loop.time() + self._patience
        try:
            if self._is_down and not is_probe:  # another request has failed in the meantime
                return None
            async with asyncio.timeout_at(until):
                # A new client is created, because the client of a cluster keeps each failed connection, and stops
                # working after a thousand failures.
                if is_probe:
                    await self.aclose()
                    self._counts = self._new_counts()
                seconds = await self._count_in_redis(limits_and_names)
        except Exception as exc:
            if loop.time() - until < _LATE_SECONDS:  # otherwise, the response may have arrived in time
                self._fail(exc)
            return None
        finally:
            self._connections.release()
        if is_probe:
            self._is_down = False
            log.info("redis_answers_again")
        return seconds

    async def aclose(self) -> None:
        await self._counts.aclose()

    async def _count_in_redis(self, limits_and_names: Sequence[LimitAndName]) -> int:
        for limit, name in limits_and_names:
            # The key contains the limit, so that a changed setting begins a new window.
            key = f"{name}/{limit.at_most}/{limit.seconds}"
            if await self._counts.add(key, seconds=limit.seconds) > limit.at_most:
                return await self._counts.seconds_left(key)
        return 0

    def _new_counts(self) -> RedisCounts:
        return RedisCounts(self._url, what=self._what, patience=self._patience)

    def _fail(self, exc: Exception) -> None:
        if self._is_down:
            return
        self._is_down = True
        self._retry_at = self._clock().timestamp() + REDIS_RETRY_SECONDS
        reason = f"{type(exc).__name__}: {redis_reason(exc)}"
        consequence = f"until it answers, each process counts for itself: {self._what}"
        log.warning("redis_failed", reason=reason, consequence=consequence)
