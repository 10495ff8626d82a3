"""The scripts that write files of the repository write those that are there."""

import os
import shutil
import subprocess
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


@pytest.mark.parametrize("folder", ["of somebody else", "that keeps no permissions"])
def test_a_folder_that_cannot_serve_is_refused_before_anything_is_installed(tmp_path: Path, folder: str) -> None:
    clone = tmp_path / "clone"
    for name in ("scripts", "requirements"):
        (clone / name).mkdir(parents=True)
    for file in ("scripts/setup", "scripts/dev", "requirements/dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, clone / file)
    programs, words = tmp_path / "bin", "must be writable by"
    programs.mkdir()
    command = ["sh", str(clone / "scripts/dev")]
    if folder == "that keeps no permissions":  # as Windows' folders in WSL: chmod does nothing
        (programs / "chmod").symlink_to(shutil.which("true") or "true")
        words, command = "keeps no permissions of files", ["sh", "-c", 'umask 0; exec "$@"', "sh", *command]
    else:  # read-only for root, too
        command = ["unshare", "-m", "sh", "-c", f"mount --bind -o ro '{clone}' '{clone}'; exec \"$@\"", "sh", *command]
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert sorted(path.name for path in clone.iterdir()) == ["pyproject.toml", "requirements", "scripts"]
