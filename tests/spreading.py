"""How the tests are spread over processes: tests that share a fixture stay together, and start first."""

import os
import re
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
LASTING = re.compile(r'^@pytest\.fixture\(.*scope="(module|package|session)"', re.MULTILINE)
PROXY = re.compile(r"\[(nginx|caddy|haproxy)\b")


class Spreading(LoadScopeScheduling):
    """Hands out a test at a time, or all those of a file or folder that has fixtures for more than one.

    The largest such groups come first, and single tests fill up the rest.
    """

    def _split_scope(self, nodeid: str) -> str:
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
    """How many processes: none for a few named files; else one more than processors, for some tests always wait."""
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    if config.args_source is pytest.Config.ArgsSource.ARGS and all(path.suffix == ".py" for path in named):
        return 0
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1
