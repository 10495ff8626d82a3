"""Limits on what is under way at once, for each person and for all together."""

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
        of_one: How much one person may have under way.
        in_all: How much may be under way in all; None for no limit.
        detail: The `detail` of a refusal, for the developer.
    """

    def __init__(self, *, of_one: int, in_all: int | None = None, detail: str) -> None:
        self._of_one = of_one
        self._in_all = in_all
        self._detail = detail
        self._taken = Counter[Who]()

    @contextmanager
    def place(self, who: Who) -> Iterator[None]:
        """Hold a place while the block runs. Raises: RateLimited."""
        is_full = self._in_all is not None and self._taken.total() >= self._in_all
        if is_full or self._taken[who] >= self._of_one:
            raise RateLimited(self._detail, retry_after=RETRY_AFTER)
        self.take(who)
        try:
            yield
        finally:
            self.give_back(who)

    def take(self, who: Who) -> None:
        """Take a place, whatever the limit: work that was let in may need a second one."""
        self._taken[who] += 1

    def give_back(self, who: Who) -> None:
        """Give a place back."""
        self._taken -= Counter([who])  # `-=` drops entries with 0, which would pile up
