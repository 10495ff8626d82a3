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

from wxauth.core.background import cancel, once, task_of
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import WeChatBadResponse, WeChatError
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.apps import App
from wxauth.wechat.client import WeChat
from wxauth.wechat.errcodes import USED_UP_QUOTA, Api

# WeChat returns the next token from five minutes before the expiry. The clocks may differ by ten seconds.
RENEWAL_LEAD: Final = timedelta(seconds=290)
RENEWAL_SPREAD: Final = timedelta(seconds=60)  # so that processes do not all call WeChat at the same moment
# The pause is between two requests while WeChat still returns the old token, and between two refusals that count.
_RENEWAL_PAUSE: Final = timedelta(seconds=30)
# The pause has this length unless the failure has a `retry_after`. A refusal of the token ends it early: see `renew`.
FAILURE_PAUSE: Final = timedelta(seconds=5)
# With `looked_within`, a caller lets wxauth look whether WeChat has another token, although the one in memory is valid.
LOOK_TIMEOUT_SECONDS: Final = 0.5
LONGEST_LIFE_SECONDS: Final = 7200  # of WeChat's tokens and tickets
_MAX_SECRET_LENGTH: Final = 4096  # WeChat asks callers to leave room for at least 512
_BEIJING: Final = timezone(timedelta(hours=8))
# This time in the past stands for an event that has not happened, or a limit that does not apply.
NEVER: Final = datetime.min.replace(tzinfo=UTC)

_WHAT_TO_CHANGE: Final = "if it continues, call WeChat's stable_token once with force_refresh, or reset the AppSecret"

_Key = tuple[str, SecretStr]  # the id and the secret of the app, so that a new secret fetches a new token

log = get_logger()


@dataclass(frozen=True, slots=True)
class WeChatToken:
    """An app's access token for WeChat's API, and the seconds until it expires."""

    value: SecretStr
    expires_in: int


class TokenState(NamedTuple):
    expires_at: datetime | None
    failure_code: str | None


@dataclass(slots=True)
class CachedSecret:
    """A token, a ticket or a link of an app that this process keeps in memory."""

    value: str = field(default="", repr=False)
    ends_at: datetime = NEVER
    looked_at: datetime = NEVER  # when this process last asked for the secret, whatever the answer was
    renews_at: datetime = NEVER  # from then on, the next secret is fetched, although this one is still valid
    failure: WeChatError | None = None
    paused_until: datetime = NEVER  # no new request before, because of `failure`

    def is_good(self, now: datetime) -> bool:
        """Return whether WeChat should accept the secret now."""
        return now < self.ends_at

    def ensure_not_paused(self, now: datetime) -> None:
        """Raise a copy of the latest failure, if the pause after it has not ended."""
        if self.failure is not None and now < self.paused_until:
            raise _copy_for_caller(self.failure, self.paused_until - now)

    def fail(self, failure: WeChatError, *, now: datetime, pause: timedelta) -> None:
        """Store the failure of a call, and begin the pause."""
        self.failure = failure
        self.looked_at = now
        self.paused_until = now + pause

    def take(self, value: str, expires_in: int, *, now: datetime) -> None:
        """Store a secret that was fetched, and end the pause."""
        self.failure = None
        self.paused_until = NEVER
        ends_at = now + timedelta(seconds=expires_in)
        jitter = random.random()  # noqa: S311 - not used as a secret
        renews_at = max(ends_at - RENEWAL_LEAD + jitter * RENEWAL_SPREAD, now + _RENEWAL_PAUSE)
        self.keep(value, ends_at=ends_at, renews_at=renews_at, now=now)

    def keep(self, value: str, *, ends_at: datetime, renews_at: datetime, now: datetime) -> None:
        """Store a secret with times that the caller has decided. A pause after a failure does not end."""
        self.value, self.ends_at, self.renews_at, self.looked_at = value, ends_at, renews_at, now

    def drop_future_times(self, now: datetime) -> bool:
        """Forget the times that might be far in the future, if the clock was set back. Return whether it was."""
        is_set_back = now < self.looked_at
        if is_set_back:
            self.looked_at = self.renews_at = self.paused_until = NEVER
        return is_set_back


@dataclass(slots=True)
class _CachedToken(CachedSecret):
    is_refused: bool = False
    # A refusal sets this, because WeChat might then return the same token again.
    accepts_refusals_at: datetime = NEVER

    def is_good(self, now: datetime) -> bool:
        return now < self.ends_at and not self.is_refused

    def drop_future_times(self, now: datetime) -> bool:
        # `super()` would fail, because `slots=True` makes a new class, which the methods do not know.
        is_set_back = CachedSecret.drop_future_times(self, now)
        if is_set_back:
            self.accepts_refusals_at = NEVER
        return is_set_back


@part
class WeChatTokens:
    wechat: WeChat
    clock: Clock
    _cached: dict[_Key, _CachedToken] = field(init=False, default_factory=partial(defaultdict, _CachedToken))
    _under_way: dict[_Key, asyncio.Task[WeChatError | None]] = field(init=False, default_factory=dict)

    async def get(self, app: App, *, looked_within: timedelta | None = None) -> WeChatToken:
        """Return the app's token. Wait for WeChat only if there is no valid token, or if `looked_within` requires it.

        `looked_within` is for callers that cannot report a refused token. If wxauth has not called WeChat within this
        time, it does so now, and waits for up to `LOOK_TIMEOUT_SECONDS`.

        Raises: WeChatError, if there is no valid token. The error is a copy of the latest failure.
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

        If another caller has fetched a new token already, the result is that token. If WeChat returns the refused token
        again, so does this function, because other APIs of WeChat may still accept it.
        """
        cached, now = self._cached[_key_of(app)], self.clock()
        cached.drop_future_times(now)
        is_current = cached.value == refused.value.get_secret_value()
        if is_current and not cached.is_refused and now >= cached.accepts_refusals_at:
            log.warning("access_token_refused", app_id=app.app_id)
            cached.is_refused = True
            # A pause after a failure ends here. Otherwise, `get` would raise the failure, because no token is good now.
            cached.paused_until = NEVER
            cached.accepts_refusals_at = now + _RENEWAL_PAUSE
        return await self.get(app)

    async def aclose(self) -> None:
        await cancel(self._under_way.values())

    def state_of(self, app: App) -> TokenState:
        cached = self._cached[_key_of(app)]
        return TokenState(
            expires_at=cached.ends_at if cached.is_good(self.clock()) else None,
            failure_code=None if cached.failure is None else cached.failure.code,
        )

    async def _fetch(self, app: App, cached: _CachedToken) -> WeChatError | None:
        """The failure is returned and not raised, because several callers share it."""
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
    return app.app_id, app.app_secret


def secret_in(answer: dict[str, Any], name: str) -> tuple[str, int]:
    """Return the token or ticket `name`, and the seconds until it expires. Raises: WeChatBadResponse."""
    value, expires_in = answer.get(name), answer.get("expires_in")
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_SECRET_LENGTH or not value.isascii():
        raise WeChatBadResponse(_("WeChat's response has no usable {field}", field=name))
    if type(expires_in) is not int or expires_in <= 0:  # `isinstance` would also accept True
        raise WeChatBadResponse(_("WeChat's response has no usable {field}", field="expires_in"))
    return value, min(expires_in, LONGEST_LIFE_SECONDS)


def _pause_after(failure: WeChatError, now: datetime) -> timedelta:
    pause = FAILURE_PAUSE if failure.retry_after is None else timedelta(seconds=failure.retry_after)
    if failure.errcode != USED_UP_QUOTA:
        return pause
    # WeChat resets the quotas at midnight in Beijing.
    tomorrow = (now.astimezone(_BEIJING) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(pause, tomorrow - now)


def _copy_for_caller(failure: WeChatError, pause: timedelta) -> WeChatError:
    # The failure itself would collect the tracebacks of all callers to whom it is raised.
    left = round(pause.total_seconds())
    retry_after = None if failure.retry_after is None else min(max(1, left), failure.retry_after)
    return type(failure)(failure.detail, errcode=failure.errcode, retry_after=retry_after)
