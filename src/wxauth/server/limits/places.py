"""Limits on concurrent work, for each person and in total, in this process."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from wxauth.errors import RateLimited

RETRY_AFTER: Final = 3
"""Seconds."""

Who = TypeVar("Who", bound=Hashable)


class Places(Generic[Who]):
    """Counts work in progress.

    Args:
        of_one: The limit for one person.
        in_all: The limit in total; None for no limit.
        detail: The `detail` of a refusal, for the developer.
    """

    def __init__(self, *, of_one: int, in_all: int | None = None, detail: str) -> None:
        self._of_one = of_one
        self._in_all = in_all
        self._detail = detail
        self._taken = Counter[Who]()

    @contextmanager
    def place(self, who: Who) -> Iterator[None]:
        """Hold a place during the block. Raises: RateLimited."""
        is_full = self._in_all is not None and self._taken.total() >= self._in_all
        if is_full or self._taken[who] >= self._of_one:
            raise RateLimited(self._detail, retry_after=RETRY_AFTER)
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
