"""Real processes: the commands as an operator runs them, and what is left when they end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp

from wxauth.service.server import listen

WXAUTH = str(Path(sys.executable).with_name("wxauth"))
PATIENCE = 20.0
"""Seconds for what takes a fraction of one on an idle machine."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without our settings, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("WXAUTH_")}
    return {**kept, **variables}


def run(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `wxauth` with these arguments to its end."""
    return subprocess.run(
        [WXAUTH, *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Running:
    """A command that runs on, killed at the end of the `with` block where it still does."""

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str] | None = None, user: int | None = None) -> None:
        self._output = cwd / f"output-{time.monotonic_ns()}"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(**(env or {})),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> str:
        """The output, as soon as it has this text."""
        until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output
        return self.output

    def end(self, signal: int) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(signal)
        return self.process.wait(PATIENCE)


def until(condition: Callable[[], object]) -> None:
    """Wait for it to become true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def users_of(folder: Path) -> set[int]:
    """The processes that have something under this folder open, or work in it."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", *(process / "fd").iterdir()]
            targets = [os.readlink(link) for link in links]
        except OSError:  # it has ended by now
            continue
        if any(target == str(folder) or target.startswith(f"{folder}/") for target in targets):
            found.add(int(process.name))
    return found


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not just its exit status, waiting to be asked for."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    """What proc(5) has after the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextmanager
def serving(app: ASGIApp, *, kind: type[uvicorn.Server] = uvicorn.Server, **options: Any) -> Iterator[str]:
    """The URL at which this app answers for as long as the block runs."""
    options = {"log_config": None, "access_log": False, **options, "timeout_graceful_shutdown": 1}
    with listen("127.0.0.1", 0) as listener:
        server = kind(uvicorn.Config(app, **options))
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    """Whether one may listen there."""
    try:
        listen("127.0.0.1", port).close()
    except OSError:
        return False
    return True
