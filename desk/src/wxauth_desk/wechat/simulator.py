"""The simulated WeChat without HTTP, with the secrets that it has issued, the state of each app, and the calls."""

import re
import secrets
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from time import time
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import phonenumbers
import segno
from PIL import Image, ImageOps
from pydantic_core import from_json, to_json

from wxauth_desk.wechat.calls import NO_FAULT, CallRefused, Faults, fault_in, new_rid, require, text_in
from wxauth_desk.wechat.coins import Coins
from wxauth_desk.wechat.controls import (
    API_PATHS,
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
from wxauth_desk.wechat.faces import FACE_LIFETIME, FaceQuestion, Faces
from wxauth_desk.wechat.issued import (
    CODE_LIFETIME,
    LONG_CODE_LIFETIME,
    AccessTokens,
    Codes,
    Grant,
    Grants,
    IssuedSessionKeys,
    day_of,
    month_of,
    seal,
)
from wxauth_desk.wechat.payments import Payments
from wxauth_desk.wechat.pictures import CodePicture
from wxauth_desk.wechat.push import CHECKED, PushRequest, make_message, make_verdict

REMEMBERED_CALLS: Final = 1000
PICTURES_A_MINUTE: Final = 5000

_SCENE_CHARACTERS: Final = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]*")
_LONGEST_SCENE: Final = 32
_HOME: Final = "pages/index/index"
_ENVS: Final = ("release", "trial", "develop")
_WIDTHS: Final = (280, 1280)
_WIDTH: Final = 430
_BORDER: Final = 4
"""The number of modules of white border around a code."""
_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u")
_PLAIN_PHONE: Final = re.compile(r"phone-(\+?\d[\d -]*)")
_VERDICTS: Final = {
    "risky": ("risky", 20006),
    "违规": ("risky", 20006),
    "review": ("review", 21000),
    "可疑": ("review", 21000),
}
_PICTURE_LABELS: Final = {"pass": 100, "review": 21000, "risky": 20002}
_USUALLY_REVOKED: Final = {"mini_program": "6", "official_account": "205", "website": "301", "mobile_app": "301"}
_USUAL_QUOTA: Final = 1_000_000
_CLEARED_A_MONTH: Final = 10
_LONGEST_LINK: Final = 30
"""The maximum number of days for which a link is valid."""
_DAY_SECONDS: Final = 86400
_ENCRYPT_KEY_LASTS: Final = 3600
_TICKET_LASTS: Final = 7200
_TICKET_RENEWED: Final = 300
"""The number of seconds before its end at which a ticket is replaced."""
_LONGEST_QUERY: Final = 1024
LOGINS_A_MINUTE: Final = 100
"""The number of times a minute that a person can log in to an app with codes of `wx.login`."""
_BY_SECRET: Final = frozenset({"code2session", "access_token", "token", "stable_token", "clear_quota"})
"""The APIs that are called with an app's secret."""
_BY_GRANT: Final = frozenset({"userinfo", "auth", "refresh_token"})
"""The APIs that are called with a person's grant. All others are called with an app's access token."""
_OVER_QUOTA: Final = {"getuserriskrank": 9410009}
"""The errcodes of exceeded daily quotas, for the APIs whose errcode is not 45009."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was received."""

    api: Api
    app_id: str | None
    """The calling app; None if it is unknown."""
    query: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises: CallRefused."""
        require(self.body, 44002)
        with suppress(ValueError):
            values = from_json(self.body)
            if isinstance(values, dict):
                return values
        raise CallRefused(47001)

    @property
    def id_and_secret(self) -> tuple[object, object]:
        """The app's id and secret, in an API that takes them. Raises: CallRefused."""
        if self.api == "stable_token":
            return self.json.get("appid"), self.json.get("secret")
        if self.api == "clear_quota":
            given = dict(self.query)
            with suppress(CallRefused):
                given |= self.json
            given |= parse_qsl(self.body.decode(errors="replace"))
            return given.get("appid"), given.get("appsecret")
        return self.query.get("appid"), self.query.get("secret")


def read_code_request(values: Mapping[str, Any], account: Account) -> str:
    """Return the content of the requested code. Raises: CallRefused."""
    scene, page, env = values.get("scene"), values.get("page", _HOME), values.get("env_version", "release")
    if not isinstance(scene, str) or not 0 < len(scene) <= _LONGEST_SCENE:
        raise CallRefused(40169)
    require(_SCENE_CHARACTERS.fullmatch(scene), 40129)
    require(env in _ENVS, 40097)
    if not isinstance(page, str) or page.startswith("/") or "?" in page:
        raise CallRefused(41030)
    require(page in account.pages or values.get("check_path", True) is False, 41030)
    require(account.pages or env != "release", 41030)  # there are no pages before the first release
    query = urlencode({"page": page, "scene": scene, "env": env}, safe="/:")
    return f"wxa:{account.app_id}?{query}"


def width_of(values: Mapping[str, Any]) -> int:
    """Return the requested width.

    WeChat does not document what a wrong width does. Here, it is limited to the allowed range.
    """
    width = values.get("width", _WIDTH)
    return min(max(width, _WIDTHS[0]), _WIDTHS[1]) if type(width) is int else _WIDTH


def draw(code: str, *, has_transparent_ground: bool, width: int = _WIDTH) -> CodePicture:
    """Draw a code, as a PNG if the background is transparent, otherwise as a JPEG."""
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
        return CodePicture(output.getvalue(), "image/png")
    dark.save(output, "JPEG", quality=90)
    return CodePicture(output.getvalue(), "image/jpeg")


Answer = dict[str, Any] | CodePicture


class Simulator:
    """The simulated WeChat, without HTTP, with the state of all apps, and one method for each API.

    With `takes_names`, any plain name works as a code. The real WeChat has no such codes.
    """

    def __init__(self, clock: Callable[[], float] = time, *, takes_names: bool = True) -> None:
        self._clock = clock
        self._takes_names = takes_names
        self._codes: Codes[CodeRequest] = Codes(clock, errcode_of_another_app=40029)
        self._phone_codes: Codes[PhoneCodeRequest] = Codes(clock, errcode_of_another_app=40013)
        self._session_keys = IssuedSessionKeys(clock)
        self._accounts = {app_id: Account(app_id=app_id) for app_id in SECRETS}
        self._coins = Coins(self._session_keys, self.now)
        self.payments = Payments(self._session_keys, self._accounts, self.now)
        self._today: Counter[tuple[int, str, Api]] = Counter()
        self.access_tokens = {app_id: AccessTokens(clock) for app_id in SECRETS}
        self._grants = Grants(clock)
        self._encrypt_keys: dict[str, list[dict[str, Any]]] = {}
        """The latest keys by openid, the newest first."""
        self.js_tickets: dict[str, tuple[str, int]] = {}
        """The ticket of each app, and the time at which it ends."""
        self.visitors: dict[tuple[str, str], Visitor] = {}
        """The state of each person at WeChat's own pages of an app, by person and app."""
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=REMEMBERED_CALLS)
        """The latest calls received."""
        self.verdicts: deque[tuple[PushRequest, dict[str, Any]]] = deque(maxlen=REMEMBERED_CALLS)
        """The verdicts on pictures that have not been pushed yet, the oldest first."""
        self._refused: dict[str, tuple[float, Call, dict[str, Any]]] = {}
        """The latest refused calls by their rid, each with its time and its response."""
        self._cleared: Counter[tuple[str, str]] = Counter()
        """The number of times that quotas were cleared, by month and app."""
        self._faces = Faces(clock)
        self._minute = 0
        self._this_minute: Counter[tuple[Api, str]] = Counter()
        """The number of calls within `_minute`, by API and openid or, for pictures of codes, by API and app."""

    def now(self) -> int:
        """Return the time in seconds since the epoch."""
        return int(self._clock())

    # The real WeChat does not have these controls.

    def make_code(self, request: CodeRequest) -> str:
        """Return a single-use code, as `wx.login` or, for an app of another kind, WeChat's page or SDK returns it."""
        is_long = APP_KINDS[request.app_id] in ("website", "mobile_app")
        return self._codes.make(request, lasts=LONG_CODE_LIFETIME if is_long else CODE_LIFETIME)

    def make_phone_code(self, request: PhoneCodeRequest) -> str:
        """Return a single-use code, as the phone button returns it, valid for five minutes."""
        return self._phone_codes.make(request)

    def seal(self, request: SealRequest) -> dict[str, Any]:
        """Return data as `wx` gives it to a page, signed and encrypted. Raises: ValueError."""
        if request.code is None:
            key = self._session_keys.current(openid_of(request.person, request.app_id))
            if key is None:
                raise ValueError("person: has not logged in to this app, so give the code of a login to come")
        else:
            made = self._codes.made_for(request.code)
            if made is None or (made.person, made.app_id) != (request.person, request.app_id):
                raise ValueError("code: must be one that POST /codes has made for this person in this app")
            key = self._session_keys.of_code(request.code)
        return seal(key, request.data, watermark={"timestamp": self.now(), "appid": request.app_id})

    def show_face(self, request: FaceRequest) -> dict[str, Any]:
        """End a face verification on the phone. Raises: ValueError."""
        self._faces.end(request)
        return {"errMsg": "requestFacialVerify:ok"}

    def push_message(self, request: PushRequest) -> dict[str, Any]:
        """Return the push message of an event about a person."""
        openid = openid_of(request.person, request.app_id)
        revoked = request.revoke_info or _USUALLY_REVOKED[APP_KINDS[request.app_id]]
        return make_message(openid, request.event, revoked, app_id=request.app_id, now=self.now())

    def fail(self, api: Api, **fault: Any) -> None:
        """Make the next calls of an API fail. The arguments are the fields of `FaultRequest`."""
        self.faults.append(FaultRequest(api=api, **fault))

    def account(self, app_id: str) -> Account:
        """Return the state of an app's account, which callers may change."""
        return self._accounts[app_id]

    def calls_of(self, api: Api) -> list[Call]:
        """Return the latest calls of an API."""
        return [call for call in self.calls if call.api == api]

    # The real WeChat has these calls, too.

    def call(self, api: Api, query: Mapping[str, str], body: bytes) -> tuple[Call, FaultRequest]:
        """Record a call. Return the call, and its fault."""
        call = Call(api, None, query, body)
        call = replace(call, app_id=self._app_of(call))
        self.calls.append(call)
        return call, self.faults.take_next(api, call.app_id) or fault_in(_code_in(call), api) or NO_FAULT

    def _app_of(self, call: Call) -> str | None:
        if call.api in _BY_SECRET:
            with suppress(CallRefused):
                app_id, _ = call.id_and_secret
                return app_id if isinstance(app_id, str) else None
            return None
        token = call.query.get("access_token", "")
        return next((app_id for app_id, tokens in self.access_tokens.items() if token in tokens), None)

    def _account_with_secret(self, call: Call) -> Account:
        """Return the account of the app whose id and secret the call contains. Raises: CallRefused."""
        app_id, secret = call.id_and_secret
        require(app_id, 41002)
        require(secret, 41004)
        account = self._accounts.get(app_id) if isinstance(app_id, str) else None
        if account is None:
            raise CallRefused(40013)
        require(secret == SECRETS[account.app_id], 40125)
        require(not account.is_frozen, 40243)
        require(account.is_whitelisted or APP_KINDS[account.app_id] != "official_account", 40164)
        return account

    def _account_with_token(self, call: Call) -> Account:
        """Return the account of the app whose access token the call contains. Raises: CallRefused."""
        token = call.query.get("access_token", "")
        require(token, 41001)
        if call.app_id is None:
            raise CallRefused(40014)
        self.access_tokens[call.app_id].check(token)
        account = self._accounts[call.app_id]
        require(account.is_whitelisted or APP_KINDS[account.app_id] != "official_account", 61004)
        require(call.api not in account.denied, 48001)
        self._count(account, call.api)
        return account

    def _count(self, account: Account, api: Api) -> None:
        today = (day_of(self._clock()), account.app_id, api)
        self._today[today] += 1
        quota = account.daily_quota.get(api, self._today[today])
        require(self._today[today] <= quota, _OVER_QUOTA.get(api, 45009))

    def _count_in_minute(self, api: Api, whose: str, *, at_most: int, errcode: int) -> None:
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute, self._this_minute = minute, Counter()
        self._this_minute[api, whose] += 1
        require(self._this_minute[api, whose] <= at_most, errcode)

    def _active_person(self, values: Mapping[str, Any], account: Account) -> str:
        openid = text_in(values, "openid")
        require(openid.startswith("o"), 40003)
        require(openid.startswith(openid_prefix(account.app_id)), 43104)
        return self._session_keys.active_person(openid)

    def answer(self, call: Call) -> Answer:
        """Return the right response, from the method that is named after the API."""
        try:
            if call.api in _BY_GRANT:
                whose = []
            elif call.api in _BY_SECRET:
                whose = [self._account_with_secret(call)]
            else:
                whose = [self._account_with_token(call)]
            answer: Answer = getattr(self, f"_{call.api}")(call, *whose)
            return answer
        except CallRefused as refusal:
            answer = refusal.answer(call.api)
            self._refused[refusal.rid] = self._clock(), call, answer
            if len(self._refused) > REMEMBERED_CALLS:
                del self._refused[next(iter(self._refused))]
            return answer

    def _code2session(self, call: Call, account: Account) -> Answer:
        code = call.query.get("js_code", "")
        key_of_code = self._session_keys.of_code(code) if code in self._codes else None
        request = self._spent(call, account, code)
        openid = openid_of(request.person, account.app_id)
        session_key = self._session_keys.replace(openid, request.person, key_of_code)
        return {"session_key": session_key, **_ids(request.person, request, account)}

    def _access_token(self, call: Call, account: Account) -> Answer:
        request = self._spent(call, account, call.query.get("code", ""))
        is_real = request.snapshot in (None, "false_alarm")
        scope = request.scope or ("snsapi_login" if APP_KINDS[account.app_id] == "website" else "snsapi_userinfo")
        # Each made-up person has their own openid, and all share one unionid.
        person = request.person if is_real else f"made up of {request.person}"
        ids = _ids(person, request, account) | ({} if is_real else {"unionid": unionid_of("made up")})
        if scope == "snsapi_base":
            ids.pop("unionid", None)
        return {
            **self._grants.issue(Grant(account.app_id, person, ids, scope)),
            "scope": scope,
            **ids,
            **({"is_snapshotuser": 1} if request.snapshot in ("shown", "false_alarm") else {}),
        }

    def _granted(self, call: Call) -> Grant:
        return self._grants.of_access_token(call.query.get("access_token", ""), call.query.get("openid", ""))

    def _userinfo(self, call: Call) -> Answer:
        grant = self._granted(call)
        require(grant.scope != "snsapi_base", 48001)
        picture = f"https://thirdwx.qlogo.cn/mmopen/vi_32/{grant.ids['openid']}/132"
        empty = dict.fromkeys(("province", "city", "country"), "")  # always empty since 2021
        return {**grant.ids, "nickname": grant.person, "sex": 0, **empty, "headimgurl": picture, "privilege": []}

    def _auth(self, call: Call) -> Answer:
        self._granted(call)
        return _ok()

    def _refresh_token(self, call: Call) -> Answer:
        app_id, token = call.query.get("appid", ""), call.query.get("refresh_token", "")
        require(app_id, 41002)
        require(app_id in self._accounts, 40013)
        require(call.query.get("grant_type") == "refresh_token", 40002)
        grant = self._grants.of_refresh_token(token, app_id)
        return {**self._grants.issue(grant, refresh_token=token), "openid": grant.ids["openid"], "scope": grant.scope}

    def _spent(self, call: Call, account: Account, code: str) -> CodeRequest:
        """Use up a code. Return the request that it was made for. Raises: CallRefused."""
        require(code, 41008)
        require(call.query.get("grant_type") == "authorization_code", 40002)
        self._count(account, call.api)
        is_of_this_kind = (call.api == "code2session") == (APP_KINDS[account.app_id] == "mini_program")
        require(is_of_this_kind, 40029)
        if code in self._codes:
            expired = 40029 if call.api == "code2session" else 42003
            request = self._codes.spend(code, account.app_id, errcode_of_expired=expired)
            # Plain names are not counted, because WeChat has nothing like them.
            openid = openid_of(request.person, account.app_id)
            self._count_in_minute(call.api, openid, at_most=LOGINS_A_MINUTE, errcode=45011)
            return request
        require(self._takes_names and is_person_name(code) and not _PLAIN_PHONE.fullmatch(code), 40029)
        return CodeRequest(person=code, app_id=account.app_id)

    def _token(self, call: Call, account: Account) -> Answer:
        require(call.query.get("grant_type") == "client_credential", 40002)
        self._require_token_of_its_own(account)
        require(account.is_whitelisted, 40164)
        self._count(account, call.api)
        return self.access_tokens[account.app_id].replace_older()

    def _require_token_of_its_own(self, account: Account) -> None:
        """Refuse an app of the Open Platform, which can do only what its users have granted. Raises: CallRefused."""
        require(APP_KINDS[account.app_id] not in ("website", "mobile_app"), 40013)

    def _stable_token(self, call: Call, account: Account) -> Answer:
        require(call.json.get("grant_type") == "client_credential", 40002)
        self._require_token_of_its_own(account)
        require(account.is_whitelisted, 40164)
        self._count(account, call.api)
        return self.access_tokens[account.app_id].hand_out(force=call.json.get("force_refresh") is True)

    def _getuserphonenumber(self, call: Call, account: Account) -> Answer:
        values = call.json
        code, openid = text_in(values, "code"), values.get("openid")
        require(code, 41008)
        require(openid is None or account.openid_check != "refused", 47001)
        owner: object
        if code in self._phone_codes:
            request = self._phone_codes.spend(code, account.app_id, errcode_of_expired=40029)
            owner = openid_of(request.person, account.app_id)
            phone = request.phone or phone_number_of(request.person)
            watermark_app_id = request.watermark_app_id or account.app_id
        elif self._takes_names and (plain := _PLAIN_PHONE.fullmatch(code)):
            owner, phone, watermark_app_id = openid, plain[1], account.app_id
        else:
            raise CallRefused(40029)
        if openid is not None and account.openid_check == "on":
            require(isinstance(openid, str) and openid.startswith(openid_prefix(account.app_id)), 40003)
            require(openid == owner, 43104)
        watermark = {"timestamp": self.now(), "appid": watermark_app_id}
        return _ok(phone_info={**_parts_of(phone, account), "watermark": watermark})

    def _checksession(self, call: Call, account: Account) -> Answer:
        openid, signature = (call.query.get(name, "") for name in ("openid", "signature"))
        require(call.query.get("sig_method") == "hmac_sha256", 87008)
        require(self._session_keys.is_signed(openid, signature), 87009)
        return _ok()

    def _resetusersessionkey(self, call: Call, account: Account) -> Answer:
        openid = call.query.get("openid", "")
        require(self._session_keys.current(openid) is not None, 87007)
        self._checksession(call, account)
        return _ok(openid=openid, session_key=self._session_keys.reset(openid))

    def _getuserencryptkey(self, call: Call, account: Account) -> Answer:
        self._checksession(call, account)
        keys, now = self._encrypt_keys.setdefault(call.query["openid"], []), self.now()
        if not keys or keys[0]["create_time"] + _ENCRYPT_KEY_LASTS <= now:
            version = keys[0]["version"] + 1 if keys else 1
            key, iv = (b64encode(secrets.token_bytes(16)).decode() for _ in range(2))
            keys.insert(0, {"encrypt_key": key, "iv": iv, "version": version, "create_time": now})
            del keys[3:]
        return _ok(
            key_info_list=[{**key, "expire_in": max(0, key["create_time"] + _ENCRYPT_KEY_LASTS - now)} for key in keys]
        )

    def _getbalance(self, call: Call, account: Account) -> Answer:
        require(APP_KINDS[account.app_id] == "mini_program", 48001)
        values, text = call.json, call.body.decode()
        return _ok(**self._coins.answer(call.api, account.app_id, call.query, values, text))

    _pay = _cancelpay = _present = _getbalance

    def _getuserriskrank(self, call: Call, account: Account) -> Answer:
        values = call.json
        require(text_in(values, "appid") == account.app_id, 40013)
        require(values.get("scene") in (0, 1) and text_in(values, "client_ip"), 47001)
        person = self._active_person(values, account)
        return {"errcode": 0, "errmsg": "getuserriskrank succ", "risk_rank": risk_of(person), "unoin_id": 0}

    def _msg_sec_check(self, call: Call, account: Account) -> Answer:
        values = call.json
        content = text_in(values, "content")
        require(values.get("version") in (2, "2") and values.get("scene") in (1, 2, 3, 4) and content, 47001)
        # The real WeChat does not decode \uXXXX, and would check the escapes themselves.
        require(not _ESCAPE.search(call.body), 47001)
        self._active_person(values, account)
        text = content + text_in(values, "nickname")
        suggest, label = next((verdict for word, verdict in _VERDICTS.items() if word in text), ("pass", 100))
        verdict = {"suggest": suggest, "label": label}
        detail = [
            {"strategy": "keyword", "errcode": 0},
            {"strategy": "content_model", "errcode": 0, **verdict, "prob": 90},
        ]
        return _ok(detail=detail, trace_id=new_rid(), result=verdict)

    def _media_check_async(self, call: Call, account: Account) -> Answer:
        values = call.json
        require(text_in(values, "media_url").startswith(("http://", "https://")), 47001)
        require(values.get("version") in (2, "2") and values.get("media_type") in (1, 2), 47001)
        require(values.get("scene") in (1, 2, 3, 4), 47001)
        person, trace_id = self._active_person(values, account), new_rid()
        if (verdict := account.picture_verdict) is not None:
            label = _PICTURE_LABELS[verdict]
            message = make_verdict(trace_id, verdict, label, app_id=account.app_id, now=self.now())
            self.verdicts.append((PushRequest(person=person, app_id=account.app_id, event=CHECKED), message))
        return _ok(trace_id=trace_id)

    def _getwxacodeunlimit(self, call: Call, account: Account) -> Answer:
        try:
            values = call.json
        except CallRefused:
            raise CallRefused(40169) from None
        code = read_code_request(values, account)
        self._count_in_minute(call.api, account.app_id, at_most=PICTURES_A_MINUTE, errcode=45009)
        return draw(code, has_transparent_ground=values.get("is_hyaline") is True, width=width_of(values))

    def _generate_urllink(self, call: Call, account: Account) -> Answer:
        self._check_link(account, call.json, call.json)
        return _ok(url_link=f"https://wxaurl.cn/{secrets.token_urlsafe(8)}")

    def _generatescheme(self, call: Call, account: Account) -> Answer:
        opened = call.json.get("jump_wxa", {})
        require(isinstance(opened, dict), 47001)
        self._check_link(account, opened, call.json)
        return _ok(openlink=f"weixin://dl/business/?t={secrets.token_urlsafe(8)}")

    def _check_link(self, account: Account, opened: Mapping[str, Any], lasts: Mapping[str, Any]) -> None:
        """Check the page that a link opens, and for how long it is valid. Raises: CallRefused."""
        require(APP_KINDS[account.app_id] == "mini_program", 48001)
        env, path = opened.get("env_version", "release"), text_in(opened, "path").removeprefix("/")
        require(env in _ENVS, 85402)
        require(env != "release" or account.pages, 85079)
        require(env != "release" or not path or path in account.pages, 40165)
        require(len(text_in(opened, "query")) <= _LONGEST_QUERY, 40212)
        longest = self.now() + _LONGEST_LINK * _DAY_SECONDS
        match lasts.get("expire_type", 0), lasts.get("expire_time", 0), lasts.get("expire_interval"):
            case (0, int(at), _) if at == 0 or self.now() < at <= longest:
                pass
            case (1, _, int(days)) if 1 <= days <= _LONGEST_LINK:
                pass
            case _:
                raise CallRefused(85401)

    def _getticket(self, call: Call, account: Account) -> Answer:
        require(call.query.get("type") == "jsapi", 40097)
        require(APP_KINDS[account.app_id] == "official_account", 48001)
        ticket, ends_at = self.js_tickets.get(account.app_id, ("", 0))
        if ends_at - self.now() <= _TICKET_RENEWED:
            ticket, ends_at = secrets.token_urlsafe(48), self.now() + _TICKET_LASTS
            self.js_tickets[account.app_id] = ticket, ends_at
        return _ok(ticket=ticket, expires_in=ends_at - self.now())

    def _quota_get(self, call: Call, account: Account) -> Answer:
        asked = text_in(call.json, "cgi_path")
        api = next((api for api, (_, path) in API_PATHS.items() if path == asked), None)
        if api is None:
            raise CallRefused(76021)
        used = self._today[day_of(self._clock()), account.app_id, api]
        limit = account.daily_quota.get(api, _USUAL_QUOTA)
        return _ok(quota={"daily_limit": limit, "used": used, "remain": max(0, limit - used)})

    def _rid_get(self, call: Call, account: Account) -> Answer:
        refused = self._refused.get(text_in(call.json, "rid"))
        if refused is None or refused[1].app_id != account.app_id:
            raise CallRefused(76003)
        at, asked, answer = refused
        return _ok(
            request={
                "invoke_time": int(at),
                "cost_in_ms": 7,
                "request_url": f"{API_PATHS[asked.api][1]}?{urlencode(asked.query)}",
                "request_body": asked.body.decode(errors="replace"),
                "response_body": to_json(answer).decode(),
                "client_ip": "127.0.0.1",
            }
        )

    def _clear_quota(self, call: Call, account: Account) -> Answer:
        require(account.is_whitelisted, 40164)
        return self._cleared_of(account)

    def _clear_quota_by_token(self, call: Call, account: Account) -> Answer:
        require(text_in(call.json, "appid") == account.app_id, 40013)
        return self._cleared_of(account)

    def _cleared_of(self, account: Account) -> Answer:
        month = month_of(self._clock())
        self._cleared[month, account.app_id] += 1
        require(self._cleared[month, account.app_id] <= _CLEARED_A_MONTH, 48006)
        for day, app_id, api in list(self._today):
            if app_id == account.app_id:
                del self._today[day, app_id, api]
        return _ok()

    def _getverifyid(self, call: Call, account: Account) -> Answer:
        values = call.json
        question = FaceQuestion.to_begin(values)
        self._active_person(values, account)
        return _ok(verify_id=self._faces.begin(question), expires_in=FACE_LIFETIME)

    def _queryverifyinfo(self, call: Call, account: Account) -> Answer:
        values = call.json
        verify_ret = self._faces.read_result(text_in(values, "verify_id"), FaceQuestion.to_read(values))
        return _ok(verify_ret=verify_ret)


def _ids(person: str, request: CodeRequest, account: Account) -> dict[str, Any]:
    ids = {"openid": openid_of(person, account.app_id)}
    return ids | {"unionid": unionid_of(person)} if request.has_unionid and account.has_unionids else ids


def _ok(**values: Any) -> dict[str, Any]:
    return {"errcode": 0, "errmsg": "ok", **values}


def _parts_of(phone: str, account: Account) -> dict[str, Any]:
    """Return a number in WeChat's form. A text that is not a number stays unchanged."""
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
