"""Runs wxauth's commands as processes forked from one that has imported everything.

Imports take a second of CPU time, and most commands take a hundredth of that. `scripts/test` runs about 550 commands
and needs seven minutes of CPU time. If the commands were started as installed, they would more than double this time.
In everything else, a forked command behaves like any process, including its signals, environment, folder and
descriptors. All processes of a test run share the process that forks.
"""

import atexit
import errno
import gc
import importlib
import json
import os
import pkgutil
import secrets
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[1]
LONGEST_REQUEST = 128 * 1024
"""The maximum bytes of an environment and some arguments."""
USED_LATER = ("uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "sqlalchemy.dialects.postgresql.asyncpg")
"""Modules that libraries import on first use."""
ADDRESS = os.environ.setdefault("TESTS_FORKED_AT", f"wxauth-tests-{secrets.token_hex(8)}")
"""The address of the process that forks, in Linux's own namespace for sockets. All processes of a run inherit it."""

is_possible = sys.platform == "linux"
"""Whether this system supports forking, because other systems lack pidfds, packets on sockets and that namespace."""


class Forked:
    """A `wxauth` or `wxauth-desk` process, with the parts of `subprocess.Popen` that tests need.

    The first word of the command selects the program. With `-c`, the process executes code as Python does, after it has
    imported everything. A stream is a descriptor, an open file, or a constant of `subprocess`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> None:
        self.args = command
        self.returncode: int | None = None
        self.stdin: int | None = None
        output = stdout if isinstance(stdout, int) else stdout.fileno()
        errors = output if stderr == subprocess.STDOUT else stderr if isinstance(stderr, int) else stderr.fileno()
        given, to_close = stdin, []
        if stdin == subprocess.PIPE:
            given, self.stdin = os.pipe()
            to_close.append(given)
        elif stdin == subprocess.DEVNULL:
            given = os.open(os.devnull, os.O_RDONLY)
            to_close.append(given)
        self._told, teller = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with teller:
            request = json.dumps([[*command], str(cwd), {**env}]).encode()
            socket.send_fds(_requests(), [request], [given, output, errors, teller.fileno()])
        for descriptor in to_close:
            os.close(descriptor)
        pid, [self._pidfd], *_ = socket.recv_fds(self._told, 32, 1)
        self.pid = int(pid)

    def poll(self) -> int | None:
        """Return the exit status if the process has ended, as `Popen.poll` does."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status. Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                status = self._told.recv(32)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0) from None
            self.returncode = int(status)
            self._told.close()
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the process has just ended, and its pid might be reused
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> None:
        """Close the process's input, and wait until the process ends."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None
        self.wait()


_connections: list[socket.socket] = []
_making_one = threading.Lock()


def _requests() -> socket.socket:
    """Return a connection to the process that forks. When the connection closes, its forked processes are killed."""
    with _making_one:
        if not _connections:
            _connections.append(_connect())
            atexit.register(_connections[0].close)
        return _connections[0]


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    while True:
        try:
            connection.connect(f"\0{ADDRESS}")
        except ConnectionRefusedError:  # no process listens yet
            try:
                _start()
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:  # otherwise another process has just begun to listen
                    raise
        else:
            return connection


def _start() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{ADDRESS}")
        listener.listen()
        command = [sys.executable, "-m", "tests.forked", str(listener.fileno())]
        started = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()])
        started.returncode = 0  # it needs no wait, because it ends after the last connection


def stand_in(folder: Path) -> Path:
    """Write a program into this folder that does what `wxauth` does but is forked, and return its path.

    Shells and programs in Node use it. It passes SIGTERM on.
    """
    if not is_possible:
        return Path(sys.executable).with_name("wxauth")
    _requests()  # otherwise each use would start its own process that forks
    forking = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from tests.forked import Forked as F"
    streams = "stdin=0, stdout=1, stderr=2"
    begin = f"it = F(['wxauth', *sys.argv[1:]], cwd=os.getcwd(), env=os.environ, {streams})"
    ending = "import signal; signal.signal(15, lambda *_: os.kill(it.pid, 15)); sys.exit(it.wait())"
    code = f"{forking}; {begin}; {ending}"
    program = folder / "wxauth"
    program.write_text(f'#!/bin/sh\nTESTS_FORKED_AT={ADDRESS} exec {shlex.join([sys.executable, "-Sc", code])} "$@"\n')
    program.chmod(0o700)
    return program


def serve(listener: socket.socket) -> None:
    """Fork for each request. This function returns only in a child."""
    import_everything()
    connections: dict[int, socket.socket] = {}
    children: dict[int, tuple[int, socket.socket, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    if user_of(connection) != os.geteuid():  # all users share the namespace
                        connection.close()
                        continue
                    connections[connection.fileno()] = connection
                    selector.register(connection.fileno(), selectors.EVENT_READ)
                    continue
                if key.fd in children:
                    selector.unregister(key.fd)
                    pid, teller, _ = children.pop(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(pid, 0)
                    with teller, suppress(OSError):
                        teller.send(b"%d" % os.waitstatus_to_exitcode(status))
                    continue
                request, descriptors, *_ = socket.recv_fds(connections[key.fd], LONGEST_REQUEST, 4)
                if not request:
                    for pid, _, connected in children.values():
                        if connected == key.fd:
                            os.kill(pid, signal.SIGKILL)
                    selector.unregister(key.fd)
                    connections.pop(key.fd).close()
                    if not connections:
                        os._exit(0)
                    continue
                pid = os.fork()
                if pid == 0:
                    listener.close()
                    for connection in connections.values():
                        connection.close()
                    for descriptor, (_, teller, _) in children.items():
                        os.close(descriptor)
                        teller.close()
                    command, cwd, env = json.loads(request)
                    become(command, cwd, env, descriptors)
                    return
                *streams, status_fd = descriptors
                for descriptor in streams:
                    os.close(descriptor)
                teller, pidfd = socket.socket(fileno=status_fd), os.pidfd_open(pid)
                with suppress(OSError):
                    socket.send_fds(teller, [b"%d" % pid], [pidfd])
                children[pidfd] = pid, teller, key.fd
                selector.register(pidfd, selectors.EVENT_READ)


def user_of(connection: socket.socket) -> int:
    """Return the id of the user whose process is at the other end."""
    fields = struct.Struct("3i")
    return int(fields.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, fields.size))[1])


def import_everything() -> None:
    import wxauth
    import wxauth_desk
    import wxauth_guard

    for package in (wxauth, wxauth_guard, wxauth_desk):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in (
                "wxauth.__main__",
                "wxauth_desk.__main__",
                "wxauth_guard.pytest_plugin",
                "wxauth_guard.testing",
            ):
                importlib.import_module(module.name)
    for name in USED_LATER:
        importlib.import_module(name)
    gc.freeze()


def become(command: list[str], cwd: str, env: dict[str, str], descriptors: Sequence[int]) -> None:
    """Give this process the arguments, folder, environment and streams of the command."""
    os.setsid()  # `Running` kills the whole session
    *streams, status_fd = descriptors
    os.close(status_fd)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = command
    sys.path.remove(str(ROOT))


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        serve(listener)
    if Path(sys.argv[0]).name == "wxauth-desk":
        from wxauth_desk.__main__ import main
    else:
        from wxauth.__main__ import main

    sys.modules["__main__"] = sys.modules[main.__module__]
    try:
        if sys.argv[1:2] == ["-c"]:  # Python treats this option in the same way
            _, _, code, *sys.argv[1:] = sys.argv
            exec(code, {"__name__": "__main__"})
        else:
            main()
        end(0)
    except SystemExit as ending:
        end(ending.code)


def end(code: str | int | None) -> NoReturn:
    """End as `sys.exit` does, but without the interpreter's own cleanup.

    The cleanup would copy the memory that the processes share, which takes 0.4 s of CPU time.
    """
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    main()
