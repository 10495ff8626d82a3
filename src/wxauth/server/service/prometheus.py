"""The metrics in Prometheus's format. With several workers, they are the sums of all workers' counts."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.routing import Route
from starlette.types import Scope

from wxauth import __version__
from wxauth.errors import StorageUnavailable, WeChatBadResponse, WeChatError, WxAuthError
from wxauth.server.core.clock import Clock, DatabaseClock
from wxauth.server.core.database import Database
from wxauth.server.core.metrics import CountedBlock, Stopwatch
from wxauth.server.core.settings import InvalidSettings
from wxauth.server.refusals.refusals import Dropped
from wxauth.server.service.metric_table import (
    BACKCHANNEL_LOGOUTS,
    BUILD,
    CLIENT_REQUESTS,
    CLOCK_AHEAD,
    COUNTERS,
    DATABASE_SECONDS,
    DOORS,
    HISTOGRAMS,
    LOGINS,
    MERGES,
    OUR_FAULTS,
    OUTCOMES_OF_A_LOGIN,
    POLICY_CHECKS,
    PUT_OFF,
    REFRESHES,
    REFUSALS,
    REFUSALS_DROPPED,
    REQUEST_SECONDS,
    REQUESTS,
    SCANS,
    SIGN_UP_HOOK_SECONDS,
    SIGNATURES,
    STORED,
    WEBHOOK_DELIVERIES,
    WECHAT_CALLS,
    WECHAT_SECONDS,
    WECHAT_TOKEN_READS,
    CounterRow,
)
from wxauth.server.service.processes import Processes
from wxauth.server.service.statistics_rows import Statistics, statistics
from wxauth.server.wechat.errcodes import KNOWN_ERRCODES

if sys.platform != "win32":
    import fcntl

STATISTICS_MAX_AGE: Final = timedelta(seconds=15)
"""How long values read from the database are served again, so that scrapes add few queries."""
STATISTICS_PATIENCE_SECONDS: Final = 2.0
"""Seconds that the database gets for these values. After that, a scrape omits them."""

_name = "supervisor"
"""Of this process in the names of its files. The supervisor makes the metrics and counts nothing."""
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name for it
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the only writable place in some containers
_UNKNOWN_APP: Final = "unknown"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD: Final = "other"
_NO_ROUTE: Final = "none"
# Disabled, because each metric would get a second series, `_created`, which several workers cannot have.
disable_created_metrics()  # type: ignore[no-untyped-call]


class PrometheusMetrics(Collector):
    """The `Metrics` of the service.

    Args:
        database: Where the statistics are read.
        clock: The time.
        sweeps: The names of the daily sweeps.
    """

    def __init__(self, *, database: Database, clock: Clock, sweeps: Sequence[str]) -> None:
        self._database = database
        self._sweeps = sweeps
        self._clock = clock
        self._statistics: Statistics | None = None
        self._statistics_at: datetime | None = None

        own = CollectorRegistry()
        self._counted = _registry_of_all_workers() if _FOLDER in os.environ else own
        self._processes = Processes(_processes)
        self._counters: dict[CounterRow, _Children[Counter]] = {}
        for row in COUNTERS:
            self._counters[row] = children = _Children(Counter(row.name, row.help, row.labels, registry=own))
            children.expect(row.expected)
        self._histograms = {
            row: Histogram(row.name, row.help, row.labels, buckets=row.bounds, registry=own) for row in HISTOGRAMS
        }
        self._request_seconds = _Children(self._histograms[REQUEST_SECONDS])
        self._put_off = Gauge(*PUT_OFF, registry=own, multiprocess_mode="livesum")
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._app_labels: dict[str | None, str] = {}

    def count_apps(self, app_ids: Sequence[str], default: str | None) -> None:
        """Count for these apps from now on, each separately. A login that names no app counts for the default one."""
        labels: dict[str | None, str] = {app_id: app_id for app_id in app_ids}
        self._app_labels = labels if default is None else {None: default, **labels}
        self._counters[LOGINS].expect((app_id, outcome, "") for app_id in app_ids for outcome in OUTCOMES_OF_A_LOGIN)

    def expect(self, routes: Iterable[Route]) -> None:
        """Create the series of these routes at the start, for the successful answer and for faults of ours."""
        for route in routes:
            for method in sorted(route.methods or ()):
                statuses = {getattr(route, "status_code", None) or 200, *(fault.status for fault in OUR_FAULTS)}
                self._counters[REQUESTS].expect((method, route.path, str(status)) for status in sorted(statuses))

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and time an answered request."""
        route = scope.get("route")
        key = (route.path if route else _NO_ROUTE, scope["method"], status)
        children = self._answers.get(key)
        if children is None:
            children = self._children_of(*key)
        counter, histogram = children
        counter.inc()
        histogram.observe(seconds)

    def login(self, app_id: str | None) -> CountedBlock:
        """Count the login in the block."""
        label = self._app_labels.get(app_id, _UNKNOWN_APP)
        return CountedBlock(lambda outcome, error: self._counters[LOGINS][label, outcome, _errcode_of(error)].inc())

    def refresh(self) -> CountedBlock:
        """Count the refresh in the block."""
        return CountedBlock(lambda outcome, _: self._counters[REFRESHES][outcome].inc())

    def exchange(self) -> Stopwatch:
        """Time the exchange of a code in the block."""
        return Stopwatch(self._histograms[WECHAT_SECONDS].observe)

    def wechat_call(self, api: str, error: WeChatError | None) -> None:
        """Count a call to WeChat."""
        if error is None:
            self._counters[WECHAT_CALLS][api, "ok", ""].inc()
            return
        self._counters[WECHAT_CALLS][api, error.code, _label_of(error.errcode)].inc()

    def policy_check(self, policy: str, app_id: str, outcome: str, errcode: int | None = None) -> None:
        """Count a check at WeChat that a policy requires."""
        label = self._app_labels.get(app_id, _UNKNOWN_APP)
        self._counters[POLICY_CHECKS][policy, label, outcome, _label_of(errcode)].inc()

    def wechat_token_read(self, app_id: str) -> CountedBlock:
        """Count the handing out of a WeChat token in the block."""
        return CountedBlock(lambda outcome, _: self._counters[WECHAT_TOKEN_READS][app_id, outcome].inc())

    def signature(self, app_id: str) -> CountedBlock:
        """Count the request for a signature in the block."""
        label = self._app_labels.get(app_id, _UNKNOWN_APP)
        return CountedBlock(lambda outcome, _: self._counters[SIGNATURES][label, outcome].inc())

    def merged(self, source: str) -> None:
        """Count a merge of two users."""
        self._counters[MERGES][source].inc()

    def scan(self, outcome: str, number: int = 1) -> None:
        """Count scans that have reached this stage."""
        self._counters[SCANS][outcome].inc(number)

    def door(self, door: str, outcome: str) -> None:
        """Count a finished login to a site."""
        self._counters[DOORS][door, outcome].inc()

    def client_request(self, client: str, operation: str, outcome: str) -> None:
        """Count the request of a client, whose name has been proved."""
        self._counters[CLIENT_REQUESTS][client, operation, outcome].inc()

    def webhook_delivery(self, webhook: str, outcome: str) -> None:
        """Count an attempt to deliver an event."""
        self._counters[WEBHOOK_DELIVERIES][webhook, outcome].inc()

    def backchannel_logout(self, outcome: str) -> None:
        """Count an attempt to send a logout token."""
        self._counters[BACKCHANNEL_LOGOUTS][outcome,].inc()

    def sign_up_hook(self, outcome: str, seconds: float) -> None:
        """Time a request about a new user."""
        self._histograms[SIGN_UP_HOOK_SECONDS].labels(outcome).observe(seconds)

    def put_off(self, what: str, number: int) -> None:
        """Set the number of promises of a kind that wait to be retried."""
        self._put_off.labels(what).set(number)

    def storing(self) -> Stopwatch:
        """Time the storing of a login in the block."""
        return Stopwatch(self._histograms[DATABASE_SECONDS].observe)

    def refused(self, error: WxAuthError) -> None:
        """Count a request answered with a problem."""
        self._counters[REFUSALS][error.code].inc()

    def refusals_dropped(self, why: Dropped, number: int) -> None:
        """Count refused logins that are not stored."""
        self._counters[REFUSALS_DROPPED][why].inc(number)

    async def scrape(self) -> bytes:
        """All metrics, in Prometheus's text format."""
        await self._read_statistics()
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """The counts, and the current values of gauges."""
        for children in self._counters.values():
            children.make_expected()
        yield from self._counted.collect()
        yield from self._processes.collect()
        yield InfoMetricFamily(*BUILD, {"version": __version__})
        ahead = self._clock.ahead if isinstance(self._clock, DatabaseClock) else timedelta()
        yield GaugeMetricFamily(*CLOCK_AHEAD, ahead.total_seconds())
        if self._statistics is None:
            return
        for row in STORED:
            yield GaugeMetricFamily(row.name, row.help, row.value(self._statistics, self._clock()))

    def _children_of(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        known_method = method if method in _METHODS else _OTHER_METHOD  # callers may send any text as a method
        children = (
            self._counters[REQUESTS][known_method, route, str(status)],
            self._request_seconds[known_method, route],
        )
        if known_method == method:
            self._answers[route, method, status] = children
        return children

    async def _read_statistics(self) -> None:
        now = self._clock()
        if self._statistics_at is not None and abs(now - self._statistics_at) < STATISTICS_MAX_AGE:
            return
        self._statistics_at = now  # set before the query, so that only one of several scrapes runs it
        try:
            async with asyncio.timeout(STATISTICS_PATIENCE_SECONDS):
                self._statistics = await statistics(self._database, sweeps=self._sweeps, now=now)
        except (StorageUnavailable, TimeoutError):
            self._statistics = None


Child = TypeVar("Child", bound=MetricWrapperBase)


class _Children(dict[Any, Child]):
    """The series of a metric by their labels. prometheus_client's own lookup costs more than counting does."""

    def __init__(self, metric: Child) -> None:
        self._metric = metric
        self._expected: dict[str | tuple[str, ...], None] = {}

    def __missing__(self, labels: str | tuple[str, ...]) -> Child:
        child = self[labels] = self._metric.labels(*((labels,) if isinstance(labels, str) else labels))
        return child

    def expect(self, series: Iterable[str | tuple[str, ...]]) -> None:
        """Have these series exist from the first scrape on.

        The scrape creates them, because at startup that would cost 20 ms.
        """
        self._expected.update(dict.fromkeys(series))

    def make_expected(self) -> None:
        """Create the expected series that have not been counted yet."""
        for labels in self._expected:
            self[labels]
        self._expected.clear()


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
    if sys.platform != "win32":
        values.ValueClass = values.MultiProcessValue(lambda: _name)  # type: ignore[no-untyped-call]
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


def _label_of(errcode: int | None) -> str:
    return "" if errcode is None else str(errcode) if errcode in KNOWN_ERRCODES else "other"


def _errcode_of(error: WxAuthError | None) -> str:
    if not isinstance(error, WeChatError) or error.errcode is None:
        return ""
    return "other" if isinstance(error, WeChatBadResponse) else str(error.errcode)  # the others are few and known
