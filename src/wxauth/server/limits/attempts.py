"""Limits on calls to WeChat for one person. Without them, one person could use up the app's quota and money."""

from contextlib import suppress
from typing import Final

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.limits.rates import Rate
from wxauth.server.limits.rows import give_back_attempt

MAX_ATTEMPTS: Final = 20
"""How many calls one person may cause in an hour, in one app, over all replicas. Honest use stays below."""


class Attempts:
    """Counts the calls to WeChat for each person, in the database.

    Args:
        what: The kind of call. Each kind has its own count.
        detail: The `detail` of a refusal, for the developer.
    """

    def __init__(self, database: Database, clock: Clock, *, what: str, detail: str) -> None:
        self._database = database
        self._clock = clock
        self._rate = Rate(what, MAX_ATTEMPTS, detail)

    async def take(self, app_id: str, openid: str) -> bytes:
        """Count an attempt of an identity. Returns the key for `give_back`.

        It is counted for the identity instead of the user, because an erasure must not reset the count.

        Raises: RateLimited.
        """
        who = app_id.encode(), openid.encode()
        await self._rate.count(self._database, *who, now=self._clock())
        return self._rate.key(*who)

    async def give_back(self, key: bytes) -> None:
        """Uncount an attempt that failed through no fault of the person. During a database outage it stays counted."""
        with suppress(StorageUnavailable):
            await give_back_attempt(self._database, key)
