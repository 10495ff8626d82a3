"""The export of all data that wxauth stores about a user, as one JSON document, and the routes of the export.

The document contains no secrets, encrypted or not, and no data of other users.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from time import monotonic
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from wxauth.core.database import Database, Snapshot
from wxauth.core.logs import get_logger
from wxauth.core.outages import reason_of
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.limits.queries import EXPORTS
from wxauth.sessions.list_queries import PastSession
from wxauth.users import own_data_queries as queries
from wxauth.users.admin_routes import NO_SUCH_USER, StaffReadsDep
from wxauth.users.callers import AdministratorDep, CallerInTurnDep, DeviceDep
from wxauth.users.consent_queries import ConsentRow
from wxauth.users.schemas import ListedUserAnswer
from wxauth.users.staff_read_queries import Read
from wxauth.users.status_queries import lock_status_and_roles
from wxauth.users.user_queries import FORMER_EXTERNAL_IDS, FORMER_IDS, UNKNOWN_USER, current_user
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
"""The example of an export in the API description. A test compares its fields with the fields of a real export."""

MAX_BYTES_IN_MEMORY: Final = 2**20
"""The largest size, in bytes, of a document that wxauth builds completely before it sends it."""
PIECE_TIMEOUT_SECONDS: Final = 30.0
"""The time limit, in seconds, within which the reader must take each piece of a large document.

It is also the time limit for each statement that reads the document.
"""
MAX_DOWNLOAD_SECONDS: Final = 300.0
"""The time limit, in seconds, for the download of a large document."""
MAX_LARGE_DOCUMENTS: Final = 2
"""The largest number of large documents that a process sends at the same time.

A download holds one of the few snapshots (`MAX_SNAPSHOTS`) until it ends, and small exports need a snapshot, too.
"""

_CHUNK_BYTES: Final = 64 * 1024
"""The size, in bytes, of the chunks in which wxauth sends the beginning of a large document."""
_HEADERS: Final = {
    "Content-Disposition": 'attachment; filename="wxauth-export.json"',
    "Cache-Control": "no-store",
    "Vary": "Authorization",
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "All data stored about the user",
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in _HEADERS.items()},
        "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE_OWN_DATA}},
    },
}
"""The documentation of the successful response of both routes, by status."""
_large_downloads: Final = asyncio.Semaphore(MAX_LARGE_DOCUMENTS)
"""The places for large documents in this process. A download holds its place until it ends."""

router = Router("me")
log = get_logger()


@dataclass(frozen=True, slots=True)
class Export:
    """The document of an export. The further pieces of a large document are read only when the caller asks for them."""

    first_piece: bytes
    """The beginning of a large document, or the whole of any other document."""
    further_pieces: AsyncGenerator[bytes] | None
    """The further pieces of a large document; None for any other document.

    The caller must close this generator, because it holds a database connection. If the export has a time limit, and
    the caller reads too slowly, the generator raises StorageUnavailable.
    """


async def export_data(
    database: Database, user_id: UUID, *, by: Actor, now: datetime, max_seconds: float | None = MAX_DOWNLOAD_SECONDS
) -> Export:
    """Export the data stored about a user, and record the export.

    A former id stands for the user who remains after a merge.

    `max_seconds` is the time limit, in seconds, for the download of a large document. If it is None, neither the
    download nor its pieces have a time limit.

    Raises: NotFound, if there is no such user; RateLimited, if this process is already sending `MAX_LARGE_DOCUMENTS`
        large documents; StorageUnavailable, for example if no snapshot becomes free in time.
    """
    while True:
        pieces = _pieces(database, user_id, by=by, now=now, max_seconds=max_seconds)
        try:
            first = await anext(pieces)
        except NotFound:  # this is a former id, or the user has just been merged or erased
            user_id = await current_user(database, user_id)
            continue
        if len(first) > MAX_BYTES_IN_MEMORY:
            return Export(first, pieces)
        await pieces.aclose()
        return Export(first, None)


async def _pieces(
    database: Database, user_id: UUID, *, by: Actor, now: datetime, max_seconds: float | None
) -> AsyncGenerator[bytes]:
    """Yield the document in pieces. If the document is not large, the first piece is the whole document.

    The first piece of a large document joins the parts from `_parts` until they exceed `MAX_BYTES_IN_MEMORY`. Each
    further piece is one part.

    The download of a large document holds a database connection until the reader has taken the last piece. Because a
    reader can be slow, a process sends only a few large documents at the same time.

    Raises: NotFound, if there is no user with this present id; RateLimited, if the process is already sending
        `MAX_LARGE_DOCUMENTS` large documents; StorageUnavailable, if no snapshot becomes free in time, or if the reader
        is too slow.
    """
    async with AsyncExitStack() as stack:
        snapshot = await stack.enter_async_context(
            database.snapshot(patience=None if max_seconds is None else PIECE_TIMEOUT_SECONDS)
        )
        parts = await stack.enter_async_context(aclosing(_parts(snapshot, user_id, now=now)))
        first = await _first_piece(parts)
        if len(first) <= MAX_BYTES_IN_MEMORY:
            await stack.aclose()  # the document is complete, so it needs no connection any more
        elif _large_downloads.locked():
            # A refused export of one's own data counts, too. The user must wait until the window of `EXPORTS` ends.
            # Administrators get the same `retry_after`, although their exports are not counted.
            raise RateLimited("too many exports are in progress", retry_after=ceil(EXPORTS.window.total_seconds()))
        else:
            await stack.enter_async_context(_large_downloads)
        await _record_export(database, user_id, by=by, now=now)
        deadline = None if max_seconds is None else monotonic() + max_seconds
        yield first
        async for part in parts:  # there are more parts only if the document is large
            if deadline is not None and monotonic() > deadline:
                raise StorageUnavailable("the reader of a large export is too slow")
            yield part


async def _first_piece(parts: AsyncIterator[bytes]) -> bytes:
    """Return the whole document, or the beginning of a document that is larger than `MAX_BYTES_IN_MEMORY`."""
    piece = bytearray()
    async for part in parts:
        piece += part
        if len(piece) > MAX_BYTES_IN_MEMORY:
            break
    return bytes(piece)


async def _record_export(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """Record the export in the audit trail and the log.

    Raises: NotFound, if the user has just been merged or erased.
    """
    async with database.begin() as transaction:
        # As in each transaction that records an event about a user, the lock keeps an erasure from missing the event.
        if await lock_status_and_roles(transaction, user_id) is None:
            raise NotFound(UNKNOWN_USER)
        await record_event(transaction, EventType.USER_EXPORTED, by=by, at=now, user_id=user_id)
    log.info("user_exported", user_id=user_id, actor=by.name)


async def _parts(snapshot: Snapshot, user_id: UUID, *, now: datetime) -> AsyncGenerator[bytes]:
    """Yield the JSON of the document in small parts: the user, each list page by page, and the picture.

    Raises: NotFound, if there is no user with this present id.
    """
    user = await snapshot.row(queries.USER_OF_EXPORT, user_id=user_id)
    if user is None:
        raise NotFound(UNKNOWN_USER)
    former_ids = await snapshot.values(FORMER_IDS, user_id=user_id)
    profile = {
        **user.model_dump(exclude={"consents"}),  # the document lists the consents with their history
        "phone_verified": user.phone_verified,
        "attributes": user.attributes or {},
        "former_ids": former_ids,
        "former_external_ids": await snapshot.values(FORMER_EXTERNAL_IDS, user_id=user_id),
        "unionids": await snapshot.values(queries.UNIONIDS, user_id=user_id),
    }
    # The closing brace of the object follows the lists and the picture.
    yield to_json({"exported_at": now, "user": profile})[:-1]
    for name, pages in queries.lists_of(snapshot, user_id, former_ids):
        yield b',"%b":[' % name.encode()
        separator = b""
        async for page in pages:
            # All pages become one JSON array, so the brackets of each page are removed.
            yield separator + to_json(page)[1:-1]
            separator = b","
        yield b"]"
    picture = await snapshot.row(queries.PICTURE, user_id=user_id)
    yield b',"avatar":' + to_json(None if picture is None else dict(picture)) + b"}"


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
    reads.note_read(administrator, Read.EXPORT, user_id)
    return _response_with(export)


class _Download(StreamingResponse):
    """The response with a large document. It closes the generator of the pieces even if the client disconnects."""

    def __init__(self, first_piece: bytes, further_pieces: AsyncGenerator[bytes]) -> None:
        self._further_pieces = further_pieces
        super().__init__(self._chunks(first_piece), media_type="application/json", headers=_HEADERS)

    async def _chunks(self, first_piece: bytes) -> AsyncIterator[bytes]:
        """Yield the first piece in chunks, and then the further pieces."""
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
    """Return the response with a document. If the document is large, the response is a stream."""
    if export.further_pieces is None:
        return Response(export.first_piece, media_type="application/json", headers=_HEADERS)
    return _Download(export.first_piece, export.further_pieces)
