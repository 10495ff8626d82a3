"""The metrics in Prometheus's format. With several workers, they are the sums of all workers' counts."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from datetime import datetime, timedelta
from itertools import count, product
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.routing import Route

from wxauth import __version__
from wxauth.errors import StorageUnavailable
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock, DatabaseClock
from wxauth.server.core.database import Database
from wxauth.server.core.metrics import DECLARED, OUR_FAULTS, REGISTRY
from wxauth.server.core.services import part
from wxauth.server.core.settings import InvalidSettings
from wxauth.server.login.routes import LOGINS, OUTCOMES
from wxauth.server.service.statistics_rows import Statistics, statistics
from wxauth.server.web.edge import REQUESTS

if sys.platform != "win32":
    import fcntl

STATISTICS_MAX_AGE: Final = timedelta(seconds=15)
"""How long values read from the database are served again, so that scrapes add few queries."""
STATISTICS_PATIENCE_SECONDS: Final = 2.0
"""Seconds that the database gets for these values. After that, a scrape omits them."""

_name = "supervisor"
"""Of this process in the names of its files. The supervisor counts nothing."""
_LABELS: Final = ("worker",)
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name for it
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the only writable place in some containers


class Processes(Collector):
    """prometheus_client's `process_` metrics, with a series for each process. A restarted process counts from zero.

    Args:
        processes: Returns the ids of the current processes, by name.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """What each process has used so far, or uses now. A process that has just ended is left out."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, pid in self._processes().items():
            for one in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                kind = CounterMetricFamily if one.type == "counter" else GaugeMetricFamily
                family = families.setdefault(one.name, kind(one.name, one.documentation, labels=_LABELS))
                family.add_metric([name], one.samples[0].value)
        yield from families.values()


@part
class PrometheusMetrics(Collector):
    """What is reported: what the rooms count, the processes, and some numbers of the database.

    Args:
        database: Where the statistics are read.
        clock: The time.
        apps: Each has its series from the start.
        sweeps: The names of the daily sweeps.
        routes: Each has its series from the start, for the successful answer and for faults of ours.
    """

    database: Database
    clock: Clock
    apps: Apps
    sweeps: Sequence[str]
    routes: Sequence[Route] = ()
    _statistics: Statistics | None = field(default=None, init=False)
    _statistics_at: datetime | None = field(default=None, init=False)

    async def scrape(self) -> bytes:
        """All metrics, in Prometheus's text format."""
        await self._read_statistics()
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """The counts, and the current values of gauges."""
        for metric in DECLARED:
            metric.make_first()
        LOGINS.make_first(*product((it.app.app_id for it in self.apps.all()), OUTCOMES, [""]))
        for route in self.routes:
            statuses = (getattr(route, "status_code", None) or 200, *(fault.status for fault in OUR_FAULTS))
            REQUESTS.make_first(*product(sorted(route.methods or ()), [route.path], statuses))
        yield from (_registry_of_all_workers() if _FOLDER in os.environ else REGISTRY).collect()
        yield from Processes(_processes).collect()
        yield InfoMetricFamily("wxauth_build", "The running version.", {"version": __version__})
        ahead = self.clock.ahead if isinstance(self.clock, DatabaseClock) else timedelta()
        yield GaugeMetricFamily(
            "wxauth_clock_ahead_seconds",
            "By how much this machine's clock is ahead of the database's, which is used.",
            ahead.total_seconds(),
        )
        if self._statistics is None or self._statistics_at is None:
            return
        read_ago = (self.clock() - self._statistics_at).total_seconds()
        for name, column in Statistics.model_fields.items():
            value = getattr(self._statistics, name)
            grown = value + read_ago if value and name.endswith("_seconds") else value
            yield GaugeMetricFamily(f"wxauth_{name}", column.description or "", grown)

    async def _read_statistics(self) -> None:
        now = self.clock()
        if self._statistics_at is not None and abs(now - self._statistics_at) < STATISTICS_MAX_AGE:
            return
        self._statistics_at = now  # set before the query, so that only one of several scrapes runs it
        try:
            async with asyncio.timeout(STATISTICS_PATIENCE_SECONDS):
                self._statistics = await statistics(self.database, sweeps=self.sweeps, now=now)
        except (StorageUnavailable, TimeoutError):
            self._statistics = None


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Make the processes started in the block share their counts.

    Raises: InvalidSettings, if no folder can be created for that.
    """
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    try:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="wxauth-metrics-", dir=parent)
    except OSError as exc:
        raise InvalidSettings([f"WXAUTH_WORKERS: must be 1 without a temporary folder: {exc.strerror}"]) from None
    if sys.platform != "win32":
        values.ValueClass = values.MultiProcessValue(lambda: _name)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        delete_shared_folder()


def delete_shared_folder() -> None:
    """Remove the shared folder at the end. Processes that still count are not disturbed."""
    shutil.rmtree(os.environ.get(_FOLDER, ""), ignore_errors=True)


def count_as_a_worker() -> None:
    """Count in files of this process from now on, if there are several workers.

    Their names have a number instead of the process id, so that a dead worker's counts stay in the sum, and the next
    worker continues its files, which would otherwise pile up.
    """
    global _name
    if _FOLDER not in os.environ or sys.platform == "win32":
        return
    number = next(number for number in count() if _is_free(Path(os.environ[_FOLDER], f"{number}.lock")))
    # But the promises in the dead worker's memory are gone, so their gauge must be removed.
    Path(os.environ[_FOLDER], f"gauge_livesum_{number}.db").unlink(missing_ok=True)
    _name = str(number)


def _registry_of_all_workers() -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


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


def _processes() -> dict[str, int]:
    """The ids of this service's processes, by name."""
    if _FOLDER not in os.environ:
        return {"0": os.getpid()}
    numbered = {path.stem: path.read_text() for path in Path(os.environ[_FOLDER]).glob("*.lock")}
    return {"supervisor": os.getppid(), **{number: int(pid) for number, pid in sorted(numbered.items()) if pid}}
