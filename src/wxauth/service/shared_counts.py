"""The folder in which several workers share the counts of their metrics, and the process ids of the workers.

Each worker has a number, for example 1. Until the worker ends, it holds a lock on the file `1.lock`, which contains the
worker's process id.
"""

import multiprocessing
import os
import sys
from pathlib import Path

from prometheus_client import values

from wxauth.core.logs import get_logger
from wxauth.service.server import COUNTS_FOLDER_PREFIX, COUNTS_VARIABLE
from wxauth.terminal import os_reason

# The module is also imported on Windows, where the commands run but the service does not.
if sys.platform != "win32":
    import fcntl

log = get_logger()


def share_counts() -> None:
    """Share the counts of this process with the other workers from now on, if the service has several workers.

    Each process calls this function before it counts anything, because prometheus_client chooses the files of a metric
    when it counts the metric for the first time.

    The names of a worker's files contain a number instead of the process id, and a worker that replaces a dead worker
    continues the dead worker's files. Otherwise the number of files would grow, and the labels of the series would
    change.
    """
    if COUNTS_VARIABLE not in os.environ:
        return
    try:
        number = 0
        while not _try_lock(Path(os.environ[COUNTS_VARIABLE], f"{number}.lock")):
            number += 1
    except OSError as exc:
        log.warning("metrics_not_shared", reason=os_reason(exc), what_to_change=COUNTS_VARIABLE)
        # From now on, this worker keeps its counts in memory instead of files, and reports only these counts.
        del os.environ[COUNTS_VARIABLE]
        values.ValueClass = values.MutexValue
        return
    # This file contains only the gauge `WRITES_AWAITING_RETRY` of core/background.py, the number of waiting retries.
    # The dead worker's retries were lost with its memory, so their number must not be counted any longer.
    Path(os.environ[COUNTS_VARIABLE], f"gauge_livesum_{number}.db").unlink(missing_ok=True)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def _try_lock(path: Path) -> bool:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    os.truncate(lock, 0)
    os.write(lock, b"%d" % os.getpid())
    return True  # the file stays open, so that this process holds the lock until it ends


def own_counts_folder() -> Path | None:
    """Return the folder that `wxauth serve`, not the operator, has created. It may have been deleted."""
    folder = Path(os.environ.get(COUNTS_VARIABLE, ""))
    return folder if folder.name.startswith(COUNTS_FOLDER_PREFIX) else None


def process_ids() -> dict[str, int]:
    """Return the process id of each worker by the worker's number, and of the `supervisor` if there is one.

    A worker that has not written its id yet has the id 0, which no process has. The id of a worker that has ended is
    returned until another worker takes its number.
    """
    workers: dict[str, int] = {}
    if COUNTS_VARIABLE in os.environ:
        for path in sorted(Path(os.environ[COUNTS_VARIABLE]).glob("*.lock")):
            workers[path.stem] = int(path.read_text("utf-8") or 0)
    if not workers:
        workers = {"0": os.getpid()}
    if multiprocessing.parent_process() is None:
        return workers
    return {"supervisor": os.getppid(), **workers}
