"""Limits how often WeChat is asked for one person. Without it, one person could use up the app's quota and money."""

from contextlib import suppress
from typing import Final

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.limits.rates import Rate
from wxauth.server.limits.rows import give_back_attempt

AT_MOST: Final = 20
"""How many attempts one person has in an hour, in one app, over all replicas. Honest use stays below."""


class Attempts:
    """Counts the questions to WeChat for each person.

    Args:
        database: Where they are counted.
        clock: The time.
        what: The kind of question. Each kind has its own count.
        detail: The `detail` of a refusal, for the developer.
    """

    def __init__(self, database: Database, clock: Clock, *, what: str, detail: str) -> None:
        self._database = database
        self._clock = clock
        self._rate = Rate(what, AT_MOST, detail)

    async def take(self, app_id: str, openid: str) -> bytes:
        """Count an attempt; the key with which it can be given back. Raises: RateLimited, StorageUnavailable.

        Counted for the identity, which outlives an erasure, and not for the user: an erasure must not reset the count.
        """
        who = app_id.encode(), openid.encode()
        await self._rate.count(self._database, *who, now=self._clock())
        return self._rate.key(*who)

    async def give_back(self, key: bytes) -> None:
        """Uncount an attempt that failed by no fault of the person. In an outage of the database it stays counted."""
        with suppress(StorageUnavailable):
            await give_back_attempt(self._database, key)
