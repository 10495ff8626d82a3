"""The fixtures for tests of login rate limits, which use the test's clock."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.fakes import Clock
from tests.world import LogLines
from wxauth.errors import RateLimited
from wxauth.limits.rate_limits import REDIS_TIMEOUT_SECONDS, RateLimiter


@dataclass(frozen=True)
class Limiters:
    """Builds rate limiters: `limiters("5/hour", redis_url)`."""

    clock: Clock
    log_lines: LogLines
    made: list[RateLimiter] = field(default_factory=list)

    def __call__(
        self, rate: str, redis_url: str | None = None, *, patience: float = REDIS_TIMEOUT_SECONDS
    ) -> RateLimiter:
        self.made.append(RateLimiter(rate, what="login", redis_url=redis_url, clock=self.clock, patience=patience))
        return self.made[-1]

    @property
    def events(self) -> list[str]:
        """The log events of the limiters, except refused logins."""
        events = [line["event"] for line in self.log_lines()]
        return [event for event in events if event != "rate_limited"]

    async def aclose(self) -> None:
        for limiter in self.made:
            await limiter.aclose()


@pytest.fixture
async def limiters(clock: Clock, log_lines: LogLines) -> AsyncIterator[Limiters]:
    limiters = Limiters(clock, log_lines)
    yield limiters
    await limiters.aclose()


async def seconds_refused(limiter: RateLimiter, ip: str = "192.0.2.1") -> int:
    """Return the number of seconds for which the limiter refuses a login, or 0 if it admits the login."""
    try:
        await limiter.admit_address(ip)
    except RateLimited as refusal:
        return refusal.retry_after or -1
    return 0
