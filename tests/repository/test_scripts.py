"""The scripts that write files of the repository write those that are there."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs import ROOT
from tests.programs import output_of

LEFT_OUT = (".*", "node_modules", "build", "dist", "__pycache__", "*.png")


def files(folder: Path) -> dict[str, bytes]:
    ours = (path for path in folder.rglob("*") if not {"build", ".ruff_cache", ".venv"} & {*path.parts})
    return {str(path): path.read_bytes() for path in ours if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.process
def test_the_scripts_that_write_files_write_those_that_are_there(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copy(ROOT / ".env.example", clone)
    (clone / "scripts/setup").write_text('cd "$(dirname "$(readlink -f "$0")")/.."\n')
    (clone / ".venv").symlink_to(sys.prefix)
    before = files(clone)
    for script in ("docs", "format", "panels", "settings"):
        output_of(clone / "scripts" / script, env={**os.environ, "PYTHONPATH": str(clone / "src")})
    assert [name for name, text in files(clone).items() if before.get(name) != text] == []
    assert len(list(clone.glob("build/llms-full*.txt"))) == 2
