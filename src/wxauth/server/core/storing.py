"""What a process gathers in memory and stores every few seconds: despite outages, and once more when it ends."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import field
from typing import ClassVar, Final, NoReturn

from wxauth.errors import StorageUnavailable
from wxauth.server.core.chores import keep_doing
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part

LAST_STORE_SECONDS: Final = 2.0
"""How long the last store may take when the service ends."""

log = get_logger()


@part
class Gathering(ABC):
    """What one process has gathered since the last store.

    Args:
        database: Where it is stored.
        clock: The time.
        store_pause: Seconds between two stores.
    """

    failed: ClassVar[str]
    """The event that is logged once per database outage, and for each other error."""
    database: Database
    clock: Clock
    store_pause: float
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def store(self) -> None:
        """Store everything gathered since the last store."""
        async with self._storing:
            await self._store()

    @abstractmethod
    async def _store(self) -> None: ...

    async def keep_storing(self) -> NoReturn:
        """Store periodically, forever, through outages."""
        await asyncio.sleep(self.store_pause)
        await keep_doing(self.store, pause=self.store_pause, failed=self.failed)

    async def aclose(self) -> None:
        """Store what is left, unless that takes more than a moment."""
        try:
            async with asyncio.timeout(LAST_STORE_SECONDS):
                await self.store()
        except (TimeoutError, StorageUnavailable):
            log.warning(self.failed, reason="the service has ended")
