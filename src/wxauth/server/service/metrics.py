"""`/metrics`, for operators: what all workers count, and some numbers of the database."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from itertools import product
from typing import Annotated, Final

from fastapi import Depends
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.routing import Route

from wxauth import __version__
from wxauth.errors import StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock, DatabaseClock
from wxauth.server.core.database import Database
from wxauth.server.core.metrics import DECLARED, OUR_FAULTS
from wxauth.server.core.services import part
from wxauth.server.housekeeping.queries import STATISTICS, Statistics
from wxauth.server.login.routes import LOGINS, OUTCOMES
from wxauth.server.service.shared_counts import counts, processes
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import REQUESTS

STATISTICS_MAX_AGE: Final = timedelta(seconds=15)
"""How long values read from the database are served again, so that scrapes add few queries."""
STATISTICS_PATIENCE_SECONDS: Final = 2.0
"""Seconds that the database gets for these values. After that, a scrape omits them."""
_LABELS: Final = ("worker",)
_EXAMPLE_METRICS: Final = """\
# HELP wxauth_logins_total Logins by outcome: ok, new (a new user) or the code of the problem; errcode is WeChat's.
# TYPE wxauth_logins_total counter
wxauth_logins_total{app_id="wx1a2b3c4d5e6f7a8b",errcode="",outcome="ok"} 1927.0
wxauth_logins_total{app_id="wx1a2b3c4d5e6f7a8b",errcode="40029",outcome="invalid_code"} 3.0
"""

router = Router("operations")


class Processes(Collector):
    """prometheus_client's `process_` metrics, with a series for each process. A restarted process counts from zero."""

    def collect(self) -> Iterator[Metric]:
        """What each process has used so far, or uses now. A process that has just ended is left out."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, pid in processes().items():
            for one in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                kind = CounterMetricFamily if one.type == "counter" else GaugeMetricFamily
                family = families.setdefault(one.name, kind(one.name, one.documentation, labels=_LABELS))
                family.add_metric([name], one.samples[0].value)
        yield from families.values()


@part
class PrometheusMetrics(Collector):
    """What is reported: what the packages count, the processes, and some numbers of the database.

    Each app has its series from the start, and so has each route, for the successful answer and for faults of ours.
    `sweeps` are the names of the daily sweeps.
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
        yield from counts().collect()
        yield from Processes().collect()
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
                self._statistics = await self.database.one(STATISTICS, sweeps=self.sweeps, now=now)
        except (StorageUnavailable, TimeoutError):
            self._statistics = None


PrometheusMetricsDep = Annotated[PrometheusMetrics, Depends(provide(PrometheusMetrics))]


@router.get(
    "/metrics",
    summary=_("Prometheus metrics"),
    operation_id="read_metrics",
    responses={200: {"content": {"text/plain": {"example": _EXAMPLE_METRICS}}}},
)
async def metrics(recorded: PrometheusMetricsDep) -> PlainTextResponse:
    """Logins, refreshes and refusals, response times of WeChat and the database, open sessions, the signing key's age.

    Sums over all workers. For operators: do not expose it.
    """
    text = await recorded.scrape()
    return PlainTextResponse(text, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE_PLAIN_0_0_4)
