"""The export of all data that wxauth stores about a user, as one JSON document without secrets."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from time import monotonic
from typing import Final
from uuid import UUID

from pydantic_core import to_json

from wxauth.core.database import Database, Snapshot
from wxauth.core.logs import get_logger
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.limits.queries import EXPORTS
from wxauth.users import own_data_queries as queries
from wxauth.users.status_queries import lock_status_and_roles
from wxauth.users.user_queries import FORMER_EXTERNAL_IDS, FORMER_IDS, UNKNOWN_USER, current_user_id

MAX_LARGE_DOCUMENTS: Final = 2  # each holds one of the few snapshots (`MAX_SNAPSHOTS`), and small exports need one, too

_MAX_BYTES_IN_MEMORY: Final = 2**20
_PIECE_TIMEOUT_SECONDS: Final = 30.0  # for the reader to take a piece of a large document, and for a statement
_MAX_DOWNLOAD_SECONDS: Final = 300.0
_large_downloads: Final = asyncio.Semaphore(MAX_LARGE_DOCUMENTS)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Export:
    """An exported document, of which the further pieces are read only when the caller asks for them."""

    user_id: UUID  # the present id
    first_piece: bytes  # the whole document, unless it is large
    further_pieces: AsyncGenerator[bytes] | None
    """The rest of a large document. The caller must close the generator, because it holds a database connection.

    Raises: StorageUnavailable, if the export has a time limit, and the caller reads too slowly.
    """


async def export_data(
    database: Database, user_id: UUID, *, by: Actor, now: datetime, max_seconds: float | None = _MAX_DOWNLOAD_SECONDS
) -> Export:
    """Export what is stored under this present or former id, and record the export. `max_seconds` limits the download.

    Raises: NotFound; RateLimited, if this process is already sending `MAX_LARGE_DOCUMENTS` large documents;
    StorageUnavailable, for example if no snapshot becomes free in time.
    """
    while True:
        pieces = _pieces(database, user_id, by=by, now=now, max_seconds=max_seconds)
        try:
            first_piece = await anext(pieces)
        except NotFound:  # this is a former id, or the user has just been merged or erased
            user_id = await current_user_id(database, user_id)
            continue
        if len(first_piece) > _MAX_BYTES_IN_MEMORY:
            return Export(user_id, first_piece, pieces)
        await pieces.aclose()
        return Export(user_id, first_piece, None)


async def _pieces(
    database: Database, user_id: UUID, *, by: Actor, now: datetime, max_seconds: float | None
) -> AsyncGenerator[bytes]:
    """Record the export, and yield the document. Only a large document has more than one piece."""
    async with AsyncExitStack() as stack:
        snapshot = await stack.enter_async_context(
            database.snapshot(patience=None if max_seconds is None else _PIECE_TIMEOUT_SECONDS)
        )
        parts = await stack.enter_async_context(aclosing(_parts(snapshot, user_id, now=now)))
        first_piece = await _first_piece(parts)
        if len(first_piece) <= _MAX_BYTES_IN_MEMORY:
            await stack.aclose()  # the document is complete, so it needs no connection any more
        elif _large_downloads.locked():
            # A refused export of one's own data counts, too. The user must wait until the window of `EXPORTS` ends.
            # Administrators get the same `retry_after`, although their exports are not counted.
            raise RateLimited("too many exports are in progress", retry_after=ceil(EXPORTS.window.total_seconds()))
        else:
            await stack.enter_async_context(_large_downloads)
        await _record_export(database, user_id, by=by, now=now)
        deadline = None if max_seconds is None else monotonic() + max_seconds
        yield first_piece
        async for part in parts:  # there are more parts only if the document is large
            if deadline is not None and monotonic() > deadline:
                raise StorageUnavailable("the reader of a large export is too slow")
            yield part


async def _first_piece(parts: AsyncIterator[bytes]) -> bytes:
    piece = bytearray()
    async for part in parts:
        piece += part
        if len(piece) > _MAX_BYTES_IN_MEMORY:
            break
    return bytes(piece)


async def _record_export(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    async with database.begin() as transaction:
        # As in each transaction that records an event about a user, the lock keeps an erasure from missing the event.
        if await lock_status_and_roles(transaction, user_id) is None:
            raise NotFound(UNKNOWN_USER)
        await record_event(transaction, EventType.USER_EXPORTED, by=by, at=now, user_id=user_id)
    log.info("user_exported", user_id=user_id, actor=by.name)


async def _parts(snapshot: Snapshot, user_id: UUID, *, now: datetime) -> AsyncGenerator[bytes]:
    user = await snapshot.row(queries.USER_OF_EXPORT, user_id=user_id)
    if user is None:
        raise NotFound(UNKNOWN_USER)
    former_ids = await snapshot.values(FORMER_IDS, user_id=user_id)
    profile = {
        # The document lists the consents with their history.
        **user.model_dump(exclude={"consents", "last_refresh_at"}),
        "last_seen_at": user.last_seen_at,
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
