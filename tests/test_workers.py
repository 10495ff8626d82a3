"""Tests of the processes that run the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import ROOT

FILES = {
    "test_failing.py": """
import pytest

@pytest.fixture
def ends_badly():
    yield
    raise ValueError

def test_passes(): pass
def test_fails(): assert "said"[:1] == ""
def test_end(ends_badly): pass
""",
    "test_crashing.py": """
import os

def test_crashes(): os._exit(7)
def test_after_the_crash(): pass
""",
    "test_passing.py": "def test_own_folder(tmp_path): assert tmp_path.parent.name.startswith('worker')",
}


@pytest.mark.process
def test_every_failure_is_named_at_the_end_and_a_worker_that_crashes_is_one(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.workers", "--noconftest", "--workers=2", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *_, summary, first, second, third = done.stdout.splitlines()
    assert "2 failed, 3 passed, 1 error" in summary
    named = {line.rpartition("::")[2] for line in (first, second, third) if line.startswith("failed: ")}
    assert (done.returncode, named) == (1, {"test_fails", "test_end", "test_crashes"})
    assert "the worker ended with status 7" in done.stdout
