"""Redis as a storage of `limits`: one server, a cluster, or one that Sentinels name."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote

from limits.aio.storage import RedisStorage
from limits.storage import storage_from_string

from wxauth.server.core.host_lists import split_hosts
from wxauth.server.core.logs import redact

# Contains the strategy, because another strategy's keys have other types, and Redis would refuse our commands for them.
_KEY_PREFIX: Final = "wxauth:{what}:fixed-window"
_LONGEST_REASON: Final = 300


def redis_storage(url: str, *, what: str, patience: float, closing: AsyncExitStack) -> RedisStorage:
    """A storage that connects when first used. `closing` gets callbacks that close the connections.

    `url` is `REDIS_URL`, as the settings have validated it. `what` is the kind of action that is counted: one word, for
    the keys. `patience` is the time limit of one use in seconds. Each of several hosts gets a share of it, so that a
    silent one leaves time for the others.
    """
    # Here, because the import takes 0.1 s, which few need.
    from redis.asyncio import ConnectionPool, Sentinel
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    make: Callable[..., Any] = partial(
        storage_from_string, implementation="redispy", key_prefix=_KEY_PREFIX.format(what=what)
    )
    if "+" not in url.partition("://")[0]:
        pool = ConnectionPool.from_url(url)
        closing.push_async_callback(pool.aclose)
        return cast(RedisStorage, make("async+redis://", connection_pool=pool))
    parts, hosts = split_hosts(url)
    places = [(name.strip("[]"), int(port)) for name, _, port in (host.rpartition(":") for host in hosts)]
    login = {name: unquote(text) for name in ("username", "password") if (text := getattr(parts, name))}
    options = {**login, "socket_timeout": patience / (len(hosts) + 1)}
    if parts.scheme == "redis+sentinel":
        # By default, a dead Sentinel is tried four times, with pauses, before the next one is tried.
        sentinel = Sentinel(places, sentinel_kwargs={**options, "retry": Retry(NoBackoff(), 0)}, **options)  # type: ignore[no-untyped-call]
        primary = sentinel.master_for(parts.path.strip("/"))
        for client in (primary, *sentinel.sentinels):
            closing.push_async_callback(client.aclose)
        return cast(RedisStorage, make("async+redis://", connection_pool=primary.connection_pool))
    nodes = [ClusterNode(host, port) for host, port in places]
    # 1: asks again which node has the key.
    storage = make("async+redis+cluster://", startup_nodes=nodes, **options, retry=Retry(NoBackoff(), 1))
    cluster = storage.bridge.storage
    for kept in ("nodes_cache", "startup_nodes"):  # the client's own aclose leaves these open after a failure
        closing.push_async_callback(cluster.nodes_manager.aclose, kept)
    closing.push_async_callback(cluster.aclose)
    return cast(RedisStorage, storage)


def redis_reason(exc: Exception) -> str:
    """The error message for the operator, without secrets, and without redis-py's list of its arguments."""
    return redact(str(exc).partition(" : ")[0])[:_LONGEST_REASON]
