"""The apps' WeChat tokens: asked for once, kept, and renewed before their end.

WeChat hands the same token to everybody who asks for it, until about five minutes before its end. So every process
keeps its own copy, and none does anything to another's. Only a token that WeChat refuses and yet hands out again
must be forced to change, which kills it for everybody and is rationed: that, one process does for all.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum, auto
from typing import Any, Final

from pydantic import SecretStr
from pydantic_core import to_json

from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.errors import StorageUnavailable, WeChatBadResponse, WeChatError
from wxauth.wechat.client import App, WeChat
from wxauth.wechat.errcodes import DAILY_QUOTA, STABLE_TOKEN

RENEWAL_LEAD: Final = timedelta(seconds=290)
"""So long before its end WeChat has another token for us; a few seconds less than its five minutes."""
RENEWAL_SPREAD: Final = timedelta(seconds=60)
"""Over so long the processes spread their renewals."""
RENEWAL_PAUSE: Final = timedelta(seconds=30)
"""Between two asks for an app's token that WeChat does not replace."""
FAILURE_PAUSE: Final = timedelta(seconds=5)
"""So long a failure answers everybody, where WeChat does not say how long it will last."""
LOOK_PATIENCE: Final = 0.5
"""Seconds that whoever has a token to go on with waits for a look at WeChat's."""
WAITS_FOR_ANOTHER: Final = (0.3, 0.6, 1.2)
"""Seconds between looks for the token that another process is forcing."""

_LONGEST_LIFE: Final = 7200
_LONGEST_TOKEN: Final = 4096
_BEIJING: Final = timezone(timedelta(hours=8))
"""Where WeChat's days begin."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

log = get_logger()


class Forcing(StrEnum):
    """Whether this process may force a token to change."""

    GRANTED = auto()
    TAKEN = auto()
    """Another process is at it, or has just done it."""
    RATIONED = auto()
    """It has been done too often."""


@dataclass(frozen=True, slots=True)
class Readers:
    """The service clients that a token was given to."""

    names: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of whoever tells of one more."""


@dataclass(frozen=True, slots=True)
class WeChatToken:
    """An app's token, and the seconds it has left."""

    value: SecretStr
    expires_in: int
    readers: Readers = field(repr=False, compare=False)
    """One for all who hold this very token."""


@dataclass(slots=True)
class _Kept:
    """What this process knows of an app's token."""

    value: str = field(default="", repr=False)
    ends_at: datetime = _NEVER
    looked_at: datetime = _NEVER
    """When WeChat was asked last, whatever came of it."""
    renews_at: datetime = _NEVER
    """When to ask for another one, while this one is good."""
    failure: WeChatError | None = None
    paused_until: datetime = _NEVER
    """WeChat is not asked before, after that failure."""
    is_refused: bool = False
    heeds_refusals_at: datetime = _NEVER
    """From when on a refusal is a reason to ask: not soon again where that was of no use, or by force."""
    flight: asyncio.Task[WeChatError | None] | None = None
    readers: Readers = field(default_factory=Readers)

    def is_good(self, now: datetime) -> bool:
        return now < self.ends_at and not self.is_refused

    def forget_the_future(self, now: datetime) -> None:
        """Wait for no time that was reckoned by a clock that has since been put back."""
        if now < self.looked_at:
            self.looked_at = self.renews_at = self.paused_until = self.heeds_refusals_at = _NEVER


class WeChatTokens:
    """The tokens of all apps; one for each process.

    Args:
        wechat: Where they come from.
        clock: The time.
        may_force: Whether this process may force an app's token to change.
        jitter: Gives numbers from 0 to 1.
        sleep: Waits.
    """

    def __init__(
        self,
        wechat: WeChat,
        clock: Clock,
        *,
        may_force: Callable[[str], Awaitable[Forcing]],
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._wechat = wechat
        self._clock = clock
        self._may_force = may_force
        self._jitter = jitter
        self._sleep = sleep
        self._kept: defaultdict[str, _Kept] = defaultdict(_Kept)

    async def get(self, app: App, *, looked_within: timedelta | None = None) -> WeChatToken:
        """The app's token. WeChat is waited for only where there is none that is good.

        Args:
            app: Whose.
            looked_within: For those who cannot tell us that WeChat refuses it: where WeChat was not asked for so
                long, it is now, and waited for a moment. If it does not answer, they get the token that there is.

        Raises: WeChatError; for a while the same one for everybody, without asking WeChat again.
        """
        kept = self._kept[app.app_id]
        now = self._clock()
        kept.forget_the_future(now)
        may_ask = now >= kept.paused_until
        if not kept.is_good(now):
            if kept.flight is None and kept.failure is not None and not may_ask:
                raise _again(kept.failure, kept.paused_until - now)
            failure = await asyncio.shield(self._flight(app, kept))  # whoever gives up leaves it to the others
            if failure is not None and not kept.is_good(self._clock()):
                raise _again(failure, kept.paused_until - self._clock())
        elif may_ask and looked_within is not None and now - kept.looked_at >= looked_within:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_PATIENCE):
                    await asyncio.shield(self._flight(app, kept))
        elif may_ask and now >= kept.renews_at:
            self._flight(app, kept)
        left = int((kept.ends_at - self._clock()).total_seconds())
        return WeChatToken(SecretStr(kept.value), min(max(0, left), _LONGEST_LIFE), kept.readers)

    async def renew(self, app: App, *, refused: WeChatToken) -> WeChatToken:
        """The app's token, after WeChat has refused this one. It is the same, where nothing could be done about it.

        Raises: WeChatError.
        """
        kept = self._kept[app.app_id]
        now = self._clock()
        kept.forget_the_future(now)
        is_ours = kept.value == refused.value.get_secret_value()
        if is_ours and not kept.is_refused and now >= kept.heeds_refusals_at:
            log.warning("access_token_refused", app_id=app.app_id)
            kept.is_refused = True
            kept.paused_until, kept.heeds_refusals_at = _NEVER, now + RENEWAL_PAUSE
        return await self.get(app)

    async def aclose(self) -> None:
        """Leave what is under way."""
        flights = [kept.flight for kept in self._kept.values() if kept.flight is not None]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _flight(self, app: App, kept: _Kept) -> asyncio.Task[WeChatError | None]:
        """The one request under way for this app."""
        if kept.flight is None:
            kept.flight = asyncio.create_task(self._fetch(app, kept), name=f"WeChat token of {app.app_id}")
        return kept.flight

    async def _fetch(self, app: App, kept: _Kept) -> WeChatError | None:
        try:
            await self._ask(app, kept)
            if kept.is_refused:
                await self._replace(app, kept)
        except WeChatError as exc:
            kept.failure, kept.looked_at = exc, self._clock()
            kept.paused_until = kept.looked_at + _pause_after(exc, kept.looked_at)
            log.warning("access_token_not_renewed", app_id=app.app_id, reason=exc.code)
            return exc
        finally:
            kept.flight = None
        return None

    async def _replace(self, app: App, kept: _Kept) -> None:
        """Another token, for one that is refused and yet handed out again; or that one, if it must be."""
        try:
            forcing = await self._forcing(app)
            if forcing is Forcing.GRANTED:
                with suppress(WeChatError):  # what has come of it, the next look tells
                    await self._ask(app, kept, force=True)
                    return
            if forcing is not Forcing.RATIONED:
                for pause in WAITS_FOR_ANOTHER:
                    await self._sleep(pause)
                    await self._ask(app, kept)
                    if not kept.is_refused:
                        return
        finally:
            # Perhaps it is one API alone that refuses it: the others shall have it.
            kept.is_refused = False

    async def _forcing(self, app: App) -> Forcing:
        try:
            return await self._may_force(app.app_id)
        except StorageUnavailable:
            return Forcing.RATIONED

    async def _ask(self, app: App, kept: _Kept, *, force: bool = False) -> None:
        now = self._clock()
        wanted = {
            "grant_type": "client_credential",
            "appid": app.app_id,
            "secret": app.app_secret.get_secret_value(),
            "force_refresh": force,
        }
        value, expires_in = await self._wechat.call(
            STABLE_TOKEN, app, "/cgi-bin/stable_token", body=to_json(wanted), read=_token
        )
        if value != kept.value:
            log.info("access_token_renewed", app_id=app.app_id, expires_in=expires_in, forced=force)
            kept.value, kept.is_refused, kept.readers = value, False, Readers()
            if not force:
                kept.heeds_refusals_at = _NEVER
        kept.failure, kept.paused_until = None, _NEVER
        kept.looked_at, kept.ends_at = now, now + timedelta(seconds=expires_in)
        renewal = kept.ends_at - RENEWAL_LEAD + self._jitter() * RENEWAL_SPREAD
        kept.renews_at = max(renewal, now + RENEWAL_PAUSE)


def _token(answer: dict[str, Any]) -> tuple[str, int]:
    value, expires_in = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TOKEN or not value.isascii():
        raise WeChatBadResponse("WeChat's answer has no usable access_token")
    if type(expires_in) is not int or expires_in <= 0:
        raise WeChatBadResponse("WeChat's answer has no usable expires_in")
    return value, min(expires_in, _LONGEST_LIFE)


def _pause_after(failure: WeChatError, now: datetime) -> timedelta:
    pause = FAILURE_PAUSE if failure.retry_after is None else timedelta(seconds=failure.retry_after)
    if failure.errcode != DAILY_QUOTA:
        return pause
    tomorrow = (now.astimezone(_BEIJING) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(pause, tomorrow - now)


def _again(failure: WeChatError, pause: timedelta) -> WeChatError:
    """The same failure for one more caller; one object raised over and over would collect all their tracebacks."""
    left = round(pause.total_seconds())
    retry_after = None if failure.retry_after is None else min(max(1, left), failure.retry_after)
    return type(failure)(failure.detail, errcode=failure.errcode, retry_after=retry_after)
