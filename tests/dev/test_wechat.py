"""The simulated WeChat answers HTTP requests for logins and other calls as WeChat's pages describe it."""

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from hashlib import sha1, sha256
from hmac import new
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.processes import PATIENCE, serving, until
from tests.sweeps import Sweep, swept
from tests.world import body_of
from wxauth_desk.wechat import (
    ACCOUNT,
    APPS,
    MOBILE_APP,
    OTHER_APPS,
    WEBSITE,
    Simulator,
    create_simulator,
    phone_number_of,
)
from wxauth_desk.wechat.controls import ENDPOINTS
from wxauth_desk.wechat.faces import MAX_VERIFICATIONS
from wxauth_desk.wechat.issued import is_hmac
from wxauth_desk.wechat.push import push_signature

FIRST, SECOND = APPS
LIFETIME = 7200
OVERLAP = 300
TODAY = 1_800_000_000.0
"""A time, which is 16:00 on 15 January 2027 in Beijing."""
LOGIN = "/sns/jscode2session"
OAUTH = "/sns/oauth2/access_token"
TOKEN = "/cgi-bin/stable_token"
PHONE = "/wxa/business/getuserphonenumber"
CHECK = "/wxa/checksession"
RESET = "/wxa/resetusersessionkey"
RISK = "/wxa/getuserriskrank"
TEXT = "/wxa/msg_sec_check"
CLEAR = "/cgi-bin/clear_quota/v2"
URL_LINK = "/wxa/generate_urllink"
SCHEME = "/wxa/generatescheme"
ENCRYPT_KEY = "/wxa/business/getuserencryptkey"
VERIFY_ID = "/cityservice/face/identify/getverifyid"
VERIFY_INFO = "/cityservice/face/identify/queryverifyinfo"
RID = "[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}"
A_PHONE = {"code": "phone-13800138000"}


class WeChat:
    """The simulator with a client. By default, the first app calls it about Alice. Values that are None aren't sent."""

    def __init__(self) -> None:
        self.now = TODAY
        transport = httpx.ASGITransport(create_simulator(Simulator(lambda: self.now)))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://wechat.test")

    async def control(self, path: str, **wanted: object) -> dict[str, Any]:
        """Call an API of the simulator that WeChat does not have."""
        return body_of(await self.client.post(path, json=wanted))

    async def code(self, path: str = "/codes", **fields: object) -> str:
        """Return a code for a login or for a phone number."""
        return (await self.control(path, **{"person": "alice", **fields}))["code"]

    async def token(self, app: dict[str, str] = FIRST, **fields: object) -> dict[str, Any]:
        wanted = {"grant_type": "client_credential", "appid": app["app_id"], "secret": app["app_secret"], **fields}
        return answered(await self.client.post(TOKEN, json=without_none(wanted)))

    async def log_in(self, code: str = "alice", app: dict[str, str] = FIRST, **fields: str | None) -> dict[str, Any]:
        """Exchange a code as an app of this kind does."""
        path, name = (OAUTH, "code") if app in OTHER_APPS else (LOGIN, "js_code")
        query = {"appid": app["app_id"], "secret": app["app_secret"], "grant_type": "authorization_code", name: code}
        return answered(await self.client.get(path, params=without_none({**query, **fields})))

    async def call(
        self, path: str, body: Any = None, *, token: str | None = None, app: dict[str, str] = FIRST, **query: str
    ) -> dict[str, Any]:
        """Call an API with the app's access token. Send a body with POST, and a call without a body with GET."""
        query["access_token"] = (await self.token(app))["access_token"] if token is None else token
        if body is None:
            return (await self.client.get(path, params=query)).json()
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        return (await self.client.post(path, params=query, content=content)).json()

    async def spend(self, kind: str, code: str, app: dict[str, str] = FIRST) -> int:
        """Use a code of this kind, and return the errcode."""
        spent = self.log_in(code, app) if kind == "/codes" else self.call(PHONE, {"code": code}, app=app)
        return errcode(await spent)

    async def question(self, path: str, person: str = "alice", **changed: Any) -> dict[str, Any]:
        """Log in this person and return a correct body about them, except for the values in `changed`."""
        openid = (await self.log_in(person))["openid"]
        risk = {"appid": FIRST["app_id"], "scene": 0, "client_ip": "203.0.113.7"}
        return {"openid": openid, **{RISK: risk, TEXT: {"version": 2, "scene": 1, "content": "fine"}}[path], **changed}

    async def ask(self, path: str, person: str = "alice", **changed: Any) -> dict[str, Any]:
        return await self.call(path, await self.question(path, person, **changed))


def answered(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.json()


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def errcode(answer: dict[str, Any]) -> int:
    return answer.get("errcode", 0)


@pytest.fixture
async def wechat() -> AsyncIterator[WeChat]:
    wechat = WeChat()
    async with wechat.client:
        yield wechat


each_kind = pytest.mark.parametrize("kind", ["/codes", "/phone-codes"])


async def test_each_mistake_is_reported_by_its_errcode(wechat: WeChat) -> None:
    login, token, call, ask = wechat.log_in, wechat.token, wechat.call, wechat.ask
    calls: list[tuple[str, object]] = [(PHONE, {}), (CHECK, None), (RESET, None), (RISK, {}), (TEXT, {})]
    no_objects = [token_body(wechat, body) for body in (b"[]", b"{", b'{"appid": "\xff"}')]
    mistakes = {
        40002: [login(grant_type=None), token(grant_type=None), token(grant_type="authorization_code")],
        40003: [ask(RISK, openid="")],
        40013: [
            login(appid="wx0000000000000000"),
            token(appid="wx0000000000000000"),
            ask(RISK, appid=SECOND["app_id"]),
        ],
        40014: [call(path, body, token="nonsense") for path, body in calls],
        40029: [login("0a3xQ2000YpDuQ1x8g000R5bKj0xQ20z"), login("two words"), login("phone-13800138000")],
        40125: [login(secret=SECOND["app_secret"]), token(secret=SECOND["app_secret"])],
        41001: [call(path, body, token="") for path, body in calls],
        41002: [login(appid=None), login(appid=""), token(appid=None)],
        41004: [login(secret=None), token(secret=None)],
        41008: [login(js_code=None), call(PHONE, {})],
        44002: [token_body(wechat, b""), call(PHONE, b""), call(TEXT, b""), call(URL_LINK, b"")],
        45011: [call(PHONE, {"code": "errcode-45011"})],
        47001: [
            *no_objects,
            *(call(PHONE, {"code": 7}), call(PHONE, b"{")),
            *(ask(RISK, scene=2), ask(RISK, client_ip="")),
            *(ask(TEXT, version=1), ask(TEXT, scene=0), ask(TEXT, content=""), ask(TEXT, content=None)),
            call(TEXT, json.dumps(await wechat.question(TEXT, content="王")).encode()),  # this has escaped characters
        ],
        **{number: [login(f"errcode-{number}")] for number in (-1, 40164, 987654321)},
    }
    with Sweep() as sweep:
        for expected, answers in mistakes.items():
            for number, asked in enumerate(answers, 1):
                with sweep.case(expected, number):
                    answer = await asked
                    assert ({*answer}, errcode(answer)) == ({"errcode", "errmsg"}, expected)
                    assert re.fullmatch(rf".+ rid: {RID}", answer["errmsg"])


async def test_an_errcode_that_the_table_lacks_has_a_text_all_the_same(wechat: WeChat) -> None:
    assert (await wechat.log_in("errcode-44003"))["errmsg"].startswith("error, rid: ")


async def test_an_errmsg_is_written_as_the_system_behind_its_path_writes_it(wechat: WeChat) -> None:
    not_latest = "invalid credential, access_token is invalid or not latest"
    killed = (await wechat.token())["access_token"]
    await wechat.token(force_refresh=True)
    shown = {
        "invalid appid, rid: ": wechat.log_in(appid="wx0000000000000000"),
        "invalid appid rid: ": wechat.token(appid="wx0000000000000000"),
        "invalid appsecret, rid: ": wechat.log_in("0code", ACCOUNT, secret="x"),
        "invalid appsecret rid: ": wechat.token(secret="x"),
        "invalid code, rid: ": wechat.log_in("two words"),
        "invalid code rid: ": wechat.call(PHONE, {"code": "0"}),
        "access_token missing rid: ": wechat.call(CHECK, token=""),
        "code been used, rid: ": wechat.log_in("errcode-40163"),
        "code been used rid: ": wechat.call(PHONE, {"code": "errcode-40163"}),
        f"{not_latest}, rid: ": wechat.call("/sns/userinfo", token="nonsense"),
        f"{not_latest}, could get access_token by getStableAccessToken, more details at ": wechat.call(
            CHECK, token=killed
        ),
    }
    for text, asked in shown.items():
        assert (await asked)["errmsg"].startswith(text)


async def token_body(wechat: WeChat, body: bytes) -> dict[str, Any]:
    return (await wechat.client.post(TOKEN, content=body)).json()


# Logins.


async def test_a_name_or_a_code_is_answered_with_its_person_without_errcode_and_with_a_new_key(wechat: WeChat) -> None:
    body, again = await wechat.log_in(), await wechat.log_in()
    assert body.keys() == {"openid", "unionid", "session_key"}
    assert len(b64decode(body["session_key"])) == 16
    assert re.fullmatch(r"o[\w-]{27}", body["openid"])
    assert re.fullmatch(r"o[\w-]{27}", body["unionid"])
    assert again["session_key"] != body["session_key"]
    assert "openid" in await wechat.log_in("phone-anna")
    code = await wechat.code()
    assert errcode(await wechat.log_in(code, secret="wrong")) == 40125
    assert (await wechat.log_in(code))["openid"] == body["openid"], "a wrong secret does not spend it"
    without = await wechat.log_in(await wechat.code(has_unionid=False))
    assert ({*without}, without["openid"]) == ({"openid", "session_key"}, body["openid"])


@swept("name", ["alice", "Alice", "zhang.san_2-b", "张三", "é"])
async def test_a_plain_name_is_the_same_person_each_time_and_in_every_app(wechat: WeChat, name: str) -> None:
    once, again, other = [await wechat.log_in(each) for each in (name, name, "bob")]
    there = await wechat.log_in(name, SECOND)
    assert (again["openid"], again["unionid"]) == (once["openid"], once["unionid"])
    assert there["unionid"] == once["unionid"] != other["unionid"]
    assert len({there["openid"], once["openid"], other["openid"]}) == 3


@swept("app", OTHER_APPS, ids=lambda app: app["kind"])
async def test_a_code_of_another_kind_of_app_is_exchanged_by_oauth(wechat: WeChat, app: dict[str, str]) -> None:
    session = await wechat.log_in(await wechat.code(app_id=app["app_id"]), app)
    assert session["unionid"] == (await wechat.log_in())["unionid"]
    assert session.keys() == {"access_token", "expires_in", "refresh_token", "openid", "scope", "unionid"}
    credentials = {"appid": app["app_id"], "secret": app["app_secret"]}
    assert errcode(await wechat.log_in(await wechat.code(), app)) == 40029
    of_first = {"appid": FIRST["app_id"], "secret": FIRST["app_secret"]}
    assert errcode(await wechat.log_in("not-made", app, **of_first)) == 40029
    assert errcode(await wechat.log_in(await wechat.code(app_id=app["app_id"]), FIRST, **credentials)) == 40029


async def test_a_snapshot_has_made_up_people_who_share_a_unionid(wechat: WeChat) -> None:
    async def person(name: str, snapshot: str | None) -> dict[str, Any]:
        code = await wechat.code(person=name, app_id=ACCOUNT["app_id"], snapshot=snapshot)
        return await wechat.log_in(code, ACCOUNT)

    real, alarm = await person("alice", None), await person("alice", "false_alarm")
    assert (alarm["openid"], alarm["unionid"], alarm["is_snapshotuser"]) == (real["openid"], real["unionid"], 1)
    shown, hidden = await person("alice", "shown"), await person("bob", "hidden")
    assert (shown["is_snapshotuser"], hidden.get("is_snapshotuser")) == (1, None)
    assert shown["unionid"] == hidden["unionid"] != real["unionid"]
    assert len({shown["openid"], hidden["openid"], real["openid"]}) == 3


# Codes of `wx.login` and of the phone button.


@each_kind
async def test_a_code_works_once_for_five_minutes_in_its_app(wechat: WeChat, kind: str) -> None:
    used, in_time, late = [await wechat.code(kind) for _ in range(3)]
    assert [await wechat.spend(kind, used) for _ in range(2)] == [0, 40163]
    wechat.now += 299
    assert await wechat.spend(kind, in_time) == 0
    wechat.now += 1
    assert await wechat.spend(kind, late) == 40029
    await wechat.code(kind)
    assert await wechat.spend(kind, late) == 40029
    of_another = await wechat.code(kind, app_id=SECOND["app_id"])
    assert await wechat.spend(kind, of_another) == {"/codes": 40029, "/phone-codes": 40013}[kind]
    assert await wechat.spend(kind, of_another, SECOND) == 40163, "a refused one is spent"


@swept(("app", "minutes"), [(ACCOUNT, 5), (WEBSITE, 10), (MOBILE_APP, 10)])
async def test_other_kinds_of_codes_live_five_or_ten_minutes(wechat: WeChat, app: dict[str, str], minutes: int) -> None:
    in_time, late = [await wechat.code(app_id=app["app_id"]) for _ in range(2)]
    wechat.now += 60 * minutes - 1
    assert "openid" in await wechat.log_in(in_time, app)
    wechat.now += 1
    assert errcode(await wechat.log_in(late, app)) == 42003
    await wechat.code(app_id=app["app_id"])
    assert errcode(await wechat.log_in(late, app)) == 42003
    wechat.now += 600
    await wechat.code(app_id=app["app_id"])
    assert errcode(await wechat.log_in(late, app)) == 40029, "it is forgotten"


@each_kind
async def test_a_busy_answer_may_spend_a_code(wechat: WeChat, kind: str) -> None:
    for burns, expected in ((False, [-1, -1, 0, 40163]), (True, [-1, 40163, 40163, 40163])):
        code = await wechat.code(kind, busy=2, busy_burns=burns)
        assert [await wechat.spend(kind, code) for _ in range(4)] == expected


async def test_each_kind_of_code_is_good_for_its_own_call(wechat: WeChat) -> None:
    login_code, phone_code = [await wechat.code(path) for path in ("/codes", "/phone-codes")]
    assert errcode(await wechat.log_in(phone_code)) == 40029
    for code in (login_code, "alice"):
        assert errcode(await wechat.call(PHONE, {"code": code})) == 40029
    assert "openid" in await wechat.log_in(login_code)
    assert errcode(await wechat.call(PHONE, {"code": phone_code})) == 0


@swept(
    ("path", "body", "status", "word"),
    [
        *(("/codes", body, 400, "JSON") for body in (b"alice", b"", b'{"person": "\xff"}')),
        ("/codes", b"[]", 422, "dictionary"),
        *(("/codes", body, 422, "person") for body in ({}, {"person": 7}, {"person": "two words"}, {"person": ""})),
        ("/codes", {"person": "alice", "app_id": "wx0"}, 422, "app_id"),
        ("/codes", {"person": "alice", "busy": -1}, 422, "busy"),
        ("/codes", {"person": "alice", "bussy": 1}, 422, "bussy"),
        ("/faults", {"api": "stable_token"}, 422, "one of errcode"),
        ("/faults", {"api": "stable_token", "errcode": 1, "hang": True}, 422, "one of errcode"),
        ("/faults", {"api": "stable_token", "hang": False}, 422, "hang"),
        ("/faults", {"api": "tokens", "errcode": 1}, 422, "api"),
        ("/faults", {"errcode": 1}, 422, "api"),
        ("/faults", {"api": "stable_token", "errcode": 1, "times": 0}, 422, "times"),
        ("/faults", {"api": "stable_token", "status": 99}, 422, "status"),
        ("/phone-codes", {"person": "two words"}, 422, "person"),
        ("/accounts", {"app_id": "wx0"}, 422, "app_id"),
        ("/accounts", {"denied": ["all"]}, 422, "denied"),
        ("/accounts", {"frozen": True}, 422, "frozen"),
        ("/encrypted-data", {"person": "alice", "data": {}}, 422, "logged in"),
    ],
)
async def test_a_wrong_control_request_is_refused(wechat: WeChat, path: str, body: Any, status: int, word: str) -> None:
    answer = await wechat.client.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    assert (answer.status_code, word in answer.json()["error"]) == (status, True)


# Access tokens.


async def test_a_token_is_handed_to_everybody_until_five_minutes_before_its_end(wechat: WeChat) -> None:
    first = await wechat.token()
    assert ({*first}, first["expires_in"]) == ({"access_token", "expires_in"}, LIFETIME)
    assert len(first["access_token"]) > 512
    wechat.now += LIFETIME - OVERLAP - 1
    assert await wechat.token() == {**first, "expires_in": OVERLAP + 1}
    wechat.now += 1
    second = await wechat.token()
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == LIFETIME
    wechat.now += OVERLAP - 1
    assert errcode(await wechat.call(PHONE, A_PHONE, token=first["access_token"])) == 0
    wechat.now += 1
    assert errcode(await wechat.call(PHONE, A_PHONE, token=first["access_token"])) == 42001


async def test_a_forced_token_kills_the_former(wechat: WeChat) -> None:
    former = (await wechat.token())["access_token"]
    forced = await wechat.token(force_refresh=True)
    assert forced["access_token"] != former
    assert await wechat.token() == forced
    assert errcode(await wechat.call(PHONE, A_PHONE, token=former)) == 40001
    assert errcode(await wechat.call(PHONE, A_PHONE)) == 0


async def test_tokens_are_forced_thirty_seconds_apart_and_twenty_times_a_day(wechat: WeChat) -> None:
    for _ in range(20):
        assert errcode(await wechat.token(force_refresh=True)) == 0
        token = await wechat.token()
        wechat.now += 29
        assert errcode(await wechat.token(force_refresh=True)) == 45011
        assert (await wechat.token())["access_token"] == token["access_token"]
        wechat.now += 1
    assert errcode(await wechat.token(force_refresh=True)) == 45009
    assert errcode(await wechat.token()) == 0
    wechat.now += 9 * 3600
    assert errcode(await wechat.token(force_refresh=True)) == 0


# Phone numbers.


async def test_a_phone_code_is_exchanged_for_the_number_of_its_person(wechat: WeChat) -> None:
    number = phone_number_of("alice")
    watermark = {"timestamp": int(wechat.now), "appid": FIRST["app_id"]}
    info = {"phoneNumber": number, "purePhoneNumber": number, "countryCode": "86", "watermark": watermark}
    answer = await wechat.call(PHONE, {"code": await wechat.code("/phone-codes")})
    assert answer == {"errcode": 0, "errmsg": "ok", "phone_info": info}
    of_another = await wechat.call(PHONE, {"code": await wechat.code("/phone-codes", watermark_app_id="wx0")})
    assert of_another["phone_info"]["watermark"]["appid"] == "wx0"


@swept(
    ("phone", "parts"),
    [
        ("13800138000", ("13800138000", "13800138000", "86")),
        ("+86 138 0013 8000", ("13800138000", "13800138000", "86")),
        ("+85291234567", ("+85291234567", "91234567", "852")),
        ("no number", ("no number", "no number", "86")),
    ],
)
async def test_a_number_can_be_given(wechat: WeChat, phone: str, parts: tuple[str, str, str]) -> None:
    plain = [] if phone == "no number" else [f"phone-{phone}"] * 2
    for code in (await wechat.code("/phone-codes", phone=phone), *plain):
        info = (await wechat.call(PHONE, {"code": code}))["phone_info"]
        assert (info["phoneNumber"], info["purePhoneNumber"], info["countryCode"]) == parts


@swept(
    ("switch", "expected"),
    [("on", [0, 43104, 40003, 40003]), ("ignored", [0, 0, 0, 0]), ("refused", [47001, 47001, 47001, 47001])],
)
async def test_the_openid_is_checked_as_configured(wechat: WeChat, switch: str, expected: list[int]) -> None:
    await wechat.control("/accounts", openid_check=switch)
    sessions = [await wechat.log_in(), await wechat.log_in("bob"), await wechat.log_in("alice", SECOND)]
    bodies = [
        {"code": await wechat.code("/phone-codes"), "openid": openid}
        for openid in (*(session["openid"] for session in sessions), "nonsense")
    ]
    assert [errcode(await wechat.call(PHONE, body)) for body in bodies] == expected


# Session keys.


def signed(session: dict[str, Any]) -> dict[str, Any]:
    signature = new(session["session_key"].encode(), b"", sha256).hexdigest()
    return {"openid": session["openid"], "signature": signature, "sig_method": "hmac_sha256"}


def test_its_signatures_are_those_of_wechats_examples() -> None:
    signature = "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"
    key, data = "o0q0otL8aEzpcZL/FT9WsQ==", '{"foo":"bar"}'
    assert is_hmac(signature, key, data)
    wrong = [(signature.upper(), key, data), (signature, key[:-2], data), (signature, key, data + " ")]
    assert not any(is_hmac(*each) for each in wrong)
    assert push_signature("AAAAA", "1714036504", "1514711492") == "f464b24fc39322e44b38aa78f5edd27bd1441696"


async def test_the_key_of_the_last_login_is_good_until_it_is_reset(wechat: WeChat) -> None:
    former, last = await wechat.log_in(), await wechat.log_in()
    assert await wechat.call(CHECK, **signed(last)) == {"errcode": 0, "errmsg": "ok"}
    assert errcode(await wechat.call(CHECK, **signed(former))) == 87009
    for wrong, expected in (({"openid": "nobody"}, 87009), ({"signature": "é"}, 87009), ({"sig_method": "md5"}, 87008)):
        assert errcode(await wechat.call(CHECK, **{**signed(last), **wrong})) == expected
    wechat.now += 2 * 86400
    answer = await wechat.call(RESET, **signed(last))
    assert answer.keys() == {"errcode", "errmsg", "openid", "session_key"}
    assert len(b64decode(answer["session_key"])) == 16
    assert errcode(await wechat.call(CHECK, **signed(answer))) == 0
    assert errcode(await wechat.call(CHECK, **signed(last))) == 87009
    assert errcode(await wechat.call(RESET, **signed(last))) == 87009
    wechat.now += 86400  # the new session_key ends when the old one would have
    assert errcode(await wechat.call(CHECK, **signed(answer))) == 87009
    assert errcode(await wechat.call(RESET, **signed(answer))) == 87007


async def test_data_is_sealed_with_the_key_of_the_last_login(wechat: WeChat) -> None:
    await wechat.log_in()
    session = await wechat.log_in()
    sealed = await wechat.control("/encrypted-data", person="alice", data={"步数": 7})
    watermark = {"timestamp": int(wechat.now), "appid": FIRST["app_id"]}
    assert opened(sealed, session) == {"步数": 7, "watermark": watermark}


async def test_data_can_be_sent_with_the_code_whose_key_it_is_sealed_with(wechat: WeChat) -> None:
    former, code, of_another_app = await wechat.code(), await wechat.code(), await wechat.code(app_id=SECOND["app_id"])
    asked = {"person": "alice", "data": {"nickName": "爱丽丝"}}
    sealed = [await wechat.control("/encrypted-data", **asked, code=each) for each in (former, code)]
    sessions = [await wechat.log_in(each) for each in (former, code)]
    for given, session in zip(sealed, sessions, strict=True):
        assert opened(given, session)["nickName"] == "爱丽丝"
    assert opened(await wechat.control("/encrypted-data", **asked), sessions[1])["nickName"] == "爱丽丝"
    assert len({session["session_key"] for session in sessions}) == 2
    for wrong in ({"code": "0unknown"}, {"code": "alice"}, {"code": of_another_app}, {"code": code, "person": "bob"}):
        refused = await wechat.client.post("/encrypted-data", json={**asked, **wrong})
        assert (refused.status_code, refused.json()["error"].partition(":")[0]) == (422, "code")


def opened(sealed: dict[str, str], session: dict[str, str]) -> dict[str, Any]:
    """Check the signature of data that a page has received, and return the data decrypted with the session's key."""
    assert sealed["signature"] == sha1((sealed["rawData"] + session["session_key"]).encode()).hexdigest()
    key, iv = b64decode(session["session_key"]), b64decode(sealed["iv"])
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    data = decryptor.update(b64decode(sealed["encryptedData"])) + decryptor.finalize()
    decrypted = json.loads(data[: -data[-1]])
    assert decrypted.items() >= json.loads(sealed["rawData"]).items()
    return decrypted


# Risk ranks and checks of texts.


@swept(("person", "rank"), [("alice", 0), ("risky-0", 0), ("risky-4", 4), ("risky-5", 0)])
async def test_a_persons_name_is_their_risk(wechat: WeChat, person: str, rank: int) -> None:
    answer = await wechat.ask(RISK, person)
    assert answer.keys() == {"errcode", "errmsg", "risk_rank", "unoin_id"}
    assert (answer["errcode"], answer["risk_rank"]) == (0, rank)


@swept(
    ("changed", "verdict"),
    [
        *(({"content": text}, ("pass", 100)) for text in ("隔壁老王", "back\\ulash")),
        *(({"content": text}, ("risky", 20006)) for text in ("so risky", "违规内容")),
        *(({"content": text}, ("review", 21000)) for text in ("review me", "可疑")),
        ({"nickname": "risky"}, ("risky", 20006)),
    ],
)
async def test_a_text_is_judged_by_its_words(wechat: WeChat, changed: dict[str, str], verdict: tuple[str, int]) -> None:
    answer = await wechat.ask(TEXT, **changed)
    assert answer.keys() == {"errcode", "errmsg", "detail", "trace_id", "result"}
    assert (answer["result"]["suggest"], answer["result"]["label"]) == verdict


async def test_no_verdict_is_given_about_a_person_absent_for_two_hours(wechat: WeChat) -> None:
    bodies = {path: await wechat.question(path) for path in (RISK, TEXT)}
    for seconds, expected in ((2 * 3600 - 1, 0), (1, 61010)):
        wechat.now += seconds
        assert [errcode(await wechat.call(path, body)) for path, body in bodies.items()] == [expected] * 2


# The state of an app's account with WeChat.


async def test_an_accounts_state_refuses_its_calls_and_no_other_apps(wechat: WeChat) -> None:
    await wechat.control("/accounts", country_code="number")
    assert (await wechat.call(PHONE, A_PHONE))["phone_info"]["countryCode"] == 86
    await wechat.control("/accounts", denied=["getuserphonenumber"])
    assert errcode(await wechat.call(PHONE, A_PHONE)) == 48001
    assert errcode(await wechat.call(PHONE, A_PHONE, app=SECOND)) == 0
    await wechat.control("/accounts", is_whitelisted=False)
    answer = await wechat.token()
    assert (errcode(answer), "127.0.0.1" in answer["errmsg"]) == (40164, True)
    account = await wechat.control("/accounts", is_frozen=True)
    assert (account["is_frozen"], account["is_whitelisted"]) == (True, False), "what is not named stays"
    assert errcode(await wechat.token()) == errcode(await wechat.log_in()) == 40243
    assert "openid" in await wechat.log_in("alice", SECOND)


async def test_the_whitelist_of_a_service_account_binds_every_call(wechat: WeChat) -> None:
    token = (await wechat.token(ACCOUNT))["access_token"]
    await wechat.control("/accounts", app_id=ACCOUNT["app_id"], is_whitelisted=False)
    answer = await wechat.call("/cgi-bin/ticket/getticket", token=token, type="jsapi")
    assert (errcode(answer), "127.0.0.1" in answer["errmsg"]) == (61004, True)
    assert errcode(await wechat.log_in(app=ACCOUNT)) == 40164


@swept(("api", "path", "expected"), [("getuserriskrank", RISK, 9410009), ("msg_sec_check", TEXT, 45009)])
async def test_a_quota_is_a_days(wechat: WeChat, api: str, path: str, expected: int) -> None:
    wechat.now = TODAY
    await wechat.control("/accounts", daily_quota={api: 2})
    codes = [errcode(await wechat.call(path, {})) for _ in range(3)]
    assert expected not in codes[:2]
    assert codes[2] == expected
    wechat.now += 9 * 3600
    assert errcode(await wechat.call(path, {})) != expected


async def test_quotas_are_cleared_ten_times_a_month(wechat: WeChat) -> None:
    given = {"appid": FIRST["app_id"], "appsecret": FIRST["app_secret"]}

    async def clear(how: str) -> int:
        if how == "token":
            return errcode(await wechat.call("/cgi-bin/clear_quota", {"appid": FIRST["app_id"]}))
        request = wechat.client.build_request("POST", CLEAR, **{how: given})  # type: ignore[arg-type]
        return errcode((await wechat.client.send(request)).json())

    await wechat.control("/accounts", daily_quota={"getuserphonenumber": 1})
    for how in ("params", "json", "data", "token", *["params"] * 6):
        assert [errcode(await wechat.call(PHONE, A_PHONE)) for _ in range(2)] == [0, 45009]
        assert await clear(how) == 0
    assert [await clear(how) for how in ("data", "token")] == [48006, 48006]
    wechat.now += 31 * 86400
    assert await clear("params") == 0
    assert errcode(await wechat.call("/cgi-bin/clear_quota", {"appid": SECOND["app_id"]})) == 40013


async def test_days_and_months_begin_at_midnight_in_beijing(wechat: WeChat) -> None:
    async def clear() -> int:
        return errcode(await wechat.call("/cgi-bin/clear_quota", {"appid": FIRST["app_id"]}))

    wechat.now = TODAY + 17 * 86400 - 16 * 3600 - 1  # one second before February in Beijing
    assert [await clear() for _ in range(11)] == [0] * 10 + [48006]
    wechat.now += 1
    assert await clear() == 0


async def test_a_person_logs_in_a_hundred_times_a_minute(wechat: WeChat) -> None:
    async def log_in_anew(person: str) -> int:
        return errcode(await wechat.log_in(await wechat.code(person=person)))

    assert [await log_in_anew("alice") for _ in range(101)] == [0] * 100 + [45011]
    assert await log_in_anew("bob") == 0
    wechat.now += 60
    assert await log_in_anew("alice") == 0


# Other APIs, which other SDKs call.


@swept(
    ("method", "path", "expected"),
    [
        ("GET", "/wxa/nothing", 40066),
        ("POST", "/cgi-bin/wxa/getuserphonenumber", 40066),
        ("POST", "/cgi-bin/ticket/getticket", 43001),
        ("GET", PHONE, 43002),
        ("PUT", ENCRYPT_KEY, 43002),
    ],
)
async def test_a_url_or_method_that_is_not_wechats_is_an_errcode(
    wechat: WeChat, method: str, path: str, expected: int
) -> None:
    answer = await wechat.client.request(method, path)
    assert (answer.status_code, answer.json()["errcode"]) == (200, expected)
    assert re.fullmatch(f"(invalid url|require (GET|POST) method) rid: {RID}", answer.json()["errmsg"])
    assert (await wechat.client.get("/codes")).status_code == 405
    assert (await wechat.client.get("/desk/nothing")).status_code == 404


async def test_the_older_interface_gives_tokens_of_its_own(wechat: WeChat) -> None:
    query = {"grant_type": "client_credential", "appid": FIRST["app_id"], "secret": FIRST["app_secret"]}

    async def older() -> str:
        return answered(await wechat.client.get("/cgi-bin/token", params=query))["access_token"]

    stable, first, second = (await wechat.token())["access_token"], await older(), await older()
    assert len({stable, first, second}) == 3
    wechat.now += OVERLAP
    good = [errcode(await wechat.call(PHONE, A_PHONE, token=token)) for token in (stable, first, second)]
    assert good == [0, 42001, 0]
    assert errcode((await wechat.client.get("/cgi-bin/token", params={**query, "secret": "x"})).json()) == 40125


async def test_what_a_person_has_granted_is_read_checked_and_renewed(wechat: WeChat) -> None:
    async def ask(path: str, **query: str) -> dict[str, Any]:
        return answered(await wechat.client.get(path, params=query))

    granted = await wechat.log_in(app=ACCOUNT)
    mine = {"access_token": granted["access_token"], "openid": granted["openid"]}
    info = await ask("/sns/userinfo", **mine, lang="zh_CN")
    assert [info[name] for name in ("openid", "unionid", "nickname")] == [
        granted["openid"],
        granted["unionid"],
        "alice",
    ]
    assert (await ask("/sns/auth", **mine))["errmsg"] == "ok"
    renewal = {"appid": ACCOUNT["app_id"], "grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    wechat.now += LIFETIME
    assert errcode(await ask("/sns/auth", **mine)) == 42001
    renewed = await ask("/sns/oauth2/refresh_token", **renewal)
    assert (renewed["openid"], renewed["refresh_token"]) == (granted["openid"], granted["refresh_token"])
    assert (await ask("/sns/auth", **mine | {"access_token": renewed["access_token"]}))["errmsg"] == "ok"
    wrong = [
        ask("/sns/auth", **mine | {"access_token": "x"}),
        ask("/sns/userinfo", access_token=renewed["access_token"], openid="o"),
        ask("/sns/oauth2/refresh_token", **renewal | {"appid": WEBSITE["app_id"]}),
        ask("/sns/oauth2/refresh_token", **renewal | {"grant_type": "code"}),
    ]
    assert [errcode(await answer) for answer in wrong] == [40001, 40003, 40030, 40002]


async def test_the_smaller_scope_gives_no_unionid_and_no_profile(wechat: WeChat) -> None:
    granted = await wechat.log_in(await wechat.code(app_id=ACCOUNT["app_id"], scope="snsapi_base"), ACCOUNT)
    assert (granted["scope"], "unionid" in granted) == ("snsapi_base", False)
    query = {"access_token": granted["access_token"], "openid": granted["openid"]}
    assert errcode((await wechat.client.get("/sns/userinfo", params=query)).json()) == 48001


@swept(
    ("asked", "expected"),
    [
        ({}, 0),
        ({"path": "/pages/index/index", "query": "a=" + "1" * 1022}, 0),
        ({"expire_type": 0, "expire_time": 0}, 0),
        ({"expire_time": int(TODAY) + 30 * 86400}, 0),
        ({"expire_type": 1, "expire_interval": 30}, 0),
        ({"expire_time": int(TODAY)}, 85401),
        ({"expire_time": int(TODAY) + 30 * 86400 + 1}, 85401),
        ({"expire_type": 1, "expire_interval": 31}, 85401),
        ({"expire_type": 1}, 85401),
        ({"env_version": "production"}, 85402),
        ({"path": "pages/none"}, 40165),
        ({"query": "1" * 1025}, 40212),
    ],
)
async def test_a_link_is_made_as_wechats_page_describes_it(
    wechat: WeChat, asked: dict[str, Any], expected: int
) -> None:
    assert errcode(await wechat.call(URL_LINK, asked)) == expected
    opened = {name: asked.pop(name) for name in ("path", "query", "env_version") if name in asked}
    assert errcode(await wechat.call(SCHEME, {"jump_wxa": opened, **asked})) == expected


@swept("path", [URL_LINK, SCHEME])
async def test_a_service_account_makes_no_link_to_a_mini_program(wechat: WeChat, path: str) -> None:
    assert errcode(await wechat.call(path, {}, app=ACCOUNT)) == 48001


async def test_the_encryption_keys_of_a_person_are_given_for_a_signature(wechat: WeChat) -> None:
    login = await wechat.log_in()
    signature = new(login["session_key"].encode(), b"", sha256).hexdigest()
    query = {"openid": login["openid"], "signature": signature, "sig_method": "hmac_sha256"}
    (key,) = (await wechat.call(ENCRYPT_KEY, **query))["key_info_list"]
    assert len(b64decode(key["encrypt_key"])) == len(b64decode(key["iv"])) == 16
    wechat.now += 3600
    keys = (await wechat.call(ENCRYPT_KEY, b"", **query))["key_info_list"]
    assert [(each["version"], each["expire_in"]) for each in keys] == [(2, 3600), (1, 0)]
    assert errcode(await wechat.call(ENCRYPT_KEY, **query | {"signature": "0"})) == 87009


class FaceVerification:
    """The calls for the verification of Alice's face."""

    def __init__(self, wechat: WeChat) -> None:
        self.wechat = wechat
        cert = {"cert_type": "IDENTITY_CARD", "cert_name": "小明", "cert_no": "110101199003070000"}
        encoded = "&".join(f"{name}={b64encode(value.encode()).decode()}" for name, value in cert.items())
        self.cert_info, self.cert_hash = cert, sha256(encoded.encode()).hexdigest()

    async def begin(self) -> dict[str, Any]:
        openid = (await self.wechat.log_in())["openid"]
        return await self.wechat.call(VERIFY_ID, {"out_seq_no": "1", "cert_info": self.cert_info, "openid": openid})

    async def end(self, verify_id: str, **fields: int) -> int:
        """Let the phone end the verification, and return the status of the simulator's response."""
        return (await self.wechat.client.post("/faces", json={"verify_id": verify_id, **fields})).status_code

    async def result(self, verify_id: str, **changed: str) -> tuple[int, int | None]:
        """Return the errcode and the result of the verification."""
        asked = {"out_seq_no": "1", "cert_hash": self.cert_hash, "openid": (await self.wechat.log_in())["openid"]}
        answer = await self.wechat.call(VERIFY_INFO, {"verify_id": verify_id, **asked, **changed})
        return errcode(answer), answer.get("verify_ret")


async def test_a_face_is_verified_within_the_hour(wechat: WeChat) -> None:
    face = FaceVerification(wechat)
    begun = await face.begin()
    verify_id = begun["verify_id"]
    assert begun["expires_in"] == 3600
    assert await face.result(verify_id) == (0, 90004)
    wechat.now += 3599
    assert await face.end(verify_id, verify_ret=10004) == 200
    assert await face.result(verify_id) == (0, 10004)
    assert await face.result(verify_id, cert_hash="0") == await face.result("0") == (47001, None)
    wechat.now += 1
    assert await face.end(verify_id) == await face.end("0") == 422
    assert await face.result(verify_id) == (47001, None)


async def test_a_thousand_face_verifications_are_stored(wechat: WeChat) -> None:
    face = FaceVerification(wechat)
    verify_ids = [(await face.begin())["verify_id"] for _ in range(MAX_VERIFICATIONS + 1)]
    assert [await face.end(verify_id) for verify_id in (verify_ids[0], verify_ids[1], verify_ids[-1])] == [
        422,
        200,
        200,
    ]


ODD_VALUES: tuple[Any, ...] = (
    [],
    ["x"],
    {},
    {"x": "x"},
    0,
    7,
    -1,
    10**30,
    1.5,
    float("nan"),
    True,
    False,
    None,
    "",
    "x",
)


async def test_no_value_in_a_body_breaks_a_call(wechat: WeChat) -> None:
    openid = (await wechat.log_in())["openid"]
    question = {"openid": openid, "offer_id": "1", "ts": 1, "zone_id": "1", "env": 0, "amount": 1, "bill_no": "1"}
    cert = {"cert_type": "IDENTITY_CARD", "cert_name": "x", "cert_no": "1"}
    opened, lasts = {"path": "", "query": "", "env_version": "release"}, {"expire_type": 0, "expire_time": 0}
    secret = {"appid": FIRST["app_id"], "appsecret": FIRST["app_secret"]}
    bodies: dict[str, dict[str, Any]] = {
        "stable_token": {
            "grant_type": "client_credential",
            "appid": FIRST["app_id"],
            "secret": FIRST["app_secret"],
            "force_refresh": 0,
        },
        "getuserphonenumber": {**A_PHONE, "openid": openid},
        "getuserriskrank": await wechat.question(RISK),
        "msg_sec_check": await wechat.question(TEXT, nickname="x"),
        "media_check_async": {
            "openid": openid,
            "media_url": "https://x.test/x",
            "media_type": 2,
            "version": 2,
            "scene": 1,
        },
        "getwxacodeunlimit": {
            "scene": "x",
            "page": "pages/scan/scan",
            "env_version": "release",
            "check_path": True,
            "width": 300,
            "is_hyaline": 0,
        },
        "generate_urllink": {**opened, **lasts, "expire_interval": 1},
        "generatescheme": {"jump_wxa": opened, **lasts, "expire_interval": 1},
        "quota_get": {"cgi_path": PHONE},
        "rid_get": {"rid": "x"},
        "clear_quota": secret,
        "clear_quota_by_token": secret,
        "getverifyid": {"cert_info": cert, "out_seq_no": "1", "openid": openid},
        "queryverifyinfo": {"verify_id": "x", "out_seq_no": "1", "cert_hash": "x", "openid": openid},
        "getuserencryptkey": {"x": "x"},
        **{api: {**question, "pay_bill_no": "1"} for api in ("getbalance", "pay", "cancelpay", "present")},
    }
    assert bodies.keys() == {api for api, endpoint in ENDPOINTS.items() if "POST" in endpoint.methods}
    with Sweep() as sweep:
        for api, body in bodies.items():
            inner = [(name, key) for name, value in body.items() if isinstance(value, dict) for key in value]
            for name, key in (*((name, None) for name in body), *inner):
                for odd in ODD_VALUES:
                    with sweep.case(api, name, key, odd):
                        changed = {**body, name: odd if key is None else {**body[name], key: odd}}
                        token = (await wechat.token())["access_token"]
                        url = f"{ENDPOINTS[api].path}?access_token={token}"
                        assert (await wechat.client.post(url, content=json.dumps(changed))).status_code == 200


@swept("code", ["slow-61", "slow-99.99", "slow-60.01", "status-600", "errcode-", "hang-1"])
async def test_a_code_that_names_no_possible_fault_is_unknown(wechat: WeChat, code: str) -> None:
    assert errcode(await wechat.call(PHONE, {"code": code})) == 40029


async def test_a_text_is_judged_with_a_detail_that_has_no_verdict(wechat: WeChat) -> None:
    answer = await wechat.ask(TEXT, version="2")
    assert answer["detail"][0] == {"strategy": "keyword", "errcode": 0}
    assert re.fullmatch(RID, answer["trace_id"])


async def test_a_code_that_cannot_be_drawn_is_json_by_its_type(wechat: WeChat) -> None:
    url = f"/wxa/getwxacodeunlimit?access_token={(await wechat.token())['access_token']}"
    await wechat.control("/faults", api="getwxacodeunlimit", errcode=45009)
    for expected in (45009, 41030):
        answer = await wechat.client.post(url, json={"scene": "a", "page": "pages/none"})
        assert (answer.json()["errcode"], answer.headers["content-type"].split(";")[0]) == (
            expected,
            "application/json",
        )
    ticket = await wechat.call("/cgi-bin/ticket/getticket", app=ACCOUNT, type="wx_card")
    assert re.fullmatch(f"invalid args rid: {RID}", ticket["errmsg"])


# Faults that the tests set.


async def test_faults_of_all_apps_or_one_strike_in_turn_as_often_as_asked_until_cleared(wechat: WeChat) -> None:
    for number, times in ((45009, 2), (40243, 1), (-1, None)):
        await wechat.control("/faults", api="stable_token", errcode=number, times=times)
    assert [errcode(await wechat.token()) for _ in range(6)] == [45009, 45009, 40243, -1, -1, -1]
    assert (await wechat.client.delete("/faults")).status_code == 204
    assert errcode(await wechat.token()) == 0
    for api in ("stable_token", "getuserphonenumber"):
        await wechat.control("/faults", api=api, app_id=SECOND["app_id"], errcode=-1)
    assert [errcode(await wechat.token(app)) for app in (FIRST, SECOND)] == [0, -1]
    assert [errcode(await wechat.call(PHONE, A_PHONE, app=app)) for app in (FIRST, SECOND)] == [0, -1]


@swept(("work_is_done", "expected"), [(False, 0), (True, 40163)])
async def test_the_work_can_be_done_though_the_answer_fails(wechat: WeChat, work_is_done: bool, expected: int) -> None:
    body = {"code": await wechat.code("/phone-codes")}
    await wechat.control("/faults", api="getuserphonenumber", errcode=-1, work_is_done=work_is_done)
    assert [errcode(await wechat.call(PHONE, body)) for _ in range(2)] == [-1, expected]


async def test_a_picture_is_judged_though_the_answer_fails(wechat: WeChat) -> None:
    openid = (await wechat.log_in())["openid"]
    picture = {"openid": openid, "media_url": "https://x.test/x", "media_type": 2, "version": 2, "scene": 1}
    await wechat.control("/faults", api="media_check_async", errcode=-1, work_is_done=True)
    assert errcode(await wechat.call("/wxa/media_check_async", picture)) == -1
    await asyncio.sleep(0)  # the message is sent in a task of its own
    assert "weChatToService" in (await wechat.client.get("/desk/wires/0")).text


@swept(("fault", "login"), [({"garbage": True}, "garbage"), ({"html": True}, "html"), ({"status": 503}, "status-503")])
async def test_an_answer_can_be_no_json_or_another_status(wechat: WeChat, fault: dict[str, Any], login: str) -> None:
    await wechat.control("/faults", api="getuserriskrank", **fault)
    query = {"appid": FIRST["app_id"], "secret": FIRST["app_secret"], "grant_type": "authorization_code"}
    for answer in (await wechat.client.post(RISK), await wechat.client.get(LOGIN, params={**query, "js_code": login})):
        assert answer.status_code == fault.get("status", 200)
        with pytest.raises(json.JSONDecodeError):
            answer.json()


async def test_a_call_that_raises_an_exception_has_ended_on_the_desk(wechat: WeChat) -> None:
    await wechat.control("/faults", api="checksession", drop=True)
    with pytest.raises(ConnectionResetError):  # without a server, there is no connection to close
        await wechat.client.get(CHECK)
    (call,) = (await wechat.client.get("/desk/wires/0")).json()["calls"]
    assert (call["path"], call["status"]) == (CHECK, None)
    assert call["ms"] is not None


def test_an_answer_can_be_slow_or_missing() -> None:
    with serving(create_simulator()) as url, httpx.Client(base_url=url, timeout=PATIENCE, verify=False) as wechat:
        for kind, error in (("slow", httpx.ReadTimeout), ("hang", httpx.ReadTimeout), ("drop", httpx.TransportError)):
            fault = {"api": "checksession", kind: 60 if kind == "slow" else True}
            assert wechat.post("/faults", json=fault).status_code == 200
            login = f"{LOGIN}?appid={FIRST['app_id']}&js_code={'slow-30' if kind == 'slow' else kind}"
            for path in (CHECK, login):
                with pytest.raises(error):
                    wechat.get(path, timeout=0.2 if error is httpx.ReadTimeout else PATIENCE)
        wechat.post("/faults", json={"api": "checksession", "slow": 0.05})
        assert errcode(wechat.get(CHECK).json()) == 41001
        assert errcode(wechat.get(f"{LOGIN}?appid={FIRST['app_id']}&js_code=slow-0.05").json()) == 41004


@pytest.mark.parametrize(("fault", "error"), [("hang", httpx.ReadTimeout), ("drop", httpx.TransportError)])
def test_a_call_without_an_answer_leaves_the_code_unused(fault: str, error: type[Exception]) -> None:
    with serving(create_simulator()) as url, httpx.Client(base_url=url, timeout=PATIENCE, verify=False) as wechat:
        code = wechat.post("/codes", json={"person": "alice", "app_id": FIRST["app_id"]}).json()["code"]
        assert wechat.post("/faults", json={"api": "code2session", fault: True}).status_code == 200
        query = {"appid": FIRST["app_id"], "secret": FIRST["app_secret"], "grant_type": "authorization_code"}
        with pytest.raises(error):
            wechat.get(LOGIN, params={**query, "js_code": code}, timeout=0.2 if fault == "hang" else PATIENCE)
        until(lambda: wechat.get("/desk/wires/0").json()["calls"][0]["ms"] is not None)
        assert "session_key" in wechat.get(LOGIN, params={**query, "js_code": code}).json()


async def test_the_front_page_mentions_every_control(wechat: WeChat) -> None:
    page = await wechat.client.get("/")
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    controls = "/phone-codes", "/encrypted-data", "/faults", "/accounts", "phone-13800138000", "risky-4"
    paths = (endpoint.path for endpoint in ENDPOINTS.values())
    for word in (*paths, *controls, "simulated WeChat", "模拟微信"):
        assert word in page.text
    assert "http://wechat.test/webhook" in page.text
