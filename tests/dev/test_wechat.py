"""The simulated WeChat, asked over HTTP."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.processes import serving
from tests.sweeps import swept
from wxauth.server.dev.wechat import (
    ACCOUNT,
    APPS,
    CODE_LIFETIME,
    MOBILE_APP,
    OTHER_KINDS,
    WEBSITE,
    Simulator,
    create_simulator,
)

FIRST, SECOND = APPS
RIGHT = {"appid": FIRST["app_id"], "secret": FIRST["app_secret"], "grant_type": "authorization_code"}

Exchange = Callable[..., dict[str, Any]]
MakeCode = Callable[..., str]


class Timer:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def timer() -> Timer:
    return Timer()


@pytest.fixture(scope="module")
def url(timer: Timer) -> Iterator[str]:
    with serving(create_simulator(Simulator(timer))) as url:
        yield url


@pytest.fixture(scope="module")
def wechat(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, verify=False) as client:
        yield client


@pytest.fixture
def exchange(wechat: httpx.Client) -> Exchange:
    """Exchange a code for its answer's body; any parameter by name, None leaves it out."""

    def code2session(code: str, **parameters: str | None) -> dict[str, Any]:
        given = {"js_code": code, **RIGHT, **parameters}
        answer = wechat.get("/sns/jscode2session", params={k: v for k, v in given.items() if v is not None})
        assert answer.status_code == 200
        return json.loads(answer.content)

    return code2session


@pytest.fixture
def make_code(wechat: httpx.Client) -> MakeCode:
    def post(person: str = "alice", **fields: object) -> str:
        answer = wechat.post("/codes", json={"person": person, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["code"]

    return post


def test_a_login_is_answered_as_text_without_errcode(wechat: httpx.Client) -> None:
    answer = wechat.get("/sns/jscode2session", params={**RIGHT, "js_code": "alice"})
    assert answer.headers["content-type"].startswith("text/plain")
    body = answer.json()
    assert body.keys() == {"openid", "unionid", "session_key"}
    assert len(base64.b64decode(body["session_key"])) == 16
    assert re.fullmatch(r"o[\w-]{27}", body["openid"])
    assert re.fullmatch(r"o[\w-]{27}", body["unionid"])


@pytest.mark.parametrize("name", ["alice", "Alice", "zhang.san_2-b", "张三", "é"])
def test_a_plain_name_is_the_same_person_each_time_and_in_every_app(exchange: Exchange, name: str) -> None:
    once, again = exchange(name), exchange(name)
    assert (again["openid"], again["unionid"]) == (once["openid"], once["unionid"])
    there = exchange(name, appid=SECOND["app_id"], secret=SECOND["app_secret"])
    assert there["unionid"] == once["unionid"]
    assert there["openid"] != once["openid"]


def test_two_names_are_two_people(exchange: Exchange) -> None:
    alice, bob = exchange("alice"), exchange("bob")
    assert alice["openid"] != bob["openid"]
    assert alice["unionid"] != bob["unionid"]


@pytest.mark.parametrize("app", OTHER_KINDS, ids=lambda app: app["kind"])
def test_a_code_of_another_kind_of_app_is_exchanged_by_oauth(
    wechat: httpx.Client, exchange: Exchange, make_code: MakeCode, app: dict[str, str]
) -> None:
    query = {"appid": app["app_id"], "secret": app["app_secret"], "grant_type": "authorization_code"}
    path = "/sns/oauth2/access_token"
    answer = wechat.get(path, params={**query, "code": make_code(app_id=app["app_id"])})
    assert answer.headers["content-type"].startswith("text/plain")
    session = answer.json()
    assert session["unionid"] == exchange("alice")["unionid"]
    assert session.keys() == {"access_token", "expires_in", "refresh_token", "openid", "scope", "unionid"}
    for wrong in (make_code(), make_code(app_id=app["app_id"], busy=0) + "x"):
        assert wechat.get(path, params={**query, "code": wrong}).json()["errcode"] == 40029
    assert exchange(make_code(app_id=app["app_id"]))["errcode"] == 40029
    assert exchange("alice", appid=app["app_id"], secret=app["app_secret"])["errcode"] == 40029
    mini_program = {"appid": RIGHT["appid"], "secret": RIGHT["secret"]}
    assert wechat.get(path, params={**query, **mini_program, "code": "alice"}).json()["errcode"] == 40029


def test_a_snapshot_has_made_up_people_who_share_a_unionid(wechat: httpx.Client, make_code: MakeCode) -> None:
    def person(name: str, snapshot: str | None) -> dict[str, Any]:
        code = make_code(name, app_id=ACCOUNT["app_id"], snapshot=snapshot)
        query = {"appid": ACCOUNT["app_id"], "secret": ACCOUNT["app_secret"], "grant_type": "authorization_code"}
        return wechat.get("/sns/oauth2/access_token", params={**query, "code": code}).json()

    real, alarm = person("alice", None), person("alice", "false_alarm")
    assert (alarm["openid"], alarm["unionid"], alarm["is_snapshotuser"]) == (real["openid"], real["unionid"], 1)
    shown, hidden = person("alice", "shown"), person("bob", "hidden")
    assert (shown["is_snapshotuser"], hidden.get("is_snapshotuser")) == (1, None)
    assert shown["unionid"] == hidden["unionid"] != real["unionid"]
    assert len({shown["openid"], hidden["openid"], real["openid"]}) == 3


def test_every_login_has_a_new_session_key(exchange: Exchange) -> None:
    assert exchange("alice")["session_key"] != exchange("alice")["session_key"]


@pytest.mark.parametrize(
    ("errcode", "changed"),
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
def test_a_mistake_in_a_call_is_reported_by_errcode(
    exchange: Exchange, errcode: int, changed: dict[str, str | None]
) -> None:
    answer = exchange("alice", **changed)
    assert answer["errcode"] == errcode
    assert re.fullmatch(r"[a-z _]+, rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}", answer["errmsg"])


@pytest.mark.parametrize("errcode", [-1, 40029, 40163, 40164, 40226, 45011, 987654321])
def test_any_errcode_can_be_asked_for(exchange: Exchange, errcode: int) -> None:
    answer = exchange(f"errcode-{errcode}")
    assert answer.keys() == {"errcode", "errmsg"}
    assert answer["errcode"] == errcode


def test_a_code_of_wx_login_is_exchanged_for_its_person(exchange: Exchange, make_code: MakeCode) -> None:
    assert exchange(make_code("alice"))["openid"] == exchange("alice")["openid"]


def test_a_code_works_once(exchange: Exchange, make_code: MakeCode) -> None:
    code = make_code()
    assert "openid" in exchange(code)
    assert exchange(code)["errcode"] == 40163


def test_a_code_lives_five_minutes(exchange: Exchange, make_code: MakeCode, timer: Timer) -> None:
    in_time, late = make_code(), make_code()
    timer.now += CODE_LIFETIME - 1
    assert "openid" in exchange(in_time)
    timer.now += 1
    assert exchange(late)["errcode"] == 40029
    make_code()
    assert exchange(late)["errcode"] == 40029


@pytest.mark.parametrize(("app", "minutes"), [(ACCOUNT, 5), (WEBSITE, 10), (MOBILE_APP, 10)])
def test_a_code_of_another_kind_of_app_lives_five_or_ten_minutes(
    wechat: httpx.Client, make_code: MakeCode, timer: Timer, app: dict[str, str], minutes: int
) -> None:
    query = {"appid": app["app_id"], "secret": app["app_secret"], "grant_type": "authorization_code"}
    in_time, late = make_code(app_id=app["app_id"]), make_code(app_id=app["app_id"])
    timer.now += 60 * minutes - 1
    assert "openid" in wechat.get("/sns/oauth2/access_token", params={**query, "code": in_time}).json()
    timer.now += 1
    assert wechat.get("/sns/oauth2/access_token", params={**query, "code": late}).json()["errcode"] == 40029


def test_another_apps_code_is_invalid_and_then_spent(exchange: Exchange, make_code: MakeCode) -> None:
    code = make_code(app_id=SECOND["app_id"])
    assert exchange(code)["errcode"] == 40029
    assert exchange(code, appid=SECOND["app_id"], secret=SECOND["app_secret"])["errcode"] == 40163


def test_a_wrong_secret_does_not_spend_a_code(exchange: Exchange, make_code: MakeCode) -> None:
    code = make_code()
    assert exchange(code, secret="wrong")["errcode"] == 40125
    assert "openid" in exchange(code)


def test_a_busy_answer_leaves_the_code_good(exchange: Exchange, make_code: MakeCode) -> None:
    code = make_code(busy=2)
    assert [exchange(code).get("errcode") for _ in range(4)] == [-1, -1, None, 40163]


def test_a_busy_answer_can_spend_the_code(exchange: Exchange, make_code: MakeCode) -> None:
    code = make_code(busy=2, busy_burns=True)
    assert [exchange(code).get("errcode") for _ in range(2)] == [-1, 40163]


def test_an_app_without_an_open_platform_account_gets_no_unionid(exchange: Exchange, make_code: MakeCode) -> None:
    answer = exchange(make_code("alice", has_unionid=False))
    assert answer.keys() == {"openid", "session_key"}
    assert answer["openid"] == exchange("alice")["openid"]


@swept(
    ("status", "body", "word"),
    [
        (400, b"alice", "JSON"),
        (400, b"", "JSON"),
        (400, b'{"person": "\xff"}', "JSON"),
        (422, b"[]", "dictionary"),
        (422, b"{}", "person"),
        (422, b'{"person": 7}', "person"),
        (422, b'{"person": "two words"}', "person"),
        (422, b'{"person": ""}', "person"),
        (422, b'{"person": "alice", "app_id": "wx0"}', "app_id"),
        (422, b'{"person": "alice", "busy": -1}', "busy"),
        (422, b'{"person": "alice", "bussy": 1}', "bussy"),
    ],
)
def test_a_wrong_request_for_a_code_is_refused_with_the_reason(
    wechat: httpx.Client, status: int, body: bytes, word: str
) -> None:
    answer = wechat.post("/codes", content=body)
    assert answer.status_code == status
    assert word in answer.json()["error"]


def test_slow_is_a_login_after_so_many_seconds(exchange: Exchange) -> None:
    started = time.monotonic()
    assert "openid" in exchange("slow-0.3")
    assert time.monotonic() - started >= 0.3


def test_hang_never_answers(wechat: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        wechat.get("/sns/jscode2session", params={**RIGHT, "js_code": "hang"}, timeout=0.3)


def test_drop_closes_the_connection_without_an_answer(wechat: httpx.Client) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        wechat.get("/sns/jscode2session", params={**RIGHT, "js_code": "drop"})


@pytest.mark.parametrize("code", ["garbage", "html"])
def test_an_answer_can_be_no_json(wechat: httpx.Client, code: str) -> None:
    answer = wechat.get("/sns/jscode2session", params={**RIGHT, "js_code": code})
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("status", [404, 500, 503])
def test_any_http_status_can_be_asked_for(wechat: httpx.Client, status: int) -> None:
    answer = wechat.get("/sns/jscode2session", params={**RIGHT, "js_code": f"status-{status}"})
    assert answer.status_code == status


def test_the_front_page_explains_the_simulator(wechat: httpx.Client) -> None:
    answer = wechat.get("/")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "simulated WeChat" in answer.text
    assert "模拟微信" in answer.text
