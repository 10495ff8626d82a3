"""The scripts that generate files of the repository generate the files that are committed."""

import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docs import ROOT
from tests.processes import PATIENCE, free_port
from tests.programs import output_of


def files(folder: Path) -> dict[str, bytes]:
    ours = (
        path
        for path in folder.rglob("*")
        if {"build", ".ruff_cache", ".venv"}.isdisjoint(path.relative_to(folder).parts[:1])
    )
    return {str(path): path.read_bytes() for path in ours if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.process
def test_the_scripts_that_write_files_write_those_that_are_there(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    left_out = shutil.ignore_patterns(".*", "node_modules", "dist", "__pycache__", "*.png")
    shutil.copytree(ROOT, clone, ignore=left_out)
    shutil.rmtree(clone / "build", ignore_errors=True)
    shutil.copy(ROOT / ".env.example", clone)
    (clone / "scripts/setup").write_text('cd "$(dirname "$(readlink -f "$0")")/.."\n')
    (clone / ".venv").symlink_to(sys.prefix)
    before = files(clone)
    for script in ("docs", "format", "panels", "settings", "texts"):
        output_of(clone / "scripts" / script, env={**os.environ, "PYTHONPATH": str(clone / "src")})
    changed = [name for name, text in files(clone).items() if before.get(name) != text]
    assert not changed, f"run scripts/docs, format, panels, settings and texts: they write {', '.join(changed)}"
    assert len(list(clone.glob("build/llms-full*.txt"))) == 2


def make_half_installed(folder: Path, *, digest: str) -> None:
    """Make a clone in which `scripts/setup` has yet to install one package, whose wheel has this SHA-256."""
    for name in ("scripts", "requirements", ".venv/bin"):
        (folder / name).mkdir(parents=True)
    for file in ("scripts/setup", "pyproject.toml"):
        shutil.copy(ROOT / file, folder / file)
    for part in ("bin/python", "bin/uv", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix, part))
    for lock in ("dev", "run"):  # the second lock counts as installed, so nothing else is requested
        (folder / f"requirements/{lock}.lock").write_text(f"some-package==1.0 --hash=sha256:{digest} # {lock}\n")
    locked = output_of("sh", "-c", "pwd -P && cksum <requirements/run.lock", cwd=folder)
    (folder / ".venv/.locked").write_text(locked)


@pytest.mark.process
@pytest.mark.parametrize("set_by", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "pip's own file"])
def test_packages_are_requested_of_the_mirror_that_pip_knows(tmp_path: Path, set_by: str) -> None:
    config = tmp_path / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    make_half_installed(tmp_path, digest=64 * "0")
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        mirror.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{mirror.getsockname()[1]}/simple"
        config.write_text(f"[global]\nindex-url = {url}\n" if set_by == "pip's own file" else "")
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | ({set_by: url} if set_by.isupper() else {})
        with subprocess.Popen(["sh", "scripts/setup"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL):
            asked, _ = mirror.accept()
            with asked:
                assert asked.recv(100).startswith(b"GET /simple/some-package/ ")
                asked.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


WHEEL = "some_package-1.0-py3-none-any.whl"


class HalfAWheel(BaseHTTPRequestHandler):
    """A package index with one package, of which it sends only the first half."""

    protocol_version = "HTTP/1.1"
    content = bytes(4_000_000)

    def do_GET(self) -> None:
        page = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
        body = self.content if self.path.endswith(".whl") else page
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if body is self.content else body)
        self.close_connection = False

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.process
@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_first_start_shows_in_a_terminal_how_much_is_downloaded(tmp_path: Path, is_terminal: bool) -> None:
    make_half_installed(tmp_path, digest=sha256(HalfAWheel.content).hexdigest())
    screen, terminal = pty.openpty() if is_terminal else os.pipe()
    with ThreadingHTTPServer(("127.0.0.1", 0), HalfAWheel) as mirror:
        mirror.daemon_threads = True
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{mirror.server_port}/simple"
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_INDEX_URL": url, "UV_NO_CACHE": "1"}
        env |= {"TERM": "xterm", "UV_HTTP_TIMEOUT": "2", "UV_HTTP_RETRIES": "0"}
        with subprocess.Popen(["sh", "scripts/setup"], cwd=tmp_path, env=env, stderr=terminal):
            os.close(terminal)
            shown = b""
            with suppress(OSError):  # Linux reports the end of a pseudo-terminal as an error
                while piece := os.read(screen, 65536):
                    shown += piece
        mirror.shutdown()
    os.close(screen)
    assert b"Setting up" in shown
    assert bool(re.search(rb"\d(?:\.\d+)? MiB", shown)) is is_terminal, shown


# `scripts/dev` rejects an unsuitable machine before it installs anything.

NOBODY = 65534
FULL = "echo 'Filesystem 1048576-blocks Used Available'; echo /dev/vda 300 1 299"


@dataclass(frozen=True, slots=True)
class Clone:
    """The files that `scripts/dev` reads in a clone before it installs anything."""

    folder: Path
    programs: Path

    def refuses(self, *arguments: str, user: int | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run `scripts/dev`, check that it fails, and return its error message."""
        command = ["sh", str(self.folder / "scripts/dev"), *arguments]
        whole = {"PATH": f"{self.programs}:{os.environ['PATH']}", "PYTHON": sys.executable, **(env or {})}
        done = subprocess.run(command, env=whole, user=user, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    def refuses_at_once(self, *arguments: str, user: int | None = None, env: Mapping[str, str] | None = None) -> str:
        said = self.refuses(*arguments, user=user, env=env)
        assert sorted(path.name for path in self.folder.iterdir()) == ["pyproject.toml", "requirements", "scripts"]
        return said

    def replace(self, program: str, by: str) -> None:
        (self.programs / program).write_text(f"#!/bin/sh\n{by}\n")
        (self.programs / program).chmod(0o755)


@pytest.fixture
def clone(folder: Path) -> Clone:
    folder.chmod(0o755)  # other users can't open pytest's own folders
    clone = Clone(folder / "clone", folder / "bin")
    for path in (clone.folder / "scripts", clone.folder / "requirements", clone.programs):
        path.mkdir(parents=True)
    for file in ("scripts/setup", "scripts/dev", "requirements/dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, clone.folder / file)
    return clone


def test_a_folder_of_somebody_else_is_refused(clone: Clone) -> None:
    clone.folder.chmod(0o555)
    assert "can't write to" in clone.refuses_at_once(user=NOBODY if os.geteuid() == 0 else None)


def test_a_folder_that_keeps_no_permissions_is_refused(clone: Clone) -> None:
    clone.replace("chmod", "umask 0; rm .probe; : >.probe")  # Windows folders in WSL store no permissions
    assert "doesn't store file permissions" in clone.refuses_at_once()


def test_a_full_disk_is_named_with_its_folder_and_what_is_needed(clone: Clone) -> None:
    clone.replace("df", FULL)
    said = clone.refuses_at_once()
    assert f"{clone.folder} requires " in said
    assert " MB of disk space, but only 299 MB are free" in said


@pytest.mark.parametrize("taken_by", ["--port", "WXAUTH_PORT", "--site-port"])
def test_a_port_that_is_taken_is_named(clone: Clone, taken_by: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        options = [f"{taken_by}={port}"] if taken_by.startswith("--") else []
        said = clone.refuses_at_once(*options, env={taken_by: port} if not options else {})
    option = taken_by if options else "--port"
    assert f"127.0.0.1:{port} is already in use. Choose another port with {option}." in said


@pytest.mark.process
def test_a_proxy_that_does_not_answer_is_named_by_the_last_line(clone: Clone) -> None:
    (clone.folder / "requirements/dev.lock").write_text(f"uv==0 --hash=sha256:{64 * '0'}\n")
    port = free_port()
    proxy = f"http://somebody:hunter2@127.0.0.1:{port}"
    env = {"https_proxy": proxy, "PIP_RETRIES": "0", "HOME": str(clone.folder.parent)}
    said = clone.refuses("--port", str(free_port()), env=env)
    assert "hunter2" not in said
    assert f"The proxy http://127.0.0.1:{port} (HTTPS_PROXY) doesn't respond." in said.splitlines()[-1]
