"""Runs many cases in one test, which names each case that fails."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import zip_longest
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from typing import Self

if sys.version_info < (3, 11):  # pytest installs exceptiongroup for these versions
    from exceptiongroup import ExceptionGroup


class Sweep:
    """The cases of one test.

    At the end of the `with` block, the failed cases are reported together, with their names.
    """

    def __init__(self) -> None:
        self._cases = 0
        self._failed: dict[str, Exception] = {}

    @contextmanager
    def case(self, *name: object) -> Iterator[None]:
        """Run a case. If it fails, the other cases still run."""
        self._cases += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as exc:
            words = " ".join(map(str, name))
            exc.__notes__ = [*getattr(exc, "__notes__", ()), f"in the case: {words}"]  # Python 3.9 has no add_note
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


def swept(
    names: str | tuple[str, ...], cases: Iterable[Any], *, ids: Iterable[str] | Callable[[Any], str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Parametrize a test as `pytest.mark.parametrize` does, but run all cases in one test.

    Use it only for cases that leave everything unchanged. Setting up a test and cleaning the database after it take
    longer than a request.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    params = [case if hasattr(case, "marks") else pytest.param(*(case if len(keys) > 1 else [case])) for case in cases]
    if callable(ids):
        ids = [", ".join(map(ids, param.values)) for param in params]
    named = [
        (
            name or param.id or ", ".join(repr(value)[:60] for value in param.values),
            dict(zip(keys, param.values)),
        )
        for param, name in zip_longest(params, ids)
    ]

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(test)
        async def run_async(**given: Any) -> None:
            with Sweep() as sweep:
                for name, values in named:
                    with sweep.case(name):
                        await test(**given, **values)

        @wraps(test)
        def run(**given: Any) -> None:
            with Sweep() as sweep:
                for name, values in named:
                    with sweep.case(name):
                        test(**given, **values)

        whole: Any = run_async if inspect.iscoroutinefunction(test) else run
        signature = inspect.signature(test)
        fixtures = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        whole.__signature__ = signature.replace(parameters=fixtures)
        del whole.__wrapped__
        return whole

    return decorate
