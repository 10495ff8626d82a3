"""The simulated WeChat, asked over HTTP: logins, and the calls behind them, as its pages describe them."""

import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from hmac import new
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.processes import PATIENCE, serving
from tests.sweeps import swept
from wxauth.server.dev.wechat import (
    ACCOUNT,
    APPS,
    MOBILE_APP,
    OTHER_KINDS,
    WEBSITE,
    Simulator,
    create_simulator,
    phone_number_of,
)

FIRST, SECOND = APPS
LIFETIME = 7200
OVERLAP = 300
TODAY = 1_800_000_000.0
"""15:00 in Beijing."""
LOGIN = "/sns/jscode2session"
OAUTH = "/sns/oauth2/access_token"
TOKEN = "/cgi-bin/stable_token"
PHONE = "/wxa/business/getuserphonenumber"
CHECK = "/wxa/checksession"
RESET = "/wxa/resetusersessionkey"
RISK = "/wxa/getuserriskrank"
TEXT = "/wxa/msg_sec_check"

Call = Callable[..., Awaitable[dict[str, Any]]]
MakeCode = Callable[..., Awaitable[str]]
Spend = Callable[..., Awaitable[int]]


class Timer:
    def __init__(self) -> None:
        self.now = TODAY

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
async def wechat(timer: Timer) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_simulator(Simulator(timer)))
    async with httpx.AsyncClient(transport=transport, base_url="http://wechat.test") as client:
        yield client


@pytest.fixture
def control(wechat: httpx.AsyncClient) -> Call:
    """Call the simulator's own API, which WeChat does not have."""

    async def post(path: str, **wanted: object) -> dict[str, Any]:
        answer = await wechat.post(path, json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


@pytest.fixture
def code_of(control: Call) -> MakeCode:
    """A code for alice, unless said otherwise: to log in, or for her number."""

    async def make(path: str = "/codes", **fields: object) -> str:
        return (await control(path, **{"person": "alice", **fields}))["code"]

    return make


@pytest.fixture
def stable_token(wechat: httpx.AsyncClient) -> Call:
    """Ask for the first app's token; any field by name, None leaves it out."""

    async def post(**fields: object) -> dict[str, Any]:
        wanted = {"grant_type": "client_credential", "appid": FIRST["app_id"], "secret": FIRST["app_secret"]}
        return answered(await wechat.post(TOKEN, json=without_none({**wanted, **fields})))

    return post


@pytest.fixture
def log_in(wechat: httpx.AsyncClient) -> Call:
    """Exchange a code as an app of this kind does; any parameter by name, None leaves it out."""

    async def exchange(code: str = "alice", app: dict[str, str] = FIRST, **changed: str | None) -> dict[str, Any]:
        path, name = (OAUTH, "code") if app in OTHER_KINDS else (LOGIN, "js_code")
        query = {"appid": app["app_id"], "secret": app["app_secret"], "grant_type": "authorization_code", name: code}
        return answered(await wechat.get(path, params=without_none({**query, **changed})))

    return exchange


@pytest.fixture
def call(wechat: httpx.AsyncClient, stable_token: Call) -> Call:
    """Call an API with the first app's access token: a body by POST, else a query by GET."""

    async def ask(
        path: str, *, token: str | None = None, body: Any = None, app: dict[str, str] = FIRST, **query: str
    ) -> dict[str, Any]:
        if token is None:
            token = (await stable_token(appid=app["app_id"], secret=app["app_secret"]))["access_token"]
        query["access_token"] = token
        if body is None:
            return (await wechat.get(path, params=query)).json()
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        return (await wechat.post(path, params=query, content=content)).json()

    return ask


@pytest.fixture(params=["/codes", "/phone-codes"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def spend(kind: str, call: Call, log_in: Call) -> Spend:
    """Spend a code of this kind; the errcode."""

    async def exchange(code: str, app: dict[str, str] = FIRST) -> int:
        return errcode(await (log_in(code, app) if kind == "/codes" else call(PHONE, body={"code": code}, app=app)))

    return exchange


def answered(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.json()


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def errcode(answer: dict[str, Any]) -> int:
    return answer.get("errcode", 0)


# Logins.


async def test_a_login_is_answered_without_errcode_and_with_a_new_key(log_in: Call) -> None:
    body, again = await log_in(), await log_in()
    assert body.keys() == {"openid", "unionid", "session_key"}
    assert len(b64decode(body["session_key"])) == 16
    assert re.fullmatch(r"o[\w-]{27}", body["openid"])
    assert re.fullmatch(r"o[\w-]{27}", body["unionid"])
    assert again["session_key"] != body["session_key"]


@swept("name", ["alice", "Alice", "zhang.san_2-b", "张三", "é"])
async def test_a_plain_name_is_the_same_person_each_time_and_in_every_app(log_in: Call, name: str) -> None:
    once, again, there, other = await log_in(name), await log_in(name), await log_in(name, SECOND), await log_in("bob")
    assert (again["openid"], again["unionid"]) == (once["openid"], once["unionid"])
    assert there["unionid"] == once["unionid"] != other["unionid"]
    assert len({there["openid"], once["openid"], other["openid"]}) == 3


@swept("app", OTHER_KINDS, ids=lambda app: app["kind"])
async def test_a_code_of_another_kind_of_app_is_exchanged_by_oauth(
    log_in: Call, code_of: MakeCode, app: dict[str, str]
) -> None:
    session = await log_in(await code_of(app_id=app["app_id"]), app)
    assert session["unionid"] == (await log_in())["unionid"]
    assert session.keys() == {"access_token", "expires_in", "refresh_token", "openid", "scope", "unionid"}
    credentials = {"appid": app["app_id"], "secret": app["app_secret"]}
    assert errcode(await log_in(await code_of(), app)) == 40029
    assert errcode(await log_in("not-made", app, appid=FIRST["app_id"], secret=FIRST["app_secret"])) == 40029
    assert errcode(await log_in(await code_of(app_id=app["app_id"]), FIRST, **credentials)) == 40029


async def test_a_snapshot_has_made_up_people_who_share_a_unionid(log_in: Call, code_of: MakeCode) -> None:
    async def person(name: str, snapshot: str | None) -> dict[str, Any]:
        return await log_in(await code_of(person=name, app_id=ACCOUNT["app_id"], snapshot=snapshot), ACCOUNT)

    real, alarm = await person("alice", None), await person("alice", "false_alarm")
    assert (alarm["openid"], alarm["unionid"], alarm["is_snapshotuser"]) == (real["openid"], real["unionid"], 1)
    shown, hidden = await person("alice", "shown"), await person("bob", "hidden")
    assert (shown["is_snapshotuser"], hidden.get("is_snapshotuser")) == (1, None)
    assert shown["unionid"] == hidden["unionid"] != real["unionid"]
    assert len({shown["openid"], hidden["openid"], real["openid"]}) == 3


@swept(
    ("expected", "changed"),
    [
        (41002, {"appid": None}),
        (41002, {"appid": ""}),
        (41004, {"secret": None}),
        (41008, {"js_code": None}),
        (40002, {"grant_type": None}),
        (40013, {"appid": "wx0000000000000000"}),
        (40125, {"secret": SECOND["app_secret"]}),
        (40029, {"js_code": "0a3xQ2000YpDuQ1x8g000R5bKj0xQ20z"}),
        (40029, {"js_code": "two words"}),
    ],
)
async def test_a_mistake_in_a_login_is_reported_by_errcode(
    log_in: Call, expected: int, changed: dict[str, str | None]
) -> None:
    answer = await log_in(**changed)
    assert errcode(answer) == expected
    assert re.fullmatch(r"[a-z _]+, rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}", answer["errmsg"])


@swept("wanted", [-1, 40164, 987654321])
async def test_any_errcode_can_be_asked_for(log_in: Call, wanted: int) -> None:
    answer = await log_in(f"errcode-{wanted}")
    assert answer.keys() == {"errcode", "errmsg"}
    assert answer["errcode"] == wanted


# Codes.


async def test_a_code_is_exchanged_for_its_person(log_in: Call, code_of: MakeCode) -> None:
    alice = await log_in()
    assert (await log_in(await code_of()))["openid"] == alice["openid"]
    without = await log_in(await code_of(has_unionid=False))
    assert without.keys() == {"openid", "session_key"}
    assert without["openid"] == alice["openid"]


async def test_a_code_works_once_for_five_minutes(kind: str, spend: Spend, code_of: MakeCode, timer: Timer) -> None:
    used, in_time, late = [await code_of(kind) for _ in range(3)]
    assert [await spend(used) for _ in range(2)] == [0, 40163]
    timer.now += 299
    assert await spend(in_time) == 0
    timer.now += 1
    assert await spend(late) == 40029
    await code_of(kind)
    assert await spend(late) == 40029


@pytest.mark.parametrize(("app", "minutes"), [(ACCOUNT, 5), (WEBSITE, 10), (MOBILE_APP, 10)])
async def test_a_code_of_another_kind_of_app_lives_five_or_ten_minutes(
    log_in: Call, code_of: MakeCode, timer: Timer, app: dict[str, str], minutes: int
) -> None:
    in_time, late = [await code_of(app_id=app["app_id"]) for _ in range(2)]
    timer.now += 60 * minutes - 1
    assert "openid" in await log_in(in_time, app)
    timer.now += 1
    assert errcode(await log_in(late, app)) == 40029


async def test_another_apps_code_is_refused_and_then_spent(kind: str, spend: Spend, code_of: MakeCode) -> None:
    code = await code_of(kind, app_id=SECOND["app_id"])
    assert await spend(code) == {"/codes": 40029, "/phone-codes": 40013}[kind]
    assert await spend(code, SECOND) == 40163


async def test_a_wrong_secret_does_not_spend_a_code(log_in: Call, code_of: MakeCode) -> None:
    code = await code_of()
    assert errcode(await log_in(code, secret="wrong")) == 40125
    assert "openid" in await log_in(code)


@pytest.mark.parametrize(("burns", "expected"), [(False, [-1, -1, 0, 40163]), (True, [-1, 40163, 40163, 40163])])
async def test_a_busy_answer_may_spend_a_code(
    kind: str, spend: Spend, code_of: MakeCode, burns: bool, expected: list[int]
) -> None:
    code = await code_of(kind, busy=2, busy_burns=burns)
    assert [await spend(code) for _ in range(4)] == expected


@swept(
    ("path", "body", "status", "word"),
    [
        ("/codes", b"alice", 400, "JSON"),
        ("/codes", b"", 400, "JSON"),
        ("/codes", b'{"person": "\xff"}', 400, "JSON"),
        ("/codes", b"[]", 422, "dictionary"),
        ("/codes", {}, 422, "person"),
        ("/codes", {"person": 7}, 422, "person"),
        ("/codes", {"person": "two words"}, 422, "person"),
        ("/codes", {"person": ""}, 422, "person"),
        ("/codes", {"person": "alice", "app_id": "wx0"}, 422, "app_id"),
        ("/codes", {"person": "alice", "busy": -1}, 422, "busy"),
        ("/codes", {"person": "alice", "bussy": 1}, 422, "bussy"),
        ("/faults", {"api": "stable_token"}, 422, "one of errcode"),
        ("/faults", {"api": "stable_token", "errcode": 1, "hang": True}, 422, "one of errcode"),
        ("/faults", {"api": "stable_token", "hang": False}, 422, "hang"),
        ("/faults", {"api": "token", "errcode": 1}, 422, "api"),
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
async def test_a_wrong_control_request_is_refused_with_the_reason(
    wechat: httpx.AsyncClient, path: str, body: Any, status: int, word: str
) -> None:
    answer = await wechat.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == status
    assert word in answer.json()["error"]


# Access tokens.


async def test_a_token_is_handed_to_everybody_until_five_minutes_before_its_end(
    stable_token: Call, timer: Timer
) -> None:
    first = await stable_token()
    assert first.keys() == {"access_token", "expires_in"}
    assert first["expires_in"] == LIFETIME
    assert len(first["access_token"]) > 512
    timer.now += LIFETIME - OVERLAP - 1
    assert await stable_token() == {**first, "expires_in": OVERLAP + 1}
    timer.now += 1
    second = await stable_token()
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == LIFETIME


async def test_the_former_token_works_to_its_own_end(stable_token: Call, call: Call, timer: Timer) -> None:
    former = (await stable_token())["access_token"]
    timer.now += LIFETIME - OVERLAP
    await stable_token()
    timer.now += OVERLAP - 1
    body = {"code": "phone-13800138000"}
    assert errcode(await call(PHONE, token=former, body=body)) == 0
    timer.now += 1
    assert errcode(await call(PHONE, token=former, body=body)) == 42001


async def test_a_forced_token_kills_the_former(stable_token: Call, call: Call) -> None:
    former = (await stable_token())["access_token"]
    forced = await stable_token(force_refresh=True)
    assert forced["access_token"] != former
    assert await stable_token() == forced
    body = {"code": "phone-13800138000"}
    assert errcode(await call(PHONE, token=former, body=body)) == 40001
    assert errcode(await call(PHONE, body=body)) == 0


async def test_tokens_are_forced_thirty_seconds_apart_and_twenty_times_a_day(stable_token: Call, timer: Timer) -> None:
    for _ in range(20):
        assert errcode(await stable_token(force_refresh=True)) == 0
        token = await stable_token()
        timer.now += 29
        assert errcode(await stable_token(force_refresh=True)) == 45011
        assert (await stable_token())["access_token"] == token["access_token"]
        timer.now += 1
    assert errcode(await stable_token(force_refresh=True)) == 45009
    assert errcode(await stable_token()) == 0
    timer.now += 9 * 3600
    assert errcode(await stable_token(force_refresh=True)) == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"appid": None}, 41002),
        ({"secret": None}, 41004),
        ({"grant_type": None}, 40002),
        ({"grant_type": "authorization_code"}, 40002),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"secret": SECOND["app_secret"]}, 40125),
    ],
)
async def test_a_mistake_in_the_request_for_a_token_is_reported_by_errcode(
    stable_token: Call, fields: dict[str, str | None], expected: int
) -> None:
    answer = await stable_token(**fields)
    assert errcode(answer) == expected
    assert "rid: " in answer["errmsg"]


@swept("body", [b"", b"[]", b"{", b'{"appid": "\xff"}'])
async def test_a_body_that_is_no_json_object_is_a_format_error(wechat: httpx.AsyncClient, body: bytes) -> None:
    assert errcode((await wechat.post(TOKEN, content=body)).json()) == 47001


@pytest.mark.parametrize(("token", "expected"), [("", 41001), ("nonsense", 40014)])
@pytest.mark.parametrize(("path", "body"), [(PHONE, {}), (CHECK, None), (RESET, None), (RISK, {}), (TEXT, {})])
async def test_every_other_call_requires_an_access_token(
    call: Call, path: str, body: object, token: str, expected: int
) -> None:
    assert errcode(await call(path, token=token, body=body)) == expected


# Phone numbers.


async def test_a_phone_code_is_exchanged_for_the_number_of_its_person(
    call: Call, code_of: MakeCode, timer: Timer
) -> None:
    code = await code_of("/phone-codes")
    number = phone_number_of("alice")
    assert await call(PHONE, body={"code": code}) == {
        "errcode": 0,
        "errmsg": "ok",
        "phone_info": {
            "phoneNumber": number,
            "purePhoneNumber": number,
            "countryCode": "86",
            "watermark": {"timestamp": int(timer.now), "appid": FIRST["app_id"]},
        },
    }


@pytest.mark.parametrize(
    ("phone", "parts"),
    [
        ("13800138000", ("13800138000", "13800138000", "86")),
        ("+86 138 0013 8000", ("13800138000", "13800138000", "86")),
        ("+85291234567", ("+85291234567", "91234567", "852")),
        ("no number", ("no number", "no number", "86")),
    ],
)
async def test_a_number_can_be_given(call: Call, code_of: MakeCode, phone: str, parts: tuple[str, str, str]) -> None:
    codes = [await code_of("/phone-codes", phone=phone)]
    if phone != "no number":
        codes += [f"phone-{phone}"] * 2
    for code in codes:
        info = (await call(PHONE, body={"code": code}))["phone_info"]
        assert (info["phoneNumber"], info["purePhoneNumber"], info["countryCode"]) == parts


async def test_a_plain_phone_code_is_no_login_code(log_in: Call) -> None:
    assert errcode(await log_in("phone-13800138000")) == 40029
    assert "openid" in await log_in("phone-anna")


async def test_the_country_can_be_a_number(call: Call, control: Call) -> None:
    await control("/accounts", country_code="number")
    assert (await call(PHONE, body={"code": "phone-13800138000"}))["phone_info"]["countryCode"] == 86


async def test_the_watermark_can_be_another_apps(call: Call, code_of: MakeCode) -> None:
    code = await code_of("/phone-codes", watermark_app_id="wx0")
    assert (await call(PHONE, body={"code": code}))["phone_info"]["watermark"]["appid"] == "wx0"


async def test_each_kind_of_code_is_good_for_its_own_call(call: Call, code_of: MakeCode, log_in: Call) -> None:
    login_code, phone_code = [await code_of(path) for path in ("/codes", "/phone-codes")]
    assert errcode(await log_in(phone_code)) == 40029
    assert errcode(await call(PHONE, body={"code": login_code})) == 40029
    assert errcode(await call(PHONE, body={"code": "alice"})) == 40029
    assert "openid" in await log_in(login_code)
    assert errcode(await call(PHONE, body={"code": phone_code})) == 0


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("on", {"alice": 0, "bob": 43104, "alice there": 40003, "nobody": 40003}),
        ("ignored", {"alice": 0, "bob": 0, "alice there": 0, "nobody": 0}),
        ("refused", {"alice": 47001, "bob": 47001, "alice there": 47001, "nobody": 47001}),
    ],
)
async def test_the_openid_is_checked_as_the_account_is_configured(
    call: Call, control: Call, code_of: MakeCode, log_in: Call, switch: str, expected: dict[str, int]
) -> None:
    await control("/accounts", openid_check=switch)
    openids = {name: (await log_in(name))["openid"] for name in ("alice", "bob")}
    openids |= {"alice there": (await log_in("alice", SECOND))["openid"], "nobody": "nonsense"}
    found = {}
    for name, openid in openids.items():
        code = await code_of("/phone-codes")
        found[name] = errcode(await call(PHONE, body={"code": code, "openid": openid}))
    assert found == expected


# Session keys.


def signature_of(session_key: str) -> str:
    return new(session_key.encode(), b"", sha256).hexdigest()


def signed(session: dict[str, Any]) -> dict[str, str]:
    return {
        "openid": session["openid"],
        "signature": signature_of(session["session_key"]),
        "sig_method": "hmac_sha256",
    }


async def test_the_key_of_the_last_login_is_good(call: Call, log_in: Call) -> None:
    former, last = await log_in(), await log_in()
    assert await call(CHECK, **signed(last)) == {"errcode": 0, "errmsg": "ok"}
    assert errcode(await call(CHECK, **signed(former))) == 87009
    assert errcode(await call(CHECK, **{**signed(last), "openid": "nobody"})) == 87009
    assert errcode(await call(CHECK, **{**signed(last), "signature": "é"})) == 87009
    assert errcode(await call(CHECK, **{**signed(last), "sig_method": "md5"})) == 87008


async def test_a_key_that_is_reset_is_dead_and_the_new_one_keeps_its_end(
    call: Call, log_in: Call, timer: Timer
) -> None:
    session = await log_in()
    timer.now += 2 * 86400
    answer = await call(RESET, **signed(session))
    assert answer.keys() == {"errcode", "errmsg", "openid", "session_key"}
    assert len(b64decode(answer["session_key"])) == 16
    assert errcode(await call(CHECK, **signed(answer))) == 0
    assert errcode(await call(CHECK, **signed(session))) == 87009
    assert errcode(await call(RESET, **signed(session))) == 87009
    timer.now += 86400
    assert errcode(await call(CHECK, **signed(answer))) == 87009
    assert errcode(await call(RESET, **signed(answer))) == 87007


async def test_data_is_sealed_with_the_key_of_the_last_login(control: Call, log_in: Call, timer: Timer) -> None:
    await log_in()
    session = await log_in()
    sealed = await control("/encrypted-data", person="alice", data={"步数": 7})
    key, iv = b64decode(session["session_key"]), b64decode(sealed["iv"])
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    opened = decryptor.update(b64decode(sealed["encryptedData"])) + decryptor.finalize()
    watermark = {"timestamp": int(timer.now), "appid": FIRST["app_id"]}
    assert json.loads(opened[: -opened[-1]]) == {"步数": 7, "watermark": watermark}


# Risk and texts.


async def question(log_in: Call, path: str, person: str = "alice", **changed: Any) -> dict[str, Any]:
    """A right body about this person, but for what is changed."""
    openid = (await log_in(person))["openid"]
    risk = {"appid": FIRST["app_id"], "scene": 0, "client_ip": "203.0.113.7"}
    right = {RISK: risk, TEXT: {"version": 2, "scene": 1, "content": "fine"}}[path]
    return {"openid": openid, **right, **changed}


@swept(("person", "rank"), [("alice", 0), ("risky-0", 0), ("risky-4", 4), ("risky-5", 0)])
async def test_a_persons_name_is_their_risk(call: Call, log_in: Call, person: str, rank: int) -> None:
    answer = await call(RISK, body=await question(log_in, RISK, person))
    assert answer.keys() == {"errcode", "errmsg", "risk_rank", "unoin_id"}
    assert (answer["errcode"], answer["risk_rank"]) == (0, rank)


@swept(
    ("changed", "verdict"),
    [
        ({"content": "隔壁老王"}, ("pass", 100)),
        ({"content": "so risky"}, ("risky", 20006)),
        ({"content": "违规内容"}, ("risky", 20006)),
        ({"content": "review me"}, ("review", 21000)),
        ({"content": "可疑"}, ("review", 21000)),
        ({"content": "back\\ulash"}, ("pass", 100)),
        ({"nickname": "risky"}, ("risky", 20006)),
    ],
)
async def test_a_text_is_judged_by_its_words(
    call: Call, log_in: Call, changed: dict[str, str], verdict: tuple[str, int]
) -> None:
    answer = await call(TEXT, body=await question(log_in, TEXT, **changed))
    assert answer.keys() == {"errcode", "errmsg", "detail", "trace_id", "result"}
    assert (answer["result"]["suggest"], answer["result"]["label"]) == verdict


@swept(
    ("path", "changed", "expected"),
    [
        (RISK, {"appid": SECOND["app_id"]}, 40013),
        (RISK, {"scene": 2}, 47001),
        (RISK, {"client_ip": ""}, 47001),
        (RISK, {"openid": ""}, 40003),
        (TEXT, {"version": 1}, 47001),
        (TEXT, {"scene": 0}, 47001),
        (TEXT, {"content": ""}, 47001),
        (TEXT, {"content": None}, 47001),
    ],
)
async def test_a_wrong_question_is_refused(
    call: Call, log_in: Call, path: str, changed: dict[str, Any], expected: int
) -> None:
    assert errcode(await call(path, body=await question(log_in, path, **changed))) == expected


async def test_a_text_must_not_be_escaped(call: Call, log_in: Call) -> None:
    escaped = json.dumps(await question(log_in, TEXT, content="王")).encode()
    assert errcode(await call(TEXT, body=escaped)) == 47001


@swept(("body", "expected"), [({}, 41008), ({"code": 7}, 47001), ({"code": "errcode-45011"}, 45011), (b"{", 47001)])
async def test_a_wrong_request_for_a_number_is_refused(call: Call, body: object, expected: int) -> None:
    assert errcode(await call(PHONE, body=body)) == expected


async def test_no_verdict_is_given_about_a_person_absent_for_two_hours(call: Call, log_in: Call, timer: Timer) -> None:
    bodies = {path: await question(log_in, path) for path in (RISK, TEXT)}
    timer.now += 2 * 3600 - 1
    assert [errcode(await call(path, body=body)) for path, body in bodies.items()] == [0, 0]
    timer.now += 1
    assert [errcode(await call(path, body=body)) for path, body in bodies.items()] == [61010, 61010]


# The state of an app's account at WeChat.


async def test_an_address_that_is_not_on_the_list_gets_no_token(stable_token: Call, control: Call) -> None:
    await control("/accounts", is_whitelisted=False)
    answer = await stable_token()
    assert errcode(answer) == 40164
    assert "127.0.0.1" in answer["errmsg"]


async def test_a_frozen_secret_is_good_for_nothing(stable_token: Call, control: Call, log_in: Call) -> None:
    await control("/accounts", is_frozen=True)
    assert errcode(await stable_token()) == errcode(await log_in()) == 40243
    assert "openid" in await log_in("alice", SECOND)


async def test_an_api_that_an_account_may_not_use_is_denied(call: Call, control: Call) -> None:
    await control("/accounts", denied=["getuserphonenumber"])
    assert errcode(await call(PHONE, body={"code": "phone-13800138000"})) == 48001
    assert errcode(await call(PHONE, body={"code": "phone-13800138000"}, app=SECOND)) == 0


@pytest.mark.parametrize(
    ("api", "path", "expected"), [("getuserriskrank", RISK, 9410009), ("msg_sec_check", TEXT, 45009)]
)
async def test_a_quota_is_a_days(call: Call, control: Call, timer: Timer, api: str, path: str, expected: int) -> None:
    await control("/accounts", daily_quota={api: 2})
    codes = [errcode(await call(path, body={})) for _ in range(3)]
    assert expected not in codes[:2]
    assert codes[2] == expected
    timer.now += 9 * 3600
    assert errcode(await call(path, body={})) != expected


async def test_a_person_logs_in_a_hundred_times_a_minute(code_of: MakeCode, log_in: Call, timer: Timer) -> None:
    async def log_in_anew(person: str) -> int:
        return errcode(await log_in(await code_of(person=person)))

    assert [await log_in_anew("alice") for _ in range(101)] == [0] * 100 + [45011]
    assert await log_in_anew("bob") == 0
    timer.now += 60
    assert await log_in_anew("alice") == 0


async def test_fields_of_an_account_that_are_not_named_stay(control: Call) -> None:
    await control("/accounts", is_frozen=True)
    account = await control("/accounts", is_whitelisted=False)
    assert (account["is_frozen"], account["is_whitelisted"]) == (True, False)


# Faults.


async def test_a_fault_strikes_as_often_as_was_asked_for(stable_token: Call, control: Call) -> None:
    await control("/faults", api="stable_token", errcode=45009, times=2)
    assert [errcode(await stable_token()) for _ in range(3)] == [45009, 45009, 0]


async def test_faults_strike_one_after_the_other(stable_token: Call, control: Call) -> None:
    for number in (40243, 89503):
        await control("/faults", api="stable_token", errcode=number)
    assert [errcode(await stable_token()) for _ in range(3)] == [40243, 89503, 0]


async def test_a_fault_can_be_one_apps(stable_token: Call, call: Call, control: Call) -> None:
    for api in ("stable_token", "getuserphonenumber"):
        await control("/faults", api=api, app_id=SECOND["app_id"], errcode=-1)
    body = {"code": "phone-13800138000"}
    second = {"appid": SECOND["app_id"], "secret": SECOND["app_secret"]}
    assert [errcode(await stable_token()), errcode(await stable_token(**second))] == [0, -1]
    assert [errcode(await call(PHONE, body=body)), errcode(await call(PHONE, body=body, app=SECOND))] == [0, -1]


async def test_a_fault_for_ever_can_be_taken_back(wechat: httpx.AsyncClient, stable_token: Call, control: Call) -> None:
    await control("/faults", api="stable_token", errcode=-1, times=None)
    assert [errcode(await stable_token()) for _ in range(3)] == [-1] * 3
    assert (await wechat.delete("/faults")).status_code == 204
    assert errcode(await stable_token()) == 0


@pytest.mark.parametrize(("work_is_done", "expected"), [(False, 0), (True, 40163)])
async def test_the_work_can_be_done_where_only_the_answer_goes_wrong(
    call: Call, control: Call, code_of: MakeCode, work_is_done: bool, expected: int
) -> None:
    code = await code_of("/phone-codes")
    await control("/faults", api="getuserphonenumber", errcode=-1, work_is_done=work_is_done)
    assert [errcode(await call(PHONE, body={"code": code})) for _ in range(2)] == [-1, expected]


@swept(("fault", "login"), [({"garbage": True}, "garbage"), ({"html": True}, "html"), ({"status": 503}, "status-503")])
async def test_an_answer_can_be_no_json_or_another_status(
    wechat: httpx.AsyncClient, control: Call, fault: dict[str, Any], login: str
) -> None:
    await control("/faults", api="getuserriskrank", **fault)
    query = {"appid": FIRST["app_id"], "secret": FIRST["app_secret"], "grant_type": "authorization_code"}
    for answer in (await wechat.post(RISK), await wechat.get(LOGIN, params={**query, "js_code": login})):
        assert answer.status_code == fault.get("status", 200)
        with pytest.raises(json.JSONDecodeError):
            answer.json()


def test_an_answer_can_be_slow_or_missing() -> None:
    with serving(create_simulator()) as url, httpx.Client(base_url=url, timeout=PATIENCE, verify=False) as wechat:
        for kind, error in (("slow", httpx.ReadTimeout), ("hang", httpx.ReadTimeout), ("drop", httpx.TransportError)):
            fault = {"api": "checksession", kind: PATIENCE if kind == "slow" else True}
            assert wechat.post("/faults", json=fault).status_code == 200
            login = f"{LOGIN}?appid={FIRST['app_id']}&js_code={'slow-30' if kind == 'slow' else kind}"
            for path in (CHECK, login):
                with pytest.raises(error):
                    wechat.get(path, timeout=0.2 if error is httpx.ReadTimeout else PATIENCE)
        wechat.post("/faults", json={"api": "checksession", "slow": 0.05})
        assert errcode(wechat.get(CHECK).json()) == 41001
        assert errcode(wechat.get(f"{LOGIN}?appid={FIRST['app_id']}&js_code=slow-0.05").json()) == 41004


async def test_the_front_page_mentions_every_control(wechat: httpx.AsyncClient) -> None:
    page = await wechat.get("/")
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    controls = "/phone-codes", "/encrypted-data", "/faults", "/accounts", "phone-13800138000", "risky-4"
    for word in (PHONE, CHECK, RESET, RISK, TEXT, TOKEN, LOGIN, OAUTH, *controls, "simulated WeChat", "模拟微信"):
        assert word in page.text
    assert "http://wechat.test/webhook" in page.text
