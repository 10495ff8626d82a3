"""Real processes, which run commands as an operator does, and checks that they leave nothing behind."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests import forked
from tests.clock import PATIENCE as PATIENCE
from tests.forked import Forked
from tests.programs import demand_mark
from tests.serving import serving as serving
from wxauth.service.server import listen
from wxauth_desk.wechat import APPS

WXAUTH = str(Path(sys.executable).with_name("wxauth"))
WXAUTH_DESK = str(Path(sys.executable).with_name("wxauth-desk"))
ROOM = 2 * 2**30


def use_memory() -> None:
    """Keep temporary files of this process and its children in memory, if there is space and programs can run there."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > ROOM and not os.statvfs(memory).f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)


def catch_ignored_signals() -> None:
    """Make children react to SIGINT and SIGHUP.

    Background jobs of a shell ignore SIGINT, and programs that nohup has started ignore SIGHUP.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process without wxauth's settings and the locale, plus these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("WXAUTH_")}
    return {**kept, "LC_ALL": "C.UTF-8", **variables}


def run(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    """Run `wxauth` with these arguments until it ends, or `wxauth-desk` if the command is one of its two."""
    demand_mark("process")
    program = WXAUTH_DESK if arguments[0] in ("dev", "wechat") else WXAUTH
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start([program, *arguments], cwd=cwd, env=env, stdin=stdin, stdout=output, stderr=errors)
        try:
            status = process.wait(PATIENCE)
        finally:
            process.kill()
        for stream in (output, errors):
            stream.seek(0)
        texts = [stream.read().decode() for stream in (output, errors)]
    return subprocess.CompletedProcess([program, *arguments], status, *texts)


Command = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


def make_command(name: str, *, cwd: Path, env: Mapping[str, str]) -> Command:
    """Return a function that runs `wxauth NAME ...` with these variables, and with others that a call names."""

    async def run_it(*arguments: str, **others: str) -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(run, name, *arguments, cwd=cwd, env={**env, **others})
        assert "Traceback" not in done.stderr
        return done

    return run_it


def start(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None, **streams: Any
) -> subprocess.Popen[bytes] | Forked:
    """Start a program. Our own programs are forked, which saves the second for their imports."""
    if forked.is_possible and command[0] in (WXAUTH, WXAUTH_DESK):
        return Forked(command, cwd=cwd, env=environment(**(env or {})), **streams)
    return start_installed(command, cwd=cwd, env=env, **streams)


def start_installed(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a program as it is installed, without forking."""
    return subprocess.Popen(command, cwd=cwd, env=environment(**(env or {})), start_new_session=True, **streams)


class Running:
    """A command that keeps running. At the end of the `with` block, it is killed with everything that it has started.

    Otherwise its workers would continue for seconds of real time, on the database of later tests.
    """

    def __init__(
        self,
        *command: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
        is_installed: bool = False,
        stdin: int = subprocess.PIPE,
    ) -> None:
        demand_mark("process", "proxy", "node", "operations", "pgbouncer")
        self._output = cwd / f"output-{time.monotonic_ns()}"
        with self._output.open("wb") as output:
            as_user: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
            streams: dict[str, Any] = {"stdin": stdin, "stdout": output, "stderr": subprocess.STDOUT}
            begin = start_installed if is_installed else start
            self.process = begin(command, cwd=cwd, env=env, **streams, **as_user)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        until(lambda: not kill_session(self.process.pid))

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> str:
        """Wait until the output contains this text, and return it."""
        until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output
        return self.output

    def end(self, signal: int) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(signal)
        return self.process.wait(PATIENCE)


@contextmanager
def dev_with_sibling(folder: Path) -> Iterator[dict[str, str]]:
    """Run `wxauth-desk dev` and the example of a sibling, and yield their URLs as variables for the tests in Node."""
    port, wechat_port, orders_port = (str(free_port()) for _ in range(3))
    service_url, orders_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{orders_port}"
    uvicorn, root = str(Path(WXAUTH).with_name("uvicorn")), str(Path(__file__).parents[1])
    with (
        Running(WXAUTH_DESK, "dev", "--port", port, "--wechat-port", wechat_port, cwd=folder) as service,
        Running(
            *(uvicorn, "examples.sibling.app:app", "--app-dir", root, "--port", orders_port),
            cwd=folder,
            env={"WXAUTH_ISSUER": service_url},
        ) as orders,
    ):
        service.wait_for("wxauth is ready")
        orders.wait_for("Uvicorn running")
        yield {
            "SERVICE_URL": service_url,
            "WECHAT_URL": f"http://127.0.0.1:{wechat_port}",
            "ORDERS_URL": orders_url,
            "APP_ID": APPS[0]["app_id"],
        }
        service.end(signal.SIGTERM)


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still false after {PATIENCE:.0f} seconds"
        time.sleep(0.02)


def users_of(folder: Path) -> set[int]:
    """Return the processes that have open files in this folder, or use it as their working folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", *(process / "fd").iterdir()]
            targets = [os.readlink(link) for link in links]
        except OSError:  # the process has just ended
            continue
        if any(target == str(folder) or target.startswith(f"{folder}/") for target in targets):
            found.add(int(process.name))
    return found


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def children_of(pid: int) -> set[int]:
    """Return the children that are still running."""
    with suppress(OSError):  # the process has ended
        found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return {child for child in found if is_running(child)}
    return set()


def kill_session(session: int) -> set[int]:
    """Kill and return the processes of this session that are still running. They might have started more processes."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            state, _, _, its_session = _stat(int(process.name))[:4]
            if state != "Z" and int(its_session) == session:
                found.add(int(process.name))
                os.kill(int(process.name), signal.SIGKILL)
    return found


def is_running(pid: int) -> bool:
    """Return whether this process is still running. A zombie doesn't count."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


@contextmanager
def suspended(pids: Collection[int]) -> Iterator[None]:
    """Suspend these processes while the block runs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: _stat(pid)[0] == "T")  # noqa: B023 - called at once
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _stat(pid: int) -> list[str]:
    """Return the fields after the name in proc(5): state, parent, group, session, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    """Return a port that the system gives to no other test run or connection while this process lives.

    Linux lets a program listen next to a socket that is only bound, if both sockets allow it, as those of all servers
    do.
    """
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = int(holder.getsockname()[1])
        if sys.platform == "linux":
            holder.detach()  # the socket stays open until this process ends
    return port


def is_served(port: int) -> bool:
    """Return whether a program listens on the port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


def is_free(port: int) -> bool:
    """Return whether a program could listen on the port.

    Don't wait for a program with this function, because the program might then be unable to listen.
    """
    try:
        listen("127.0.0.1", port).close()
    except OSError:
        return False
    return True
