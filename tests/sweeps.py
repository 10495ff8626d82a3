"""Many cases in one test, which runs all of them and names each that fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import pytest


class Sweep:
    """The cases of one test: those that fail are told together, at the end of the `with` block, with their names."""

    def __init__(self) -> None:
        self._cases = 0
        self._failed: dict[str, Exception] = {}

    @contextmanager
    def case(self, *name: object) -> Iterator[None]:
        """A case. If it fails, the other cases still run."""
        self._cases += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as exc:
            words = " ".join(map(str, name))
            exc.add_note(f"in the case: {words}")
            self._failed[words] = exc if isinstance(exc, Exception) else AssertionError(str(exc))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            return
        assert self._cases, "there was no case"
        if self._failed:
            raise ExceptionGroup(
                f"{len(self._failed)} of {self._cases} cases: {'; '.join(self._failed)}", [*self._failed.values()]
            )
