"""The simulated WeChat without HTTP: what it has issued, the state of each app, the calls, and the answers."""

import re
import secrets
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from time import time
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import phonenumbers
import segno
from PIL import Image, ImageOps
from pydantic_core import from_json, to_json

from wxauth.server.dev.wechat.calls import CallRefused, Faults, fault_in
from wxauth.server.dev.wechat.controls import (
    APP_KINDS,
    SECRETS,
    Account,
    Api,
    CodeRequest,
    FaceRequest,
    FaultRequest,
    PhoneCodeRequest,
    SealRequest,
    Visitor,
    is_person_name,
    openid_of,
    openid_prefix,
    phone_number_of,
    risk_of,
    unionid_of,
)
from wxauth.server.dev.wechat.issued import (
    CODE_LIFETIME,
    LONG_CODE_LIFETIME,
    AccessTokens,
    Codes,
    IssuedSessionKeys,
    NoticeRequest,
    PayRequest,
    day_of,
    delivery_of,
    judge,
    refund_of,
)
from wxauth.server.dev.wechat.push import (
    CHECKED,
    DELIVER,
    REFUNDED,
    PushRequest,
    make_event,
    make_message,
    make_verdict,
)

REMEMBERED_CALLS: Final = 1000
PICTURES_A_MINUTE: Final = 5000

_SCENE_CHARACTERS: Final = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]*")
_LONGEST_SCENE: Final = 32
_HOME: Final = "pages/index/index"
_ENVS: Final = ("release", "trial", "develop")
_WIDTHS: Final = (280, 1280)
_WIDTH: Final = 430
_BORDER: Final = 4
"""Modules of white border around a code."""
_RID: Final = re.compile(r"rid: ([0-9a-f-]+)")
_CERT: Final = ("cert_type", "cert_name", "cert_no")
_NO_FACE_YET: Final = 90004
_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u")
_PLAIN_PHONE: Final = re.compile(r"phone-(\+?\d[\d -]*)")
_VERDICTS: Final = {
    "risky": ("risky", 20006),
    "违规": ("risky", 20006),
    "review": ("review", 21000),
    "可疑": ("review", 21000),
}
_PICTURE_LABELS: Final = {"pass": 100, "review": 21000, "risky": 20002}
_USUAL_QUOTA: Final = 1_000_000
_CLEARED_A_MONTH: Final = 10
_LONGEST_URL_LINK: Final = 30
"""Days."""
_TICKET_LASTS: Final = 7200
_TICKET_RENEWED: Final = 300
"""Seconds before its end when a ticket is replaced."""
_LONGEST_QUERY: Final = 512
LOGINS_A_MINUTE: Final = 100
"""How often a person may log in to an app with codes of `wx.login`."""
API_PATHS: Final[dict[str, tuple[str, Api]]] = {}
"""The method and the name of the API at each path."""


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


@dataclass(frozen=True, slots=True)
class DrawnCode:
    """A picture with its content type."""

    content: bytes
    content_type: str


def read_code_request(values: Mapping[str, Any], account: Account) -> str:
    """The content of the requested code. Raises: CallRefused."""
    scene, page, env = values.get("scene"), values.get("page", _HOME), values.get("env_version", "release")
    if not isinstance(scene, str) or not 0 < len(scene) <= _LONGEST_SCENE:
        raise CallRefused(40169)
    if not _SCENE_CHARACTERS.fullmatch(scene):
        raise CallRefused(40129)
    if env not in _ENVS:
        raise CallRefused(40097)
    is_unknown = values.get("check_path", True) is not False and page not in account.pages
    is_unknown |= env == "release" and not account.pages  # before the first release
    if not isinstance(page, str) or page.startswith("/") or "?" in page or is_unknown:
        raise CallRefused(41030)
    query = urlencode({"page": page, "scene": scene, "env": env}, safe="/:")
    return f"wxa:{account.app_id}?{query}"


def width_of(values: Mapping[str, Any]) -> int:
    """The requested width. WeChat does not document what a wrong one does: here it is clamped to the allowed range."""
    width = values.get("width", _WIDTH)
    return min(max(width, _WIDTHS[0]), _WIDTHS[1]) if type(width) is int else _WIDTH


def draw(code: str, *, has_transparent_ground: bool, width: int = _WIDTH) -> DrawnCode:
    """Draw a code: a PNG if the background is transparent, otherwise a JPEG."""
    qr = segno.make_qr(code, error="m")
    drawn = BytesIO()
    qr.save(drawn, kind="png", scale=width // qr.symbol_size(border=_BORDER)[0], border=_BORDER)
    modules = Image.open(drawn).convert("L")
    dark = Image.new("L", (width, width), 255)
    dark.paste(modules, ((width - modules.width) // 2, (width - modules.height) // 2))
    output = BytesIO()
    if has_transparent_ground:
        picture = Image.new("LA", dark.size)
        picture.putalpha(ImageOps.invert(dark))
        picture.save(output, "PNG")
        return DrawnCode(output.getvalue(), "image/png")
    dark.save(output, "JPEG", quality=90)
    return DrawnCode(output.getvalue(), "image/jpeg")


Answer = dict[str, Any] | DrawnCode
Handler = Callable[["Simulator", Call], Answer]

HANDLERS: Final[dict[Api, Handler]] = {}


def _api(name: Api, method: str, path: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        API_PATHS[path] = method, name
        HANDLERS[name] = handler
        return handler

    return add


class Simulator:
    """The simulated WeChat, without HTTP: the state of all apps, and one method for each API.

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
        self.js_tickets: dict[str, tuple[str, int]] = {}
        """The ticket of each app, and when it ends."""
        self.visitors: dict[tuple[str, str], Visitor] = {}
        """By person and app, the person's state at WeChat's own pages of the app."""
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=REMEMBERED_CALLS)
        """The latest calls received."""
        self.verdicts: deque[tuple[PushRequest, dict[str, Any]]] = deque(maxlen=REMEMBERED_CALLS)
        """The verdicts on pictures that are to be pushed, the oldest first."""
        self._notices: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        """The notices about payments, by app, person, order and event."""
        self._refused: dict[str, tuple[float, Call, dict[str, Any]]] = {}
        """The latest refused calls by their rid, each with its time and its answer."""
        self._cleared: Counter[tuple[str, str]] = Counter()
        """How often each app's quotas were cleared, by month."""
        self._faces: dict[str, list[Any]] = {}
        """By verify_id, what must be repeated to learn the result, and the result."""
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

    def show_face(self, request: FaceRequest) -> dict[str, Any]:
        """End a face verification on the phone. Raises: ValueError."""
        if request.verify_id not in self._faces:
            raise ValueError("verify_id: must be one that getverifyid has given within the hour")
        self._faces[request.verify_id][1] = request.verify_ret
        return {"errMsg": "requestFacialVerify:ok"}

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
        key = (request.app_id, request.person, order.out_trade_no, DELIVER)
        self._notices[key] = make_event(DELIVER, fields, app_id=request.app_id, now=self.now())
        return errcode, self._to_push(key)

    def notice(self, request: NoticeRequest) -> tuple[PushRequest, dict[str, Any]]:
        """The notice about a paid order to push; of one event always the same. Raises: ValueError."""
        order = (request.app_id, request.person, request.out_trade_no)
        paid = self._notices.get((*order, DELIVER))
        if paid is None:
            raise ValueError("outTradeNo: this person has paid no such order")
        key = (*order, request.event)
        if key not in self._notices:
            fields = refund_of(paid, now=self.now())
            self._notices[key] = make_event(REFUNDED, fields, app_id=request.app_id, now=self.now())
        return self._to_push(key)

    def _to_push(self, key: tuple[str, str, str, str]) -> tuple[PushRequest, dict[str, Any]]:
        app_id, person, _, event = key
        format = self._accounts[app_id].push_format
        return PushRequest(person=person, app_id=app_id, event=event, format=format), self._notices[key]

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

    def answer(self, call: Call) -> dict[str, Any] | DrawnCode:
        """The right answer."""
        try:
            return HANDLERS[call.api](self, call)
        except CallRefused as refusal:
            answer = refusal.answer()
            if (rid := _RID.search(answer["errmsg"])) is not None:
                self._refused[rid[1]] = self._clock(), call, answer
                while len(self._refused) > REMEMBERED_CALLS:
                    del self._refused[next(iter(self._refused))]
            return answer

    @_api("code2session", "GET", "/sns/jscode2session")
    def _code2session(self, call: Call) -> dict[str, Any]:
        account, request = self._spent(call, call.query.get("js_code", ""))
        openid = openid_of(request.person, account.app_id)
        return {
            "session_key": self._session_keys.replace(openid, request.person),
            **_ids(request.person, request, account),
        }

    @_api("access_token", "GET", "/sns/oauth2/access_token")
    def _oauth_access_token(self, call: Call) -> dict[str, Any]:
        account, request = self._spent(call, call.query.get("code", ""))
        is_real = request.snapshot in (None, "false_alarm")
        return {
            "access_token": secrets.token_urlsafe(64),
            "expires_in": 7200,
            "refresh_token": secrets.token_urlsafe(64),
            "scope": "snsapi_login" if APP_KINDS[account.app_id] == "website" else "snsapi_userinfo",
            # Each made-up person has their own openid, and all share one unionid.
            **_ids(request.person if is_real else f"made up of {request.person}", request, account),
            **({} if is_real else {"unionid": unionid_of("made up")}),
            **({"is_snapshotuser": 1} if request.snapshot in ("shown", "false_alarm") else {}),
        }

    def _spent(self, call: Call, code: str) -> tuple[Account, CodeRequest]:
        """Spend a code. Returns the app's account, and what the code was made for. Raises: CallRefused."""
        query = call.query
        account = self._account_of(query.get("appid"), query.get("secret"))
        if not code:
            raise CallRefused(41008)
        if query.get("grant_type") != "authorization_code":
            raise CallRefused(40002)
        self._count(account, call.api)
        if (call.api == "code2session") != (APP_KINDS[account.app_id] == "mini_program"):
            raise CallRefused(40029)  # a code of another kind
        if code in self._codes:
            request = self._codes.spend(code, account.app_id)
            # Plain names are not counted, because WeChat has nothing like them.
            openid = openid_of(request.person, account.app_id)
            self._count_in_minute(call.api, openid, at_most=LOGINS_A_MINUTE, errcode=45011)
            return account, request
        if self._takes_names and is_person_name(code) and not _PLAIN_PHONE.fullmatch(code):
            return account, CodeRequest(person=code, app_id=account.app_id)
        raise CallRefused(40029)

    @_api("stable_token", "POST", "/cgi-bin/stable_token")
    def _stable_token(self, call: Call) -> dict[str, Any]:
        values = call.json
        account = self._account_of(values.get("appid"), values.get("secret"))
        if values.get("grant_type") != "client_credential":
            raise CallRefused(40002)
        if not account.is_whitelisted:
            raise CallRefused(40164)
        self._count(account, call.api)
        return self.access_tokens[account.app_id].hand_out(force=values.get("force_refresh") is True)

    @_api("getuserphonenumber", "POST", "/wxa/business/getuserphonenumber")
    def _phone_number(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        values = call.json
        code, openid = text_in(values, "code"), values.get("openid")
        if not code:
            raise CallRefused(41008)
        if openid is not None and account.openid_check == "refused":
            raise CallRefused(47001)
        owner: object
        if code in self._phone_codes:
            request = self._phone_codes.spend(code, account.app_id)
            owner = openid_of(request.person, account.app_id)
            phone = request.phone or phone_number_of(request.person)
            watermark_app_id = request.watermark_app_id or account.app_id
        elif self._takes_names and (plain := _PLAIN_PHONE.fullmatch(code)):
            owner, phone, watermark_app_id = openid, plain[1], account.app_id
        else:
            raise CallRefused(40029)
        if openid is not None and account.openid_check == "on":
            if not isinstance(openid, str) or not openid.startswith(openid_prefix(account.app_id)):
                raise CallRefused(40003)
            if openid != owner:
                raise CallRefused(43104)
        watermark = {"timestamp": self.now(), "appid": watermark_app_id}
        return _ok(phone_info={**_parts_of(phone, account), "watermark": watermark})

    @_api("checksession", "GET", "/wxa/checksession")
    def _check_session(self, call: Call) -> dict[str, Any]:
        self._account_with_token(call)
        if call.query.get("sig_method") != "hmac_sha256":
            raise CallRefused(87008)
        if not self._session_keys.is_signed(call.query.get("openid", ""), call.query.get("signature", "")):
            raise CallRefused(87009)
        return _ok()

    @_api("resetusersessionkey", "GET", "/wxa/resetusersessionkey")
    def _reset_session_key(self, call: Call) -> dict[str, Any]:
        openid = call.query.get("openid", "")
        if self._session_keys.current(openid) is None:
            self._account_with_token(call)
            raise CallRefused(87007)
        self._check_session(call)
        return _ok(openid=openid, session_key=self._session_keys.reset(openid))

    @_api("getuserriskrank", "POST", "/wxa/getuserriskrank")
    def _risk_rank(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call, errcode_over_quota=9410009)
        values = call.json
        if text_in(values, "appid") != account.app_id:
            raise CallRefused(40013)
        if values.get("scene") not in (0, 1) or not text_in(values, "client_ip"):
            raise CallRefused(47001)
        person = self._active_person(values, account)
        return {"errcode": 0, "errmsg": "getuserriskrank succ", "risk_rank": risk_of(person), "unoin_id": 0}

    @_api("msg_sec_check", "POST", "/wxa/msg_sec_check")
    def _checktext_in(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        values = call.json
        content = text_in(values, "content")
        if values.get("version") != 2 or values.get("scene") not in (1, 2, 3, 4) or not content:
            raise CallRefused(47001)
        if _ESCAPE.search(call.body):
            raise CallRefused(47001)  # the real WeChat does not decode \uXXXX, and would check the escapes themselves
        self._active_person(values, account)
        text = content + text_in(values, "nickname")
        suggest, label = next((verdict for word, verdict in _VERDICTS.items() if word in text), ("pass", 100))
        verdict = {"suggest": suggest, "label": label}
        detail = [{"strategy": "content_model", "errcode": 0, **verdict, "prob": 90}]
        return _ok(detail=detail, trace_id=secrets.token_hex(16), result=verdict)

    @_api("media_check_async", "POST", "/wxa/media_check_async")
    def _check_picture(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        values = call.json
        is_url = text_in(values, "media_url").startswith(("http://", "https://"))
        wanted = values.get("version"), values.get("media_type")
        if not is_url or wanted not in ((2, 1), (2, 2)) or values.get("scene") not in (1, 2, 3, 4):
            raise CallRefused(47001)
        person, trace_id = self._active_person(values, account), secrets.token_hex(16)
        if (verdict := account.picture_verdict) is not None:
            label = _PICTURE_LABELS[verdict]
            message = make_verdict(trace_id, verdict, label, app_id=account.app_id, now=self.now())
            self.verdicts.append((PushRequest(person=person, app_id=account.app_id, event=CHECKED), message))
        return _ok(trace_id=trace_id)

    @_api("getwxacodeunlimit", "POST", "/wxa/getwxacodeunlimit")
    def _mini_program_code(self, call: Call) -> DrawnCode:
        account = self._account_with_token(call)
        try:
            values = call.json
        except CallRefused:
            raise CallRefused(40169) from None
        code = read_code_request(values, account)
        self._count_in_minute(call.api, account.app_id, at_most=PICTURES_A_MINUTE, errcode=45009)
        return draw(code, has_transparent_ground=values.get("is_hyaline") is True, width=width_of(values))

    @_api("generate_urllink", "POST", "/wxa/generate_urllink")
    def _url_link(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        values = call.json
        days, env = values.get("expire_interval"), values.get("env_version", "release")
        if values.get("expire_type") != 1 or type(days) is not int or not 1 <= days <= _LONGEST_URL_LINK:
            raise CallRefused(47001)
        if env not in _ENVS:
            raise CallRefused(40097)
        if env == "release" and not account.pages:
            raise CallRefused(85079)
        if env == "release" and text_in(values, "path") not in account.pages:
            raise CallRefused(40165)
        if len(text_in(values, "query")) > _LONGEST_QUERY:
            raise CallRefused(40212)
        return _ok(url_link=f"https://wxaurl.cn/{secrets.token_urlsafe(8)}")

    @_api("getticket", "GET", "/cgi-bin/ticket/getticket")
    def _js_ticket(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        if call.query.get("type") != "jsapi":
            raise CallRefused(40097)
        if APP_KINDS[account.app_id] != "official_account":
            raise CallRefused(48001)
        ticket, ends_at = self.js_tickets.get(account.app_id, ("", 0))
        if ends_at - self.now() <= _TICKET_RENEWED:
            ticket, ends_at = secrets.token_urlsafe(48), self.now() + _TICKET_LASTS
            self.js_tickets[account.app_id] = ticket, ends_at
        return _ok(ticket=ticket, expires_in=ends_at - self.now())

    @_api("quota_get", "POST", "/cgi-bin/openapi/quota/get")
    def _quota(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        api = API_PATHS.get(text_in(call.json, "cgi_path"), (None, None))[1]
        if api is None:
            raise CallRefused(76021)
        used = self._today[day_of(self._clock()), account.app_id, api]
        limit = account.daily_quota.get(api, _USUAL_QUOTA)
        return _ok(quota={"daily_limit": limit, "used": used, "remain": max(0, limit - used)})

    @_api("rid_get", "POST", "/cgi-bin/openapi/rid/get")
    def _rid(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        refused = self._refused.get(text_in(call.json, "rid"))
        if refused is None or refused[1].app_id != account.app_id:
            raise CallRefused(76003)
        at, asked, answer = refused
        path = next(path for path, (_, api) in API_PATHS.items() if api == asked.api)
        return _ok(
            request={
                "invoke_time": int(at),
                "cost_in_ms": 7,
                "request_url": f"{path}?{urlencode(asked.query)}",
                "request_body": asked.body.decode(errors="replace"),
                "response_body": to_json(answer).decode(),
                "client_ip": "127.0.0.1",
            }
        )

    @_api("clear_quota", "POST", "/cgi-bin/clear_quota/v2")
    def _clear_quota(self, call: Call) -> dict[str, Any]:
        form = dict(parse_qsl(call.body.decode(errors="replace")))
        account = self._account_of(form.get("appid"), form.get("appsecret"))
        if not account.is_whitelisted:
            raise CallRefused(40164)
        month = datetime.fromtimestamp(self._clock(), tz=UTC).strftime("%Y-%m")
        self._cleared[month, account.app_id] += 1
        if self._cleared[month, account.app_id] > _CLEARED_A_MONTH:
            raise CallRefused(48006)
        for day, app_id, api in list(self._today):
            if app_id == account.app_id:
                del self._today[day, app_id, api]
        return _ok()

    @_api("getverifyid", "POST", "/cityservice/face/identify/getverifyid")
    def _begin_face_verification(self, call: Call) -> dict[str, Any]:
        account = self._account_with_token(call)
        values, cert = call.json, call.json.get("cert_info")
        parts = [text_in(cert, name) for name in _CERT] if isinstance(cert, dict) else [""]
        if not all(parts) or parts[0] != "IDENTITY_CARD" or not text_in(values, "out_seq_no"):
            raise CallRefused(47001)
        self._active_person(values, account)
        encoded = "&".join(
            f"{name}={b64encode(part.encode()).decode()}" for name, part in zip(_CERT, parts, strict=True)
        )
        verify_id = secrets.token_urlsafe(48)
        question = (values["out_seq_no"], sha256(encoded.encode()).hexdigest(), values["openid"])
        self._faces[verify_id] = [question, _NO_FACE_YET]
        return _ok(verify_id=verify_id, expires_in=3600)

    @_api("queryverifyinfo", "POST", "/cityservice/face/identify/queryverifyinfo")
    def _face_verification(self, call: Call) -> dict[str, Any]:
        self._account_with_token(call)
        values = call.json
        question, verify_ret = self._faces.get(text_in(values, "verify_id"), (None, 0))
        if question != tuple(text_in(values, name) for name in ("out_seq_no", "cert_hash", "openid")):
            raise CallRefused(47001)
        return _ok(verify_ret=verify_ret)


def _ids(person: str, request: CodeRequest, account: Account) -> dict[str, Any]:
    ids = {"openid": openid_of(person, account.app_id)}
    return ids | {"unionid": unionid_of(person)} if request.has_unionid and account.has_unionids else ids


def _ok(**values: Any) -> dict[str, Any]:
    return {"errcode": 0, "errmsg": "ok", **values}


def _parts_of(phone: str, account: Account) -> dict[str, Any]:
    """A number in WeChat's form. Text that is not a number stays unchanged."""
    try:
        number = phonenumbers.parse(phone, "CN")
        country, national = number.country_code, phonenumbers.national_significant_number(number)
    except phonenumbers.NumberParseException:
        country, national = 86, phone
    return {
        "phoneNumber": national if country == 86 else f"+{country}{national}",
        "purePhoneNumber": national,
        "countryCode": str(country) if account.country_code == "text" else country,
    }


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
