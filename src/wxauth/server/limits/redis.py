"""Counts in Redis: one server, a cluster, or one that Sentinels name."""

from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import unquote

from wxauth.server.core.logs import redact
from wxauth.server.core.urls import split_hosts

_LONGEST_REASON: Final = 300
_COUNT: Final = """
local number = redis.call('INCR', KEYS[1])
if number == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return number
"""


class RedisCounts:
    """Connects when first used. `what` is one word for the kind of action, which is part of the keys.

    `patience` is the time limit of one use in seconds. Each of several hosts gets a share of it, so that a silent one
    leaves time for the others.
    """

    def __init__(self, url: str, *, what: str, patience: float) -> None:
        self._prefix = f"wxauth:{what}:fixed-window:"
        self._closing = AsyncExitStack()
        self._client = _connect(url, patience, self._closing)

    async def add(self, name: str, *, seconds: int) -> int:
        """Count an action in the window of this name, which begins with its first. Returns how many it has."""
        return int(await self._client.eval(_COUNT, 1, self._prefix + name, seconds))

    async def seconds_left(self, name: str) -> int:
        """Until the window of this name ends; at least one."""
        return max(1, int(await self._client.ttl(self._prefix + name)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._closing.aclose()


def _connect(url: str, patience: float, closing: AsyncExitStack) -> Any:
    # Here, because the import takes 0.1 s, which few need.
    from redis.asyncio import Redis, RedisCluster, Sentinel
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    if "+" not in url.partition("://")[0]:
        client = Redis.from_url(url)
        closing.push_async_callback(client.aclose)
        return client
    parts, hosts = split_hosts(url)
    places = [(name.strip("[]"), int(port)) for name, _, port in (host.rpartition(":") for host in hosts)]
    login = {name: unquote(text) for name in ("username", "password") if (text := getattr(parts, name))}
    options: dict[str, Any] = {**login, "socket_timeout": patience / (len(hosts) + 1)}
    if parts.scheme == "redis+sentinel":
        # By default, a dead Sentinel is tried four times, with pauses, before the next one is tried.
        asking = {**options, "retry": Retry(NoBackoff(), 0)}
        sentinel = Sentinel(places, sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
        primary = sentinel.master_for(parts.path.strip("/"))
        for each in (primary, *sentinel.sentinels):
            closing.push_async_callback(each.aclose)
        return primary
    nodes = [ClusterNode(host, port) for host, port in places]
    # 1: asks again which node has the key.
    cluster = RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 1), **options)

    async def disconnect() -> None:  # after a failure, the client's own aclose leaves connections open
        for node in (*cluster.get_nodes(), *nodes):
            await node.disconnect()

    closing.push_async_callback(disconnect)
    closing.push_async_callback(cluster.aclose)
    return cluster


def redis_reason(exc: Exception) -> str:
    """The error message for the operator, without secrets, and without redis-py's list of its arguments."""
    return redact(str(exc).partition(" : ")[0])[:_LONGEST_REASON]
