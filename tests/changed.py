"""Selects the tests that a change affects.

`scripts/test --record` records the lines that each test executes, and `scripts/test --changed` uses this record.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

ROOT = Path(__file__).parents[1]
RECORD = ROOT / ".coverage.tests"
RECORDED_AT = ROOT / ".coverage.commit-of-tests"
HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? ", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="note which lines each test executes, in .coverage.tests")
    parser.addoption("--changed", action="store_true", help="run only what has changed since --record touches")


@pytest.fixture(scope="session", autouse=True)
def recording(request: pytest.FixtureRequest) -> Iterator[None]:
    """Record the lines that this process executes."""
    if not request.config.getoption("record"):
        yield
        return
    noting = Coverage(
        RECORD,
        data_suffix=True,
        source_pkgs=["wxauth", "wxauth_guard", "wxauth_desk"],
        config_file=False,
        concurrency=["greenlet"],
    )
    # Some modules are imported before recording starts.
    noting.set_option("run:disable_warnings", ["module-not-measured"])
    noting.start()
    yield
    noting.stop()
    noting.save()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (noting := Coverage.current()) and item.config.getoption("record"):
        noting.switch_context(_function(item))


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Only workers of pytest-xdist have the attribute `workerinput`.
    if session.config.getoption("record") and not hasattr(session.config, "workerinput"):
        Coverage(RECORD, config_file=False).combine([str(ROOT)])
        RECORDED_AT.write_text(_git("stash", "create") or _git("rev-parse", "HEAD"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("changed"):
        if not RECORDED_AT.exists():
            raise pytest.UsageError("nothing is known of the tests yet: scripts/test --record")
        touched = touched_by_change()
        for item in items[:]:
            path = item.path.relative_to(ROOT)  # the test's file, whose folders are checked too
            if touched.isdisjoint((_function(item), *map(str, (path, *path.parents)))):
                items.remove(item)
                config.hook.pytest_deselected(items=[item])


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def touched_by_change() -> set[str]:
    """Return the names of tests, of test files and of folders of tests that the change affects."""
    data = CoverageData(str(RECORD))
    data.read()
    touched: set[str] = set()
    for path, hunks in _changes().items():
        name = Path(path).name
        if path.startswith(("src/", "clients/python/src/", "desk/src/")) and path.endswith(".py"):
            touched |= _tests_of(data, str(ROOT / path), hunks)
            # The record lacks tests that run the code in other processes.
            touched.add(f"tests/{Path(path).parent.name}")
        elif name == "conftest.py":
            touched.add(str(Path(path).parent))
        elif name.startswith("test_"):
            touched.add(path)
        elif name != "changed.py":
            mentions = re.compile(rf"\b{re.escape(Path(path).stem if path.startswith('tests/') else name)}\b")
            files = (it for it in (ROOT / "tests").rglob("test_*.py") if mentions.search(it.read_text()))
            touched |= {str(it.relative_to(ROOT)) for it in files}
    return touched


def _tests_of(data: CoverageData, file: str, hunks: list[range]) -> set[str]:
    """Return the tests that execute a changed line.

    If an import executes the changed lines, return all tests that execute any line of the file.
    """
    by_line = data.contexts_by_lineno(file)
    found: set[str] = set()
    for hunk in hunks:
        found |= set().union(*(by_line.get(line, ()) for line in hunk)) or set().union(*by_line.values())
    return found


def _changes() -> dict[str, list[range]]:
    """Return the files that differ from the record, each with the recorded numbers of its changed lines."""
    changes: dict[str, list[range]] = {}
    diff = _git("diff", "--unified=0", "--no-renames", "--no-prefix", RECORDED_AT.read_text())
    for part in re.split(r"^diff --git ", diff, flags=re.MULTILINE)[1:]:
        hunks = [(int(first), int(number or 1)) for first, number in HUNK.findall(part)]
        changes[part.partition(" ")[0]] = [range(first, first + max(number, 1)) for first, number in hunks]
    return changes | {path: [] for path in _git("ls-files", "--others", "--exclude-standard").splitlines()}


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()
