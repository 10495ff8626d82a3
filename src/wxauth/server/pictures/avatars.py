"""Users' pictures: few uploads at a time, decoded one after the other, each stored under its own URL.

WeChat checks them, and answers by message push. The policy decides what a bad one entails.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, field
from datetime import timedelta
from functools import partial
from secrets import token_urlsafe
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from wxauth import errors
from wxauth.server.core.apps import App
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.concurrency import Places
from wxauth.server.limits.queries import PICTURES
from wxauth.server.pictures import queries
from wxauth.server.pictures.thumbnails import NO_PICTURE, UnusablePicture, check_file, thumbnail_of
from wxauth.server.users.policies import Policy
from wxauth.server.users.schemas import AVATARS_PATH
from wxauth.server.users.user_queries import clear_fields, lock_user_of
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.received import PictureVerdict

ANSWERED_WITHIN: Final = timedelta(minutes=30)
"""The time in which WeChat answers."""
MAX_FILE: Final = 2 * 1024 * 1024
"""Maximum bytes of an uploaded picture."""
UPLOADS: Final = 64
"""How many uploads this process accepts at once: up to 132 MiB wait to be decoded."""
UPLOADS_OF_ONE_USER: Final = 8
UPLOADS_OF_ONE_SESSION: Final = 4
"""A stolen token leaves places to its owner."""

_ID_BYTES: Final = 16
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9_-]{22})\.(jpg|png)")
_EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png"}

log = get_logger()


@part
class PictureChecks(Policy):
    """Carries out `AVATAR_CHECK`."""

    name = "avatar"
    setting = "avatar_check"

    def begin_later(self, user: UserInSession, avatar_id: str, *, url: str) -> None:
        """Give an uploaded picture to WeChat in the background, unless the policy is `off`."""
        if self.is_on:
            self._later(user, partial(self._begin, user, avatar_id, url))

    async def settle(self, app_id: str, verdict: PictureVerdict) -> bool:
        """Carry out WeChat's verdict, once. One about an unknown picture is kept for a while, and changes nothing.

        Returns whether the picture is known.
        """
        if verdict.suggest is None:
            return await self._drop(app_id, verdict)
        answer = {"trace_id": verdict.trace_id, "suggest": verdict.suggest, "label": verdict.label}
        openid = await self.database.value(queries.NOTE_ANSWERED, app_id=app_id, **answer, now=self.clock())
        if openid is not None:
            await self._carry_out(app_id, openid, verdict.trace_id)
        return openid is not None

    async def sweep(self, *, size: int) -> int:
        """Delete up to `size` checks that WeChat has not answered in time. Returns how many."""
        swept = await self.database.values(queries.SWEEP_CHECKS, before=self.clock() - ANSWERED_WITHIN, size=size)
        for app_id, pictures in Counter(app_id for app_id in swept if app_id).items():
            log.warning("pictures_without_verdict", app_id=app_id, pictures=pictures)
            for _ in range(pictures):
                self.verdicts.count(self.name, app_id, "no_verdict")
        return len(swept)

    async def _begin(self, user: UserInSession, avatar_id: str, url: str) -> None:
        async def ask(wechat_api: WeChatApi, app: App) -> str:
            return await wechat_api.check_picture(app, openid=user.openid, url=url)

        trace_id = await self.verdicts.ask(self.name, user.app_id, ask)
        if trace_id is None:
            return
        try:
            asked = {"app_id": user.app_id, "openid": user.openid, "trace_id": trace_id, "avatar_id": avatar_id}
            if await self.database.value(queries.NOTE_ASKED, **asked, now=self.clock()) is not None:
                await self._carry_out(user.app_id, user.openid, trace_id)
        except errors.StorageUnavailable as exc:
            self.verdicts.report_missing(self.name, user.app_id, exc.code, exc)

    async def _carry_out(self, app_id: str, openid: str, trace_id: str) -> None:
        """Carry out a check of which both halves are known, unless that has been done."""
        async with self.database.begin() as transaction:
            # Whose the identity is now: the user may have been merged meanwhile. Locked before the check, as an
            # erasure does.
            user_id = await lock_user_of(transaction, app_id=app_id, openid=openid)
            taken = await transaction.row(queries.TAKE_CHECK, app_id=app_id, trace_id=trace_id, user_id=user_id)
            if user_id is None or taken is None:
                return
            suggest, label = taken.suggest, taken.label
            record = partial(record_event, transaction, by=SYSTEM, at=self.clock(), user_id=user_id, app_id=app_id)
            if suggest != "pass":
                await record(EventType.AVATAR_FLAGGED, data={"label": label})
            is_removed = suggest == "risky" and self.blocks and taken.is_shown
            if is_removed:
                await clear_fields(transaction, user_id, ["avatar_url"])
                await record(EventType.PROFILE_CHANGED, data={"fields": ["avatar_url"]})
        self._count(app_id, is_flagged=suggest != "pass", is_blocked=is_removed)
        if suggest != "pass":
            log.warning(
                EventType.AVATAR_FLAGGED.logged, user_id=user_id, app_id=app_id, label=label, is_removed=is_removed
            )

    async def _drop(self, app_id: str, verdict: PictureVerdict) -> bool:
        """Forget a check that WeChat could not make: the picture stays. Returns whether there was one."""
        async with self.database.begin() as transaction:
            taken = await transaction.row(queries.TAKE_CHECK, app_id=app_id, trace_id=verdict.trace_id, user_id=None)
        if taken is not None:
            failure = errors.WeChatBadResponse("WeChat could not check the picture", errcode=verdict.errcode)
            self.verdicts.report_missing(self.name, app_id, failure.code, failure)
        return taken is not None


@part
class Avatars:
    """Stores and reads users' pictures."""

    database: Database
    clock: Clock
    checks: PictureChecks
    settings: Settings
    _uploads: Places[UUID] = field(
        init=False,
        default_factory=partial(
            Places, of_one=UPLOADS_OF_ONE_USER, in_all=UPLOADS, detail="too many pictures are being uploaded"
        ),
    )
    _of_sessions: Places[UUID] = field(
        init=False,
        default_factory=partial(
            Places, of_one=UPLOADS_OF_ONE_SESSION, detail="this session is uploading too many pictures"
        ),
    )
    _turns: WeakValueDictionary[UUID, asyncio.Lock] = field(init=False, default_factory=WeakValueDictionary)
    _executor: ThreadPoolExecutor = field(
        init=False, default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
    )

    def __post_init__(self) -> None:
        self._base_url = self.settings.issuer + AVATARS_PATH

    @contextmanager
    def upload(self, user_id: UUID, session_id: UUID) -> Iterator[None]:
        """Reserve one of the places for uploads while the block runs. Raises: RateLimited."""
        with self._of_sessions.place(session_id), self._uploads.place(user_id):
            yield

    async def replace(self, user: UserInSession, file: bytes) -> UserInSession:
        """Replace a user's picture and its URL, and return the changed user.

        A picture counts towards the rate limit even if it turns out to be broken, because decoding is the expensive
        part.

        Raises: InvalidRequest; RateLimited; InvalidToken, if the user has just been banned or erased.
        """
        turn = self._turns.setdefault(user.id, asyncio.Lock())
        try:
            check_file(file)
            await PICTURES.count_user(self.database, user, now=self.clock())
            async with turn:
                picture = await asyncio.get_running_loop().run_in_executor(self._executor, thumbnail_of, file)
        except UnusablePicture as exc:
            title = errors.PICTURE_OF_ANOTHER_KIND if str(exc) == NO_PICTURE else None
            raise errors.InvalidRequest.of("file", str(exc), title=title) from exc
        avatar = queries.Avatar(token_urlsafe(_ID_BYTES), *picture)
        url = self._base_url + _file_name(avatar)
        now, app_id = self.clock(), user.app_id
        whose = {"user_id": user.id, "app_id": app_id, "openid": user.openid}
        # A transaction is never retried after a lost connection: a retry could overwrite a withdrawal made in between.
        async with self.database.begin() as transaction:
            changed = await transaction.row(queries.REPLACE_AVATAR, **whose, url=url, **asdict(avatar), now=now)
            if changed is not None:
                kind, by, data = EventType.PROFILE_CHANGED, Actor(str(user.id)), {"fields": ["avatar_url"]}
                await record_event(transaction, kind, by=by, at=now, user_id=user.id, app_id=app_id, data=data)
        if changed is None:
            raise errors.InvalidToken("the session has ended")
        log.info("profile_changed", user_id=user.id, fields=["avatar_url"])
        self.checks.begin_later(user, avatar.id, url=url)
        return changed

    async def read(self, file_name: str) -> queries.Avatar:
        """The picture at `AVATARS_PATH` with this file name. Raises: NotFound."""
        match = _FILE_NAME.fullmatch(file_name)
        avatar = match and await self.database.row(queries.READ_AVATAR, avatar_id=match[1])
        if avatar is None or _file_name(avatar) != file_name:
            raise errors.NotFound("there is no such picture")
        return avatar

    async def aclose(self) -> None:
        """Drop the pictures that are still waiting to be decoded."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _file_name(avatar: queries.Avatar) -> str:
    return f"{avatar.id}.{_EXTENSIONS[avatar.content_type]}"
