"""The login rate limit counts by address and time. Its Redis can work, fail, be slow or misbehave."""

import asyncio
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.limits.conftest import Limiters, seconds_refused
from tests.listening import Listening
from tests.loops import let_pass
from tests.processes import free_port, until
from tests.programs import needs
from tests.upstream import FakeRedis
from wxauth.limits.rate_limits import REDIS_RETRY_SECONDS, REDIS_TIMEOUT_SECONDS, Limit, Windows


@pytest.fixture(scope="module")
def redis_server() -> Iterator[str]:
    """The URL of a real Redis server."""
    program = needs("redis-server")
    with tempfile.TemporaryDirectory(prefix="wxauth-redis-") as folder:
        path = Path(folder, "socket")
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            until(path.exists)
            yield f"unix://{path}"
            server.terminate()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


def test_windows_that_have_ended_are_dropped() -> None:
    windows, limit = Windows(), Limit(1, 10)
    for second in range(100):
        windows.count(limit, f"address {second}", now=second)
        windows.count(limit, "always the same", now=second)
    assert len(windows) == 11
    assert windows.count(limit, "address 0", now=99) == 0


def test_no_more_windows_are_kept_than_there_may_be() -> None:
    windows, limit = Windows(max_counters=5), Limit(2, 10)
    assert [windows.count(limit, f"address {number}", now=0) for number in (*range(20), 19, 19)] == [0] * 21 + [10]
    assert len(windows) <= 5


def test_a_clock_that_is_set_back_and_not_just_corrected_begins_the_windows_anew() -> None:
    windows, limit = Windows(), Limit.of("1/second")
    assert [windows.count(limit, "address", now=now) for now in (3600.0, 3599.5, 0.0, 0.0)] == [0, 2, 0, 1]


@pytest.mark.redis
async def test_processes_that_share_a_redis_count_together_and_keys_expire(limiters: Limiters, redis_url: str) -> None:
    replicas = [limiters("100/hour", redis_url, patience=10) for _ in range(2)]
    refusals = await asyncio.gather(*(seconds_refused(replicas[n % 2]) for n in range(300)))
    assert refusals.count(0) == 100
    assert {seconds for seconds in refusals if seconds} <= {3599, 3600}
    assert await seconds_refused(replicas[0], "192.0.2.2") == 0
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        keys = client.keys("wxauth:login:fixed-window:*")
        assert (len(keys), client.dbsize()) == (2, 2)
        assert all(3590 <= client.ttl(key) <= 3600 for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="silence"),
        pytest.param(b"$100\r\nhalf of", id="half an answer"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(b"-WRONGTYPE Operation against a key\r\n", id="an error"),
        pytest.param(b"+OK\r\n", id="no number"),
        pytest.param(None, id="the end"),
    ],
)
async def test_while_redis_fails_each_process_counts_alone(limiters: Limiters, answer: bytes | None) -> None:
    async with FakeRedis(answer) as fake:
        limiter = limiters("20/minute", fake.url)
        async with asyncio.timeout(2 * REDIS_TIMEOUT_SECONDS):
            assert [await seconds_refused(limiter) for _ in range(50)] == [0] * 20 + [60] * 30
        assert fake.commands == 1
        limiters.clock.advance(seconds=REDIS_RETRY_SECONDS)
        assert all(await asyncio.gather(*(seconds_refused(limiter) for _ in range(50))))
        assert fake.commands == 2
        await limiter.aclose()
    assert limiters.events == ["redis_failed"]


@pytest.mark.slow
async def test_of_many_who_wait_for_a_silent_redis_no_more_pass_than_may_and_none_queues(limiters: Limiters) -> None:
    async with FakeRedis() as fake:
        limiter = limiters("20/minute", fake.url)
        # if they queued, they would take 31 times as long as one
        async with asyncio.timeout(5 * REDIS_TIMEOUT_SECONDS):
            refusals = await asyncio.gather(*(seconds_refused(limiter) for _ in range(500)))
        assert refusals.count(0) == 20
        await limiter.aclose()


def answering(before: Callable[[], Awaitable[None]]) -> Listening:
    """Return a Redis that answers each command after this wait."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if greetings := data.count(b"SETINFO"):
                writer.write(b"+OK\r\n" * greetings)
                continue
            await before()
            writer.write(b":1\r\n")

    return Listening(converse)


async def test_redis_is_not_blamed_for_the_wait_for_one_of_our_connections(limiters: Limiters) -> None:
    async with answering(lambda: asyncio.sleep(0.75 * REDIS_TIMEOUT_SECONDS)) as redis:
        limiter = limiters("100/minute", f"redis://127.0.0.1:{redis.port}/0")
        assert set(await asyncio.gather(*(seconds_refused(limiter) for _ in range(50)))) == {0}
        await limiter.aclose()
    assert limiters.events == []


async def test_redis_is_not_blamed_if_this_process_is_late(limiters: Limiters) -> None:
    async def be_late() -> None:
        let_pass(2 * REDIS_TIMEOUT_SECONDS)
        await asyncio.Event().wait()

    async with answering(be_late) as redis:
        limiter = limiters("2/minute", f"redis://127.0.0.1:{redis.port}/0")
        assert [await seconds_refused(limiter) for _ in range(3)] == [0, 0, 60]  # counted in this process
        await limiter.aclose()
    assert limiters.events == []


async def test_the_password_of_an_unreachable_redis_is_not_logged(limiters: Limiters) -> None:
    limiter = limiters("5/minute", f"redis://:hunter2@127.0.0.1:{free_port()}")
    assert [await seconds_refused(limiter) for _ in range(5)] == [0] * 5
    assert limiters.events == ["redis_failed"]
    assert "hunter2" not in str(limiters.log_lines())


async def test_a_redis_that_comes_back_counts_again(limiters: Limiters) -> None:
    async with FakeRedis(b"-LOADING Redis is loading the dataset in memory\r\n") as fake:
        limiter = limiters("2/minute", fake.url)
        assert await seconds_refused(limiter) == 0
        fake.answer = b":3\r\n"
        assert await seconds_refused(limiter) == 0
        limiters.clock.advance(seconds=REDIS_RETRY_SECONDS)
        assert await seconds_refused(limiter) > 0
        assert await seconds_refused(limiter) > 0
        await limiter.aclose()
    assert limiters.events == ["redis_failed", "redis_answers_again"]
