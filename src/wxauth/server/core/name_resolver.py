"""Resolves the host names of receivers in threads."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Final

RESOLVE_TIMEOUT_SECONDS: Final = 5.0
"""Seconds that a caller waits for a name."""
MAX_CONCURRENT_NAMES: Final = 32
"""How many names are resolved at once. Others wait until the system has resolved or given up one of these."""

LookUp = Callable[[str], Sequence[str]]
"""Returns the addresses of a name. It may block its thread. Raises: OSError, UnicodeError."""


def addresses_of(host: str) -> Sequence[str]:
    """The addresses of a name, or of an address in any spelling. Raises: OSError, UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class NameResolver:
    """Resolves names, each in a thread of its own.

    uvloop's own resolver looks up only two names at once in the whole process, so two webhooks with dead name servers
    would delay every webhook, and calls to WeChat. Here, such a name occupies one thread until the system gives up, no
    matter how many callers ask for it. The threads do not delay the end of the process.

    Args:
        look_up: Asks the system.
        patience: Seconds that a caller waits for a name.
    """

    def __init__(self, look_up: LookUp = addresses_of, *, patience: float = RESOLVE_TIMEOUT_SECONDS) -> None:
        self._look_up = look_up
        self._patience = patience
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_NAMES)
        self._under_way: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """The addresses of a name or an address. Raises: OSError, including TimeoutError; UnicodeError."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._resolve_in_thread(host), name=f"name {host}")
            lookup.add_done_callback(lambda done: self._drop(host, done))
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(lookup)

    async def _resolve_in_thread(self, host: str) -> Sequence[str]:
        async with self._slots:
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

        def settle() -> None:
            if found.done():  # cancelled, because the service has ended
                return
            if failure is None:
                found.set_result(addresses)
            else:
                found.set_exception(failure)

        with suppress(RuntimeError):  # the loop has ended
            found.get_loop().call_soon_threadsafe(settle)

    def _drop(self, host: str, done: asyncio.Task[Sequence[str]]) -> None:
        del self._under_way[host]
        if not done.cancelled():
            done.exception()  # or asyncio logs an exception that was never retrieved
