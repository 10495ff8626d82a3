"""Resolves the host names of webhooks in threads."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PATIENCE: Final = 5.0
"""Seconds that a caller waits for a name."""
AT_ONCE: Final = 32
"""How many names are resolved at once. Others wait until the system has resolved or given up one of these."""

LookUp = Callable[[str], Sequence[str]]
"""Returns the addresses of a name. It may block its thread. Raises: OSError, UnicodeError."""


def addresses_of(host: str) -> Sequence[str]:
    """The addresses of a name, or of an address in any spelling. Raises: OSError, UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class NameResolver:
    """Resolves names in threads of its own.

    uvloop's own resolver looks up only two names at once in the whole process, so two webhooks with dead name servers
    would delay every webhook, and calls to WeChat. Here, such a name occupies one thread until the system gives up, no
    matter how many callers ask for it.

    Args:
        look_up: Asks the system.
        patience: Seconds that a caller waits for a name.
    """

    def __init__(self, look_up: LookUp = addresses_of, *, patience: float = PATIENCE) -> None:
        self._look_up = look_up
        self._patience = patience
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="name")
        self._under_way: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """The addresses of a name or an address. Raises: OSError, including TimeoutError; UnicodeError."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host)
            lookup.add_done_callback(lambda done: self._forget(host, done))
            self._under_way[host] = lookup
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(lookup)

    def _forget(self, host: str, done: asyncio.Future[Sequence[str]]) -> None:
        del self._under_way[host]
        if not done.cancelled():
            done.exception()  # else asyncio logs an exception that nobody has retrieved
