"""The limit on the requests of one user that run at the same time in this process.

Requests of one user wait for one another, and delay no requests of other users. There are few transactions
(`TRANSACTIONS` in `core/database.py`), and those of one user wait for the same lock. Without the limit, forty
connections of one phone held all of them, and the logins and changes of all users waited.

A stolen token must not keep its owner waiting. Therefore each session has its own queue before the queue of its user,
which one session cannot fill. Requests that end sessions have separate queues, in which no request waits for WeChat. No
place in a queue is held while a client sends or reads.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from uuid import UUID

from wxauth.core.services import part
from wxauth.errors import RateLimited

RETRY_AFTER: Final = 3
"""The `Retry-After` of a refusal, in seconds."""

Who = TypeVar("Who", bound=Hashable)


@dataclass(eq=False, kw_only=True)
class Places(Generic[Who]):
    """The places for work in progress, of which there is a limited number."""

    of_one: int
    """The number of places for one user."""
    in_all: int | None = None
    """The number of places for all users together; None for no limit."""
    detail: str
    """The `detail` of a refusal, for the developer."""
    _taken: Counter[Who] = field(init=False, default_factory=Counter)

    @contextmanager
    def place(self, who: Who) -> Iterator[None]:
        """Hold a place during the block. Raises: RateLimited."""
        is_full = self.in_all is not None and self._taken.total() >= self.in_all
        if is_full or self._taken[who] >= self.of_one:
            raise RateLimited(self.detail, retry_after=RETRY_AFTER)
        self.take(who)
        try:
            yield
        finally:
            self.give_back(who)

    def take(self, who: Who) -> None:
        """Take a place regardless of the limits, because work that was admitted may need a second one."""
        self._taken[who] += 1

    def give_back(self, who: Who) -> None:
        """Give back a place."""
        self._taken -= Counter([who])  # `-=` drops zero counts, which would pile up


AT_ONCE: Final = 2
"""The largest number of requests in one queue that run at the same time."""
AT_ONCE_OF_PERSON: Final = AT_ONCE + 1
_ENDING: Final = 1
"""The largest number of requests that end sessions and run at the same time in one queue.

Together with `AT_ONCE_OF_PERSON`, one user takes at most four of the five transactions.
"""
MAX_PRESENT: Final = 64
"""The largest number of requests in one queue that may run or wait."""
PATIENCE_SECONDS: Final = 5.0
"""The time that a request waits for its place, in seconds."""

_DETAIL: Final = "this user has too many requests in progress"


@dataclass(slots=True, eq=False)
class _Line:
    places: asyncio.Semaphore
    present: int = 0


@part
class Concurrency:
    """The queues of sessions and users.

    Each lets a few requests run, and the others wait in order for `patience` seconds.

    They wait instead of being refused, because a client that repeats a refused request at once costs more than one that
    waits.
    """

    patience: float = PATIENCE_SECONDS
    _lines: dict[Hashable, _Line] = field(init=False, default_factory=dict)

    @asynccontextmanager
    async def of_session(self, session: Hashable, person: UUID, *, ends_sessions: bool = False) -> AsyncIterator[None]:
        """Hold a place of a session and one of its user during the block. Raises: RateLimited.

        `session` is the id of a session or of a browser's login. For phone numbers, it is an identity.
        """
        if ends_sessions:
            lines = self.line(("ends", session), _ENDING), self.line(("ends", person), _ENDING)
        else:
            lines = self.line(session), self.line(person, AT_ONCE_OF_PERSON)
        async with lines[0], lines[1]:
            yield

    @asynccontextmanager
    async def line(self, name: Hashable, at_once: int = AT_ONCE) -> AsyncIterator[None]:
        """Hold a place in the queue of this name during the block. Raises: RateLimited."""
        line = self._lines.setdefault(name, _Line(asyncio.Semaphore(at_once)))
        if line.present >= MAX_PRESENT:
            raise RateLimited(_DETAIL, retry_after=RETRY_AFTER)
        line.present += 1
        try:
            try:
                async with asyncio.timeout(self.patience):
                    await line.places.acquire()
            except TimeoutError:
                raise RateLimited(_DETAIL, retry_after=RETRY_AFTER) from None
            try:
                yield
            finally:
                line.places.release()
        finally:
            line.present -= 1
            if not line.present:
                del self._lines[name]
