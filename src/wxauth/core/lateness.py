"""How late this process is. If it is late, a time-out tells nothing about the other side."""

import asyncio
from typing import Final, Self

_BEAT_SECONDS: Final = 0.05


class Lateness:
    """Measures during its block by how many seconds the event loop is late in total."""

    __slots__ = ("_due_at", "_loop", "_timer", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._add()

    def _schedule(self) -> None:
        self._due_at = self._loop.time() + _BEAT_SECONDS
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def _beat(self) -> None:
        self._add()
        self._schedule()

    def _add(self) -> None:
        self.seconds += max(self._loop.time() - self._due_at, 0.0)
