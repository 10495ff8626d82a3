"""The upload and storage of users' pictures.

A process accepts a limited number of uploads at the same time, and decodes them one after the other, because decoding
takes much memory. Each picture has its own URL.
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

MAX_FILE: Final = 2 * 1024 * 1024
"""The size limit, in bytes, of an uploaded picture."""
MAX_UPLOADS: Final = 64
"""The largest number of uploads that this process accepts at the same time.

In the worst case, the bodies of these uploads occupy 132 MiB, because each body has up to 2 MiB for the picture and
64 KiB for the form around it.
"""
MAX_UPLOADS_OF_ONE_USER: Final = 8
"""The largest number of uploads that one user may send at the same time."""
MAX_UPLOADS_OF_ONE_SESSION: Final = 4
"""The largest number of uploads that one session may send at the same time.

This limit is lower than the limit of a user, so that someone with a stolen token cannot occupy all places of the
token's owner.
"""

_ID_BYTES: Final = 16
"""The number of random bytes in a picture's id, which then has 22 characters."""
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9_-]{22})\.(jpg|png)")
"""The pattern of a picture's file name, which is the picture's id with one of the extensions below."""
_EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png"}

log = get_logger()


@part
class Avatars:
    """The part that stores and reads users' pictures."""

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
    """The places for uploads of this process, with a limit for each user."""
    _session_uploads: Places[UUID] = field(
        init=False,
        default_factory=partial(
            Places, per_holder=MAX_UPLOADS_OF_ONE_SESSION, detail="this session is uploading too many pictures"
        ),
    )
    """The places for uploads of each session."""
    _locks: WeakValueDictionary[UUID, asyncio.Lock] = field(init=False, default_factory=WeakValueDictionary)
    """The lock of each user.

    Only one picture of a user at a time waits in the executor, so that a user with many uploads does not delay others.
    """
    _executor: ThreadPoolExecutor = field(
        init=False, default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
    )

    def __post_init__(self) -> None:
        self._base_url = self.settings.issuer + AVATARS_PATH

    @contextmanager
    def place_for_upload(self, user_id: UUID, session_id: UUID) -> Iterator[None]:
        """During the block, occupy one of the user's places for uploads, and one of the session's places.

        Raises: RateLimited, if no place is free.
        """
        with self._session_uploads.place(session_id), self._uploads.place(user_id):
            yield

    async def replace(self, user: UserInSession, file: bytes) -> UserInSession:
        """Replace a user's picture with the picture in `file`, which gets a new URL, and return the changed user.

        A picture that turns out to be broken when it is decoded counts towards the rate limit, too, because decoding is
        the expensive part.

        Raises: InvalidRequest, if wxauth cannot use the picture; RateLimited; InvalidToken, if the user has just been
            banned, erased or merged.
        """
        thumbnail = await self._make_thumbnail(user, file)
        avatar = queries.Avatar(token_urlsafe(_ID_BYTES), thumbnail.content_type, thumbnail.content)
        url = self._base_url + _file_name(avatar)
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
        """Return the picture with this file name, which consists of the picture's id and an extension.

        Raises: NotFound, if there is no such picture.
        """
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
        """Check a file, count the upload, and make the thumbnail in the executor.

        Raises: InvalidRequest, if wxauth cannot use the picture; RateLimited.
        """
        try:
            check_file(file)
            await PICTURES.count_user(self.database, user, now=self.clock())
            lock = self._locks.setdefault(user.id, asyncio.Lock())
            async with lock:
                return await asyncio.get_running_loop().run_in_executor(self._executor, thumbnail_of, file)
        except UnusablePicture as exc:
            # Only an unreadable file might be of another kind, so only this error gets the title that lists the kinds.
            title = errors.PICTURE_OF_ANOTHER_KIND if isinstance(exc, UnreadablePicture) else None
            raise InvalidRequest.of("file", str(exc), title=title) from exc


def _file_name(avatar: queries.Avatar) -> str:
    return f"{avatar.id}.{_EXTENSIONS[avatar.content_type]}"
