"""Turns of each person in this process: one person's requests wait for one another, and no one else's for them.

Transactions are few (`TRANSACTIONS` in `core/database.py`), and those of one person wait for the same lock. Forty
connections of one phone held all of them, and everybody's logins and changes waited.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from wxauth.errors import RateLimited

AT_ONCE: Final = 2
"""How many requests of one person are worked on at once. Two persons at most fill four of the five transactions."""
MAX_PRESENT: Final = 64
"""How many requests of one person may be worked on or wait."""
PATIENCE_SECONDS: Final = 5.0
"""How long a request waits for its turn."""

_RETRY_AFTER: Final = 3
_DETAIL: Final = "this person has too many requests under way"


class _Line:
    __slots__ = ("present", "turns")

    def __init__(self) -> None:
        self.present = 0
        self.turns = asyncio.Semaphore(AT_ONCE)


class Turns:
    """Gives each person a few turns at once. Further requests wait in order.

    They wait instead of being refused: a client that repeats a refused request at once costs more than one that waits.

    Args:
        patience: Seconds that a request waits for its turn.
    """

    def __init__(self, *, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._lines: dict[Hashable, _Line] = {}

    @asynccontextmanager
    async def turn(self, person: Hashable) -> AsyncIterator[None]:
        """Hold a turn of a person, named by user id or identity, during the block. Raises: RateLimited."""
        line = self._lines.setdefault(person, _Line())
        if line.present >= MAX_PRESENT:
            raise RateLimited(_DETAIL, retry_after=_RETRY_AFTER)
        line.present += 1
        try:
            try:
                async with asyncio.timeout(self._patience):
                    await line.turns.acquire()
            except TimeoutError:
                raise RateLimited(_DETAIL, retry_after=_RETRY_AFTER) from None
            try:
                yield
            finally:
                line.turns.release()
        finally:
            line.present -= 1
            if not line.present:
                del self._lines[person]
