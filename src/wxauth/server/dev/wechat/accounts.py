"""The apps of the simulated WeChat: what it has issued to each, how each stands, what it has called."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic_core import from_json

from wxauth.server.dev.wechat.calls import CallRefused, Faults, fault_in
from wxauth.server.dev.wechat.controls import (
    APP_KINDS,
    SECRETS,
    Account,
    Api,
    CodeRequest,
    FaultRequest,
    PhoneCodeRequest,
    SealRequest,
    Visitor,
    openid_of,
    openid_prefix,
)
from wxauth.server.dev.wechat.issued import (
    CODE_LIFETIME,
    LONG_CODE_LIFETIME,
    AccessTokens,
    Codes,
    IssuedSessionKeys,
    PayRequest,
    day_of,
    delivery_of,
    judge,
)
from wxauth.server.dev.wechat.push import DELIVER, PushRequest, make_event, make_message

REMEMBERED_CALLS: Final = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """A call received."""

    api: Api
    app_id: str | None
    """The calling app; None if unknown."""
    query: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises: CallRefused."""
        try:
            values = from_json(self.body)
        except ValueError:
            raise CallRefused(47001) from None
        if not isinstance(values, dict):
            raise CallRefused(47001)
        return values


class Accounts:
    """The state of all apps.

    Args:
        clock: Seconds since the epoch.
        takes_names: Whether any plain name works as a code. The real WeChat has no such codes.
    """

    def __init__(self, clock: Callable[[], float] = time, *, takes_names: bool = True) -> None:
        self._clock = clock
        self._takes_names = takes_names
        self._codes: Codes[CodeRequest] = Codes(clock, errcode_when_used=40163, errcode_of_another_app=40029)
        self._phone_codes: Codes[PhoneCodeRequest] = Codes(clock, errcode_when_used=40163, errcode_of_another_app=40013)
        self._session_keys = IssuedSessionKeys(clock)
        self._accounts = {app_id: Account(app_id=app_id) for app_id in SECRETS}
        self._today: Counter[tuple[int, str, Api]] = Counter()
        self.access_tokens = {app_id: AccessTokens(clock) for app_id in SECRETS}
        self.visitors: dict[tuple[str, str], Visitor] = {}
        """By person and app, the person's state at WeChat's own pages of the app."""
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=REMEMBERED_CALLS)
        """The latest calls received."""
        self.verdicts: deque[tuple[PushRequest, dict[str, Any]]] = deque(maxlen=REMEMBERED_CALLS)
        """The verdicts on pictures that are to be pushed, the oldest first."""
        self._refused: dict[str, tuple[float, Call, dict[str, Any]]] = {}
        """The latest refused calls by their rid, each with its time and its answer."""
        self._cleared: Counter[tuple[str, str]] = Counter()
        """How often each app's quotas were cleared, by month."""
        self._minute = 0
        self._this_minute: Counter[tuple[Api, str]] = Counter()
        """Calls by API and person within `_minute`."""

    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self._clock())

    # Controls, which the real WeChat does not have.

    def make_code(self, request: CodeRequest) -> str:
        """A code as `wx.login` gives it or, for an app of another kind, WeChat's page or SDK: single-use."""
        is_long = APP_KINDS[request.app_id] in ("website", "mobile_app")
        return self._codes.make(request, lasts=LONG_CODE_LIFETIME if is_long else CODE_LIFETIME)

    def make_phone_code(self, request: PhoneCodeRequest) -> str:
        """A code as the phone button gives it: single-use, valid for five minutes."""
        return self._phone_codes.make(request)

    def seal(self, request: SealRequest) -> dict[str, Any]:
        """`encryptedData` and `iv` as `wx` gives them. Raises: ValueError, for a person who has never logged in."""
        watermark = {"timestamp": self.now(), "appid": request.app_id}
        openid = openid_of(request.person, request.app_id)
        return self._session_keys.seal(openid, {"watermark": watermark, **request.data})

    def push_message(self, request: PushRequest) -> dict[str, Any]:
        """The push message of an event about a person."""
        openid = openid_of(request.person, request.app_id)
        return make_message(openid, request.event, request.revoke_info, app_id=request.app_id, now=self.now())

    def pay(self, request: PayRequest) -> tuple[int, tuple[PushRequest, dict[str, Any]] | None]:
        """The errCode of a payment on the phone and, if it succeeds, the notice to push."""
        openid = openid_of(request.person, request.app_id)
        errcode, order = judge(request, openid, self._session_keys)
        if order is None:
            return errcode, None
        fields = delivery_of(order, openid, now=self.now())
        message = make_event(DELIVER, fields, app_id=request.app_id, now=self.now())
        format = self._accounts[request.app_id].push_format
        notice = PushRequest(person=request.person, app_id=request.app_id, event=DELIVER, format=format)
        return errcode, (notice, message)

    def fail(self, api: Api, **fault: Any) -> None:
        """Make the next calls of an API fail. The arguments are the fields of `FaultRequest`."""
        self.faults.append(FaultRequest(api=api, **fault))

    def account(self, app_id: str) -> Account:
        """The state of an app's account, which callers may change."""
        return self._accounts[app_id]

    def calls_of(self, api: Api) -> list[Call]:
        """The latest calls of an API."""
        return [call for call in self.calls if call.api == api]

    # Calls, as to the real WeChat.

    def call(self, api: Api, query: Mapping[str, str], body: bytes) -> tuple[Call, FaultRequest | None]:
        """Record a call. Returns the call, and its fault, if any."""
        call = Call(api, self._app_of(api, query, body), query, body)
        self.calls.append(call)
        return call, self.faults.take_next(api, call.app_id) or fault_in(_code_in(call), api)

    def _app_of(self, api: Api, query: Mapping[str, str], body: bytes) -> str | None:
        if api in ("code2session", "access_token"):
            return query.get("appid")
        if api == "stable_token":
            try:
                app_id = Call(api, None, query, body).json.get("appid")
            except CallRefused:
                return None
            return app_id if isinstance(app_id, str) else None
        if api == "clear_quota":
            return dict(parse_qsl(body.decode(errors="replace"))).get("appid")
        token = query.get("access_token", "")
        return next((app_id for app_id, tokens in self.access_tokens.items() if token in tokens), None)

    def _account_of(self, app_id: object, secret: object) -> Account:
        """The account of the app with this secret. Raises: CallRefused."""
        if not app_id:
            raise CallRefused(41002)
        if not secret:
            raise CallRefused(41004)
        account = self._accounts.get(app_id) if isinstance(app_id, str) else None
        if account is None:
            raise CallRefused(40013)
        if secret != SECRETS[account.app_id]:
            raise CallRefused(40125)
        if account.is_frozen:
            raise CallRefused(40243)
        return account

    def _account_with_token(self, call: Call, *, errcode_over_quota: int = 45009) -> Account:
        """The account of the app whose access token the call has. Raises: CallRefused."""
        token = call.query.get("access_token", "")
        if not token:
            raise CallRefused(41001)
        if call.app_id is None:
            raise CallRefused(40014)
        self.access_tokens[call.app_id].check(token)
        account = self._accounts[call.app_id]
        if call.api in account.denied:
            raise CallRefused(48001)
        self._count(account, call.api, errcode_over_quota=errcode_over_quota)
        return account

    def _count(self, account: Account, api: Api, *, errcode_over_quota: int = 45009) -> None:
        today = (day_of(self._clock()), account.app_id, api)
        self._today[today] += 1
        if self._today[today] > account.daily_quota.get(api, self._today[today]):
            raise CallRefused(errcode_over_quota)

    def _count_in_minute(self, api: Api, whose: str, *, at_most: int, errcode: int) -> None:
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute, self._this_minute = minute, Counter()
        self._this_minute[api, whose] += 1
        if self._this_minute[api, whose] > at_most:
            raise CallRefused(errcode)

    def _active_person(self, values: Mapping[str, Any], account: Account) -> str:
        openid = text_in(values, "openid")
        self._check_openid(openid, account)
        return self._session_keys.active_person(openid)

    def _check_openid(self, openid: object, account: Account) -> None:
        if not isinstance(openid, str) or not openid.startswith("o"):
            raise CallRefused(40003)
        if not openid.startswith(openid_prefix(account.app_id)):
            raise CallRefused(43104)


def text_in(values: Mapping[str, Any], name: str) -> str:
    """A text among the values of a call, empty if it is missing. Raises: CallRefused."""
    value = values.get(name, "")
    if not isinstance(value, str):
        raise CallRefused(47001)
    return value


def _code_in(call: Call) -> str:
    if call.api in ("code2session", "access_token"):
        return call.query.get("js_code" if call.api == "code2session" else "code", "")
    if call.api != "getuserphonenumber":
        return ""
    try:
        return text_in(call.json, "code")
    except CallRefused:
        return ""
