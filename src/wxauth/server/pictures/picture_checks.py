"""Checks uploaded pictures at WeChat, which answers by message push. The policy decides what a bad one entails."""

from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Final

from wxauth.errors import StorageUnavailable, WeChatBadResponse
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.trail import SYSTEM, EventType, record_event
from wxauth.server.core.users import Person
from wxauth.server.pictures.rows import (
    Check,
    is_picture_of,
    note_answered,
    note_asked,
    sweep_checks,
    take_check,
)
from wxauth.server.users.user_rows import clear_fields, lock_user_of
from wxauth.server.wechat.api import Opinions, WeChatApi
from wxauth.server.wechat.received import PictureVerdict

ANSWERED_WITHIN: Final = timedelta(minutes=30)
"""The time in which WeChat answers."""

log = get_logger()


@part
class PictureChecks:
    """Carries out `AVATAR_CHECK`.

    Args:
        database: Where the users are, and the checks under way.
        opinions: Asks WeChat.
        clock: The time.
        background: Asks WeChat while no upload waits.
        settings: Say what to do about a picture that violates WeChat's rules.
    """

    database: Database
    opinions: Opinions
    clock: Clock
    background: Background
    settings: Settings

    def __post_init__(self) -> None:
        self._policy = self.settings.avatar_check
        self.are_on = self._policy != "off"
        """Whether pictures are checked."""

    def begin_later(self, person: Person, avatar_id: str, *, url: str) -> None:
        """Give an uploaded picture to WeChat in the background, unless the policy is `off`."""
        if not self.are_on:
            return
        begin = partial(self._begin, person, avatar_id, url)
        if not self.background.offer(begin, name=f"picture of {person.user_id}"):
            self.opinions.report_missing("avatar", person.app_id, "too_busy")

    async def settle(self, app_id: str, verdict: PictureVerdict) -> None:
        """Carry out WeChat's verdict, once. One about an unknown picture is kept for a while, and changes nothing."""
        if verdict.suggest is None:
            await self._drop(app_id, verdict)
            return
        check = await note_answered(self.database, verdict, app_id=app_id, now=self.clock())
        await self._carry_out(app_id, verdict.trace_id, check)

    async def sweep(self, *, size: int) -> int:
        """Delete up to `size` checks that WeChat has not answered in time. Returns how many."""
        swept = await sweep_checks(self.database, before=self.clock() - ANSWERED_WITHIN, size=size)
        for app_id, pictures in Counter(app_id for app_id in swept if app_id).items():
            log.warning("pictures_without_verdict", app_id=app_id, pictures=pictures)
            for _ in range(pictures):
                self.opinions.count("avatar", app_id, "no_verdict")
        return len(swept)

    async def _begin(self, person: Person, avatar_id: str, url: str) -> None:
        async def ask(wechat_api: WeChatApi, app: App) -> str:
            return await wechat_api.check_picture(app, openid=person.openid, url=url)

        trace_id = await self.opinions.ask("avatar", person.app_id, ask)
        if trace_id is None:
            return
        try:
            check = await note_asked(
                self.database,
                app_id=person.app_id,
                trace_id=trace_id,
                openid=person.openid,
                avatar_id=avatar_id,
                now=self.clock(),
            )
            if check is not None:
                await self._carry_out(person.app_id, trace_id, check)
        except StorageUnavailable as exc:
            self.opinions.report_missing("avatar", person.app_id, exc.code, exc)

    async def _carry_out(self, app_id: str, trace_id: str, check: Check) -> None:
        """Carry out a check of which both halves are known, unless that has been done."""
        openid = check.openid
        if openid is None or check.suggest is None:
            return
        is_removed = False
        async with self.database.begin() as transaction:
            # Whose the identity is now: the user may have been merged meanwhile. Locked before the check, as an
            # erasure does.
            user_id = await lock_user_of(transaction, app_id=app_id, openid=openid)
            taken = await take_check(transaction, app_id=app_id, trace_id=trace_id)
            if user_id is None or taken is None:
                return
            suggest, label, avatar_id = taken.suggest, taken.label, taken.avatar_id
            assert avatar_id is not None
            record = partial(record_event, transaction, by=SYSTEM, at=self.clock(), user_id=user_id, app_id=app_id)
            if suggest != "pass":
                await record(EventType.AVATAR_FLAGGED, data={"label": label})
            if suggest == "risky" and self._policy == "block" and await is_picture_of(transaction, user_id, avatar_id):
                await clear_fields(transaction, user_id, ["avatar_url"])
                await record(EventType.PROFILE_CHANGED, data={"fields": ["avatar_url"]})
                is_removed = True
        outcome = "pass" if suggest == "pass" else "blocked" if is_removed else "flagged"
        self.opinions.count("avatar", app_id, outcome)
        if suggest != "pass":
            log.warning(
                EventType.AVATAR_FLAGGED.logged, user_id=user_id, app_id=app_id, label=label, is_removed=is_removed
            )

    async def _drop(self, app_id: str, verdict: PictureVerdict) -> None:
        """Forget a check that WeChat could not make: the picture stays."""
        async with self.database.begin() as transaction:
            taken = await take_check(transaction, app_id=app_id, trace_id=verdict.trace_id)
        if taken is not None:
            failure = WeChatBadResponse("WeChat could not check the picture", errcode=verdict.errcode)
            self.opinions.report_missing("avatar", app_id, failure.code, failure)
