"""Redis as a storage of `limits`: one server, a cluster, or one that Sentinels name."""

from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit

from limits.aio.storage import RedisClusterStorage, RedisStorage

from wxauth.server.core.logs import redact

# Contains the strategy, because another strategy's keys have other types, and Redis would refuse our commands for them.
_KEY_PREFIX: Final = "wxauth:{what}:fixed-window"
_SENTINELS_OWN: Final = "sentinel_"
"""The prefix of options that are only for the Sentinels, such as `sentinel_password`."""
_SENTINELS_TOO: Final = ("ssl", "socket_")
_LONGEST_REASON: Final = 300
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


def redis_storage(url: str, *, what: str, patience: float, closing: AsyncExitStack) -> RedisStorage:
    """A storage that connects when first used. `closing` gets callbacks that close the connections.

    `url` is `REDIS_URL`, as the settings have validated it. `what` is the kind of action that is counted: one word, for
    the keys. `patience` is the time limit of one use in seconds. Each of several hosts gets a share of it, so that a
    silent one leaves time for the others.
    """
    from redis.asyncio import ConnectionPool  # here, because the import takes 0.1 s, which few need

    scheme, _, rest = url.partition("://")
    transport, _, kind = scheme.partition("+")
    if kind == "cluster":
        return _cluster(transport, rest, what, patience, closing)
    pool = _sentinel_pool(transport, rest, patience, closing) if kind else ConnectionPool.from_url(url)
    closing.push_async_callback(pool.aclose)
    return RedisStorage(
        "async+redis://",
        implementation="redispy",
        key_prefix=_KEY_PREFIX.format(what=what),
        connection_pool=pool,  # type: ignore[arg-type]  # limits documents it, but does not declare it
    )


def redis_reason(exc: Exception) -> str:
    """The error message for the operator, without secrets, and without redis-py's list of its arguments."""
    return redact(str(exc).partition(" : ")[0])[:_LONGEST_REASON]


def _sentinel_pool(transport: str, rest: str, patience: float, closing: AsyncExitStack) -> Any:
    """Connections to the primary that the Sentinels name."""
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
    from redis.backoff import NoBackoff

    hosts, service, options = _parts(transport, rest, "sentinel", patience)
    own = {name: options.pop(name) for name in list(options) if name.startswith(_SENTINELS_OWN)}
    shared = {name: value for name, value in options.items() if name.startswith(_SENTINELS_TOO)}
    asked = shared | {name.removeprefix(_SENTINELS_OWN): value for name, value in own.items()}
    # By default, a dead Sentinel is tried four times, with pauses, before the next one is tried.
    sentinel = Sentinel(hosts, sentinel_kwargs=asked | {"retry": Retry(NoBackoff(), 0)})  # type: ignore[no-untyped-call]
    for client in sentinel.sentinels:
        closing.push_async_callback(client.aclose)
    return SentinelConnectionPool(service, sentinel, **options)  # type: ignore[no-untyped-call]


def _cluster(transport: str, rest: str, what: str, patience: float, closing: AsyncExitStack) -> RedisStorage:
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    hosts, _, options = _parts(transport, rest, "cluster", patience)
    storage = RedisClusterStorage(
        "async+redis+cluster://",
        implementation="redispy",
        key_prefix=_KEY_PREFIX.format(what=what),
        startup_nodes=[ClusterNode(host, port) for host, port in hosts],  # type: ignore[arg-type]  # passed to redis-py
        retry=Retry(NoBackoff(), 1),  # type: ignore[arg-type]  # passed on, too. 1: asks again which node has the key
        **options,
    )
    client = storage.bridge.storage  # type: ignore[attr-defined]  # the one for redis-py has it
    for nodes in ("nodes_cache", "startup_nodes"):  # the client's own aclose leaves these open after a failure
        closing.push_async_callback(client.nodes_manager.aclose, nodes)
    closing.push_async_callback(client.aclose)
    return storage


def _parts(transport: str, rest: str, kind: str, patience: float) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """The hosts, the service name (only with Sentinels), and the options of a connection."""
    from redis.asyncio.connection import parse_url

    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    service, _, number = path.partition("/")
    options: dict[str, Any] = {**parse_url(f"redis://{credentials}{at}host/{number}?{query}")}
    del options["host"]
    addresses = [urlsplit(f"//{host}") for host in hosts.split(",")]
    share = patience / (len(addresses) + 1)
    return (
        [(address.hostname or "", address.port or _PORTS[kind]) for address in addresses],
        service,
        {"socket_timeout": share, "ssl": transport == "rediss"} | options,
    )
