"""The folder in which several workers share the counts of their metrics."""

import os
import sys
from itertools import count
from pathlib import Path

from prometheus_client import values

from wxauth.core.logs import get_logger
from wxauth.service.server import COUNTS, COUNTS_PREFIX
from wxauth.terminal import os_reason

# The module is also imported on Windows, where the commands run, but not the service.
if sys.platform != "win32":
    import fcntl

log = get_logger()


def share_counts() -> None:
    """Share the counts of this process with the other workers from now on, if there are any.

    The names of a worker's files contain a number instead of the process id, and a worker that replaces a dead worker
    continues the dead worker's files. Otherwise the number of files would grow, and the labels of the series would
    change.
    """
    if COUNTS not in os.environ:
        return
    try:
        number = next(number for number in count() if _is_free(Path(os.environ[COUNTS], f"{number}.lock")))
    except OSError as exc:
        log.warning("metrics_not_shared", reason=os_reason(exc), what_to_change=COUNTS)
        del os.environ[COUNTS]
        values.ValueClass = values.MutexValue
        return
    # Retries that waited in the memory of the dead worker are lost, so their number is 0.
    Path(os.environ[COUNTS], f"gauge_livesum_{number}.db").unlink(missing_ok=True)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def _is_free(path: Path) -> bool:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # this process holds the lock until it ends
    except BlockingIOError:
        os.close(lock)
        return False
    os.truncate(lock, 0)
    os.write(lock, b"%d" % os.getpid())
    return True


def own_folder() -> Path | None:
    """Return the folder in which the workers of `wxauth serve` store their counts, or None if there is none."""
    folder = Path(os.environ.get(COUNTS, ""))
    return folder if folder.name.startswith(COUNTS_PREFIX) else None
