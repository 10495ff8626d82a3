"""Limits how often WeChat is asked in vain for one person. Without it, one person could use up the app's quota."""

from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from math import ceil
from typing import Final

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.errors import RateLimited, StorageUnavailable
from wxauth.profile.attempt_rows import give_back_attempt, take_attempt

WINDOW: Final = timedelta(hours=1)
"""How long attempts count, from the first one on."""
AT_MOST: Final = 20
"""How many attempts one person has in that time, in one app, over all replicas. Honest use stays below."""


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
        self._what = what
        self._detail = detail

    async def take(self, app_id: str, openid: str) -> bytes:
        """Count an attempt; the key with which it can be given back. Raises: RateLimited, StorageUnavailable."""
        key = sha256(b"\0".join((self._what.encode(), app_id.encode(), openid.encode()))).digest()
        now = self._clock()
        since = await take_attempt(self._database, key, at_most=AT_MOST, began_by=now - WINDOW, now=now)
        if since is not None:
            raise RateLimited(self._detail, retry_after=max(1, ceil((since + WINDOW - now).total_seconds())))
        return key

    async def give_back(self, key: bytes) -> None:
        """Uncount an attempt that failed by no fault of the person. In an outage of the database it stays counted."""
        with suppress(StorageUnavailable):
            await give_back_attempt(self._database, key)
