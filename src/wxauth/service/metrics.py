"""What operators watch, as Prometheus reads it; with several workers, the sum of what all have counted."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from wxauth import __version__
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.settings import InvalidSettings
from wxauth.errors import InternalError, StorageUnavailable, WeChatBadResponse, WeChatError, WxAuthError
from wxauth.service.rows import statistics
from wxauth.wechat.errcodes import KNOWN

if sys.platform != "win32":
    import fcntl

STATISTICS_MAX_AGE: Final = timedelta(seconds=15)
"""For so long what was read from the database is good enough."""
STATISTICS_PATIENCE: Final = 2.0
"""Seconds that the database has for it. A scrape goes without, then."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name for it
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a container may have no other place to write to
_UNKNOWN_APP: Final = "unknown"
_WECHAT_BOUNDS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
_DATABASE_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

# A further series for each one, which there is not with several workers.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics(Collector):
    """Counts what happens. Every label has few values: none is a user's, none a caller's own word.

    Args:
        database: Where the sessions are.
        clock: The time.
    """

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._statistics: Mapping[str, Any] | None = None
        self._statistics_at: datetime | None = None

        own = CollectorRegistry()
        self._counted = _registry_of_all_workers() if _FOLDER in os.environ else own
        self._logins = Counter(
            "wxauth_logins",
            "Logins by outcome: ok, new (a new user) or the code of the problem; errcode is WeChat's.",
            ["app_id", "outcome", "errcode"],
            registry=own,
        )
        self._refreshes = Counter(
            "wxauth_refreshes", "Refreshes by outcome: ok, or the code of the problem.", ["outcome"], registry=own
        )
        self._refusals = Counter(
            "wxauth_requests_refused", "Requests answered by a problem, by its code.", ["code"], registry=own
        )
        self._wechat_calls = Counter(
            "wxauth_wechat_calls",
            "Calls to WeChat by API and outcome: ok, or the code of the problem; errcode is WeChat's.",
            ["api", "outcome", "errcode"],
            registry=own,
        )
        self._wechat_token_reads = Counter(
            "wxauth_access_token_reads",
            "WeChat access tokens that service clients asked for, by outcome: ok, or the code of the problem.",
            ["app_id", "outcome"],
            registry=own,
        )
        self._policy_checks = Counter(
            "wxauth_policy_checks",
            "What WeChat was asked about by RISK_POLICY and NICKNAME_CHECK, by outcome: pass, flagged, blocked, or why "
            "nobody knows; errcode is WeChat's.",
            ["policy", "app_id", "outcome", "errcode"],
            registry=own,
        )
        self._webhook_deliveries = Counter(
            "wxauth_webhook_deliveries",
            "Tries to deliver an event, by webhook and outcome: delivered, retried (it is tried again later), failed.",
            ["webhook", "outcome"],
            registry=own,
        )
        self._put_off = Gauge(
            "wxauth_put_off",
            "What the database did not take and is done again, by what it is.",
            ["what"],
            registry=own,
            multiprocess_mode="livesum",
        )
        self._wechat_seconds = Histogram(
            "wxauth_wechat_seconds", "Exchanges of a code, retries included.", buckets=_WECHAT_BOUNDS, registry=own
        )
        self._database_seconds = Histogram(
            "wxauth_database_seconds", "Storing of a login.", buckets=_DATABASE_BOUNDS, registry=own
        )
        # To look a series up costs four times what it costs to count in it.
        self._logins_of = cache(self._logins.labels)
        self._refreshes_of = cache(self._refreshes.labels)
        self._wechat_calls_of = cache(self._wechat_calls.labels)
        self._app_labels: dict[str | None, str] = {}
        self._refreshes_of("ok")  # there from the start, so that the first one is seen as an increase

    def know_apps(self, app_ids: Sequence[str], default: str | None) -> None:
        """Count for these apps from now on, each by itself; what names no app is the default one's."""
        labels: dict[str | None, str] = {app_id: app_id for app_id in app_ids}
        self._app_labels = labels if default is None else {None: default, **labels}
        for app_id in app_ids:
            self._logins_of(app_id, "ok", "")
            self._logins_of(app_id, "new", "")

    def login(self, app_id: str | None) -> "Outcome":
        """Counts the login in the block."""
        label = self._app_labels.get(app_id, _UNKNOWN_APP)
        return Outcome(lambda outcome, errcode: self._logins_of(label, outcome, errcode).inc())

    def refresh(self) -> "Outcome":
        """Counts the refresh in the block."""
        return Outcome(lambda outcome, _: self._refreshes_of(outcome).inc())

    def exchange(self) -> "Stopwatch":
        """Times the exchange with WeChat in the block."""
        return Stopwatch(self._wechat_seconds)

    def wechat_call(self, api: str, error: WeChatError | None) -> None:
        """Counts a call to WeChat."""
        if error is None:
            self._wechat_calls_of(api, "ok", "").inc()
            return
        self._wechat_calls_of(api, error.code, _label_of(error.errcode)).inc()

    def policy_check(self, policy: str, app_id: str, outcome: str, errcode: int | None = None) -> None:
        """Counts what a policy asked WeChat about."""
        label = self._app_labels.get(app_id, _UNKNOWN_APP)
        self._policy_checks.labels(policy, label, outcome, _label_of(errcode)).inc()

    def wechat_token_read(self, app_id: str) -> "Outcome":
        """Counts the access token that is asked for in the block."""
        return Outcome(lambda outcome, _: self._wechat_token_reads.labels(app_id, outcome).inc())

    def webhook_delivery(self, webhook: str, outcome: str) -> None:
        """Counts a try to deliver an event."""
        self._webhook_deliveries.labels(webhook, outcome).inc()

    def put_off(self, what: str, number: int) -> None:
        """Says how many of a kind wait to be done again."""
        self._put_off.labels(what).set(number)

    def storing(self) -> "Stopwatch":
        """Times the storing of a login in the block."""
        return Stopwatch(self._database_seconds)

    def refused(self, error: WxAuthError) -> None:
        """Counts a request that was answered by a problem."""
        self._refusals.labels(error.code).inc()

    async def scrape(self) -> bytes:
        """All of it, in Prometheus's text format."""
        await self._read_statistics()
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """What was counted, and what is so just now."""
        yield from self._counted.collect()
        yield InfoMetricFamily("wxauth_build", "What is running.", {"version": __version__})
        if self._statistics is None:
            return
        sessions, signs_since = self._statistics["open_sessions"], self._statistics["key_signs_since"]
        yield GaugeMetricFamily("wxauth_sessions", "Open sessions; an estimate where there are many.", sessions)
        waits_since = self._statistics["webhooks_wait_since"]
        waited = 0.0 if waits_since is None else max(0.0, (self._clock() - waits_since).total_seconds())
        yield GaugeMetricFamily(
            "wxauth_webhook_oldest_pending_seconds",
            "For how long the oldest event waits that an enabled webhook has not got; 0 where none waits.",
            waited,
        )
        if signs_since is not None:
            age = (self._clock() - signs_since).total_seconds()
            yield GaugeMetricFamily("wxauth_signing_key_age_seconds", "How long the signing key has been in use.", age)

    async def _read_statistics(self) -> None:
        now = self._clock()
        if self._statistics_at is not None and abs(now - self._statistics_at) < STATISTICS_MAX_AGE:
            return
        self._statistics_at = now  # at once: of several scrapes, one asks
        try:
            async with asyncio.timeout(STATISTICS_PATIENCE):
                self._statistics = await statistics(self._database, now=now)
        except (StorageUnavailable, TimeoutError):
            self._statistics = None


class Outcome:
    """Counts how the block ends: by its `name`, or by the code of the failure that it raises."""

    __slots__ = ("_count", "name")

    def __init__(self, count: Callable[[str, str], None]) -> None:
        self._count = count
        self.name = "ok"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self._count(self.name, "")
        elif isinstance(exc, WxAuthError):
            self._count(exc.code, _errcode_of(exc))
        else:
            self._count(InternalError.code, "")


class Stopwatch:
    """Times the block, however it ends."""

    __slots__ = ("_histogram", "_started", "milliseconds")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = perf_counter() - self._started
        self.milliseconds = round(seconds * 1000, 1)
        self._histogram.observe(seconds)


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """The processes started in the block add up what they count.

    Raises: InvalidSettings, where there is no place to do it.
    """
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    try:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="wxauth-metrics-", dir=parent)
    except OSError as exc:
        raise InvalidSettings([f"WXAUTH_WORKERS: several want a folder for temporary files: {exc.strerror}"]) from None
    try:
        yield
    finally:
        remove_what_is_shared()


def remove_what_is_shared() -> None:
    """For the end; a process that still counts is not disturbed."""
    shutil.rmtree(os.environ.get(_FOLDER, ""), ignore_errors=True)


def _registry_of_all_workers() -> CollectorRegistry:
    if sys.platform != "win32":
        # A number instead of the process id: what a dead worker counted stays in the sum, and the next one goes
        # on with its files, so that they do not pile up.
        number = next(number for number in count() if _is_free(Path(os.environ[_FOLDER], f"{number}.lock")))
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def _is_free(path: Path) -> bool:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours for as long as this process lives
    except BlockingIOError:
        os.close(lock)
        return False
    return True


def _label_of(errcode: int | None) -> str:
    return "" if errcode is None else str(errcode) if errcode in KNOWN else "other"


def _errcode_of(error: WxAuthError) -> str:
    if not isinstance(error, WeChatError) or error.errcode is None:
        return ""
    return "other" if isinstance(error, WeChatBadResponse) else str(error.errcode)  # of those few that we know
