"""Helpers that run `wxauth-desk dev` as a process, and run the commands that the guides show."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs import ROOT
from tests.processes import WXAUTH_DESK, Running, free_port
from tests.programs import lacks
from tests.repository.project import pins

DEV_LOCK = ROOT / "requirements/dev.lock"


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `wxauth-desk dev`."""

    url: str
    wechat_url: str
    site_url: str


def clone_in(folder: Path) -> str:
    """Make the files of a clone that `scripts/dev` needs, with everything installed, and return the script's path."""
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/dev", folder / "scripts")
    (folder / "scripts/setup").write_text('cd "$(dirname "$(readlink -f "$0")")/.."\n')
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("clients", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return str(folder / "scripts/dev")


@contextmanager
def running_dev(
    folder: Path, *options: str, program: Sequence[str] = (WXAUTH_DESK, "dev"), **env: str
) -> Iterator[Dev]:
    port, wechat_port, site_port = free_port(), free_port(), free_port()
    ports = ("--port", str(port), "--wechat-port", str(wechat_port), "--site-port", str(site_port))
    command = (*program, *ports, *options)
    with Running(*command, cwd=folder, env=env) as running:
        running.wait_for("Press Ctrl-C to stop")
        yield Dev(*(f"http://127.0.0.1:{each}" for each in (port, wechat_port, site_port)))


def fenced(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each code block of a page, in order."""
    found = re.findall(r"(?ms)^( *)```(\w+)\n(.*?)^ *```$", page.read_text())
    return [(language, re.sub(f"(?m)^{indent}", "", text)) for indent, language, text in found]


def installed_by(command: str, folder: Path) -> dict[str, str]:
    """Run a page's command that installs packages, with the locked versions. Return the environment of the command.

    If no package index can be reached, the test ends as with `needs`.
    """
    (folder / "constraints.txt").write_text("".join(f"{name}=={pin}\n" for name, pin in pins(DEV_LOCK).items()))
    env = {**os.environ, "LC_ALL": "C.UTF-8", "PIP_CONSTRAINT": str(folder / "constraints.txt")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(["sh", "-ec", command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        downloading = [sys.executable, "-m", "pip", "--timeout=5", "--retries=1", "download", "--no-deps", "httpx"]
        if subprocess.run(downloading, cwd=folder, capture_output=True).returncode:
            lacks("needs a package index that pip can reach (需要可访问的软件包索引)")
        pytest.fail(done.stderr)
    return env


def form(value: Any) -> Any:
    """Return the structure of a response, with types instead of values."""
    if isinstance(value, dict):
        return {name: form(each) for name, each in value.items()}
    return [form(each) for each in value] if isinstance(value, list) else type(value)
