"""How the tests are spread over processes: tests that share a fixture stay together; what takes long starts first."""

import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
LASTING = re.compile(r'^@pytest\.fixture\(.*scope="(module|package|session)"', re.MULTILINE)
PROXY = re.compile(r"\[(nginx|caddy|haproxy)\b")


class Spreading(LoadScopeScheduling):
    """Hands out a test at a time, or all those of a file or folder that has fixtures for more than one."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the workers' order stands: see sort_longest_first

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid)


def sort_longest_first(items: list[pytest.Item], workers: int) -> None:
    """Tests of a browser, then the largest groups; single tests fill up the rest."""
    sizes = Counter(_group_of(item.nodeid) for item in items)
    items.sort(key=lambda item: (item.get_closest_marker("browser") is None, -sizes[_group_of(item.nodeid)]))
    # Each worker is given two at once. Behind a browser's test, the second waits for a minute: let it be a short one.
    browsers = sum(item.get_closest_marker("browser") is not None for item in items)
    first = min(browsers, workers)
    for _ in range(min(first, len(items) - browsers)):
        items.insert(first, items.pop())


def _group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    together = _together(Path(file).parent / "conftest.py") or _together(Path(file))
    proxy = PROXY.search(nodeid)
    return nodeid if together is None else f"{together} {proxy[1]}" if proxy else together


@cache
def _together(file: Path) -> str | None:
    """The group of tests that this file keeps together."""
    if file == Path("tests/conftest.py") or not (ROOT / file).exists() or not LASTING.search((ROOT / file).read_text()):
        return None
    return str(file.parent if file.name == "conftest.py" else file)


def workers_for(config: pytest.Config) -> int:
    """How many processes: none for a few named files; else two more than processors, for some tests always wait."""
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    if config.args_source is pytest.Config.ArgsSource.ARGS and all(path.suffix == ".py" for path in named):
        return 0
    return 2 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
