"""The simulated WeChat without HTTP: the secrets that it has issued, the state of each app, and the latest calls."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from time import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from pydantic_core import to_json

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, ok, require, text_in
from wxauth_desk.wechat.app_tokens import AppTokens
from wxauth_desk.wechat.coins import Coins
from wxauth_desk.wechat.content_checks import ContentChecks
from wxauth_desk.wechat.controls import (
    APP_KINDS,
    ENDPOINTS,
    SECRETS,
    Api,
    AppState,
    CodeRequest,
    FaceRequest,
    FaultRequest,
    PhoneCodeRequest,
    SealRequest,
    Visitor,
)
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.faces import Faces
from wxauth_desk.wechat.faults import NO_FAULT, Faults, fault_in
from wxauth_desk.wechat.issued import (
    CODE_LIFETIME_SECONDS,
    LONG_CODE_LIFETIME_SECONDS,
    AccessTokens,
    Codes,
    Grants,
    IssuedSessionKeys,
    seal,
)
from wxauth_desk.wechat.links import Links
from wxauth_desk.wechat.logins import Logins
from wxauth_desk.wechat.payments import Payments
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.phone_numbers import PhoneNumbers
from wxauth_desk.wechat.push import Push, PushRequest, make_person_message
from wxauth_desk.wechat.quotas import Quotas
from wxauth_desk.wechat.session_keys import SessionKeyApis

MAX_CALLS: Final = 1000  # also of refused calls with their responses
MAX_VISITORS: Final = 200
# 6 and 205 stand for the nickname and picture, and 301 stands for all data of the user.
_DEFAULT_REVOKE_INFO: Final = {"mini_program": "6", "official_account": "205", "website": "301", "mobile_app": "301"}

AnswerOfApp = Callable[[Call, AppState], Answer]


class _Refusal(NamedTuple):
    at: float
    call: Call
    answer: dict[str, Any]


class Simulator:
    """The state of all apps, and the functions that answer the APIs.

    With `takes_names`, a plain name such as `alice` works as a login code, and `phone-` with a phone number works as a
    phone code, although the real WeChat has no such codes. `clock` returns seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time, *, takes_names: bool = True) -> None:
        self._clock = clock
        self._accounts = {app_id: AppState(app_id=app_id) for app_id in SECRETS}
        self._codes: Codes[CodeRequest] = Codes(clock, errcode_of_another_app=Errcode.WRONG_CODE)
        self._phone_codes: Codes[PhoneCodeRequest] = Codes(clock, errcode_of_another_app=Errcode.WRONG_APP_ID)
        self._session_keys = IssuedSessionKeys(clock)
        self._quotas = Quotas(clock)
        self.access_tokens = {app_id: AccessTokens(clock) for app_id in SECRETS}
        logins = Logins(self._codes, self._session_keys, Grants(clock), self._quotas, takes_names=takes_names)
        phone_numbers = PhoneNumbers(self._phone_codes, takes_plain_codes=takes_names, clock=self.now)
        session_key_apis = SessionKeyApis(self._session_keys, self.now)
        app_tokens = AppTokens(self.access_tokens, self._quotas, self.now)
        content_checks = ContentChecks(self._session_keys, self.now)
        links = Links(self._quotas, self.now)
        coins = Coins(self._session_keys, self.now)
        self._faces = Faces(self._session_keys, self.now)
        self.payments = Payments(self._session_keys, self._accounts, self.now)
        self.js_tickets = app_tokens.js_tickets  # for tests
        self.verdicts = content_checks.verdicts  # the caller must push them after the response
        self.visitors: BoundedDict[tuple[str, str], Visitor] = BoundedDict(MAX_VISITORS)  # by person and app id
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        # The key is the `rid`, the id of a refused call in WeChat's response.
        self._refusals: BoundedDict[str, _Refusal] = BoundedDict(MAX_CALLS)
        self._grant_apis: Mapping[Api, Callable[[Call], Answer]] = {  # called with a person's grant
            "userinfo": logins.read_profile,
            "auth": logins.check_grant,
            "refresh_token": logins.renew_grant,
        }
        self._secret_apis: Mapping[Api, AnswerOfApp] = {  # called with an app's secret
            "code2session": logins.log_in,
            "access_token": logins.issue_grant,
            "token": app_tokens.issue_token,
            "stable_token": app_tokens.hand_out_stable_token,
            "clear_quota": self._quotas.clear_by_secret,
        }
        self._token_apis: Mapping[Api, AnswerOfApp] = {  # called with an app's access token
            "getuserphonenumber": phone_numbers.read,
            "checksession": session_key_apis.check,
            "resetusersessionkey": session_key_apis.reset,
            "getuserencryptkey": session_key_apis.read_encrypt_keys,
            "getuserriskrank": content_checks.rank_risk,
            "msg_sec_check": content_checks.check_text,
            "media_check_async": content_checks.check_picture,
            "getwxacodeunlimit": links.draw_code,
            "generate_urllink": links.make_url_link,
            "generatescheme": links.make_scheme,
            "getticket": app_tokens.read_js_ticket,
            "quota_get": self._quotas.read,
            "rid_get": self._read_refusal,
            "clear_quota_by_token": self._quotas.clear_by_token,
            "getverifyid": self._faces.begin,
            "queryverifyinfo": self._faces.read_result,
            "getbalance": coins.answer,
            "pay": coins.answer,
            "cancelpay": coins.answer,
            "present": coins.answer,
        }

    def now(self) -> int:
        """Return the time in seconds since the epoch."""
        return int(self._clock())

    # The following methods are controls, which the real WeChat does not have.

    def make_code(self, request: CodeRequest) -> str:
        """Return a single-use login code of `wx.login` or, for an app of another kind, of WeChat's page or SDK."""
        is_long_lived = APP_KINDS[request.app_id] in ("website", "mobile_app")
        lifetime_seconds = LONG_CODE_LIFETIME_SECONDS if is_long_lived else CODE_LIFETIME_SECONDS
        return self._codes.make(request, lifetime_seconds=lifetime_seconds)

    def make_phone_code(self, request: PhoneCodeRequest) -> str:
        """Return a single-use phone code such as the phone button returns."""
        return self._phone_codes.make(request)

    def seal(self, request: SealRequest) -> dict[str, Any]:
        """Sign and encrypt data, as `wx` does before it returns the data to a page.

        Raises: ValueError, if there is no session_key, or if the code was not made for this person and app.
        """
        if request.code is None:
            key = self._session_keys.current(openid_of(request.person, request.app_id))
            if key is None:
                raise ValueError("person: has not logged in to this app, so give the code of a login to come")
        else:
            code_request = self._codes.made_for(request.code)
            owner = None if code_request is None else (code_request.person, code_request.app_id)
            if owner != (request.person, request.app_id):
                raise ValueError("code: must be one that POST /codes has made for this person in this app")
            key = self._session_keys.of_code(request.code)
        return seal(key, request.data, watermark={"timestamp": self.now(), "appid": request.app_id})

    def end_face_verification(self, request: FaceRequest) -> dict[str, Any]:
        """End a face verification on the phone, and return what `wx.requestFacialVerify` returns to the page.

        Raises: ValueError, if the verification is unknown or has expired.
        """
        self._faces.end(request)
        return {"errMsg": "requestFacialVerify:ok"}

    def make_push(self, request: PushRequest) -> Push:
        """Return the push that WeChat sends for an event about a person."""
        openid = openid_of(request.person, request.app_id)
        revoke_info = request.revoke_info or _DEFAULT_REVOKE_INFO[APP_KINDS[request.app_id]]
        message = make_person_message(openid, request.event, revoke_info, app_id=request.app_id, now=self.now())
        return Push(request, message)

    def fail(self, api: Api, **fault: Any) -> None:
        """Make the next call to an API fail. `fault` contains the other fields of `FaultRequest`."""
        self.faults.append(FaultRequest(api=api, **fault))

    def account(self, app_id: str) -> AppState:
        """Return the state of an app's account, which callers may change."""
        return self._accounts[app_id]

    def calls_of(self, api: Api) -> list[Call]:
        return [call for call in self.calls if call.api == api]

    # The following methods process calls, as the real WeChat does.

    def receive(self, api: Api, query: Mapping[str, str], body: bytes) -> tuple[Call, FaultRequest]:
        """Record a call. Return the call and the fault that must be applied to it; `NO_FAULT` if there is none.

        A fault that was requested with `POST /faults` comes before the one that the code in the call names, if any.
        """
        call = Call(api, app_id=None, query=query, body=body)
        call = replace(call, app_id=self._app_id_in(call))  # a second step, because `_app_id_in` takes a call
        self.calls.append(call)
        fault = self.faults.take_next(api, call.app_id)
        if fault is None:
            fault = fault_in(_code_in(call), api)
        return call, NO_FAULT if fault is None else fault

    def answer(self, call: Call) -> Answer:
        """Carry out a call, and return the response, which may be a refusal. This method applies no faults."""
        try:
            if call.api in self._grant_apis:
                return self._grant_apis[call.api](call)
            if call.api in self._secret_apis:
                return self._secret_apis[call.api](call, self._account_with_secret(call))
            return self._token_apis[call.api](call, self._account_with_token(call))
        except CallRefused as refusal:
            answer = refusal.answer(call.api)
            self._refusals[refusal.rid] = _Refusal(self._clock(), call, answer)
            return answer

    def _app_id_in(self, call: Call) -> str | None:
        """An app id that is sent with a secret might not be the id of any app."""
        if call.api in self._secret_apis:
            with suppress(CallRefused):
                app_id, _secret = call.id_and_secret
                return app_id if isinstance(app_id, str) else None
            return None
        token = call.query.get("access_token", "")
        return next((app_id for app_id, tokens in self.access_tokens.items() if token in tokens), None)

    def _account_with_secret(self, call: Call) -> AppState:
        app_id, secret = call.id_and_secret
        require(app_id, Errcode.MISSING_APP_ID)
        require(secret, Errcode.MISSING_SECRET)
        account = self._accounts.get(app_id) if isinstance(app_id, str) else None
        if account is None:
            raise CallRefused(Errcode.WRONG_APP_ID)
        require(secret == SECRETS[account.app_id], Errcode.WRONG_SECRET)
        require(not account.is_frozen, Errcode.FROZEN_SECRET)
        require(_is_address_accepted(account), Errcode.NOT_WHITELISTED)
        return account

    def _account_with_token(self, call: Call) -> AppState:
        token = call.query.get("access_token", "")
        require(token, Errcode.MISSING_ACCESS_TOKEN)
        if call.app_id is None:
            raise CallRefused(Errcode.UNKNOWN_ACCESS_TOKEN)
        self.access_tokens[call.app_id].check(token)
        account = self._accounts[call.app_id]
        require(_is_address_accepted(account), Errcode.NOT_WHITELISTED_WITH_TOKEN)
        require(call.api not in account.denied, Errcode.NOT_ALLOWED)
        self._quotas.count(account, call.api)
        return account

    def _read_refusal(self, call: Call, account: AppState) -> Answer:
        refusal = self._refusals.get(text_in(call.json, "rid"))
        if refusal is None or refusal.call.app_id != account.app_id:
            raise CallRefused(Errcode.UNKNOWN_RID)
        refused = refusal.call
        return ok(
            request={
                "invoke_time": int(refusal.at),
                "cost_in_ms": 7,  # made up
                "request_url": f"{ENDPOINTS[refused.api].path}?{urlencode(refused.query)}",
                "request_body": refused.body.decode(errors="replace"),
                "response_body": to_json(refusal.answer).decode(),
                "client_ip": "127.0.0.1",
            }
        )


def _is_address_accepted(account: AppState) -> bool:
    # WeChat applies the whitelist of an official account to all its APIs. For other apps, only some APIs require the
    # whitelist, and the functions that answer them check it.
    return account.is_whitelisted or APP_KINDS[account.app_id] != "official_account"


def _code_in(call: Call) -> str:
    with suppress(CallRefused):
        match call.api:
            case "code2session":
                return call.query.get("js_code", "")
            case "access_token":
                return call.query.get("code", "")
            case "getuserphonenumber":
                return text_in(call.json, "code")
    return ""
