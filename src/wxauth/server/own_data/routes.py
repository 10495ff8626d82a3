"""`GET /v1/me/export` and `GET /v1/admin/users/{user_id}/export`: all data stored about a person, as a download."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from wxauth.errors import RateLimited, StorageUnavailable, Title
from wxauth.server.core.database import reason_of
from wxauth.server.core.logs import get_logger
from wxauth.server.own_data.own_data import EXAMPLE_OWN_DATA, Export, export_mine, export_person
from wxauth.server.users.admin_routes import NO_SUCH_USER, StaffReadsDep
from wxauth.server.users.callers import AdministratorDep, CallerInTurnDep, DeviceDep
from wxauth.server.users.staff_reads import Read
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

router = Router("me")
log = get_logger()

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes per chunk. A slow reader must take each chunk within half a minute."""
_HEADERS: Final = {"Content-Disposition": 'attachment; filename="wxauth-export.json"', "Cache-Control": "no-store"}
_DOCUMENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "All that is stored of the person",
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in _HEADERS.items()},
        "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE_OWN_DATA}},
    },
}


@router.get(
    "/v1/me/export",
    summary=Title("Export my data", "导出我的数据"),
    responses=_DOCUMENT,
    failures=[RateLimited],
)
async def export_me(caller: CallerInTurnDep, database: DatabaseDep, clock: ClockDep, device: DeviceDep) -> Response:
    """All data stored about the caller, as one document: user, identities, sessions, consents, events, picture.

    It contains no secrets and no other person's data: administrators appear as `administrator`. Once a minute.
    """
    return _answer(await export_mine(database, clock, caller, ip=device.ip))


@router.get(
    "/v1/admin/users/{user_id}/export",
    summary=Title("Export a user's data", "导出用户的数据"),
    tag="admin",
    responses=_DOCUMENT,
    failures=[NO_SUCH_USER, RateLimited],
)
async def export_user(
    administrator: AdministratorDep, reads: StaffReadsDep, database: DatabaseDep, clock: ClockDep, user_id: UUID
) -> Response:
    """All data stored about a user, as in the user's own export. The audit trail records who exported it."""
    export = await export_person(database, user_id, by=administrator, now=clock())
    reads.note_read(administrator, Read.EXPORT, user_id)
    return _answer(export)


class _Download(StreamingResponse):
    """Sends a large document. Closes its pieces even if the client disconnects."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        self._rest = rest
        super().__init__(self._pieces(first), media_type="application/json", headers=_HEADERS)

    async def _pieces(self, first: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(first), _CHUNK_BYTES):
            yield first[start : start + _CHUNK_BYTES]
        async for piece in self._rest:
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            try:
                await super().__call__(scope, receive, send)
            except StorageUnavailable as exc:
                # The status has been sent. The server closes the connection, so the client notices.
                log.warning("export_broken_off", reason=reason_of(exc))


def _answer(export: Export) -> Response:
    if export.rest is None:
        return Response(export.first, media_type="application/json", headers=_HEADERS)
    return _Download(export.first, export.rest)
