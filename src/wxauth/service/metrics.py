"""The route `/metrics` for operators, which returns the counts of all workers, and statistics from the database."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from itertools import product
from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.routing import Route

from wxauth import __version__
from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock, DatabaseClock
from wxauth.core.database import Database
from wxauth.core.metrics import DECLARED, OUR_FAULTS, REGISTRY
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable
from wxauth.housekeeping.queries import STATISTICS, Statistics
from wxauth.i18n import lazy_gettext as _
from wxauth.login.routes import LOGINS, OUTCOMES
from wxauth.service.server import COUNTS_VARIABLE
from wxauth.service.shared_counts import process_ids
from wxauth.web.dependencies import provide
from wxauth.web.direct import Router
from wxauth.web.edge import REQUESTS

STATISTICS_MAX_AGE: Final = timedelta(seconds=15)  # so that frequent scrapes cause few queries
STATISTICS_PATIENCE_SECONDS: Final = 2.0  # then the scrape omits them
_EXAMPLE_METRICS: Final = """\
# HELP wxauth_logins_total Logins, by app and outcome: ok, new (a new user) or the code of the error; \
errcode is WeChat's.
# TYPE wxauth_logins_total counter
wxauth_logins_total{app_id="wx1a2b3c4d5e6f7a8b",errcode="",outcome="ok"} 1927.0
wxauth_logins_total{app_id="wx1a2b3c4d5e6f7a8b",errcode="40029",outcome="invalid_code"} 3.0
"""

router = Router("operations")


def _registry_of_counts() -> CollectorRegistry:
    # The folder is missing while workers end without their supervisor. Then each reports only its own counts.
    if COUNTS_VARIABLE not in os.environ or not Path(os.environ[COUNTS_VARIABLE]).is_dir():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class Processes(Collector):
    """prometheus_client's `process_` metrics, for each process of this service. A restarted process begins at zero."""

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, pid in process_ids().items():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
                family = families.setdefault(metric.name, kind(metric.name, metric.documentation, labels=["worker"]))
                family.add_metric([name], metric.samples[0].value)
        yield from families.values()


@part
class PrometheusMetrics(Collector):
    """The collector of all metrics, which are those of wxauth's packages, those of the processes, and the statistics.

    From the first scrape, each app has a series for each outcome of a login, and each route has series for its
    successful response and for `OUR_FAULTS`.
    """

    database: Database
    clock: Clock
    apps: Apps
    sweeps: Sequence[str]
    routes: Sequence[Route] = ()
    # With the time of the query. None before the first query ends, and if the latest query has failed.
    _statistics: tuple[Statistics, datetime] | None = field(default=None, init=False)
    # The query might still be running, or might have failed.
    _query_began_at: datetime | None = field(default=None, init=False)

    async def scrape(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        await self._read_statistics()
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        self._make_first_series()
        yield from _registry_of_counts().collect()
        yield from Processes().collect()
        yield InfoMetricFamily("wxauth_build", "The running version.", {"version": __version__})
        ahead = self.clock.ahead if isinstance(self.clock, DatabaseClock) else timedelta()
        yield GaugeMetricFamily(
            "wxauth_clock_ahead_seconds",
            "By how much this machine's clock is ahead of the database's, which is used.",
            ahead.total_seconds(),
        )
        yield from self._statistics_gauges()

    def _make_first_series(self) -> None:
        for metric in DECLARED:
            metric.make_first()
        app_ids = [known.app.app_id for known in self.apps.all()]
        LOGINS.make_first(*product(app_ids, OUTCOMES, [""]))  # without an errcode of WeChat
        for route in self.routes:
            # Only FastAPI's routes have a `status_code`, which is None for the usual 200.
            status_of_success = getattr(route, "status_code", None) or HTTPStatus.OK.value
            statuses = [status_of_success, *(fault.status for fault in OUR_FAULTS)]
            REQUESTS.make_first(*product(sorted(route.methods or ()), [route.path], statuses))

    def _statistics_gauges(self) -> Iterator[Metric]:
        if self._statistics is None:
            return
        statistics, queried_at = self._statistics
        seconds_since_query = (self.clock() - queried_at).total_seconds()
        for name, column in Statistics.model_fields.items():
            value = getattr(statistics, name)
            if value and name.endswith("_seconds"):
                # The value is an age, which has grown since the query. 0 means that there is nothing with an age.
                value += seconds_since_query
            yield GaugeMetricFamily(f"wxauth_{name}", column.description or "", value)

    async def _read_statistics(self) -> None:
        now = self.clock()
        # With `abs`, a clock that was set back does not prevent queries.
        if self._query_began_at is not None and abs(now - self._query_began_at) < STATISTICS_MAX_AGE:
            return
        # The time is set before the query, so that only one of several simultaneous scrapes runs the query. Until the
        # query ends, the other scrapes report the earlier statistics.
        self._query_began_at = now
        try:
            async with asyncio.timeout(STATISTICS_PATIENCE_SECONDS):
                self._statistics = await self.database.one(STATISTICS, sweeps=self.sweeps, now=now), now
        except (StorageUnavailable, TimeoutError):
            self._statistics = None


PrometheusMetricsDep = Annotated[PrometheusMetrics, Depends(provide(PrometheusMetrics))]


@router.get(
    "/metrics",
    summary=_("Prometheus metrics"),
    operation_id="read_metrics",
    responses={HTTPStatus.OK: {"content": {"text/plain": {"example": _EXAMPLE_METRICS}}}},
)
async def metrics(prometheus_metrics: PrometheusMetricsDep) -> PlainTextResponse:
    """Return logins, refreshes, refusals, response times of WeChat and the database, and more, summed over all workers.

    The metrics also contain the number of open sessions, the age of the signing key, and the memory and CPU time of
    each process. They are for operators, so do not expose them to the internet.
    """
    text = await prometheus_metrics.scrape()
    return PlainTextResponse(text, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE_PLAIN_0_0_4)
