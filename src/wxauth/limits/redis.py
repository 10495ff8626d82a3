"""The counts of actions in Redis, which is one server, a cluster, or a server that Sentinels name."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import unquote

from wxauth.core.logs import redact
from wxauth.settings.addresses import addresses_of
from wxauth.settings.urls import split_hosts

_MAX_REASON_LENGTH: Final = 300
# A script runs as one operation, so even if the process ends, no key exists without an expiry.
_COUNT: Final = """
local number = redis.call('INCR', KEYS[1])
if number == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return number
"""


class RedisCounts:
    """The counts of one kind of action in Redis. A connection is opened when it is first needed.

    Args:
        what: One word for the kind of action, which is part of the keys.
        patience: The seconds that the caller allows for counting an action, including the wait for a connection. The
            caller enforces it. If there are several hosts, or several addresses of a host, each gets a share of this
            time, so that an address that does not respond leaves time for the others. For Sentinels and a cluster, the
            operation gets a share, too.
    """

    def __init__(self, url: str, *, what: str, patience: float) -> None:
        self._prefix = f"wxauth:{what}:fixed-window:"
        self._closing = AsyncExitStack()
        self._url, self._patience = url, patience
        self._connecting = asyncio.Lock()
        self._client: Any = None

    async def add(self, name: str, *, seconds: int) -> int:
        """Count an action in the window of this name, which begins with its first action. Return the new count."""
        client = await self._connected()
        return int(await client.eval(_COUNT, 1, self._prefix + name, seconds))

    async def seconds_left(self, name: str) -> int:
        """Return the number of seconds until the window of this name ends, which is at least one."""
        client = await self._connected()
        return max(1, int(await client.ttl(self._prefix + name)))

    async def aclose(self) -> None:
        await self._closing.aclose()

    async def _connected(self) -> Any:
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await _connect(self._url, self._patience, self._closing)
        return self._client


async def _connect(url: str, patience: float, closing: AsyncExitStack) -> Any:
    if "+" not in url.partition("://")[0]:  # "redis+sentinel" and "redis+cluster" name several hosts
        return await _connect_to_server(url, patience, closing)
    parts, hosts = split_hosts(url)
    addresses: list[tuple[str, int]] = []
    for host in hosts:
        name, _, port = host.rpartition(":")
        # A host that is an address itself, or a name that does not resolve, stands for itself.
        host_addresses = await addresses_of(name, seconds=patience / len(hosts)) or [name.strip("[]")]
        addresses += [(address, int(port)) for address in host_addresses]
    # The connections to these addresses, and the operation itself, share the time.
    options: dict[str, Any] = {"socket_timeout": patience / (len(addresses) + 1)}
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    if parts.scheme == "redis+sentinel":
        return _connect_to_primary(parts.path.strip("/"), addresses, options, closing)
    return _connect_to_cluster(addresses, options, closing)


async def _connect_to_server(url: str, patience: float, closing: AsyncExitStack) -> Any:
    # All functions import redis-py only when they use it, because the import takes 0.1 s, and few processes need it.
    from redis.asyncio import ConnectionPool, Redis

    pool = ConnectionPool.from_url(url)
    addresses = await addresses_of(pool.connection_kwargs.get("host", ""), seconds=patience)
    if len(addresses) > 1:
        pool.connection_class = _connection_trying(addresses, pool.connection_class, patience / len(addresses))
    client = Redis.from_pool(pool)
    closing.push_async_callback(client.aclose)
    return client


def _connect_to_primary(
    service: str, sentinels: Sequence[tuple[str, int]], options: dict[str, Any], closing: AsyncExitStack
) -> Any:
    from redis.asyncio import Sentinel
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # By default, if a Sentinel does not respond, the client makes four attempts, with pauses, before it tries the next
    # Sentinel.
    sentinel_options = {**options, "retry": Retry(NoBackoff(), 0)}
    sentinel = Sentinel(sentinels, sentinel_kwargs=sentinel_options, **options)  # type: ignore[no-untyped-call]
    primary = sentinel.master_for(service)
    for client in (primary, *sentinel.sentinels):
        closing.push_async_callback(client.aclose)
    return primary


def _connect_to_cluster(addresses: Sequence[tuple[str, int]], options: dict[str, Any], closing: AsyncExitStack) -> Any:
    from redis.asyncio import RedisCluster
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    nodes = [ClusterNode(host, port) for host, port in addresses]
    # After one failure, the client queries the cluster again for the node that has the key.
    cluster = RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 1), **options)

    # After a failure, the client's own aclose leaves connections open.
    async def disconnect() -> None:
        for node in (*cluster.get_nodes(), *nodes):
            await node.disconnect()

    closing.push_async_callback(disconnect)
    closing.push_async_callback(cluster.aclose)
    return cluster


def _connection_trying(addresses: Sequence[str], connection_class: type[Any], seconds: float) -> type[Any]:
    order = list(addresses)

    class TryingConnection(connection_class):  # type: ignore[misc]
        """A connection that tries one address after another, each for at most `seconds`."""

        address = order[0]

        def _connection_arguments(self) -> dict[str, Any]:
            """Override a private method, because redis-py has no public way to change only the address."""
            arguments = {**super()._connection_arguments(), "host": self.address}
            if "ssl" in arguments:
                arguments["server_hostname"] = self.host  # certificates are checked against the host's name
            return arguments

        async def connect(self) -> None:
            failures: list[Exception] = []
            for address in tuple(order):
                self.address = address
                try:
                    async with asyncio.timeout(seconds):
                        await super().connect()
                except Exception as exc:
                    failures.append(exc)
                    await self.disconnect(nowait=True)
                else:
                    # The address that works becomes the first one. The sort keeps the order of the others.
                    order.sort(key=lambda other: other != self.address)
                    return
            raise failures[-1]

    return TryingConnection


def redis_reason(exc: Exception) -> str:
    """Return the message of an error, without secrets, and without the details that redis-py adds to it."""
    message, _colon, _details = str(exc).partition(" : ")
    return redact(message)[:_MAX_REASON_LENGTH]
