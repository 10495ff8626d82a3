"""Which tests `scripts/test --quick` leaves out: those that were slow when `scripts/test --note-slow` measured them."""

from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

FILE = Path(__file__).with_name("slow.txt")
SLOW = 0.04
"""Seconds. A test that takes at least as long, on average over its parameters, is slow."""


def slow_functions(file: Path = FILE) -> set[str]:
    """The test functions that were slow in the last measurement."""
    return set(file.read_text().splitlines())


class LeavingOut:
    """Leaves out slow tests."""

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        slow = slow_functions()
        config.hook.pytest_deselected(items=[item for item in items if _function_of(item.nodeid) in slow])
        items[:] = [item for item in items if _function_of(item.nodeid) not in slow]


class Noting:
    """Measures each test that runs, and records which are slow. Tests that do not run keep their record."""

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":  # a setup may be long because all tests of a process share its result
            self._seconds[_function_of(report.nodeid)].append(report.duration)

    def pytest_sessionfinish(self) -> None:
        slow = {function for function, seconds in self._seconds.items() if mean(seconds) >= SLOW}
        others = slow_functions(self._file) - self._seconds.keys()
        self._file.write_text("".join(f"{function}\n" for function in sorted(slow | others)))


def _function_of(nodeid: str) -> str:
    return nodeid.partition("[")[0]
