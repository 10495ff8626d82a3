"""`/livez`, `/readyz` and `/metrics`, for operators: whether this process can serve, and what all workers count.

The database is asked at most once a second, regardless of the number of probes.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from itertools import product
from time import monotonic
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.routing import Route

from wxauth import __version__
from wxauth.errors import StorageUnavailable, Title
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock, DatabaseClock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import DECLARED, OUR_FAULTS
from wxauth.server.core.outages import DatabaseUrlRefused, troubles
from wxauth.server.core.revisions import OF_PREVIEW, current_revision, is_of_preview, is_usable
from wxauth.server.core.services import part
from wxauth.server.housekeeping.rows import Statistics, statistics
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.login.login_rows import rehearse_login
from wxauth.server.login.routes import LOGINS, OUTCOMES
from wxauth.server.service.shared_counts import counts, processes
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import REQUESTS

STATISTICS_MAX_AGE: Final = timedelta(seconds=15)
"""How long values read from the database are served again, so that scrapes add few queries."""
STATISTICS_PATIENCE_SECONDS: Final = 2.0
"""Seconds that the database gets for these values. After that, a scrape omits them."""
MAX_AGE: Final = timedelta(seconds=1)
"""How long the database's last answer is reused."""
REHEARSED_FOR: Final = timedelta(seconds=30)
"""How long a rehearsed login counts. One that failed is repeated with the next look at the database."""
OK: Final = "ok"
_REFUSED: Final = "refused by the database: see 'wxauth check'"
_LABELS: Final = ("worker",)
_EXAMPLE_READY: dict[str, Any] = {
    "status": "ready",
    "checks": {"database": "ok", "schema": "ok", "login": "ok", "signing_key": "ok"},
}
_EXAMPLE_NOT_READY: dict[str, Any] = {
    "status": "unavailable",
    "checks": {"database": "ok", "schema": "behind: run 'wxauth migrate'", "signing_key": "not read yet"},
}
_EXAMPLE_METRICS = """\
# HELP wxauth_logins_total Logins by outcome: ok, new (a new user) or the code of the problem; errcode is WeChat's.
# TYPE wxauth_logins_total counter
wxauth_logins_total{app_id="wx1a2b3c4d5e6f7a8b",errcode="",outcome="ok"} 1927.0
wxauth_logins_total{app_id="wx1a2b3c4d5e6f7a8b",errcode="40029",outcome="invalid_code"} 3.0
"""

log = get_logger()


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
                self._statistics = await statistics(self.database, sweeps=self.sweeps, now=now)
        except (StorageUnavailable, TimeoutError):
            self._statistics = None


async def is_migrated(database: Database) -> bool:
    """Whether the database answers and has a schema. If not, that and the remedy are logged at intervals.

    Raises: DatabaseUrlRefused.
    """
    try:
        revision = await current_revision(database)
        if revision is not None and not is_of_preview(revision):
            return True
    except DatabaseUrlRefused:
        raise
    except StorageUnavailable as exc:
        troubles.note(exc)
        return False
    if troubles.is_due(monotonic()):
        log.warning(
            "schema_missing" if revision is None else "schema_of_preview",
            what_to_do="run 'wxauth migrate'" if revision is None else OF_PREVIEW.en,
            consequence="not ready until it is there",
        )
    return False


def is_younger(at: datetime | None, age: timedelta, now: datetime) -> bool:
    """Whether this was less than so long ago, by a clock that may have been set back."""
    return at is not None and abs(now - at) < age


@part
class Readiness:
    """The answers of `/readyz`.

    Args:
        database: Checked for a connection, a usable schema, and whether it takes a login, which is rolled back.
        keys: Checked for a signing key.
        clock: The time.
    """

    database: Database
    keys: KeyRing
    clock: Clock
    _check: asyncio.Task[Mapping[str, str]] | None = field(init=False, default=None)
    _checked_at: datetime | None = field(init=False, default=None)
    _is_leaving: bool = field(init=False, default=False)
    _rehearsal: asyncio.Task[None] | None = field(init=False, default=None)
    _rehearsed_at: datetime | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._login = OK

    def leave(self) -> None:
        """From now on, report that this process is ending, so that it gets no new requests."""
        self._is_leaving = True

    async def checks(self) -> dict[str, str]:
        """The state of each part by name: `OK`, or what is wrong with it."""
        if self._is_leaving:
            return {"process": "is ending"}
        return {**await self._of_database(), "signing_key": OK if self.keys.is_ready else "not read yet"}

    async def _of_database(self) -> Mapping[str, str]:
        now = self.clock()
        if self._check is None or (self._check.done() and not is_younger(self._checked_at, MAX_AGE, now)):
            self._checked_at = now
            self._check = asyncio.create_task(self._check_database(), name="readiness")
        return await asyncio.shield(self._check)

    async def _check_database(self) -> Mapping[str, str]:
        try:
            revision = await current_revision(self.database)
        except StorageUnavailable:
            return {"database": "does not answer", "schema": "unknown"}
        if not is_usable(revision):
            what = OF_PREVIEW.en if is_of_preview(revision) else "behind: run 'wxauth migrate'"
            return {"database": OK, "schema": what}
        return {"database": OK, "schema": OK, "login": await self._of_login()}

    async def _of_login(self) -> str:
        """Whether the database takes a login. Probes wait for the first rehearsal only: later ones may meet a lock."""
        now = self.clock()
        is_first = self._rehearsal is None
        is_running = self._rehearsal is not None and not self._rehearsal.done()
        if not is_running and not (self._login == OK and is_younger(self._rehearsed_at, REHEARSED_FOR, now)):
            self._rehearsed_at = now
            self._rehearsal = asyncio.create_task(self._rehearse(now), name="rehearsal")
            if is_first or self._login != OK:
                await self._rehearsal
        return self._login

    async def _rehearse(self, now: datetime) -> None:
        try:
            reason = await rehearse_login(self.database, now=now)
        except StorageUnavailable:  # it says nothing about the next login
            return
        if reason is not None and self._login == OK:
            log.error("login_refused_by_database", reason=reason, consequence="not ready until it is possible")
        self._login = OK if reason is None else _REFUSED


router = Router("operations")

ReadinessDep = Annotated[Readiness, Depends(provide(Readiness))]
PrometheusMetricsDep = Annotated[PrometheusMetrics, Depends(provide(PrometheusMetrics))]


@router.get(
    "/livez",
    response_model=dict[str, str],
    summary=Title("Liveness", "存活检查"),
    operation_id="is_alive",
    responses={200: {"content": {"application/json": {"example": {"status": "alive"}}}}},
)
async def livez() -> JSONResponse:
    """The process answers. The database is not checked."""
    return JSONResponse({"status": "alive"})


@router.get(
    "/readyz",
    summary=Title("Readiness", "就绪检查"),
    operation_id="is_ready",
    responses={
        200: {"content": {"application/json": {"example": _EXAMPLE_READY}}},
        503: {
            "description": "Not able to serve; `checks` says why",
            "content": {"application/json": {"example": _EXAMPLE_NOT_READY}},
        },
    },
)
async def readyz(readiness: ReadinessDep) -> JSONResponse:
    """Whether the database answers, its schema fits this version, it takes a login, and there is a signing key.

    The database is queried at most once a second, and given a login that is rolled back every 30 s. For operators: do
    not expose it.
    """
    checks = await readiness.checks()
    is_ready = all(state == OK for state in checks.values())
    return JSONResponse(
        {"status": "ready" if is_ready else "unavailable", "checks": checks},
        status_code=200 if is_ready else 503,
        headers={"Cache-Control": "no-store"},
    )


@router.get(
    "/metrics",
    summary=Title("Prometheus metrics", "供 Prometheus 采集的指标"),
    operation_id="read_metrics",
    responses={200: {"content": {"text/plain": {"example": _EXAMPLE_METRICS}}}},
)
async def metrics(recorded: PrometheusMetricsDep) -> PlainTextResponse:
    """Logins, refreshes and refusals, response times of WeChat and the database, open sessions, the signing key's age.

    Sums over all workers. For operators: do not expose it.
    """
    text = await recorded.scrape()
    return PlainTextResponse(text, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE_PLAIN_0_0_4)
