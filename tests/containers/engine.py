"""Docker in a cell, which is an isolated part of this machine. The script `cell` in this folder makes it."""

import ctypes
import faulthandler
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import httpcore
import httpx

from tests.certificates import Authority
from tests.processes import PATIENCE, children_of, until
from tests.programs import lacks, needs, output_of
from tests.serving import serving
from wxauth_desk.wechat import create_simulator

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
HOST: Final = "192.0.2.1"
"""The cell's own address, which belongs to no interface. Containers use it to reach what the tests serve."""
WECHAT: Final = f"https://{HOST}:8443"
NEIGHBOUR: Final = {"IPv4": ("198.51.100.1", "198.51.100.2"), "IPv6": ("2001:db8::1", "2001:db8::2")}
"""The cell's address in the network of a phone, and the address of the phone, for each IP version."""
PROGRAMS: Final = ("debootstrap", "slirp4netns", "ip", "unshare")
IMAGES: Final = {"python": "python:3.15-slim", "postgres": "postgres:18-trixie", "caddy": "caddy:2"}
TIED: Final = ("setpriv", "--pdeathsig", "KILL")
"""A prefix of commands. Such a command ends with this process, even if this process is killed."""
BUILD_PATIENCE: Final = 20 * PATIENCE
KEPT_SECONDS: Final = 30 * 86400
"""The seconds for which a cell is kept if no run uses it."""
_CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


class Engine:
    """Docker in a cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shared = folder / "shared"  # this folder has the same path in the cell
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> None:
        """Start the cell, with these options of Docker. Docker restarts containers whose restart policy says so."""
        with (self.folder / "log").open("wb") as log:
            alone = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child")
            cell = [*TIED, *alone, str(HERE / "cell"), "run", str(self.folder), *options]
            first = subprocess.Popen(cell, stdout=log, stderr=log)
            self._processes = [first]
            until(lambda: children_of(first.pid) or first.poll() is not None)
            if first.poll() is not None:
                lacks(f"needs the right to make namespaces: {self._said()} 需要创建命名空间的权限")
            (self.pid,) = children_of(first.pid)
            until(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
            network = ("slirp4netns", "--configure", "--mtu=65520", str(self.pid), "tap0")
            self._processes.append(subprocess.Popen([*TIED, *network], stdout=log, stderr=log))
        until(lambda: self._answers() or first.poll() is not None)
        assert first.poll() is None, self._said()

    def cut_power(self) -> None:
        """End the cell at once, as a power failure ends a machine."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the cell as a shutdown ends a machine."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._processes and self._processes[0].poll() is None:
            os.kill(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._processes[0].wait(PATIENCE)
        for process in self._processes:
            process.kill()
            process.wait()
        for group in sorted(Path("/sys/fs/cgroup").glob("**/wxauth-tests/**/"), reverse=True):
            with suppress(OSError):
                group.rmdir()

    def _answers(self) -> bool:
        return subprocess.run(self._command(["docker", "version"]), capture_output=True).returncode == 0

    def _said(self) -> str:
        return (self.folder / "log").read_text(errors="replace").strip()[-2000:]

    def _command(self, command: list[str | Path], folder: Path | None = None) -> list[str]:
        options = ("--mount", "--net", "--pid", "--root", f"--wdns={folder or '/'}")
        return ["nsenter", f"--target={self.pid}", *options, *map(str, command)]

    def run(self, *command: str | Path, folder: Path | None = None, **env: str) -> str:
        """Run a program in the cell, which must succeed, and return what it prints."""
        own = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **env}
        return output_of(*self._command([*command], folder), env=own, timeout=BUILD_PATIENCE).strip()

    def docker(self, *arguments: str | Path, folder: Path | None = None) -> str:
        return self.run("docker", *arguments, folder=folder)

    def inspect(self, container: str, form: str) -> str:
        return self.docker("inspect", f"--format={form}", container)

    def clear(self) -> None:
        """Remove what previous tests have left, including our images, but not the images that ours are built from."""
        ours = "label=org.opencontainers.image.title=wxauth"
        for found, remove in (("ps --all --quiet", "rm --volumes"), (f"images --quiet --filter={ours}", "image rm")):
            self.run("sh", "-c", f"docker {found} | sort -u | xargs --no-run-if-empty docker {remove} --force")
        self.docker("network", "prune", "--force")
        self.docker("volume", "prune", "--all", "--force")

    def client(self, url: str, address: str, *, network: str = "", **options: Any) -> httpx.Client:
        """Return a client in the cell. It always connects to this address, whatever host a URL contains."""
        transport = httpx.HTTPTransport(**options)
        backend = _Within(self._network(network), address)
        transport._pool = httpcore.ConnectionPool(ssl_context=transport._pool._ssl_context, network_backend=backend)
        return httpx.Client(base_url=url, transport=transport, timeout=PATIENCE, trust_env=False)

    def phone(self, url: str, version: str = "IPv4", **options: Any) -> httpx.Client:
        """Return a client on another machine, whose address is in `NEIGHBOUR`."""
        return self.client(url, NEIGHBOUR[version][0], network="phone", **options)

    def _network(self, name: str = "") -> Path:
        return Path(f"/proc/{self.pid}", f"root/run/netns/{name}" if name else "ns/net")

    @contextmanager
    def wechat(self, folder: Path) -> Iterator[Path]:
        """Run a simulated WeChat for containers at `WECHAT`, and yield the certificate file of its authority."""
        authority = Authority(folder)
        authority.server(HOST)
        listener = _within(self._network(), lambda: socket.create_server((HOST, 8443)))
        with serving(create_simulator(), at=listener, ssl_certfile=folder / "server.pem"):
            yield authority.file


class _Within(httpcore.SyncBackend):
    """A network backend that always connects to one address, in another network namespace."""

    def __init__(self, network: Path, address: str) -> None:
        self._network = network
        self._address = address

    def connect_tcp(self, host: str, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        del host
        connect = super().connect_tcp
        return _within(self._network, lambda: connect(self._address, *arguments, **options))


def _within(network: Path, make: Callable[[], T]) -> T:
    """Call a function in a thread of this network namespace. Sockets that the function makes stay in the namespace."""

    def enter() -> T:
        with network.open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return make()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Run an engine that only this process uses, while other processes wait for their turn.

    If the engine can't run here, the test ends as with `needs`.
    """
    for program in PROGRAMS:
        needs(program)
    if os.geteuid() != 0:
        lacks("needs root, for namespaces of its own 需要 root 权限以创建命名空间")
    # The first build on a machine takes longer than the time limit of a test, and has its own time limits.
    faulthandler.cancel_dump_traceback_later()
    everything = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache"), "wxauth-tests")
    everything.mkdir(parents=True, exist_ok=True)
    engine = Engine(everything / f"cell-{_recipe()}")
    with (everything / "lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # the lock ends with this process
        if not (engine.folder / "complete").exists():
            _build(engine)
        try:
            engine.start()
            engine.clear()
            shutil.rmtree(engine.shared, ignore_errors=True)
            engine.shared.mkdir()
            yield engine
        finally:
            engine.stop()


def _recipe() -> str:
    """Return a hash that changes with each file from which the engine and the images are made."""
    scripts = (HERE / "cell", HERE / "debian")
    files = [*scripts, *sorted((HERE / "images").iterdir()), Path("/etc/ssl/certs/ca-certificates.crt")]
    made = b"".join(file.read_bytes() for file in files if file.exists())
    return sha256(made + repr(IMAGES).encode()).hexdigest()[:12]


def _build(engine: Engine) -> None:
    for old in engine.folder.parent.glob("cell-*"):
        if old == engine.folder or time.time() - old.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(old)
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    command: list[str | Path] = [*TIED, *alone, HERE / "cell", "build", engine.folder]
    made = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_PATIENCE)
    if made.returncode != 0:
        lacks(f"needs Debian's packages: {(made.stdout + made.stderr)[-2000:]} 需要可访问的 Debian 软件源")
    try:
        engine.start()
        images = engine.folder / "images"
        shutil.copytree(HERE / "images", images, dirs_exist_ok=True)
        for suite in ("sid", "forky"):
            engine.docker("import", images / f"{suite}.tar", f"wxauth-tests/{suite}")
            (images / f"{suite}.tar").unlink()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda it: engine.docker("build", f"--target={it}", "-t", IMAGES[it], images), IMAGES))
    finally:
        engine.stop()
    (engine.folder / "complete").touch()
