"""The pictures that users upload: few uploads at a time, one decoded after the other, each with its own URL."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from secrets import token_urlsafe
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from wxauth.errors import InvalidRequest, InvalidToken, NotFound
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.users import UserInSession, UserRow
from wxauth.server.limits.places import Places
from wxauth.server.limits.rates import PICTURES
from wxauth.server.pictures.picture_files import UnusablePicture, check_file
from wxauth.server.pictures.pictures import made_small
from wxauth.server.pictures.rows import Avatar, read_avatar, replace_avatar

PATH: Final = "/v1/avatars/"
MAX_FILE: Final = 2 * 1024 * 1024
"""Bytes of an uploaded picture."""
UPLOADS: Final = 64
"""How many uploads this process takes at once: up to 132 MiB wait to be decoded."""
UPLOADS_OF_ONE_USER: Final = 8

_ID_BYTES: Final = 16
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9_-]{22})\.(jpg|png)")
_EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png"}


class Avatars:
    """Stores and reads pictures of users.

    Args:
        database: Where the pictures are.
        clock: The time.
        issuer: The URL under which the pictures are served.
    """

    def __init__(self, database: Database, clock: Clock, *, issuer: str) -> None:
        self._database = database
        self._clock = clock
        self._base_url = issuer + PATH
        self._uploads = Places[UUID](
            of_one=UPLOADS_OF_ONE_USER, in_all=UPLOADS, detail="too many pictures are being uploaded"
        )
        self._turns = WeakValueDictionary[UUID, asyncio.Lock]()
        # One thread bounds the memory, and leaves the other cores to logins: Pillow decodes without the GIL. One user's
        # pictures take turns before they take it, so that others wait for one of them at most.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")

    def serves(self, url: str | None) -> bool:
        """Whether a URL is one of our pictures', even of a deleted one. Only an upload sets such a URL."""
        return url is not None and url.startswith(self._base_url)

    def upload(self, user_id: UUID) -> AbstractContextManager[None]:
        """Hold a place for one upload while the block runs. Raises: RateLimited."""
        return self._uploads.place(user_id)

    async def replace(self, user: UserInSession, file: bytes) -> UserRow:
        """Replace a user's picture and its URL; the changed user.

        What is decoded counts, even if it turns out to be broken: decoding is the work.

        Raises: InvalidRequest; RateLimited; InvalidToken, if the user has just been banned or erased;
            StorageUnavailable.
        """
        turn = self._turns.setdefault(user["id"], asyncio.Lock())
        try:
            check_file(file)
            await PICTURES.count_user(self._database, user, now=self._clock())
            async with turn:
                picture = await asyncio.get_running_loop().run_in_executor(self._executor, made_small, file)
        except UnusablePicture as exc:
            raise InvalidRequest.of("file", str(exc)) from exc
        avatar = Avatar(token_urlsafe(_ID_BYTES), picture.content_type, picture.content)
        url = self._base_url + _file_name(avatar)
        changed = await replace_avatar(
            self._database, user["id"], avatar, url=url, app_id=user["app_id"], now=self._clock()
        )
        if changed is None:
            raise InvalidToken("the session has ended")
        return changed

    async def read(self, file_name: str) -> Avatar:
        """The picture at `PATH` with this file name. Raises: NotFound, StorageUnavailable."""
        match = _FILE_NAME.fullmatch(file_name)
        avatar = match and await read_avatar(self._database, match[1])
        if avatar is None or _file_name(avatar) != file_name:
            raise NotFound("there is no such picture")
        return avatar

    async def aclose(self) -> None:
        """Drop the pictures whose decoding has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _file_name(avatar: Avatar) -> str:
    return f"{avatar.id}.{_EXTENSIONS[avatar.content_type]}"
