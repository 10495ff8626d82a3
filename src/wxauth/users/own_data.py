"""The export of all data that wxauth stores about a user, as one JSON document.

The document contains no secrets, encrypted or not, and no data of other users.
"""

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

_large_downloads: Final = asyncio.Semaphore(MAX_LARGE_DOCUMENTS)
"""The places for large documents in this process. A download holds its place until it ends."""

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
            first_piece = await anext(pieces)
        except NotFound:  # this is a former id, or the user has just been merged or erased
            user_id = await current_user_id(database, user_id)
            continue
        if len(first_piece) > MAX_BYTES_IN_MEMORY:
            return Export(first_piece, pieces)
        await pieces.aclose()
        return Export(first_piece, None)


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
        first_piece = await _first_piece(parts)
        if len(first_piece) <= MAX_BYTES_IN_MEMORY:
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
