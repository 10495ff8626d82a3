"""The limits on calls to the simulated WeChat: the daily quotas, which an app can clear, and the limits per minute."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, ok, require, text_in
from wxauth_desk.wechat.beijing_time import day_of, month_of
from wxauth_desk.wechat.controls import ENDPOINTS, Api, AppState
from wxauth_desk.wechat.errcodes import Errcode

# `quota_get` reports it for an API without a quota of its own. No call is refused because of it.
_DEFAULT_QUOTA: Final = 1_000_000
_CLEARINGS_A_MONTH: Final = 10
# These APIs have another errcode than 45009.
_QUOTA_ERRCODES: Final = {"getuserriskrank": Errcode.USED_UP_RISK_QUOTA}


@dataclass
class Quotas:
    """The part of the simulated WeChat that counts the calls of each app, and enforces the limits."""

    clock: Callable[[], float]  # returns seconds since the epoch
    # The keys are day, app and API. Calls that are too many count, too.
    _calls_of_day: Counter[tuple[int, str, Api]] = field(init=False, default_factory=Counter)
    # The keys are month and app. Clearings that are too many count, too.
    _clearings: Counter[tuple[str, str]] = field(init=False, default_factory=Counter)
    _minute: int = field(init=False, default=0)  # of the latest call to `count_in_minute`, since the epoch
    # The keys are API and openid or, for pictures of codes, API and app.
    _calls_of_minute: Counter[tuple[Api, str]] = field(init=False, default_factory=Counter)

    def count(self, account: AppState, api: Api) -> None:
        """Count an app's call to an API, or refuse it if the daily quota is used up."""
        key = (day_of(self.clock()), account.app_id, api)
        self._calls_of_day[key] += 1
        quota = account.daily_quota.get(api)
        require(quota is None or self._calls_of_day[key] <= quota, _QUOTA_ERRCODES.get(api, Errcode.USED_UP_QUOTA))

    def count_in_minute(self, api: Api, caller: str, *, at_most: int, errcode: int) -> None:
        """Count a call by an openid or an app, the `caller`, or refuse it after `at_most` calls in the same minute."""
        minute = int(self.clock() // 60)
        if minute != self._minute:
            self._minute, self._calls_of_minute = minute, Counter()
        self._calls_of_minute[api, caller] += 1
        require(self._calls_of_minute[api, caller] <= at_most, errcode)

    def read(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `quota_get`."""
        cgi_path = text_in(call.json, "cgi_path")
        api = next((api for api, endpoint in ENDPOINTS.items() if endpoint.path == cgi_path), None)
        if api is None:
            raise CallRefused(Errcode.UNKNOWN_PATH)
        used = self._calls_of_day[day_of(self.clock()), account.app_id, api]
        limit = account.daily_quota.get(api, _DEFAULT_QUOTA)
        return ok(quota={"daily_limit": limit, "used": used, "remain": max(0, limit - used)})

    def clear_by_secret(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `clear_quota`."""
        require(account.is_whitelisted, Errcode.NOT_WHITELISTED)
        return self._clear(account)

    def clear_by_token(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `clear_quota_by_token`, which must contain the app's own id."""
        require(text_in(call.json, "appid") == account.app_id, Errcode.WRONG_APP_ID)
        return self._clear(account)

    def _clear(self, account: AppState) -> Answer:
        month = month_of(self.clock())
        self._clearings[month, account.app_id] += 1
        require(self._clearings[month, account.app_id] <= _CLEARINGS_A_MONTH, Errcode.TOO_MANY_CLEARINGS)
        for day, app_id, api in list(self._calls_of_day):
            if app_id == account.app_id:
                del self._calls_of_day[day, app_id, api]
        return ok()
