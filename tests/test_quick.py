"""`scripts/test --quick` leaves out the tests that were measured to be slow."""

import re
from pathlib import Path

import pytest

from tests.quick import SLOW, Noting, slow_functions

pytestmark = pytest.mark.no_database

ROOT = Path(__file__).parents[1]


def test_what_it_leaves_out_is_there() -> None:
    for function in slow_functions():
        file, _, name = function.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), function


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "slow.txt"
    file.write_text("tests/test_a.py::test_now_fast\ntests/test_b.py::test_that_did_not_run\n")
    return file


def test_slow_is_who_takes_long_on_average(file: Path) -> None:
    noting = Noting(file)
    for nodeid, when, seconds in [
        ("test_a.py::test_now_fast", "call", SLOW / 2),
        ("test_a.py::test_slow[a[1]]", "call", SLOW * 2),
        ("test_a.py::test_slow[b]", "call", SLOW / 2),
        ("test_a.py::test_mostly_fast[a]", "call", SLOW * 1.1),
        ("test_a.py::test_mostly_fast[b]", "call", SLOW * 0.1),
        ("test_a.py::test_first_of_all", "setup", SLOW * 9),
        ("test_a.py::test_first_of_all", "call", 0),
    ]:
        location = ("", None, "")
        report = pytest.TestReport(f"tests/{nodeid}", location, {}, "passed", None, when, duration=seconds)  # type: ignore[arg-type]
        noting.pytest_runtest_logreport(report)
    noting.pytest_sessionfinish()
    assert slow_functions(file) == {"tests/test_a.py::test_slow", "tests/test_b.py::test_that_did_not_run"}
