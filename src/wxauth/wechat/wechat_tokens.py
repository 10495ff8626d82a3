"""The apps' access tokens for WeChat's API.

wxauth fetches the tokens, keeps them in memory, and renews them before they expire. Each process can keep a copy,
because WeChat returns the same token to all callers until about five minutes before the token expires. If WeChat
refuses a token but still returns it, an operator has to replace the token with WeChat's force_refresh, or to reset the
AppSecret. wxauth never uses force_refresh, because it ends the token for all callers, and WeChat allows it only a few
times a day.
"""

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, Final, NamedTuple

from pydantic import SecretStr
from pydantic_core import to_json

from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.core.tasks import cancel, once, task_of
from wxauth.errors import WeChatBadResponse, WeChatError
from wxauth.settings.apps import App
from wxauth.wechat.client import WeChat
from wxauth.wechat.errcodes import DAILY_QUOTA, Api

RENEWAL_LEAD: Final = timedelta(seconds=290)
"""The longest time before a token's expiry at which wxauth requests the next token.

WeChat returns the next token from five minutes before the expiry. wxauth waits at least ten seconds longer, because the
clocks may differ.
"""
RENEWAL_SPREAD: Final = timedelta(seconds=60)
"""The time over which processes distribute their renewals, so that they do not all call WeChat at the same moment."""
RENEWAL_PAUSE: Final = timedelta(seconds=30)
"""The pause between two requests for an app's token while WeChat still returns the old token.

It is also the time after a refusal of a token during which further refusals of this token are ignored.
"""
FAILURE_PAUSE: Final = timedelta(seconds=5)
"""The time after a failure during which wxauth does not ask WeChat for this token or ticket again.

Callers without a valid token or ticket get the failure. For a token, the `retry_after` of the failure counts instead if
there is one, and a refusal of the token ends the pause early: see `renew`.
"""
LOOK_TIMEOUT_SECONDS: Final = 0.5
"""The longest time, in seconds, that a caller waits for WeChat's current token while the one in memory is valid."""
LONGEST_LIFE_SECONDS: Final = 7200
"""The longest lifetime, in seconds, that wxauth assumes for a token or a ticket."""
_LONGEST_SECRET: Final = 4096
"""The length limit, in characters, of a token or a ticket. WeChat asks callers to leave room for at least 512."""
_BEIJING: Final = timezone(timedelta(hours=8))
"""WeChat's time zone. WeChat resets the daily quotas at midnight in this zone."""
NEVER: Final = datetime.min.replace(tzinfo=UTC)
"""The time that stands for an event that has not happened, or for a limit that does not apply.

It is always in the past.
"""

_WHAT_TO_CHANGE: Final = "if it continues, call WeChat's stable_token once with force_refresh, or reset the AppSecret"

_Key = tuple[str, SecretStr]
"""The key of a cached token: the id and the secret of the app."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class WeChatToken:
    """An app's access token for WeChat's API, and the number of seconds until the token expires."""

    value: SecretStr
    expires_in: int


class TokenState(NamedTuple):
    """The state of an app's token in one process."""

    expires_at: datetime | None
    """The time at which the token expires; None if there is no valid token."""
    failure_code: str | None
    """The error code of the last renewal; None if that renewal has succeeded, or if there was none."""


@dataclass(slots=True)
class CachedSecret:
    """A token, a ticket or a link of an app that this process keeps in memory."""

    value: str = field(default="", repr=False)
    """The secret itself; empty until WeChat has returned one."""
    ends_at: datetime = NEVER
    """The time at which the secret expires."""
    looked_at: datetime = NEVER
    """The time of the last request to WeChat, or of the last read from the database, with or without success."""
    renews_at: datetime = NEVER
    """The time from which wxauth fetches the next secret, although the present secret is still valid."""
    failure: WeChatError | None = None
    paused_until: datetime = NEVER
    """The time until which wxauth does not ask WeChat for this secret again, because of `failure`."""

    def is_good(self, now: datetime) -> bool:
        """Return whether the secret is valid at this time, so that WeChat should accept it."""
        return now < self.ends_at

    def ensure_not_paused(self, now: datetime) -> None:
        """Check that WeChat may be called now.

        Raises: WeChatError, a copy of the latest failure, if the pause after that failure has not ended.
        """
        if self.failure is not None and now < self.paused_until:
            raise _copy_for_caller(self.failure, self.paused_until - now)

    def fail(self, failure: WeChatError, *, now: datetime, pause: timedelta) -> None:
        """Store the failure of a call that should have returned a new secret, and begin the pause."""
        self.failure = failure
        self.looked_at = now
        self.paused_until = now + pause

    def take(self, value: str, expires_in: int, *, now: datetime) -> None:
        """Store a secret from WeChat that is valid for `expires_in` seconds, and end the pause.

        The value of `renews_at` contains a random part, so that not all processes call WeChat at the same moment.
        """
        self.value = value
        self.failure = None
        self.paused_until = NEVER
        self.looked_at = now
        self.ends_at = now + timedelta(seconds=expires_in)
        jitter = random.random()  # noqa: S311 - not used as a secret
        self.renews_at = max(self.ends_at - RENEWAL_LEAD + jitter * RENEWAL_SPREAD, now + RENEWAL_PAUSE)


@dataclass(slots=True)
class _CachedToken(CachedSecret):
    """An app's token in memory. WeChat can refuse the token before it expires."""

    is_refused: bool = False
    """Whether WeChat has refused the token, so that it must be fetched again before its next use."""
    accepts_refusals_at: datetime = NEVER
    """The time before which further refusals of this token are ignored.

    A refusal sets this time, because wxauth then fetches the token again, and WeChat might return the same token.
    """

    def is_good(self, now: datetime) -> bool:
        """Return whether the token can be used now: it has not expired, and WeChat has not refused it."""
        return now < self.ends_at and not self.is_refused

    def drop_future_times(self, now: datetime) -> None:
        """Reset the times that were computed before the clock was set back, because they may be far in the future."""
        if now < self.looked_at:
            self.looked_at = self.renews_at = self.paused_until = self.accepts_refusals_at = NEVER


@part
class WeChatTokens:
    """The tokens of all apps in one process."""

    wechat: WeChat
    clock: Clock
    _cached: dict[_Key, _CachedToken] = field(init=False, default_factory=partial(defaultdict, _CachedToken))
    _under_way: dict[_Key, asyncio.Task[WeChatError | None]] = field(init=False, default_factory=dict)

    async def get(self, app: App, *, looked_within: timedelta | None = None) -> WeChatToken:
        """Return the app's token. Wait for WeChat only if there is no valid token, or if `looked_within` requires it.

        `looked_within` is for callers that cannot report a refused token. If wxauth has not called WeChat within this
        time, it calls WeChat now, and waits for up to `LOOK_TIMEOUT_SECONDS`. If WeChat returns no token in time, the
        caller gets the token in memory. During the pause after a failure, wxauth does not call WeChat.

        Raises: WeChatError, if there is no valid token, and wxauth cannot fetch one. During the pause after a failure,
            the error is a copy of this failure.
        """
        key, now = _key_of(app), self.clock()
        cached = self._cached[key]
        cached.drop_future_times(now)
        fetch = partial(self._fetch, app, cached)
        may_fetch = now >= cached.paused_until
        if not cached.is_good(now):
            if key not in self._under_way:
                cached.ensure_not_paused(now)
            failure = await once(self._under_way, key, fetch)
            if failure is not None and not cached.is_good(self.clock()):
                raise _copy_for_caller(failure, cached.paused_until - self.clock())
        elif may_fetch and looked_within is not None and now - cached.looked_at >= looked_within:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                    await once(self._under_way, key, fetch)
        elif may_fetch and now >= cached.renews_at:
            # The next token is for later callers, so this caller does not wait.
            _ = task_of(self._under_way, key, fetch)
        # If the clock was set back after the token was stored, `left` could be longer than any token lasts.
        left = int((cached.ends_at - self.clock()).total_seconds())
        return WeChatToken(SecretStr(cached.value), min(max(0, left), LONGEST_LIFE_SECONDS))

    async def renew(self, app: App, *, refused: WeChatToken) -> WeChatToken:
        """Return a new token of the app, because WeChat has refused the token `refused`.

        If another caller has already fetched a new token, return that token. If WeChat returns the refused token again,
        return it, because other APIs of WeChat may still accept it.

        Raises: WeChatError, as `get` does.
        """
        cached, now = self._cached[_key_of(app)], self.clock()
        cached.drop_future_times(now)
        is_current = cached.value == refused.value.get_secret_value()
        if is_current and not cached.is_refused and now >= cached.accepts_refusals_at:
            log.warning("access_token_refused", app_id=app.app_id)
            cached.is_refused = True
            # A pause after a failure ends here. Otherwise, `get` would raise the failure, because no token is good now.
            cached.paused_until = NEVER
            cached.accepts_refusals_at = now + RENEWAL_PAUSE
        return await self.get(app)

    async def aclose(self) -> None:
        """Cancel the requests in progress."""
        await cancel(self._under_way.values())

    def state_of(self, app: App) -> TokenState:
        """Return the state of an app's token in this process."""
        cached = self._cached[_key_of(app)]
        return TokenState(
            expires_at=cached.ends_at if cached.is_good(self.clock()) else None,
            failure_code=None if cached.failure is None else cached.failure.code,
        )

    async def _fetch(self, app: App, cached: _CachedToken) -> WeChatError | None:
        """Fetch the app's token from WeChat into the cache. Return None, or the failure, which is logged.

        The failure is not raised, because several callers share it.
        """
        try:
            await self._fetch_from_wechat(app, cached)
            if cached.is_refused:
                # WeChat has returned the refused token again. It stays in use, because other APIs may still accept it.
                cached.is_refused = False
                log.error("access_token_refused_for_good", app_id=app.app_id, what_to_change=_WHAT_TO_CHANGE)
        except WeChatError as exc:
            now = self.clock()
            cached.fail(exc, now=now, pause=_pause_after(exc, now))
            log.warning("access_token_not_renewed", app_id=app.app_id, reason=exc.code)
            return exc
        return None

    async def _fetch_from_wechat(self, app: App, cached: _CachedToken) -> None:
        """Request the app's token from WeChat, and store it in the cache. Raises: WeChatError."""
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
        if value != cached.value:
            log.info("access_token_renewed", app_id=app.app_id, expires_in=expires_in)
            cached.is_refused = False
            cached.accepts_refusals_at = NEVER
        cached.take(value, expires_in, now=now)


def _key_of(app: App) -> _Key:
    """Return the key under which an app's token is cached.

    The key contains the app's secret, so that wxauth fetches a new token if the secret changes.
    """
    return app.app_id, app.app_secret


def secret_in(answer: dict[str, Any], name: str) -> tuple[str, int]:
    """Return the token or ticket `name` in WeChat's response, and the number of seconds until it expires.

    Raises: WeChatBadResponse, if one of the two values is missing or unusable.
    """
    value, expires_in = answer.get(name), answer.get("expires_in")
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_SECRET or not value.isascii():
        raise WeChatBadResponse(f"WeChat's response has no usable {name}")
    if type(expires_in) is not int or expires_in <= 0:  # `isinstance` would also accept True
        raise WeChatBadResponse("WeChat's response has no usable expires_in")
    return value, min(expires_in, LONGEST_LIFE_SECONDS)


def _pause_after(failure: WeChatError, now: datetime) -> timedelta:
    """Return the time for which wxauth does not call WeChat after this failure.

    If the daily quota is used up, the pause ends at midnight in Beijing at the latest, because WeChat then resets the
    quota.
    """
    pause = FAILURE_PAUSE if failure.retry_after is None else timedelta(seconds=failure.retry_after)
    if failure.errcode != DAILY_QUOTA:
        return pause
    tomorrow = (now.astimezone(_BEIJING) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(pause, tomorrow - now)


def _copy_for_caller(failure: WeChatError, pause: timedelta) -> WeChatError:
    """Return a copy of a failure for one caller. `pause` is the time that is left of the pause after the failure.

    If the failure has a `retry_after`, the copy gets the rest of the pause as its `retry_after`. Each caller gets a
    copy, because an error that is raised repeatedly would collect the tracebacks of all callers.
    """
    left = round(pause.total_seconds())
    retry_after = None if failure.retry_after is None else min(max(1, left), failure.retry_after)
    return type(failure)(failure.detail, errcode=failure.errcode, retry_after=retry_after)
