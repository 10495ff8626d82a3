"""Logins can be counted by a Redis primary behind Sentinel, and by a Redis cluster."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import world
from tests.limits.conftest import Limiters, seconds_refused
from tests.processes import free_port, until
from tests.programs import needs
from wxauth.limits.rate_limits import REDIS_RETRY_SECONDS, REDIS_TIMEOUT_SECONDS, RateLimiter
from wxauth.settings.settings import Settings

LOST = (
    # of a connection that redis-py has lost, or of its node
    "ignore:unclosed (transport|Connection|ClusterNode|<Stream):ResourceWarning"
)
pytestmark = [pytest.mark.redis, pytest.mark.no_database, pytest.mark.filterwarnings(LOST)]

PASSWORD = "hunter2"
LONG = 2.0
"""Seconds. A busy machine exceeds `REDIS_TIMEOUT_SECONDS` for some logins, and these logins wouldn't be counted."""


@dataclass(frozen=True)
class Hosts:
    """Starts Redis programs and connects to them."""

    folder: Path
    make_settings: Callable[..., Settings]
    stack: ExitStack
    silent_port: int
    """The port of a server that accepts connections and never responds."""

    def start(self, port: int, *lines: str, sentinel: bool = False) -> subprocess.Popen[bytes]:
        """Start a Redis on this port with these configuration lines, and wait until it accepts commands."""
        folder = self.folder / str(port)
        folder.mkdir()
        configuration = folder / "redis.conf"  # a Sentinel writes into its own configuration file
        configuration.write_text("\n".join(["bind 127.0.0.1", f"port {port}", f"dir {folder}", 'save ""', *lines]))
        command = [needs("redis-server"), str(configuration), *(["--sentinel"] if sentinel else [])]
        server = self.stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        self.stack.callback(server.kill)
        until(lambda: is_up(port))
        return server

    def connect(self, port: int, **options: Any) -> Any:
        return self.stack.enter_context(redis.Redis(port=port, **options))


@pytest.fixture
def hosts(tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Hosts]:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as silent:
        yield Hosts(tmp_path, make_settings, stack, silent.getsockname()[1])


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
    return not await seconds_refused(limiter, ip)


async def until_counting(limiters: Limiters, limiter: RateLimiter) -> None:
    """Wait until this limiter refuses a login. Then it has asked a Redis that has counted enough logins."""

    async def counts() -> bool:
        limiters.clock.advance(seconds=REDIS_RETRY_SECONDS)
        is_refused = not await admits(limiter)
        return is_refused and limiters.events.count("redis_failed") == limiters.events.count("redis_answers_again")

    await world.until(counts)


async def test_logins_are_counted_by_whichever_redis_sentinel_names(hosts: Hosts, limiters: Limiters) -> None:
    sentinel, first, second = (free_port() for _ in range(3))
    primary = hosts.start(first, f"requirepass {PASSWORD}", "repl-diskless-sync-delay 0")
    hosts.start(second, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", f"replicaof 127.0.0.1 {first}")
    replica = hosts.connect(second, password=PASSWORD)
    until(lambda: replica.info("replication")["master_link_status"] == "up")
    hosts.start(
        sentinel,
        f"requirepass {PASSWORD}",
        f"sentinel monitor wxauth 127.0.0.1 {first} 1",
        f"sentinel auth-pass wxauth {PASSWORD}",
        "sentinel down-after-milliseconds wxauth 300",
        "sentinel failover-timeout wxauth 3000",
        sentinel=True,
    )
    sentinels = hosts.connect(sentinel, password=PASSWORD, decode_responses=True)
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{hosts.silent_port},[::1]:{free_port()},127.0.0.1:{sentinel}/wxauth"
    patient, limiter = limiters("2/hour", url, patience=LONG), limiters("2/hour", url)
    assert [await admits(patient) for _ in range(3)] == [True, True, False]
    await until_counting(limiters, limiter)
    before = len(limiters.events)
    until(lambda: sentinels.sentinel_master("wxauth")["num-slaves"] == 1)
    until(replica.dbsize)
    primary.kill()
    assert await admits(limiter, "192.0.2.2")  # no login is refused because Redis is missing
    until(lambda: sentinels.sentinel_master("wxauth")["port"] == second)
    await until_counting(limiters, limiter)  # the new primary has the counts of the previous primary
    await limiters.aclose()
    assert limiters.events[before:] == ["redis_failed", "redis_answers_again"]
    assert PASSWORD not in str(limiters.log_lines())


async def test_a_cluster_counts_as_one_redis_and_holds_nobody_up_while_down(hosts: Hosts, limiters: Limiters) -> None:
    buses = {free_port(): free_port() for _ in range(3)}
    nodes = [
        hosts.start(port, "cluster-enabled yes", f"cluster-port {bus}", "cluster-node-timeout 500")
        for port, bus in buses.items()
    ]
    first, *_ = buses
    for number, node in enumerate(map(hosts.connect, buses)):
        node.execute_command("CLUSTER ADDSLOTSRANGE", number * 16384 // 3, (number + 1) * 16384 // 3 - 1)
        node.execute_command("CLUSTER MEET", "127.0.0.1", first, buses[first])
    for port in buses:
        until(partial(is_whole, port))
    url = f"redis+cluster://127.0.0.1:{hosts.silent_port},[::1]:{free_port()},127.0.0.1:{first}"
    patient = [limiters("5/hour", url, patience=LONG) for _ in range(2)]
    for subscriber in range(20):  # the counters are spread over all nodes
        assert [await admits(patient[n % 2], f"192.0.2.{subscriber}") for n in range(7)] == [True] * 5 + [False] * 2
    limiter = limiters("5/hour", url)
    await until_counting(limiters, limiter)
    before = len(limiters.events)
    os.kill(nodes[2].pid, signal.SIGSTOP)  # the node stops responding, but closes no connection
    async with asyncio.timeout(15 * REDIS_TIMEOUT_SECONDS):  # if they queued, they would take 31 times as long as one
        assert all(await asyncio.gather(*(admits(limiter, f"198.51.{n % 2}.{n // 2}") for n in range(500))))
    os.kill(nodes[2].pid, signal.SIGCONT)
    await until_counting(limiters, limiter)
    await limiters.aclose()
    gc.collect()
    # redis-py can lose a connection if its use is cancelled while it opens. It logs this when it drops the node.
    events = [event for event in limiters.events[before:] if not event.startswith("Unclosed ClusterNode object")]
    assert events == ["redis_failed", "redis_answers_again"]
