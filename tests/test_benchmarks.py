"""The benchmarks use what there is: each can be begun."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.process
def test_every_benchmark_finds_all_that_it_imports() -> None:
    lines = "\n".join(f"import benchmarks.{name}" for name in MODULES)
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
