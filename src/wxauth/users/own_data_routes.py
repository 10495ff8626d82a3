"""The routes for the export of all data that wxauth stores about a user."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from wxauth.core.logs import get_logger
from wxauth.core.outages import reason_of
from wxauth.core.trail import Actor
from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.limits.queries import EXPORTS
from wxauth.sessions.list_queries import PastSession
from wxauth.users.admin_routes import NO_SUCH_USER, StaffReadsDep
from wxauth.users.callers import AdministratorDep, CallerInTurnDep, DeviceDep
from wxauth.users.consent_queries import ConsentRow
from wxauth.users.own_data import Export, export_data
from wxauth.users.schemas import ListedUserAnswer
from wxauth.users.staff_read_queries import Read
from wxauth.web.answers import example_of
from wxauth.web.dependencies import ClockDep, DatabaseDep
from wxauth.web.direct import Router
from wxauth_guard.errors import InvalidToken

_AT: Final = "2026-11-20T08:00:00Z"
_USER: Final = example_of(ListedUserAnswer)
_IDENTITY: Final = _USER["identities"][0]
_SESSION: Final = example_of(PastSession)
_DEVICE: Final = {"user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44"}
EXAMPLE_OWN_DATA: Final[dict[str, Any]] = {
    "exported_at": "2026-11-20T10:00:00Z",
    "user": {
        **{name: value for name, value in _USER.items() if name != "identities"},
        "phone_verified_at": _AT,
        "former_ids": [],
        "former_external_ids": [],
        "unionids": [_USER["unionid"]],
    },
    "identities": [{**_IDENTITY, "unionid": _USER["unionid"], "created_at": _AT}],
    "sessions": [
        {
            **_SESSION,
            **_IDENTITY,
            **_DEVICE,
            "opened": {**_SESSION["opened"], **_DEVICE},
            # Only a website's session has these values.
            "scope": None,
            "authenticated_at": None,
            "authenticated_by": None,
        }
    ],
    "browsers": [{**_IDENTITY, "authenticated_at": _AT, "authenticated_by": "wechat_scan", "sites": ["shop"]}],
    "consents": [example_of(ConsentRow)],
    "events": [],
    "refusals": [],
    "avatar": None,
}
"""A test compares its fields with the fields of a real export."""

_CHUNK_BYTES: Final = 64 * 1024
_HEADERS: Final = {
    "Content-Disposition": 'attachment; filename="wxauth-export.json"',
    "Cache-Control": "no-store",
    "Vary": "Authorization",
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    HTTPStatus.OK: {
        "description": "All data stored about the user",
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in _HEADERS.items()},
        "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE_OWN_DATA}},
    },
}

router = Router("me")
log = get_logger()


@router.get("/v1/me/export", summary=_("Export my data"), responses=_RESPONSES, failures=[RateLimited])
async def export_me(caller: CallerInTurnDep, database: DatabaseDep, clock: ClockDep, device: DeviceDep) -> Response:
    """Export all data stored about the caller as one document.

    The document contains the user, and the user's identities, sessions, browser logins, consents, events, refused
    logins and picture. It contains no secrets and no other user's data: all staff appear as `administrator`.
    Each user can request the export once a minute.
    """
    user_id, now = caller.user.id, clock()
    await EXPORTS.count(database, str(user_id), now=now)
    try:
        return _response_with(await export_data(database, user_id, by=Actor(str(user_id), device.ip), now=now))
    except NotFound:
        # After a merge, `export_data` exports the remaining user, so this user was erased.
        raise InvalidToken("this user has just been erased") from None


@router.get(
    "/v1/admin/users/{user_id}/export",
    summary=_("Export a user's data"),
    tag="admin",
    responses=_RESPONSES,
    failures=[NO_SUCH_USER, RateLimited],
)
async def export_user(
    administrator: AdministratorDep, reads: StaffReadsDep, database: DatabaseDep, clock: ClockDep, user_id: UUID
) -> Response:
    """Export all data stored about a user, as in the user's own export. The audit trail records who exported it."""
    export = await export_data(database, user_id, by=administrator, now=clock())
    # As in other routes, the read is noted only after it has succeeded. If `note_read` refuses it, the audit trail
    # already contains the export, although nobody receives the document. In that case, nothing refers to the generator
    # of the further pieces any more, so the event loop closes it.
    reads.note_read(administrator, Read.EXPORT, export.user_id)
    return _response_with(export)


class _Download(StreamingResponse):
    def __init__(self, first_piece: bytes, further_pieces: AsyncGenerator[bytes]) -> None:
        self._further_pieces = further_pieces
        super().__init__(self._chunks(first_piece), media_type="application/json", headers=_HEADERS)

    async def _chunks(self, first_piece: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(first_piece), _CHUNK_BYTES):
            yield first_piece[start : start + _CHUNK_BYTES]
        async for piece in self._further_pieces:
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._further_pieces):
            try:
                await super().__call__(scope, receive, send)
            except StorageUnavailable as exc:
                # The status has already been sent. The server closes the connection, so that the client notices that
                # the document is incomplete.
                log.warning("export_broken_off", reason=reason_of(exc))


def _response_with(export: Export) -> Response:
    if export.further_pieces is None:
        return Response(export.first_piece, media_type="application/json", headers=_HEADERS)
    return _Download(export.first_piece, export.further_pieces)
