"""The routes `/livez` and `/readyz`, which report whether this process can serve requests.

Each process queries the database for `/readyz` at most once a second, regardless of the number of probes.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.responses import JSONResponse

from wxauth.checks.database import why_schema_not_found
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.outages import DatabaseUrlRefused, outage_log
from wxauth.core.revisions import current_revision, is_usable, refusal_of
from wxauth.core.services import part
from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.keys.keyring import KeyRing
from wxauth.web.dependencies import provide
from wxauth.web.direct import Router

DATABASE_CHECKS_MAX_AGE: Final = timedelta(seconds=1)
# The process still serves requests for this time after SIGTERM, because a proxy might not have noticed yet that it is
# ending.
PROXY_NOTICE_SECONDS: Final = 2.0
OK: Final = "ok"
_EXAMPLE_READY: Final[dict[str, Any]] = {
    "status": "ready",
    "checks": {"database": OK, "schema": OK, "signing_key": OK},
}
_EXAMPLE_NOT_READY: Final[dict[str, Any]] = {
    "status": "unavailable",
    "checks": {"database": OK, "schema": "behind: run 'wxauth migrate'", "signing_key": "not read yet"},
}
router = Router("operations")
log = get_logger()


async def has_our_schema(database: Database) -> bool:
    """Return whether the database responds and has a schema that this version does not refuse. Log why not.

    The lines share the interval of `outage_log`. The schema can lack the latest migrations. In this case, the service
    starts, but `/readyz` returns 503.
    """
    try:
        revision = await current_revision(database)
        refusal = refusal_of(revision)
        if revision is not None and refusal is None:
            return True
        why_not_found = await why_schema_not_found(database) if revision is None else None
    except DatabaseUrlRefused:  # a StorageUnavailable that must not be handled below, because waiting would not help
        raise
    except StorageUnavailable as exc:
        outage_log.note(exc)
        return False
    if outage_log.claim():  # so that repeated checks do not log a line each
        consequence = "not ready until this is done"
        if why_not_found is not None:
            log.warning("schema_not_found", what_to_do=str(why_not_found), consequence=consequence)
        elif refusal is None:
            log.warning("schema_missing", what_to_do="run 'wxauth migrate'", consequence=consequence)
        else:
            log.warning("schema_refused", what_to_do=str(refusal), consequence=consequence)
    return False


@part
class Readiness:
    """The checks of `/readyz`, and the state of this process, which `lifespan` and `leaving` update."""

    database: Database
    keys: KeyRing
    clock: Clock
    notice_seconds: float | None = PROXY_NOTICE_SECONDS  # None: the server handles signals, and waits for no proxy
    is_serving: bool = field(init=False, default=False)  # the process has finished starting
    is_leaving: bool = field(init=False, default=False)  # then each connection is closed after its next response
    is_replaced: bool = field(init=False, default=False)  # by another worker, so `/readyz` still returns 200
    stored_state: Text | None = field(init=False, default=None)  # why the stored data is not used yet
    _latest_check: asyncio.Task[Mapping[str, str]] | None = field(init=False, default=None)  # may have ended
    _latest_check_began_at: datetime | None = field(init=False, default=None)

    async def checks(self) -> dict[str, str]:
        """Return the result of each check by its name: `OK`, or a description of the failure."""
        if self.is_leaving and not self.is_replaced:
            return {"process": "is ending"}
        checks = {**await self._recent_database_checks(), "signing_key": OK if self.keys.is_ready else "not read yet"}
        return checks if self.stored_state is None else {**checks, "stored_state": self.stored_state}

    async def _recent_database_checks(self) -> Mapping[str, str]:
        now = self.clock()
        # With `abs`, a clock that was set back does not prevent checks.
        is_old = (
            self._latest_check_began_at is None or abs(now - self._latest_check_began_at) >= DATABASE_CHECKS_MAX_AGE
        )
        if self._latest_check is None or (self._latest_check.done() and is_old):
            self._latest_check_began_at = now
            self._latest_check = asyncio.create_task(self._check_database(), name="readiness")
        # A probe that is cancelled must not cancel the check, because other probes wait for it, too.
        return await asyncio.shield(self._latest_check)

    async def _check_database(self) -> Mapping[str, str]:
        try:
            revision = await current_revision(self.database.unheld())
            why_not_found = await why_schema_not_found(self.database.unheld()) if revision is None else None
        except StorageUnavailable:
            return {"database": "does not answer", "schema": "unknown"}
        if not is_usable(revision):
            problem = refusal_of(revision) or why_not_found or "behind: run 'wxauth migrate'"
            return {"database": OK, "schema": problem}
        return {"database": OK, "schema": OK}


ReadinessDep = Annotated[Readiness, Depends(provide(Readiness))]


@router.get(
    "/livez",
    response_model=dict[str, str],
    summary=_("Check liveness"),
    operation_id="is_alive",
    responses={HTTPStatus.OK: {"content": {"application/json": {"example": {"status": "alive"}}}}},
)
async def livez() -> JSONResponse:
    """Return 200 while the process responds. The database is not checked."""
    return JSONResponse({"status": "alive"}, headers={"Cache-Control": "no-store"})


@router.get(
    "/readyz",
    summary=_("Check readiness"),
    operation_id="is_ready",
    responses={
        HTTPStatus.OK: {"content": {"application/json": {"example": _EXAMPLE_READY}}},
        HTTPStatus.SERVICE_UNAVAILABLE: {
            "description": "The process cannot serve requests, or is ending. `checks` contains the reason.",
            "content": {"application/json": {"example": _EXAMPLE_NOT_READY}},
        },
    },
)
async def readyz(readiness: ReadinessDep) -> JSONResponse:
    """Return 200 if this process can serve requests, or 503 with the reason.

    It can serve if the database responds, its schema fits this version, there is a signing key, and the stored data
    matches the settings. A process that is ending returns 503, unless another worker replaces it. Each process queries
    the database at most once a second. The route is for operators, so do not expose it to the internet.
    """
    checks = await readiness.checks()
    is_ready = all(state == OK for state in checks.values())
    return JSONResponse(
        {"status": "ready" if is_ready else "unavailable", "checks": checks},
        status_code=HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE,
        headers={"Cache-Control": "no-store"},
    )
