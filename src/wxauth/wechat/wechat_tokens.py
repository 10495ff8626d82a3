"""The apps' WeChat tokens: fetched, kept in memory, and renewed before they expire.

WeChat gives the same token to all callers until about five minutes before it expires, so each process can keep a copy.
If WeChat refuses a token and still gives it out, an operator has to replace it by force at WeChat. That ends it for
everybody, and WeChat allows it only some times a day.
"""

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, Final

from pydantic import SecretStr
from pydantic_core import to_json

from wxauth.core.apps import App
from wxauth.core.background import begun, cancel, once
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import WeChatBadResponse, WeChatError
from wxauth.wechat.client import WeChat
from wxauth.wechat.errcodes import DAILY_QUOTA, Api

RENEWAL_LEAD: Final = timedelta(seconds=290)
"""How long before a token expires WeChat gives out the next one: five minutes, less some seconds to be safe."""
RENEWAL_SPREAD: Final = timedelta(seconds=60)
"""The time over which processes spread their renewals, so that they do not all call WeChat at once."""
RENEWAL_PAUSE: Final = timedelta(seconds=30)
"""Pause between two requests for an app's token while WeChat still answers with the old one."""
FAILURE_PAUSE: Final = timedelta(seconds=5)
"""How long all callers get a failure without calling WeChat again, unless the failure has a `retry_after`."""
LOOK_TIMEOUT_SECONDS: Final = 0.5
"""How long a caller waits for WeChat's current token while the one in memory is still valid."""

LONGEST_LIFE_SECONDS: Final = 7200
"""Of a token, and of a ticket."""
_LONGEST_TOKEN: Final = 4096
_BEIJING: Final = timezone(timedelta(hours=8))
"""The time zone in which WeChat's days, and so its quotas, begin."""
NEVER: Final = datetime.min.replace(tzinfo=UTC)

_WHAT_TO_CHANGE: Final = "if it continues, call WeChat's stable_token once with force_refresh, or reset the AppSecret"

_Key = tuple[str, SecretStr]

log = get_logger()


@dataclass(frozen=True, slots=True)
class WeChatToken:
    """An app's token, and the seconds until it expires."""

    value: SecretStr
    expires_in: int


@dataclass(slots=True)
class Kept:
    """What WeChat has given an app for some time, a token or a ticket, as this process has it."""

    value: str = field(default="", repr=False)
    ends_at: datetime = NEVER
    looked_at: datetime = NEVER
    """When it was last asked for, at WeChat or in the database, with or without success."""
    renews_at: datetime = NEVER
    """When to fetch the next one, while this one is still valid."""
    failure: WeChatError | None = None
    paused_until: datetime = NEVER
    """Until then WeChat is not called again, because of `failure`."""

    def is_good(self, now: datetime) -> bool:
        """Whether it is in force."""
        return now < self.ends_at

    def ensure_not_paused(self, now: datetime) -> None:
        """Raises: WeChatError, the failure of a moment ago, if WeChat is not to be called yet."""
        if self.failure is not None and now < self.paused_until:
            raise again(self.failure, self.paused_until - now)

    def fail(self, failure: WeChatError, *, now: datetime, pause: timedelta) -> None:
        """Remember that WeChat has just failed to give another."""
        self.failure, self.looked_at, self.paused_until = failure, now, now + pause

    def take(self, value: str, expires_in: int, *, now: datetime) -> None:
        """Keep what WeChat has given for so many seconds. The renewals are spread at random."""
        jitter = random.random()  # noqa: S311 - so that not all processes renew at once
        self.value, self.failure, self.paused_until = value, None, NEVER
        self.looked_at, self.ends_at = now, now + timedelta(seconds=expires_in)
        self.renews_at = max(self.ends_at - RENEWAL_LEAD + jitter * RENEWAL_SPREAD, now + RENEWAL_PAUSE)


@dataclass(slots=True)
class _KeptToken(Kept):
    is_refused: bool = False
    accepts_refusals_at: datetime = NEVER
    """Refusals of the token before this time are ignored, because it was fetched again just now."""

    def is_good(self, now: datetime) -> bool:
        return now < self.ends_at and not self.is_refused

    def drop_future_times(self, now: datetime) -> None:
        """Drop times that were computed before the clock was set back, because they would be far too late."""
        if now < self.looked_at:
            self.looked_at = self.renews_at = self.paused_until = self.accepts_refusals_at = NEVER


@part
class WeChatTokens:
    """The tokens of all apps, in one process."""

    wechat: WeChat
    clock: Clock
    _kept: dict[_Key, _KeptToken] = field(init=False, default_factory=partial(defaultdict, _KeptToken))
    _under_way: dict[_Key, asyncio.Task[WeChatError | None]] = field(init=False, default_factory=dict)

    async def get(self, app: App, *, looked_within: timedelta | None = None) -> WeChatToken:
        """The app's token. The caller waits for WeChat only if there is no valid one.

        `looked_within` is for callers that cannot report a refused token. If WeChat was not called within this time, it
        is called now, and waited for briefly. If it does not answer, the caller gets the token in memory.

        Raises: WeChatError. For a while all callers get the same failure, and WeChat is not called again.
        """
        key, now = _key_of(app), self.clock()
        kept = self._kept[key]
        kept.drop_future_times(now)
        fetch = partial(self._fetch, app, kept)
        may_ask = now >= kept.paused_until
        if not kept.is_good(now):
            if key not in self._under_way:
                kept.ensure_not_paused(now)
            failure = await once(self._under_way, key, fetch)
            if failure is not None and not kept.is_good(self.clock()):
                raise again(failure, kept.paused_until - self.clock())
        elif may_ask and looked_within is not None and now - kept.looked_at >= looked_within:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                    await once(self._under_way, key, fetch)
        elif may_ask and now >= kept.renews_at:
            _ = begun(self._under_way, key, fetch)  # for later callers: this one does not wait
        left = int((kept.ends_at - self.clock()).total_seconds())
        return WeChatToken(SecretStr(kept.value), min(max(0, left), LONGEST_LIFE_SECONDS))

    async def renew(self, app: App, *, refused: WeChatToken) -> WeChatToken:
        """The app's token, after WeChat has refused this one. It is the same token if WeChat gives out no other.

        Raises: WeChatError.
        """
        kept, now = self._kept[_key_of(app)], self.clock()
        kept.drop_future_times(now)
        is_ours = kept.value == refused.value.get_secret_value()
        if is_ours and not kept.is_refused and now >= kept.accepts_refusals_at:
            log.warning("access_token_refused", app_id=app.app_id)
            kept.is_refused = True
            kept.paused_until, kept.accepts_refusals_at = NEVER, now + RENEWAL_PAUSE
        return await self.get(app)

    async def aclose(self) -> None:
        """Cancel the requests in progress."""
        await cancel(self._under_way.values())

    def state_of(self, app: App) -> tuple[datetime | None, str | None]:
        """When the app's token in this process expires, if there is a valid one.

        Then the error code of the last attempt to get another, if it failed.
        """
        kept = self._kept[_key_of(app)]
        failure = None if kept.failure is None else kept.failure.code
        return kept.ends_at if kept.is_good(self.clock()) else None, failure

    async def _fetch(self, app: App, kept: _KeptToken) -> WeChatError | None:
        try:
            await self._ask(app, kept)
            if kept.is_refused:
                # WeChat has given out the refused token again. It stays in use, because other APIs may still accept it.
                kept.is_refused = False
                log.error("access_token_refused_for_good", app_id=app.app_id, what_to_change=_WHAT_TO_CHANGE)
        except WeChatError as exc:
            now = self.clock()
            kept.fail(exc, now=now, pause=_pause_after(exc, now))
            log.warning("access_token_not_renewed", app_id=app.app_id, reason=exc.code)
            return exc
        return None

    async def _ask(self, app: App, kept: _KeptToken) -> None:
        now = self.clock()
        body = {
            "grant_type": "client_credential",
            "appid": app.app_id,
            "secret": app.app_secret.get_secret_value(),
            "force_refresh": False,
        }
        value, expires_in = await self.wechat.call(
            Api.STABLE_TOKEN, app, body=to_json(body), read=lambda answer: secret_in(answer, "access_token")
        )
        if value != kept.value:
            log.info("access_token_renewed", app_id=app.app_id, expires_in=expires_in)
            kept.is_refused, kept.accepts_refusals_at = False, NEVER
        kept.take(value, expires_in, now=now)


def _key_of(app: App) -> _Key:
    """With another secret, an app's token is fetched anew."""
    return app.app_id, app.app_secret


def secret_in(answer: dict[str, Any], name: str) -> tuple[str, int]:
    """A token or a ticket in WeChat's answer, and the seconds until it ends. Raises: WeChatBadResponse."""
    value, expires_in = answer.get(name), answer.get("expires_in")
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TOKEN or not value.isascii():
        raise WeChatBadResponse(f"WeChat's answer has no usable {name}")
    if type(expires_in) is not int or expires_in <= 0:
        raise WeChatBadResponse("WeChat's answer has no usable expires_in")
    return value, min(expires_in, LONGEST_LIFE_SECONDS)


def _pause_after(failure: WeChatError, now: datetime) -> timedelta:
    pause = FAILURE_PAUSE if failure.retry_after is None else timedelta(seconds=failure.retry_after)
    if failure.errcode != DAILY_QUOTA:
        return pause
    tomorrow = (now.astimezone(_BEIJING) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(pause, tomorrow - now)


def again(failure: WeChatError, pause: timedelta) -> WeChatError:
    """A copy of a failure for another caller. One object raised repeatedly would collect all the tracebacks."""
    left = round(pause.total_seconds())
    retry_after = None if failure.retry_after is None else min(max(1, left), failure.retry_after)
    return type(failure)(failure.detail, errcode=failure.errcode, retry_after=retry_after)
