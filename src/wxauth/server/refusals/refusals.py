"""Refused logins: collected in memory, and stored once a second in one statement.

No request waits for the database because of them. A flood of refusals stores at most a hundred rows a second per
process. A process that is killed loses its last second.
"""

import asyncio
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.errors import WxAuthError
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.ids import new_id
from wxauth.server.core.ip_addresses import TRUNCATED
from wxauth.server.core.storing import keep_storing, store_at_shutdown
from wxauth.server.refusals.rows import RefusalRow, RefusalSearch, find_refusals, store_refusals
from wxauth.server.web.paging import Page

STORE_PAUSE_SECONDS: Final = 1.0
"""Seconds between two stores."""
MAX_STORED: Final = 100
"""How many are stored per second. The rest are only counted."""
MAX_IN_MEMORY: Final = 1000
"""How many may wait in memory while the database is slow. The rest are only counted."""

_FAILED: Final = "refusals_not_stored"
_APP_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ERRCODE: Final = 2**31 - 1
"""The largest value of the column. WeChat's error codes are far smaller."""


class Dropped(StrEnum):
    """Why a refused login was only counted, not stored."""

    TOO_MANY = "too_many"
    STORAGE = "storage"
    """The database is down or too slow."""


class Refusals:
    """The refused logins of one process.

    Args:
        database: Where they are stored.
        clock: The time.
        observe_dropped: Called with the reason and the number of refusals that were only counted.
        store_pause: Seconds between two stores.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        observe_dropped: Callable[[Dropped, int], None],
        store_pause: float = STORE_PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._observe_dropped = observe_dropped
        self._store_pause = store_pause
        self._noted: list[RefusalRow] = []
        self._second = 0
        self._in_second = 0
        self._storing = asyncio.Lock()

    def note(self, error: WxAuthError, *, app_id: str | None, ip: str | None, request_id: str) -> None:
        """Note a login refused with this error, unless there are too many. The app_id may be any text."""
        now = self._clock()
        second = int(now.timestamp())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > MAX_STORED:
            self._observe_dropped(Dropped.TOO_MANY, 1)
            return
        if len(self._noted) >= MAX_IN_MEMORY:
            self._observe_dropped(Dropped.STORAGE, 1)
            return
        errcode: int | None = getattr(error, "errcode", None)
        self._noted.append(
            {
                "id": new_id(now),
                "at": now,
                "code": error.code,
                "wechat_errcode": None if errcode is None or abs(errcode) > _MAX_ERRCODE else errcode,
                "app_id": app_id if app_id is not None and _APP_ID.fullmatch(app_id) else None,
                "user_id": error.user_id,
                "network": _truncated(ip),
                "request_id": request_id,
            }
        )

    async def store(self) -> None:
        """Store the refusals noted since the last store. On failure they are dropped. Raises: StorageUnavailable."""
        async with self._storing:
            noted, self._noted = self._noted, []
            if not noted:
                return
            try:
                await store_refusals(self._database, noted)
            except BaseException:
                self._observe_dropped(Dropped.STORAGE, len(noted))
                raise

    async def keep_storing(self) -> None:
        """Store the refusals periodically, forever, through outages."""
        await keep_storing(self.store, pause=self._store_pause, failed=_FAILED)

    async def aclose(self) -> None:
        """Store the last refusals, unless that takes more than a moment."""
        await store_at_shutdown(self.store, failed=_FAILED)


async def list_refusals(
    database: Database, search: RefusalSearch, *, before: UUID | None, limit: int
) -> Page[RefusalRow]:
    """A page of the refusals that match a search and are older than `before`, newest first.

    Raises: StorageUnavailable.
    """
    return Page.of(await find_refusals(database, search, before=before, limit=limit + 1), limit)


def _truncated(ip: str | None) -> str | None:
    try:
        return None if ip is None else TRUNCATED.network_of(ip)
    except ValueError:
        return None  # a unix socket
