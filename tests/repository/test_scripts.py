"""The scripts that write files of the repository write those that are there."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import ROOT
from tests.programs import output_of


def files(folder: Path) -> dict[str, bytes]:
    ours = (path for path in folder.rglob("*") if not {"build", ".ruff_cache", ".venv"} & {*path.parts})
    return {str(path): path.read_bytes() for path in ours if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.process
def test_the_scripts_that_write_files_write_those_that_are_there(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    left_out = shutil.ignore_patterns(".*", "node_modules", "build", "dist", "__pycache__", "*.png")
    shutil.copytree(ROOT, clone, ignore=left_out)
    shutil.copy(ROOT / ".env.example", clone)
    (clone / "scripts/setup").write_text('cd "$(dirname "$(readlink -f "$0")")/.."\n')
    (clone / ".venv").symlink_to(sys.prefix)
    before = files(clone)
    for script in ("docs", "format", "panels", "settings"):
        output_of(clone / "scripts" / script, env={**os.environ, "PYTHONPATH": str(clone / "src")})
    assert [name for name, text in files(clone).items() if before.get(name) != text] == []
    assert len(list(clone.glob("build/llms-full*.txt"))) == 2


@pytest.mark.process
@pytest.mark.parametrize("set_by", ["PIP_INDEX_URL", "pip config"])
def test_packages_are_requested_of_the_mirror_that_pip_knows(tmp_path: Path, set_by: str) -> None:
    programs, config = tmp_path / ".venv/bin", tmp_path / ".config/pip/pip.conf"
    for folder in ("scripts", "requirements", ".venv/bin", ".config/pip"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("scripts/setup", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    for program in ("python", "uv"):
        (programs / program).symlink_to(Path(sys.prefix, "bin", program))
    for lock in ("dev", "run"):  # the second counts as installed, so that nothing else is
        (tmp_path / f"requirements/{lock}.lock").write_text(f"some-package==1.0 --hash=sha256:{64 * '0'} # {lock}\n")
    locked = output_of("sh", "-c", "pwd -P && cksum <requirements/run.lock", cwd=tmp_path)
    (tmp_path / ".venv/.locked").write_text(locked)
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        mirror.settimeout(60)
        url = f"http://127.0.0.1:{mirror.getsockname()[1]}/simple"
        config.write_text(f"[global]\nindex-url = {url}\n" if set_by == "pip config" else "")
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        env |= {"PIP_INDEX_URL": url} if set_by == "PIP_INDEX_URL" else {}
        with subprocess.Popen(["sh", "scripts/setup"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL):
            asked, _ = mirror.accept()
            with asked:
                assert asked.recv(100).startswith(b"GET /simple/some-package/ ")
                asked.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


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
