"""Functions that start and stop the processes of a run, and read their CPU time."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

_TICKS = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT = 120.0
_STOP_TIMEOUT = 20.0


@dataclass(frozen=True)
class Cpu:
    """CPU time in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user - other.user, self.system - other.system)


def cpu_of_tree(root: int) -> Cpu:
    """Return the CPU time of a process and all its descendants so far, including ended ones (proc(5), `stat`)."""
    parents: dict[int, int] = {}
    ticks: dict[int, tuple[int, int]] = {}
    for pid in _pids():
        if not (fields := _stat(pid)):
            continue
        user, system, children_user, children_system = map(int, fields[11:15])
        parents[pid] = int(fields[1])
        ticks[pid] = (user + children_user, system + children_system)
    tree = [pid for pid in ticks if _is_below(pid, root, parents)]
    return Cpu(*(sum(ticks[pid][kind] for pid in tree) / _TICKS for kind in (0, 1)))


def memory_of_tree(root: int) -> float:
    """Return the memory of a process and all its descendants in MB. Shared memory is counted once."""
    parents = {pid: int(fields[1]) for pid in _pids() if (fields := _stat(pid))}
    tree = [pid for pid in parents if _is_below(pid, root, parents)]
    return sum(_proportional_kb(pid) for pid in tree) / 1024


@contextmanager
def running(
    name: str, *command: str, port: int, folder: Path, env: Mapping[str, str], program: str = sys.executable
) -> Iterator[int]:
    """Run a process while the block runs, and yield its pid once it listens on its port. Its output goes to a file."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [program, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=env
        )
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def stand_in(folder: Path) -> Iterator[int]:
    """Run WeChat's stand-in while the block runs, and yield its port."""
    port = free_port()
    with running("stand-in", "-m", "benchmarks.standin", str(port), port=port, folder=folder, env=environment()):
        yield port


def postmaster_of(data: Path) -> int:
    """Return the process id of the PostgreSQL that runs in this folder."""
    return int((data / "postmaster.pid").read_text().split()[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**values: str) -> dict[str, str]:
    """Return this process's environment without wxauth's settings, plus these values."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WXAUTH_")}
    return {**kept, "PYTHONPATH": str(ROOT), **values}


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """Return the fields after the name in proc(5), such as state and parent; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _proportional_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"no Pss of process {pid}")


def _is_below(pid: int, root: int, parents: Mapping[int, int]) -> bool:
    while pid != root and pid in parents:
        pid = parents[pid]
    return pid == root


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
