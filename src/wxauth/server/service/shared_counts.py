"""What the workers count, in files of prometheus_client that they share."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

from wxauth.i18n import lazy_gettext as _
from wxauth.server.core.metrics import REGISTRY
from wxauth.server.core.settings import InvalidSettings
from wxauth.server.core.terminal import os_reason

if sys.platform != "win32":  # where commands run, but no service
    import fcntl

_name = "supervisor"
"""Of this process in the names of its files. The supervisor counts nothing."""
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name for it
_PREFIX: Final = "wxauth-metrics-"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the only writable place in some containers


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Make the processes started in the block share their counts.

    Raises: InvalidSettings, if no folder can be created for that.
    """
    try:
        parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _clear_leftovers(parent)
        lock = None
        while lock is None or not (_is_free(lock) and lock.exists()):  # else another start has just cleared it
            os.environ[_FOLDER] = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
            lock = Path(os.environ[_FOLDER], "supervisor.lock")
    except OSError as exc:
        raise InvalidSettings(
            [_("WXAUTH_WORKERS: must be 1 without a temporary folder: {reason}", reason=os_reason(exc))]
        ) from None
    values.ValueClass = values.MultiProcessValue(lambda: _name)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        delete_shared_folder()


def _clear_leftovers(parent: Path) -> None:
    """Remove the folders of our user's services whose processes were killed: nobody holds the locks there.

    A lock, unlike a process id, means the same in every container, and is given to nobody else.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        held: list[int] = []
        try:
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():  # anybody may make links here
                for lock in folder.glob("*.lock"):
                    held.append(os.open(lock, os.O_RDWR))
                    fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            if held:  # else it is just being made
                shutil.rmtree(folder)
        except OSError:  # in use, or cleared by another start
            continue
        finally:
            for one in held:
                os.close(one)


def delete_shared_folder() -> None:
    """Remove the shared folder at the end. Processes that still count are not disturbed."""
    shutil.rmtree(os.environ.get(_FOLDER, ""), ignore_errors=True)


def count_as_a_worker() -> None:
    """Count in files of this process from now on, if there are several workers.

    Their names have a number instead of the process id, so that a dead worker's counts stay in the sum, and the next
    worker continues its files, which would otherwise pile up.
    """
    global _name
    if _FOLDER not in os.environ:
        return
    number = next(number for number in count() if _is_free(Path(os.environ[_FOLDER], f"{number}.lock")))
    # But the retries in the dead worker's memory are lost, so their gauge must be removed.
    Path(os.environ[_FOLDER], f"gauge_livesum_{number}.db").unlink(missing_ok=True)
    _name = str(number)


def counts() -> CollectorRegistry:
    """What this process has counted, or all workers."""
    if _FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def processes() -> dict[str, int]:
    """The ids of this service's processes, by name."""
    if _FOLDER not in os.environ:
        return {"0": os.getpid()}
    numbered = {path.stem: path.read_text("utf-8") for path in Path(os.environ[_FOLDER]).glob("*.lock")}
    return {"supervisor": os.getppid(), **{number: int(pid) for number, pid in sorted(numbered.items()) if pid}}


def _is_free(path: Path) -> bool:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as this process lives
    except BlockingIOError:
        os.close(lock)
        return False
    os.truncate(lock, 0)
    os.write(lock, b"%d" % os.getpid())
    return True
