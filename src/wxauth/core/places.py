"""A limit to what may be under way, of everybody and of each one."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from wxauth.errors import RateLimited

RETRY_AFTER: Final = 3
"""Seconds."""

Who = TypeVar("Who", bound=Hashable)


class Places(Generic[Who]):
    """Counts what is under way in this process.

    Args:
        of_one: How much of one person's.
        in_all: How much of everybody's; any, unless given.
        detail: What is refused, for the developer.
    """

    def __init__(self, *, of_one: int, in_all: int | None = None, detail: str) -> None:
        self._of_one = of_one
        self._in_all = in_all
        self._detail = detail
        self._taken = Counter[Who]()

    @contextmanager
    def place(self, who: Who) -> Iterator[None]:
        """A place for what is done in the block. Raises: RateLimited."""
        is_full = self._in_all is not None and self._taken.total() >= self._in_all
        if is_full or self._taken[who] >= self._of_one:
            raise RateLimited(self._detail, retry_after=RETRY_AFTER)
        self.take(who)
        try:
            yield
        finally:
            self.give_back(who)

    def take(self, who: Who) -> None:
        """Count one more, whatever the limit: what has been let in may take it."""
        self._taken[who] += 1

    def give_back(self, who: Who) -> None:
        """Count one less."""
        self._taken -= Counter([who])  # in which nobody stays with 0
