"""Resolves the names of webhooks' hosts in threads."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Final

PATIENCE: Final = 5.0
"""Seconds that a caller waits for a name."""
AT_ONCE: Final = 32
"""How many names are resolved at once. Further ones wait until the system has found or given up another."""

LookUp = Callable[[str], Sequence[str]]
"""Gives the addresses of a name. It may block its thread. Raises: OSError, UnicodeError."""


def addresses_of(host: str) -> Sequence[str]:
    """The addresses of a name, or of any spelling of an address. Raises: OSError, UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class Names:
    """Resolves names, each in a thread of its own.

    uvloop's own resolver looks up only two names at once for the whole process. Two webhooks whose name servers do not
    answer would hold up every webhook, and calls to WeChat. Here, such a name holds one thread until the system gives
    up, however many callers ask for the name. No thread holds up the end of the process.

    Args:
        look_up: Asks the system.
        patience: Seconds that a caller waits for a name.
    """

    def __init__(self, look_up: LookUp = addresses_of, *, patience: float = PATIENCE) -> None:
        self._look_up = look_up
        self._patience = patience
        self._places = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """The addresses of a name or an address. Raises: OSError, TimeoutError being one; UnicodeError."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._found(host), name=f"name {host}")
            lookup.add_done_callback(lambda done: self._forget(host, done))
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(lookup)

    async def _found(self, host: str) -> Sequence[str]:
        async with self._places:
            found: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
            Thread(target=self._ask, args=(host, found), name=f"name {host}", daemon=True).start()
            return await found

    def _ask(self, host: str, found: asyncio.Future[Sequence[str]]) -> None:
        addresses: Sequence[str] = ()
        failure: Exception | None = None
        try:
            addresses = self._look_up(host)
        except Exception as exc:
            failure = exc

        def tell() -> None:
            if found.done():  # cancelled: the service has ended
                return
            if failure is None:
                found.set_result(addresses)
            else:
                found.set_exception(failure)

        with suppress(RuntimeError):  # the loop has ended
            found.get_loop().call_soon_threadsafe(tell)

    def _forget(self, host: str, done: asyncio.Task[Sequence[str]]) -> None:
        del self._under_way[host]
        if not done.cancelled():
            done.exception()  # asyncio complains of an exception that nobody has retrieved
