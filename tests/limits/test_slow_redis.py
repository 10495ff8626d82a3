"""Logins with a Redis that is too slow for all of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes import Clock
from tests.listening import Listening
from tests.world import LogLines
from wxauth.server.limits.rate_limits import REDIS_TIMEOUT_SECONDS, RateLimiter

SLOW = 0.75 * REDIS_TIMEOUT_SECONDS
"""Seconds that Redis needs for each command, which alone is in time."""
LOGINS = 1600
"""In a queue for the connections, these logins would wait dozens of times `REDIS_TIMEOUT_SECONDS`."""


@pytest.fixture
async def slow_redis() -> AsyncIterator[str]:
    """A Redis that answers every command with 1, after a pause."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # until the limiter hangs up on what it no longer waits for, in the middle of a command too
            length = int((await reader.readuntil(b"\r\n"))[1:])
            parts = [await reader.readuntil(b"\r\n") for _ in range(2 * length)]
            if parts[1].upper().startswith((b"EVAL", b"SCRIPT")):
                await asyncio.sleep(SLOW)
                writer.write(b":1\r\n")
            else:
                writer.write(b"+OK\r\n")

    async with Listening(answer) as server:
        yield f"redis://127.0.0.1:{server.port}"


@pytest.mark.slow
async def test_no_login_waits_longer_than_its_time_for_a_slow_redis(
    slow_redis: str, clock: Clock, log_lines: LogLines
) -> None:
    limiter = RateLimiter("1000000/minute", what="login", redis_url=slow_redis, clock=clock)
    waited: list[float] = []
    loop = asyncio.get_running_loop()

    async def log_in() -> None:
        started = loop.time()
        await limiter.admit_address("192.0.2.1")
        waited.append(loop.time() - started)

    await asyncio.gather(*(log_in() for _ in range(LOGINS)))
    await limiter.aclose()
    assert max(waited) < 30 * REDIS_TIMEOUT_SECONDS  # in a queue: 75 times
    assert [line["event"] for line in log_lines()] == ["redis_failed"]
