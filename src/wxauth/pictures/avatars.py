"""The upload and storage of users' pictures.

A process decodes uploads one after the other, because decoding takes much memory.
"""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, field
from functools import partial
from secrets import token_urlsafe
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from wxauth import errors
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import UserInSession
from wxauth.limits.concurrency import Places
from wxauth.limits.queries import PICTURES
from wxauth.pictures import queries
from wxauth.pictures.thumbnails import Thumbnail, UnreadablePicture, UnusablePicture, check_file, thumbnail_of
from wxauth.settings.settings import Settings
from wxauth.users.schemas import AVATARS_PATH
from wxauth_guard.errors import InvalidRequest, InvalidToken

MAX_FILE_BYTES: Final = 2 * 1024 * 1024
# At worst, their bodies occupy 132 MiB: 2 MiB of each picture, and 64 KiB of the form around it.
MAX_UPLOADS: Final = 64
MAX_UPLOADS_OF_ONE_USER: Final = 8
# This is lower than a user's limit, so that a stolen token cannot occupy all places of its owner.
MAX_UPLOADS_OF_ONE_SESSION: Final = 4

_ID_BYTES: Final = 16
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9_-]{22})\.(jpg|png)")  # `_ID_BYTES` have 22 characters in base64url
_EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png"}

log = get_logger()


@part
class Avatars:
    database: Database
    clock: Clock
    settings: Settings
    _uploads: Places[UUID] = field(
        init=False,
        default_factory=partial(
            Places,
            per_holder=MAX_UPLOADS_OF_ONE_USER,
            in_total=MAX_UPLOADS,
            detail="too many pictures are being uploaded",
        ),
    )
    _session_uploads: Places[UUID] = field(
        init=False,
        default_factory=partial(
            Places, per_holder=MAX_UPLOADS_OF_ONE_SESSION, detail="this session is uploading too many pictures"
        ),
    )
    # Only one picture of a user waits in the executor, so that many uploads do not delay other users.
    _locks: WeakValueDictionary[UUID, asyncio.Lock] = field(init=False, default_factory=WeakValueDictionary)
    _executor: ThreadPoolExecutor = field(
        init=False, default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
    )

    @contextmanager
    def place_for_upload(self, user_id: UUID, session_id: UUID) -> Iterator[None]:
        """Occupy a place of the user and of the session. Raises: RateLimited, if none is free."""
        with self._session_uploads.place(session_id), self._uploads.place(user_id):
            yield

    async def replace(self, user: UserInSession, file: bytes) -> UserInSession:
        """Replace a user's picture by one with a new URL. A broken picture also counts toward the user's limit.

        Raises: InvalidRequest; RateLimited; InvalidToken, if the user has just been banned, erased or merged.
        """
        thumbnail = await self._make_thumbnail(user, file)
        avatar = queries.Avatar(token_urlsafe(_ID_BYTES), thumbnail.content_type, thumbnail.content)
        url = f"{self.settings.issuer}{AVATARS_PATH}{_file_name(avatar)}"
        now = self.clock()
        app_id = user.app_id
        identity = {"user_id": user.id, "app_id": app_id, "openid": user.openid}
        by = Actor(str(user.id))
        data = {"fields": ["avatar_url"]}
        # The transaction is not retried after a lost connection, because the user might have withdrawn the picture in
        # WeChat in the meantime, and the retry would store the picture again.
        async with self.database.begin() as transaction:
            changed_user = await transaction.row(queries.REPLACE_AVATAR, **identity, url=url, **asdict(avatar), now=now)
            if changed_user is None:
                raise InvalidToken("the session has ended")
            await record_event(
                transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=user.id, app_id=app_id, data=data
            )
        log.info("profile_changed", user_id=user.id, fields=["avatar_url"])
        return changed_user

    async def read(self, file_name: str) -> queries.Avatar:
        """Return the picture with this file name. Raises: NotFound."""
        avatar = None
        match = _FILE_NAME.fullmatch(file_name)
        if match is not None:
            avatar = await self.database.row(queries.READ_AVATAR, avatar_id=match[1])
        if avatar is None or _file_name(avatar) != file_name:
            raise errors.NotFound("this picture doesn't exist")
        return avatar

    async def aclose(self) -> None:
        """Discard the pictures that are still waiting to be decoded."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _make_thumbnail(self, user: UserInSession, file: bytes) -> Thumbnail:
        try:
            # The picture is counted first, because already the check of a broken file occupies the event loop.
            await PICTURES.count_user(self.database, user, now=self.clock())
            check_file(file)
            lock = self._locks.setdefault(user.id, asyncio.Lock())
            async with lock:
                return await asyncio.get_running_loop().run_in_executor(self._executor, thumbnail_of, file)
        except UnusablePicture as exc:
            # Only an unreadable file might be of another kind.
            title = errors.PICTURE_OF_ANOTHER_KIND if isinstance(exc, UnreadablePicture) else None
            raise InvalidRequest.of("file", str(exc), title=title) from exc


def _file_name(avatar: queries.Avatar) -> str:
    return f"{avatar.id}.{_EXTENSIONS[avatar.content_type]}"
