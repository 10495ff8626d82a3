"""How often one person may have WeChat asked in vain: an app's quota is everybody's."""

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
"""From the first attempt on."""
AT_MOST: Final = 20
"""Attempts in that time, for one person in one app, over all replicas. Honest taps and slips stay below."""


class Attempts:
    """Counts what is asked of WeChat for one person.

    Args:
        database: Where it is counted.
        clock: The time.
        what: The kind, counted by itself.
        detail: What is refused, for the developer.
    """

    def __init__(self, database: Database, clock: Clock, *, what: str, detail: str) -> None:
        self._database = database
        self._clock = clock
        self._what = what
        self._detail = detail

    async def take(self, app_id: str, openid: str) -> bytes:
        """Count one more; its key, by which it may be given back. Raises: RateLimited, StorageUnavailable."""
        key = sha256(b"\0".join((self._what.encode(), app_id.encode(), openid.encode()))).digest()
        now = self._clock()
        since = await take_attempt(self._database, key, at_most=AT_MOST, began_by=now - WINDOW, now=now)
        if since is not None:
            raise RateLimited(self._detail, retry_after=max(1, ceil((since + WINDOW - now).total_seconds())))
        return key

    async def give_back(self, key: bytes) -> None:
        """Give the attempt back: the person was not at fault. If the database is away just then, it stays counted."""
        with suppress(StorageUnavailable):
            await give_back_attempt(self._database, key)
