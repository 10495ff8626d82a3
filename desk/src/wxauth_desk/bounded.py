"""A mapping of limited size, so that requests to the simulated WeChat and the example sites cannot fill the memory."""

from collections import UserDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(UserDict[K, V]):
    """A mapping in the order in which entries were last set. Beyond `max_entries`, the oldest is forgotten."""

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def __setitem__(self, key: K, value: V) -> None:
        self.data.pop(key, None)  # an existing entry would otherwise keep its place in the order
        self.data[key] = value
        if len(self.data) > self._max_entries:
            del self.data[next(iter(self.data))]
