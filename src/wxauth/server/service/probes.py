"""`/livez`, `/readyz` and `/metrics`, for operators."""

from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from wxauth.errors import Title
from wxauth.server.service.prometheus import PrometheusMetrics
from wxauth.server.service.readiness import OK, Readiness
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router

router = Router("operations")

ReadinessDep = Annotated[Readiness, Depends(provide(Readiness))]
PrometheusMetricsDep = Annotated[PrometheusMetrics, Depends(provide(PrometheusMetrics))]

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
