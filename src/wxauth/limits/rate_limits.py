"""Rate limits, for example for addresses, clients and apps, counted in this process, or in Redis for all processes."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_network
from math import ceil
from typing import Final, NamedTuple

from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.errors import RateLimited
from wxauth.limits.redis import RedisCounts, redis_reason
from wxauth.settings.addresses import TRUNCATED, plain_address

REDIS_TIMEOUT_SECONDS: Final = 0.2
"""The default time limit, in seconds, for counting an action in Redis."""
REDIS_RETRY_SECONDS: Final = 5.0
"""The time, in seconds, for which a limiter does not use Redis after a failure."""
MAX_COUNTERS: Final = 100_000
"""The largest number of counters of a limiter in one process.

If there are more, the counter whose window ends first is dropped.
"""

_CONNECTIONS: Final = 16
"""The largest number of connections to Redis that a limiter uses at the same time."""
_SUBSCRIBER_BITS: Final = 64
"""The prefix length of the IPv6 network of one subscriber."""
_WIDE_NETWORK_BITS: Final = 48
"""The prefix length of the larger IPv6 network, to which the second limit applies."""

_WINDOW_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""The length, in seconds, of each window that the settings can name."""

Now = Callable[[], float]
"""A function that returns the time in epoch seconds."""

log = get_logger()


class Limit(NamedTuple):
    """A limit, which allows up to `at_most` actions in a window of `seconds` seconds."""

    at_most: int
    seconds: int

    @classmethod
    def of(cls, rate: str, factor: int = 1) -> "Limit":
        """Parse a text such as `600/minute`, and multiply the number of actions by a factor."""
        number, _, window = rate.partition("/")
        return cls(int(number) * factor, _WINDOW_SECONDS[window])


LimitAndName = tuple[Limit, str]
"""A limit, and the name under which an action is counted: an address, a network, or the `name` of `admit`."""


class RateLimiter:
    """A limiter that counts actions in fixed windows. A window begins with its first action.

    Without Redis, and while Redis is unavailable, slow or misconfigured, each process counts separately.

    Args:
        rate: The limit, for example `600/minute`. If empty, there is no limit.
        what: One word for the kind of action, which is part of the keys in Redis.
        clock: The clock for the windows of this process, and for the pause after a failure of Redis.
        redis_url: The URL of Redis, or None.
        exempt: The networks whose addresses are not counted.
        patience: The time limit, in seconds, for counting an action in Redis, including the wait for a connection.
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
        self._limits = (Limit.of(rate), Limit.of(rate, wide_factor)) if rate else ()
        """The limit of an address or of a `name`, and the limit of a /48. Empty if there is no limit."""

        def now() -> float:
            return clock().timestamp()

        self._windows = Windows(now)
        self._redis = _Redis(redis_url, now, patience, what) if rate and redis_url is not None else None

    async def admit(self, name: str) -> None:
        """Count an action under this name: the name of a client, the id of an app or of a browser's login, or "".

        The empty name is for a limit on all actions together.

        Raises: RateLimited, if the action exceeds the limit.
        """
        await self._admit([name])

    async def admit_address(self, ip: str | None) -> None:
        """Count an action from an address, unless the address is None or exempt.

        Raises: RateLimited, if the action exceeds the limit of the address or of its network.
        """
        if not self._limits or ip is None:
            return
        if not any(plain_address(ip) in network for network in self._exempt):
            await self._admit(counted_as(ip), ip)

    async def aclose(self) -> None:
        """Close the connections to Redis, if there are any."""
        if self._redis is not None:
            await self._redis.aclose()

    async def _admit(self, names: Sequence[str], ip: str | None = None) -> None:
        """Count an action under these names. If the action is refused, and `ip` is not None, log the network of `ip`.

        Raises: RateLimited, if the action exceeds a limit.
        """
        # Only an IPv6 address has a second name, for the second limit.
        seconds = await self._count(list(zip(self._limits, names, strict=False)))
        if seconds > 0:
            if ip is not None:
                log.info("rate_limited", what=self._what, network=TRUNCATED.network_of(ip))
            raise RateLimited(f"rate limit exceeded: {self._what}", retry_after=seconds)

    async def _count(self, limits_and_names: Sequence[LimitAndName]) -> int:
        """Count an action towards each limit, up to the first limit that it exceeds.

        Return the number of seconds until the window of the exceeded limit ends, or 0 if no limit is exceeded. If Redis
        is not configured or fails, this process counts the action itself.
        """
        if self._redis is not None:
            seconds = await self._redis.count(limits_and_names)
            if seconds is not None:
                return seconds
        for limit, name in limits_and_names:
            seconds = self._windows.count(limit, name)
            if seconds > 0:
                return seconds  # a refused action doesn't count towards the next limit
        return 0


@lru_cache(maxsize=4096)
def counted_as(ip: str) -> Sequence[str]:
    """Return the names under which an action is counted: the IPv4 address, or the /64 and the /48 of the IPv6 address.

    A /64 is one subscriber's network. A /48 contains 65,536 such networks.
    """
    address = plain_address(ip)
    if isinstance(address, IPv4Address):
        return (str(address),)
    return tuple(str(IPv6Network((address, bits), strict=False)) for bits in (_SUBSCRIBER_BITS, _WIDE_NETWORK_BITS))


class Windows:
    """The counts of one limiter in this process.

    All limits must have the same `seconds`, because the windows must end in the order in which they began.
    """

    def __init__(self, now: Now, *, max_counters: int = MAX_COUNTERS) -> None:
        self._windows = OrderedDict[str, tuple[int, float]]()
        """The number of actions in each window, and the time at which the window ends, in epoch seconds."""
        self._now = now
        self._max_counters = max_counters

    def __len__(self) -> int:
        return len(self._windows)

    def count(self, limit: Limit, name: str) -> int:
        """Count an action under this name.

        If the action exceeds the limit, return the number of seconds until the window ends; otherwise 0.
        """
        now, windows = self._now(), self._windows
        self._drop_ended(now, limit.seconds)
        number, end = windows.get(name, (0, now + limit.seconds))
        windows[name] = number + 1, end
        return 0 if number < limit.at_most else max(1, ceil(end - now))

    def _drop_ended(self, now: float, seconds: int) -> None:
        """Drop the windows that have ended. If there are still too many, also drop the windows that end first.

        `seconds` is the length of a window.
        """
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
    """The counts in Redis, which all processes share, and the pause in their use after a failure."""

    def __init__(self, url: str, now: Now, patience: float, what: str) -> None:
        self._url = url
        self._what = what
        self._now = now
        self._patience = patience
        self._counts = self._new_counts()
        # The semaphore serves waiting requests in order. redis-py's own pool does not.
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._is_down = False
        """Whether Redis has failed, and no request has succeeded since then."""
        self._retry_at = 0.0
        """The end of the pause in which this limiter does not use Redis, in epoch seconds."""

    async def count(self, limits_and_names: Sequence[LimitAndName]) -> int | None:
        """Count an action towards each limit, up to the first limit that the action exceeds.

        Return the number of seconds until the window of the exceeded limit ends, or 0 if no limit is exceeded. Return
        None if Redis fails, or has recently failed.
        """
        # During an outage, one request after each pause probes Redis.
        is_probe = self._is_down
        if is_probe:
            now = self._now()
            if now < self._retry_at:
                return None
            self._retry_at = now + REDIS_RETRY_SECONDS  # until then, other requests do not try Redis
        try:
            # The time limit includes the wait for a connection. Otherwise, if Redis is slow, the last of many requests
            # would wait for all others.
            async with asyncio.timeout(self._patience), self._connections:
                if self._is_down and not is_probe:  # another request has failed in the meantime
                    return None
                # A new client is created, because the client of a cluster keeps each failed connection, and stops
                # working after a thousand failures.
                if is_probe:
                    await self.aclose()
                    self._counts = self._new_counts()
                seconds = await self._count_in_redis(limits_and_names)
        except Exception as exc:
            self._fail(exc)
            return None
        if is_probe:
            self._is_down = False
            log.info("redis_answers_again")
        return seconds

    async def aclose(self) -> None:
        await self._counts.aclose()

    async def _count_in_redis(self, limits_and_names: Sequence[LimitAndName]) -> int:
        """Count an action as `count` does, but even during the pause. Raises: the errors of redis-py."""
        for limit, name in limits_and_names:
            # The key contains the limit, so that a changed setting begins a new window.
            key = f"{name}/{limit.at_most}/{limit.seconds}"
            if await self._counts.add(key, seconds=limit.seconds) > limit.at_most:
                return await self._counts.seconds_left(key)
        return 0

    def _new_counts(self) -> RedisCounts:
        return RedisCounts(self._url, what=self._what, patience=self._patience)

    def _fail(self, exc: Exception) -> None:
        """Begin the pause in which this limiter does not use Redis, and log the reason once for each outage."""
        if self._is_down:
            return
        self._is_down = True
        self._retry_at = self._now() + REDIS_RETRY_SECONDS
        reason = f"{type(exc).__name__}: {redis_reason(exc)}"
        consequence = f"until it answers, each process counts for itself: {self._what}"
        log.warning("redis_failed", reason=reason, consequence=consequence)
