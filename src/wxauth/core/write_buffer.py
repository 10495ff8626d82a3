"""The buffer in which a process collects data, so that it does not write to the database in each request."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import field
from typing import ClassVar, Final, NoReturn

from wxauth.core.chores import keep_doing
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable

LAST_STORE_SECONDS: Final = 2.0
"""The time, in seconds, that the last write may take when the service ends."""

log = get_logger()


@part
class WriteBuffer(ABC):
    """A buffer for the data that a process has collected since it last wrote such data to the database."""

    failure_event: ClassVar[str]
    """The name of the event that wxauth logs if a write fails.

    During a database outage, wxauth logs this event only if the final write at the end of the service fails.
    """
    store_pause: ClassVar[float]
    """The pause, in seconds, between two writes."""
    database: Database
    clock: Clock
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def store(self) -> None:
        """Store everything collected since the last write."""
        async with self._storing:
            await self._store()

    @abstractmethod
    async def _store(self) -> None:
        """Write the collected data. If that fails, keep the data for the next write or drop the data."""

    async def keep_storing(self) -> NoReturn:
        """Store the data forever, with a pause of `store_pause` seconds before each write. Failures are logged."""
        await asyncio.sleep(self.store_pause)
        await keep_doing(self.store, pause=self.store_pause, failure_event=self.failure_event)

    async def aclose(self) -> None:
        """Store the remaining data. If the database is unavailable, or responds too late, the data is lost.

        The limit is `LAST_STORE_SECONDS`. Any other error is raised.
        """
        try:
            async with asyncio.timeout(LAST_STORE_SECONDS):
                await self.store()
        except (TimeoutError, StorageUnavailable):
            log.warning(self.failure_event, reason="the service has ended")
