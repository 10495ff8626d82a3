"""Logins counted by a Redis primary behind Sentinel, and by a Redis cluster."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import world
from tests.fakes import Clock
from tests.processes import free_port, until
from tests.programs import needs
from wxauth.errors import RateLimited
from wxauth.server.checks.doctor import check_redis
from wxauth.server.checks.result import CheckLevel
from wxauth.server.core.settings import Settings
from wxauth.server.limits.rate_limits import REDIS_RETRY_SECONDS, REDIS_TIMEOUT_SECONDS, RateLimiter

pytestmark = [pytest.mark.redis, pytest.mark.no_database]

Start = Callable[..., subprocess.Popen[bytes]]
PASSWORD = "hunter2"
LONG = 2.0
"""Seconds. A busy machine takes longer than `REDIS_TIMEOUT_SECONDS` for some logins, which then are not counted."""


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Start]:
    """Start one on this port, with these lines of configuration; it takes commands."""
    program = needs("redis-server")
    with ExitStack() as stack:

        def start(port: int, *lines: str, sentinel: bool = False) -> subprocess.Popen[bytes]:
            folder = tmp_path / str(port)
            folder.mkdir()
            configuration = folder / "redis.conf"  # a Sentinel writes to its own
            configuration.write_text("\n".join(["bind 127.0.0.1", f"port {port}", f"dir {folder}", 'save ""', *lines]))
            command = [program, str(configuration), *(["--sentinel"] if sentinel else [])]
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(server.kill)
            until(lambda: is_up(port))
            return server

        yield start


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def is_up(port: int) -> bool:
    try:
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
            client.ping()
    except redis.AuthenticationError:
        return True
    except redis.ConnectionError:
        return False
    return True


def is_whole(port: int) -> bool:
    with redis.Redis(port=port) as node:
        return node.execute_command("CLUSTER INFO")["cluster_state"] == "ok"


async def admits(limiter: RateLimiter, ip: str = "192.0.2.1") -> bool:
    try:
        await limiter.admit_address(ip)
    except RateLimited:
        return False
    return True


async def until_counting(limiter: RateLimiter, clock: Clock, log_lines: world.LogLines) -> None:
    """Wait until this limiter refuses a login, because it has asked a Redis that has counted enough of them."""

    async def counts() -> bool:
        clock.advance(seconds=REDIS_RETRY_SECONDS)
        is_refused = not await admits(limiter)
        events = [line["event"] for line in log_lines()]
        return is_refused and events.count("redis_failed") == events.count("redis_answers_again")

    await world.until(counts)


async def check(settings: Settings) -> CheckLevel:
    (result,) = [result async for result in check_redis(settings)]
    assert PASSWORD not in result.message
    return result.level


async def test_logins_are_counted_by_whichever_redis_sentinel_names(
    start_redis: Start,
    clock: Clock,
    log_lines: world.LogLines,
    make_settings: Callable[..., Settings],
    silent_port: int,
    stack: ExitStack,
) -> None:
    sentinel, first, second = (free_port() for _ in range(3))
    primary = start_redis(first, f"requirepass {PASSWORD}", "repl-diskless-sync-delay 0")
    start_redis(second, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", f"replicaof 127.0.0.1 {first}")
    replica = stack.enter_context(redis.Redis(port=second, password=PASSWORD))
    until(lambda: replica.info("replication")["master_link_status"] == "up")
    start_redis(
        sentinel,
        f"requirepass {PASSWORD}2",
        f"sentinel monitor wxauth 127.0.0.1 {first} 1",
        f"sentinel auth-pass wxauth {PASSWORD}",
        "sentinel down-after-milliseconds wxauth 300",
        "sentinel failover-timeout wxauth 3000",
        sentinel=True,
    )
    sentinels = stack.enter_context(redis.Redis(port=sentinel, password=f"{PASSWORD}2", decode_responses=True))
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{silent_port},127.0.0.1:{sentinel}/wxauth/0?sentinel_password={PASSWORD}2"
    settings = make_settings(redis_url=url)
    patient, limiter = (
        RateLimiter("2/hour", what="login", redis_url=url, clock=clock, patience=each)
        for each in (LONG, REDIS_TIMEOUT_SECONDS)
    )
    assert await check(settings) is CheckLevel.OK
    assert [await admits(patient) for _ in range(3)] == [True, True, False]
    await until_counting(limiter, clock, log_lines)
    before = len(log_lines())
    until(lambda: sentinels.sentinel_master("wxauth")["num-slaves"] == 1)
    until(replica.dbsize)
    primary.kill()
    assert await admits(limiter, "192.0.2.2")  # nobody is refused for want of a Redis
    until(lambda: sentinels.sentinel_master("wxauth")["port"] == second)
    await until_counting(limiter, clock, log_lines)  # the new one knows what the former has counted
    assert await check(settings) is CheckLevel.OK
    for each in (patient, limiter):
        await each.aclose()
    lines = log_lines()
    assert [line["event"] for line in lines[before:] if line["event"] != "rate_limited"] == [
        "redis_failed",
        "redis_answers_again",
    ]
    assert PASSWORD not in str(lines)


@pytest.mark.filterwarnings("ignore:unclosed (transport|Connection):ResourceWarning")  # one that redis-py lost
async def test_a_cluster_counts_as_one_redis_does_and_holds_nobody_up_while_it_is_down(
    start_redis: Start,
    clock: Clock,
    log_lines: world.LogLines,
    make_settings: Callable[..., Settings],
    silent_port: int,
) -> None:
    buses = {free_port(): free_port() for _ in range(3)}
    nodes = [
        start_redis(port, "cluster-enabled yes", f"cluster-port {bus}", "cluster-node-timeout 500")
        for port, bus in buses.items()
    ]
    first, *_ = buses
    for number, port in enumerate(buses):
        with redis.Redis(port=port) as node:
            node.execute_command("CLUSTER ADDSLOTSRANGE", number * 16384 // 3, (number + 1) * 16384 // 3 - 1)
            node.execute_command("CLUSTER MEET", "127.0.0.1", first, buses[first])
    for port in buses:
        until(partial(is_whole, port))
    url = f"redis+cluster://127.0.0.1:{silent_port},127.0.0.1:{first}"
    settings = make_settings(redis_url=url)
    limiters = [RateLimiter("5/hour", what="login", redis_url=url, clock=clock, patience=LONG) for _ in range(2)]
    assert await check(settings) is CheckLevel.OK
    for subscriber in range(20):  # on all nodes
        admitted = [await admits(limiters[n % 2], f"192.0.2.{subscriber}") for n in range(7)]
        assert admitted == [True] * 5 + [False] * 2
    limiter = RateLimiter("5/hour", what="login", redis_url=url, clock=clock)
    await until_counting(limiter, clock, log_lines)
    before = len(log_lines())
    os.kill(nodes[2].pid, signal.SIGSTOP)  # says nothing, and closes no connection
    async with asyncio.timeout(15 * REDIS_TIMEOUT_SECONDS):  # in a queue: 31 times
        assert all(await asyncio.gather(*(admits(limiter, f"198.51.{n % 2}.{n // 2}") for n in range(500))))
    assert await check(settings) is CheckLevel.BAD
    os.kill(nodes[2].pid, signal.SIGCONT)
    await until_counting(limiter, clock, log_lines)
    for each in (*limiters, limiter):
        await each.aclose()
    gc.collect()
    # redis-py loses a connection whose use was cut off while it was being opened, and says so when its node is dropped.
    events = [line["event"] for line in log_lines()[before:]]
    events = [event for event in events if not event.startswith(("Unclosed ClusterNode object", "rate_limited"))]
    assert events == ["redis_failed", "redis_answers_again"]
