"""The simulated WeChat's calls behind the login, as its pages describe them."""

import json
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
from wxauth.server.dev.wechat import APPS, Simulator, create_simulator, phone_number_of

FIRST, SECOND = APPS
LIFETIME = 7200
OVERLAP = 300
TODAY = 1_800_000_000.0
"""15:00 in Beijing."""

Call = Callable[..., Awaitable[dict[str, Any]]]
Control = Callable[..., Awaitable[dict[str, Any]]]


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
def control(wechat: httpx.AsyncClient) -> Control:
    """Call the simulator's own API, which WeChat does not have."""

    async def post(path: str, **wanted: object) -> dict[str, Any]:
        answer = await wechat.post(path, json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


@pytest.fixture
def stable_token(wechat: httpx.AsyncClient) -> Call:
    """Ask for the first app's token; any field by name, None leaves it out."""

    async def post(**fields: object) -> dict[str, Any]:
        wanted = {"grant_type": "client_credential", "appid": FIRST["app_id"], "secret": FIRST["app_secret"]}
        given = {name: value for name, value in {**wanted, **fields}.items() if value is not None}
        answer = await wechat.post("/cgi-bin/stable_token", json=given)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        return answer.json()

    return post


@pytest.fixture
def log_in(wechat: httpx.AsyncClient) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def exchange(code: str = "alice", app: dict[str, str] = FIRST) -> dict[str, Any]:
        query = {"appid": app["app_id"], "secret": app["app_secret"], "grant_type": "authorization_code"}
        return (await wechat.get("/sns/jscode2session", params={**query, "js_code": code})).json()

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


def errcode(answer: dict[str, Any]) -> int:
    return answer.get("errcode", 0)


PHONE = "/wxa/business/getuserphonenumber"
CHECK = "/wxa/checksession"
RESET = "/wxa/resetusersessionkey"
RISK = "/wxa/getuserriskrank"
TEXT = "/wxa/msg_sec_check"


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
    assert errcode((await wechat.post("/cgi-bin/stable_token", content=body)).json()) == 47001


@pytest.mark.parametrize(("token", "expected"), [("", 41001), ("nonsense", 40014)])
@pytest.mark.parametrize(("path", "body"), [(PHONE, {}), (CHECK, None), (RESET, None), (RISK, {}), (TEXT, {})])
async def test_every_other_call_requires_an_access_token(
    call: Call, path: str, body: object, token: str, expected: int
) -> None:
    assert errcode(await call(path, token=token, body=body)) == expected


# Phone numbers.


async def test_a_phone_code_is_exchanged_for_the_number_of_its_person(
    call: Call, control: Control, timer: Timer
) -> None:
    code = (await control("/phone-codes", person="alice"))["code"]
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
async def test_a_number_can_be_given(call: Call, control: Control, phone: str, parts: tuple[str, str, str]) -> None:
    codes = [(await control("/phone-codes", person="alice", phone=phone))["code"]]
    if phone != "no number":
        codes += [f"phone-{phone}"] * 2
    for code in codes:
        info = (await call(PHONE, body={"code": code}))["phone_info"]
        assert (info["phoneNumber"], info["purePhoneNumber"], info["countryCode"]) == parts


async def test_a_plain_phone_code_is_no_login_code(log_in: Call) -> None:
    assert errcode(await log_in("phone-13800138000")) == 40029
    assert "openid" in await log_in("phone-anna")


async def test_the_country_can_be_a_number(call: Call, control: Control) -> None:
    await control("/accounts", country_code="number")
    assert (await call(PHONE, body={"code": "phone-13800138000"}))["phone_info"]["countryCode"] == 86


async def test_the_watermark_can_be_another_apps(call: Call, control: Control) -> None:
    code = (await control("/phone-codes", person="alice", watermark_app_id="wx0"))["code"]
    assert (await call(PHONE, body={"code": code}))["phone_info"]["watermark"]["appid"] == "wx0"


async def test_a_phone_code_works_once_for_five_minutes(call: Call, control: Control, timer: Timer) -> None:
    used, late = [(await control("/phone-codes", person="alice"))["code"] for _ in range(2)]
    assert [errcode(await call(PHONE, body={"code": used})) for _ in range(2)] == [0, 40163]
    timer.now += 300
    assert errcode(await call(PHONE, body={"code": late})) == 40029


async def test_each_kind_of_code_is_good_for_its_own_call(call: Call, control: Control, log_in: Call) -> None:
    login_code, phone_code = [(await control(path, person="alice"))["code"] for path in ("/codes", "/phone-codes")]
    assert errcode(await log_in(phone_code)) == 40029
    assert errcode(await call(PHONE, body={"code": login_code})) == 40029
    assert errcode(await call(PHONE, body={"code": "alice"})) == 40029
    assert "openid" in await log_in(login_code)
    assert errcode(await call(PHONE, body={"code": phone_code})) == 0


async def test_another_apps_phone_code_is_refused_and_then_spent(call: Call, control: Control) -> None:
    code = (await control("/phone-codes", person="alice", app_id=SECOND["app_id"]))["code"]
    assert errcode(await call(PHONE, body={"code": code})) == 40013
    assert errcode(await call(PHONE, body={"code": code}, app=SECOND)) == 40163


@pytest.mark.parametrize(("burns", "expected"), [(False, [-1, 0, 40163]), (True, [-1, 40163, 40163])])
async def test_a_busy_answer_may_spend_a_phone_code(
    call: Call, control: Control, burns: bool, expected: list[int]
) -> None:
    code = (await control("/phone-codes", person="alice", busy=1, busy_burns=burns))["code"]
    assert [errcode(await call(PHONE, body={"code": code})) for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("on", {"alice": 0, "bob": 43104, "alice there": 40003, "nobody": 40003}),
        ("ignored", {"alice": 0, "bob": 0, "alice there": 0, "nobody": 0}),
        ("refused", {"alice": 47001, "bob": 47001, "alice there": 47001, "nobody": 47001}),
    ],
)
async def test_the_openid_is_checked_as_the_account_is_configured(
    call: Call, control: Control, log_in: Call, switch: str, expected: dict[str, int]
) -> None:
    await control("/accounts", openid_check=switch)
    openids = {name: (await log_in(name))["openid"] for name in ("alice", "bob")}
    openids |= {"alice there": (await log_in("alice", SECOND))["openid"], "nobody": "nonsense"}
    found = {}
    for name, openid in openids.items():
        code = (await control("/phone-codes", person="alice"))["code"]
        found[name] = errcode(await call(PHONE, body={"code": code, "openid": openid}))
    assert found == expected


@swept(("body", "expected"), [({}, 41008), ({"code": 7}, 47001), ({"code": "errcode-45011"}, 45011), (b"{", 47001)])
async def test_a_wrong_request_for_a_number_is_refused(call: Call, body: object, expected: int) -> None:
    assert errcode(await call(PHONE, body=body)) == expected


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


async def test_data_is_sealed_with_the_key_of_the_last_login(control: Control, log_in: Call, timer: Timer) -> None:
    await log_in()
    session = await log_in()
    sealed = await control("/encrypted-data", person="alice", data={"步数": 7})
    key, iv = b64decode(session["session_key"]), b64decode(sealed["iv"])
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    opened = decryptor.update(b64decode(sealed["encryptedData"])) + decryptor.finalize()
    watermark = {"timestamp": int(timer.now), "appid": FIRST["app_id"]}
    assert json.loads(opened[: -opened[-1]]) == {"步数": 7, "watermark": watermark}


async def test_nothing_is_sealed_for_a_person_who_has_not_logged_in(wechat: httpx.AsyncClient) -> None:
    answer = await wechat.post("/encrypted-data", json={"person": "alice", "data": {}})
    assert answer.status_code == 422
    assert "logged in" in answer.json()["error"]


# Risk and texts.


@pytest.mark.parametrize(("person", "rank"), [("alice", 0), ("risky-0", 0), ("risky-4", 4), ("risky-5", 0)])
async def test_a_persons_name_is_their_risk(call: Call, log_in: Call, person: str, rank: int) -> None:
    openid = (await log_in(person))["openid"]
    answer = await call(RISK, body={"appid": FIRST["app_id"], "openid": openid, "scene": 0, "client_ip": "203.0.113.7"})
    assert answer.keys() == {"errcode", "errmsg", "risk_rank", "unoin_id"}
    assert (answer["errcode"], answer["risk_rank"]) == (0, rank)


@swept(
    ("changed", "expected"),
    [({"appid": SECOND["app_id"]}, 40013), ({"scene": 2}, 47001), ({"client_ip": ""}, 47001), ({"openid": ""}, 40003)],
)
async def test_a_wrong_question_about_a_risk_is_refused(
    call: Call, log_in: Call, changed: dict[str, Any], expected: int
) -> None:
    body = {"appid": FIRST["app_id"], "openid": (await log_in())["openid"], "scene": 0, "client_ip": "203.0.113.7"}
    assert errcode(await call(RISK, body={**body, **changed})) == expected


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        ("隔壁老王", ("pass", 100)),
        ("so risky", ("risky", 20006)),
        ("违规内容", ("risky", 20006)),
        ("review me", ("review", 21000)),
        ("可疑", ("review", 21000)),
        ("back\\ulash", ("pass", 100)),
    ],
)
async def test_a_text_is_judged_by_its_words(call: Call, log_in: Call, content: str, verdict: tuple[str, int]) -> None:
    openid = (await log_in())["openid"]
    answer = await call(TEXT, body={"version": 2, "scene": 1, "openid": openid, "content": content})
    assert answer.keys() == {"errcode", "errmsg", "detail", "trace_id", "result"}
    assert (answer["result"]["suggest"], answer["result"]["label"]) == verdict


async def test_a_nickname_is_checked_like_any_text(call: Call, log_in: Call) -> None:
    body = {"version": 2, "scene": 1, "openid": (await log_in())["openid"], "content": "fine", "nickname": "risky"}
    assert (await call(TEXT, body=body))["result"]["suggest"] == "risky"


@swept("changed", [{"version": 1}, {"scene": 0}, {"content": ""}, {"content": None}])
async def test_a_wrong_question_about_a_text_is_refused(call: Call, log_in: Call, changed: dict[str, Any]) -> None:
    body = {"version": 2, "scene": 1, "openid": (await log_in())["openid"], "content": "fine"}
    assert errcode(await call(TEXT, body={**body, **changed})) == 47001


async def test_a_text_must_not_be_escaped(call: Call, log_in: Call) -> None:
    body = {"version": 2, "scene": 1, "openid": (await log_in())["openid"], "content": "王"}
    assert errcode(await call(TEXT, body=json.dumps(body).encode())) == 47001


async def test_no_verdict_is_given_about_a_person_absent_for_two_hours(call: Call, log_in: Call, timer: Timer) -> None:
    openid = (await log_in())["openid"]
    bodies = {
        RISK: {"appid": FIRST["app_id"], "openid": openid, "scene": 0, "client_ip": "203.0.113.7"},
        TEXT: {"version": 2, "scene": 1, "openid": openid, "content": "fine"},
    }
    timer.now += 2 * 3600 - 1
    assert [errcode(await call(path, body=body)) for path, body in bodies.items()] == [0, 0]
    timer.now += 1
    assert [errcode(await call(path, body=body)) for path, body in bodies.items()] == [61010, 61010]


# The state of an app's account at WeChat.


async def test_an_address_that_is_not_on_the_list_gets_no_token(stable_token: Call, control: Control) -> None:
    await control("/accounts", is_whitelisted=False)
    answer = await stable_token()
    assert errcode(answer) == 40164
    assert "127.0.0.1" in answer["errmsg"]


async def test_a_frozen_secret_is_good_for_nothing(stable_token: Call, control: Control, log_in: Call) -> None:
    await control("/accounts", is_frozen=True)
    assert errcode(await stable_token()) == errcode(await log_in()) == 40243
    assert "openid" in await log_in("alice", SECOND)


async def test_an_api_that_an_account_may_not_use_is_denied(call: Call, control: Control) -> None:
    await control("/accounts", denied=["getuserphonenumber"])
    assert errcode(await call(PHONE, body={"code": "phone-13800138000"})) == 48001
    assert errcode(await call(PHONE, body={"code": "phone-13800138000"}, app=SECOND)) == 0


async def test_an_app_can_be_without_an_open_platform_account(control: Control, log_in: Call) -> None:
    await control("/accounts", has_unionids=False)
    assert "unionid" not in await log_in()
    await control("/accounts", has_unionids=True)
    assert "unionid" in await log_in()


@pytest.mark.parametrize(
    ("api", "path", "expected"), [("getuserriskrank", RISK, 9410009), ("msg_sec_check", TEXT, 45009)]
)
async def test_a_quota_is_a_days(
    call: Call, control: Control, timer: Timer, api: str, path: str, expected: int
) -> None:
    await control("/accounts", daily_quota={api: 2})
    codes = [errcode(await call(path, body={})) for _ in range(3)]
    assert expected not in codes[:2]
    assert codes[2] == expected
    timer.now += 9 * 3600
    assert errcode(await call(path, body={})) != expected


async def test_a_person_logs_in_a_hundred_times_a_minute(control: Control, log_in: Call, timer: Timer) -> None:
    async def log_in_anew(person: str) -> int:
        return errcode(await log_in((await control("/codes", person=person))["code"]))

    assert [await log_in_anew("alice") for _ in range(101)] == [0] * 100 + [45011]
    assert await log_in_anew("bob") == 0
    timer.now += 60
    assert await log_in_anew("alice") == 0


async def test_fields_of_an_account_that_are_not_named_stay(control: Control) -> None:
    await control("/accounts", is_frozen=True)
    account = await control("/accounts", is_whitelisted=False)
    assert (account["is_frozen"], account["is_whitelisted"]) == (True, False)


# Faults.


async def test_a_fault_strikes_as_often_as_was_asked_for(stable_token: Call, control: Control) -> None:
    await control("/faults", api="stable_token", errcode=45009, times=2)
    assert [errcode(await stable_token()) for _ in range(3)] == [45009, 45009, 0]


async def test_faults_strike_one_after_the_other(stable_token: Call, control: Control) -> None:
    for number in (40243, 89503):
        await control("/faults", api="stable_token", errcode=number)
    assert [errcode(await stable_token()) for _ in range(3)] == [40243, 89503, 0]


async def test_a_fault_can_be_one_apps(stable_token: Call, call: Call, control: Control) -> None:
    for api in ("stable_token", "getuserphonenumber"):
        await control("/faults", api=api, app_id=SECOND["app_id"], errcode=-1)
    body = {"code": "phone-13800138000"}
    second = {"appid": SECOND["app_id"], "secret": SECOND["app_secret"]}
    assert [errcode(await stable_token()), errcode(await stable_token(**second))] == [0, -1]
    assert [errcode(await call(PHONE, body=body)), errcode(await call(PHONE, body=body, app=SECOND))] == [0, -1]


async def test_a_fault_for_ever_can_be_taken_back(
    wechat: httpx.AsyncClient, stable_token: Call, control: Control
) -> None:
    await control("/faults", api="stable_token", errcode=-1, times=None)
    assert [errcode(await stable_token()) for _ in range(3)] == [-1] * 3
    assert (await wechat.delete("/faults")).status_code == 204
    assert errcode(await stable_token()) == 0


@pytest.mark.parametrize(("work_is_done", "expected"), [(False, 0), (True, 40163)])
async def test_the_work_can_be_done_where_only_the_answer_goes_wrong(
    call: Call, control: Control, work_is_done: bool, expected: int
) -> None:
    code = (await control("/phone-codes", person="alice"))["code"]
    await control("/faults", api="getuserphonenumber", errcode=-1, work_is_done=work_is_done)
    assert [errcode(await call(PHONE, body={"code": code})) for _ in range(2)] == [-1, expected]


async def test_an_answer_can_be_no_json_or_another_status(wechat: httpx.AsyncClient, control: Control) -> None:
    for kind in ("garbage", "html"):
        await control("/faults", api="getuserriskrank", **{kind: True})
        with pytest.raises(json.JSONDecodeError):
            (await wechat.post(RISK)).json()
    await control("/faults", api="getuserriskrank", status=503)
    assert (await wechat.post(RISK)).status_code == 503


def test_an_answer_can_be_slow_or_missing() -> None:
    with serving(create_simulator()) as url, httpx.Client(base_url=url, timeout=PATIENCE, verify=False) as wechat:
        for kind, error in (("slow", httpx.ReadTimeout), ("hang", httpx.ReadTimeout), ("drop", httpx.TransportError)):
            fault = {"api": "checksession", kind: PATIENCE if kind == "slow" else True}
            assert wechat.post("/faults", json=fault).status_code == 200
            with pytest.raises(error):
                wechat.get(CHECK, timeout=0.2 if error is httpx.ReadTimeout else PATIENCE)
        wechat.post("/faults", json={"api": "checksession", "slow": 0.05})
        assert errcode(wechat.get(CHECK).json()) == 41001


@pytest.mark.parametrize(
    ("path", "wanted", "word"),
    [
        ("/faults", {"api": "stable_token"}, "one of errcode"),
        ("/faults", {"api": "stable_token", "errcode": 1, "hang": True}, "one of errcode"),
        ("/faults", {"api": "stable_token", "hang": False}, "hang"),
        ("/faults", {"api": "token", "errcode": 1}, "api"),
        ("/faults", {"errcode": 1}, "api"),
        ("/faults", {"api": "stable_token", "errcode": 1, "times": 0}, "times"),
        ("/faults", {"api": "stable_token", "status": 99}, "status"),
        ("/phone-codes", {"person": "two words"}, "person"),
        ("/accounts", {"app_id": "wx0"}, "app_id"),
        ("/accounts", {"denied": ["all"]}, "denied"),
        ("/accounts", {"frozen": True}, "frozen"),
    ],
)
async def test_a_wrong_control_request_is_refused_with_the_reason(
    wechat: httpx.AsyncClient, path: str, wanted: dict[str, Any], word: str
) -> None:
    answer = await wechat.post(path, json=wanted)
    assert answer.status_code == 422
    assert word in answer.json()["error"]


async def test_the_front_page_mentions_every_control(wechat: httpx.AsyncClient) -> None:
    page = (await wechat.get("/")).text
    routes = [
        PHONE,
        CHECK,
        RESET,
        RISK,
        TEXT,
        "/cgi-bin/stable_token",
        "/sns/jscode2session",
        "/sns/oauth2/access_token",
    ]
    for word in (*routes, "/phone-codes", "/encrypted-data", "/faults", "/accounts", "phone-13800138000", "risky-4"):
        assert word in page
    assert "http://wechat.test/webhook" in page
