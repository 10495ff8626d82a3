"""What operators ask: alive, and able to serve."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from wxauth.errors import StorageUnavailable
from wxauth.services import Services, ServicesDep
from wxauth.store.migrations import is_schema_usable

router = APIRouter(tags=["operations"])

_EXAMPLE_READY: dict[str, Any] = {
    "status": "ready",
    "checks": {"database": "ok", "schema": "ok", "signing_key": "ok"},
}
_EXAMPLE_NOT_READY: dict[str, Any] = {
    "status": "unavailable",
    "checks": {"database": "ok", "schema": "behind: run 'wxauth migrate'", "signing_key": "not read yet"},
}


@router.get(
    "/livez",
    operation_id="is_alive",
    summary="Alive",
    responses={200: {"content": {"application/json": {"example": {"status": "alive"}}}}},
)
async def livez() -> dict[str, str]:
    """The process answers. Says nothing of the database."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    operation_id="is_ready",
    summary="Able to serve",
    responses={
        200: {"content": {"application/json": {"example": _EXAMPLE_READY}}},
        503: {
            "description": "Not able to serve; `checks` says why",
            "content": {"application/json": {"example": _EXAMPLE_NOT_READY}},
        },
    },
)
async def readyz(services: ServicesDep) -> JSONResponse:
    """The database answers, its schema is the one wanted, and there is a key to sign with; each by name."""
    checks = await _checks(services)
    is_ready = all(state == "ok" for state in checks.values())
    return JSONResponse(
        {"status": "ready" if is_ready else "unavailable", "checks": checks},
        status_code=200 if is_ready else 503,
        headers={"Cache-Control": "no-store"},
    )


async def _checks(services: Services) -> dict[str, str]:
    try:
        schema = "ok" if await is_schema_usable(services.database) else "behind: run 'wxauth migrate'"
        database = "ok"
    except StorageUnavailable:
        database, schema = "does not answer", "unknown"
    signing_key = "ok" if services.keys.is_ready else "not read yet"
    return {"database": database, "schema": schema, "signing_key": signing_key}
