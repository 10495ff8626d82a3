"""The address a request comes from, as the server in front of the app found it."""

from functools import lru_cache
from ipaddress import ip_address

from starlette.types import Scope


def client_ip(scope: Scope) -> str | None:
    """The client's IP address, or None where there is none (a unix socket, a proxy's "unknown")."""
    client = scope.get("client")
    return None if client is None else _plain_ip(client[0])


@lru_cache(maxsize=4096)
def _plain_ip(host: str) -> str | None:
    try:
        return str(ip_address(host.partition("%")[0]))  # Postgres knows no zones
    except ValueError:
        return None
