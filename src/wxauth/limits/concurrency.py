"""Bounds what each person has under way in this process: their requests wait for one another, and delay nobody else's.

Transactions are few (`TRANSACTIONS` in `core/database.py`), and those of one person wait for the same lock. Forty
connections of one phone held all of them, and everybody's logins and changes waited.

A stolen token must not keep its owner waiting. So each session has a line of its own, before its person's, which it
cannot fill alone; what ends sessions has lines of its own, in which nobody waits for WeChat; and no place is held while
a client sends or reads.
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
"""Seconds."""

Who = TypeVar("Who", bound=Hashable)


@dataclass(eq=False, kw_only=True)
class Places(Generic[Who]):
    """Counts work in progress."""

    of_one: int
    """The limit for one person."""
    in_all: int | None = None
    """The limit in total; None for no limit."""
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
        """Take a place regardless of the limits: work that was admitted may need a second one."""
        self._taken[who] += 1

    def give_back(self, who: Who) -> None:
        """Give a place back."""
        self._taken -= Counter([who])  # `-=` drops zero counts, which would pile up


AT_ONCE: Final = 2
"""How many requests of one line are worked on at once."""
AT_ONCE_OF_PERSON: Final = AT_ONCE + 1
_ENDING: Final = 1
"""With `AT_ONCE_OF_PERSON`, one person fills at most four of the five transactions."""
MAX_PRESENT: Final = 64
"""How many requests of one line may be worked on or wait."""
PATIENCE_SECONDS: Final = 5.0
"""How long a request waits for its place."""

_DETAIL: Final = "this person has too many requests under way"


@dataclass(slots=True, eq=False)
class _Line:
    places: asyncio.Semaphore
    present: int = 0


@part
class Concurrency:
    """Gives each line a few places at once. Further requests wait in order, for `patience` seconds.

    They wait instead of being refused: a client that repeats a refused request at once costs more than one that waits.
    """

    patience: float = PATIENCE_SECONDS
    _lines: dict[Hashable, _Line] = field(init=False, default_factory=dict)

    @asynccontextmanager
    async def of_session(self, session: Hashable, person: UUID, *, ends_sessions: bool = False) -> AsyncIterator[None]:
        """Hold a place of a session, or of what else has a line, and one of its person. Raises: RateLimited.

        `session` is its id, or that of a browser's login; for phone numbers, the identity.
        """
        if ends_sessions:
            lines = self.line(("ends", session), _ENDING), self.line(("ends", person), _ENDING)
        else:
            lines = self.line(session), self.line(person, AT_ONCE_OF_PERSON)
        async with lines[0], lines[1]:
            yield

    @asynccontextmanager
    async def line(self, name: Hashable, at_once: int = AT_ONCE) -> AsyncIterator[None]:
        """Hold a place in the line with this name during the block. Raises: RateLimited."""
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
