"""The phone and the operator see the right error for each of WeChat's errcodes."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from tests.fakes import APP, Secrets
from tests.metrics import misconfigured
from tests.problems import problem_of
from tests.sweeps import swept
from tests.wechat.asking import IDENTITY
from tests.world import Stage, body_of
from wxauth.errors import WeChatMisconfigured
from wxauth.service.build import Timeouts
from wxauth.web.answers import failures_of
from wxauth.wechat.client import BUSY_PAUSES_SECONDS
from wxauth.wechat.errcodes import KNOWN_ERRCODES, Api, errcode_of

CLASS_C = {
    40001: "AppSecret is wrong",
    40013: "WXAUTH_APP_ID",
    40125: "WXAUTH_APP_SECRET",
    40164: "IP whitelist",
    61004: "IP whitelist",
    **dict.fromkeys(range(40230, 40241), "API security"),
    40243: "Unfreeze it",
    41001: "proxy",
    41002: "WXAUTH_APP_ID",
    41004: "WXAUTH_APP_SECRET",
    41008: "proxy",
    48001: "permissions",
    50002: "notices",
    89501: "confirm this server's IP address",
    89503: "Confirm it",
    89506: "IP whitelist",
    89507: "IP whitelist",
}
"""The errcodes that only the operator can fix, each with a word from the advice that the operator gets."""
UNKNOWN = [40003, 40014, 42001, 43104, 61010, 87009, 87014, 1, -2, 999_999_999]
KNOWN = [errcode_of(number, api=Api.CODE2SESSION) for number in sorted(KNOWN_ERRCODES)]


@pytest.mark.slow
@swept(
    ("errcode", "code", "status", "retry_after"),
    [
        (40029, "invalid_code", 400, None),
        (40163, "code_used", 400, None),
        (40226, "wechat_user_blocked", 403, None),
        (45011, "wechat_rate_limited", 429, "60"),
        (45009, "wechat_rate_limited", 429, "3600"),
        *((errcode, "wechat_misconfigured", 502, None) for errcode in CLASS_C),
        *((errcode, "wechat_bad_response", 502, None) for errcode in UNKNOWN),
    ],
)
async def test_an_errcode_is_a_problem_of_its_own(
    stage: Stage, errcode: int, code: str, status: int, retry_after: str | None
) -> None:
    stage.wechat.answers_errcode(errcode)
    for calls, language in enumerate(("en", "zh-CN"), start=len(stage.wechat.calls) + 1):
        answer = await stage.login.ask(headers={"Accept-Language": language})
        assert problem_of(answer, code, status)["wechat_errcode"] == errcode
        assert answer.headers.get("retry-after") == retry_after
        assert answer.headers["content-language"] == language
        assert len(stage.wechat.calls) == calls


@pytest.mark.slow
@swept("errcode", [row.number for row in KNOWN if row.meaning])
async def test_every_errcode_of_wechats_pages_is_explained(stage: Stage, errcode: int) -> None:
    before = len(stage.log_lines())
    stage.wechat.answers_errcode(errcode)
    answer = await stage.login.ask()
    meaning = errcode_of(errcode, api=Api.CODE2SESSION).meaning
    assert meaning is not None
    assert answer.json()["detail"] == f"WeChat returned errcode {errcode}: {meaning}"
    (line,) = (
        line for line in stage.log_lines()[before:] if line["event"] in ("wechat_misconfigured", "wechat_refused")
    )
    assert len(str(line["what_to_change"])) > 20
    assert line["level"] == ("error" if errcode_of(errcode, api=Api.CODE2SESSION).is_for_the_operator else "warning")
    for api in (Api.CODE2SESSION, Api.PHONE_NUMBER):
        known = errcode_of(errcode, api=api)
        for title in (known.meaning, known.remedy):
            assert title is not None
            assert re.search("[一-鿿]", title.translated("zh-CN"))


@swept("errcode", CLASS_C)
async def test_the_log_says_what_the_operator_must_change_and_the_alert_sees_it(stage: Stage, errcode: int) -> None:
    before = await misconfigured(stage.client)
    stage.wechat.answers_errcode(errcode)
    await stage.login.ask()
    line = stage.logged("wechat_misconfigured")[-1]
    assert (line["errcode"], CLASS_C[errcode] in str(line["what_to_change"])) == (errcode, True)
    assert await misconfigured(stage.client) == before + 1


def test_an_errcode_that_only_the_operator_can_end_is_that_at_every_api() -> None:
    kinds = {(number, errcode_of(number, api=api).error) for number in CLASS_C for api in Api}
    assert kinds == {(number, WeChatMisconfigured) for number in CLASS_C}
    lacking = {row.number for row in KNOWN if row.is_for_the_operator} - CLASS_C.keys()
    assert not lacking, f"add {lacking} to CLASS_C of this file, each with a word of its remedy"


@pytest.mark.parametrize("errcode", [40029, 40163, 40164])
def test_a_documented_refusal_has_the_detail_of_a_real_one(errcode: int) -> None:
    refusal = errcode_of(errcode, api=Api.CODE2SESSION).failure()
    content = failures_of(type(refusal))[refusal.status]["content"]["application/problem+json"]
    assert content["examples"][refusal.code]["value"]["detail"] == refusal.detail


def test_an_errcode_of_the_phone_button_means_what_it_says_of_the_button() -> None:
    for errcode in (40003, 40029, 40163, 43104):
        of_phone_codes, of_logins = (
            errcode_of(errcode, api=api).meaning for api in (Api.PHONE_NUMBER, Api.CODE2SESSION)
        )
        assert of_phone_codes is not None
        assert of_phone_codes != of_logins
        assert of_phone_codes in errcode_of(errcode, api=Api.PHONE_NUMBER).failure().detail


async def test_the_address_to_put_on_the_whitelist_is_in_the_log_and_not_in_the_answer(stage: Stage) -> None:
    stage.wechat.answers_errcode(40164, "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist, rid: 1-2-3")
    answer = await stage.login.ask()
    assert "203.0.113.7" not in answer.text
    assert any("203.0.113.7" in str(line.get("errmsg")) for line in stage.log_lines())


@pytest.mark.parametrize("errcode", [40029, 40125])
async def test_an_errmsg_with_code_and_secret_is_logged_without(stage: Stage, secrets: Secrets, errcode: int) -> None:
    code = secrets.add("0a/b+c=" + stage.wechat.code_for("alice"))
    query = str(httpx.QueryParams({"secret": APP["app_secret"], "js_code": code}))
    stage.wechat.answers_errcode(errcode, f"bad {code} {APP['app_secret']} in /sns/jscode2session?{query}, rid: 7")
    await stage.client.post("/v1/login", json={"code": code})
    (errmsg,) = (str(line["errmsg"]) for line in stage.log_lines() if "errmsg" in line)
    assert errmsg == "bad *** *** in /sns/jscode2session?secret=***&js_code=***, rid: 7"


# The errcode "busy", which is the only one after which the same `wx.login` code is sent again.


async def test_a_busy_wechat_is_asked_three_times_at_most(stage: Stage) -> None:
    stage.wechat.answers_errcode(-1)
    began = asyncio.get_running_loop().time()
    answer = await stage.login.ask()
    assert problem_of(answer, "wechat_unavailable", 503)["wechat_errcode"] == -1
    assert int(answer.headers["retry-after"]) > 0
    assert len(stage.wechat.calls) == 3
    assert len({call["js_code"] for call in stage.wechat.calls}) == 1
    assert asyncio.get_running_loop().time() - began >= sum(BUSY_PAUSES_SECONDS)


@pytest.mark.parametrize("busy_answers", [1, 2])
async def test_a_busy_wechat_that_recovers_logs_in(stage: Stage, busy_answers: int) -> None:
    session = stage.wechat.sessions[code := stage.wechat.code_for("alice")]
    busy = httpx.Response(200, json={"errcode": -1, "errmsg": "system error"})
    stage.wechat.answers(*[busy] * busy_answers, httpx.Response(200, json=session))
    assert (await stage.client.post("/v1/login", json={"code": code})).status_code == 200
    assert len(stage.wechat.calls) == busy_answers + 1


async def test_a_call_is_not_retried_if_the_deadline_leaves_no_time(stage: Stage) -> None:
    client = await stage.make(wechat_timeout=1, timeouts=Timeouts(wechat_busy=(1,)))
    stage.wechat.answers_errcode(-1)
    assert problem_of(await stage.login.ask(at=client), "wechat_unavailable", 503)["wechat_errcode"] == -1
    assert len(stage.wechat.calls) == 1


# Valid and invalid responses.


@swept(
    "response",
    [
        httpx.Response(200, json={**IDENTITY, "errcode": 0, "errmsg": "ok"}),
        httpx.Response(200, json={**IDENTITY, "unionid": "", "expires_in": 7200}),
        httpx.Response(200, json={**IDENTITY, "unionid": None}),
        *(
            httpx.Response(200, json={**IDENTITY, "unionid": value})
            for value in ("null", "NULL", "None", "undefined", "nan", "0", "-", "[object Object]", "a b")
        ),
        httpx.Response(200, json=IDENTITY, headers={"Content-Type": "text/plain; charset=gbk"}),
        httpx.Response(200, json=IDENTITY, headers={"Content-Type": ""}),
    ],
)
async def test_an_answer_with_openid_and_session_key_logs_in(stage: Stage, response: httpx.Response) -> None:
    stage.wechat.answers(response)
    answer = body_of(await stage.login.ask())
    assert (answer["user"]["openid"], answer["user"]["unionid"]) == ("openid-alice", None)


NO_ERRCODES: list[object] = ["0", "40029", None, 0.0, True, [], 10**400]


@pytest.mark.slow
@swept(
    "body",
    [
        {},
        {"openid": "openid-alice"},
        {"session_key": IDENTITY["session_key"]},
        *({**IDENTITY, "openid": value} for value in ("", None, 1, ["o"], "o" * 129, "öpenid", "open id\n", "null")),
        *({**IDENTITY, "session_key": value} for value in ("", None, 1, "k" * 129)),
        *({**IDENTITY, "unionid": value} for value in (1, ["u"], {"u": 1}, "u" * 129, "u\0")),
        *({**IDENTITY, "errcode": value} for value in NO_ERRCODES),
        {"errcode": 0, "errmsg": "ok"},
        [],
        [IDENTITY],
        "ok",
        None,
        0,
        httpx.Response(200, content=b"<html>Welcome to the hotel"),
        httpx.Response(200, content=b'{"openid": "\xff\xfe'),
        httpx.Response(200, content=b"[" * 60_000),
        httpx.Response(200, content=b"9" * 60_000),
        httpx.Response(404, json=IDENTITY),
        httpx.Response(302, json=IDENTITY, headers={"Location": "/elsewhere?js_code=x"}),
    ],
)
async def test_an_answer_without_usable_openid_and_session_key_makes_no_sense(stage: Stage, body: object) -> None:
    before = len(stage.wechat.calls)
    stage.wechat.answers(body if isinstance(body, httpx.Response) else httpx.Response(200, json=body))
    answer = await stage.login.ask()
    assert "wechat_errcode" not in problem_of(answer, "wechat_bad_response", 502)
    assert len(stage.wechat.calls) == before + 1


@pytest.mark.parametrize("field", ["openid", "session_key", "unionid"])
async def test_the_detail_names_the_field_that_is_malformed(stage: Stage, field: str) -> None:
    stage.wechat.answers(httpx.Response(200, json={**IDENTITY, field: "with\na line break"}))
    problem = problem_of(await stage.login.ask(), "wechat_bad_response", 502)
    assert {name for name in ("openid", "session_key", "unionid") if name in problem["detail"]} == {field}


@swept(
    ("failure", "code", "status", "calls"),
    [
        (httpx.Response(500), "wechat_unavailable", 503, 1),
        (httpx.Response(503, json=IDENTITY), "wechat_unavailable", 503, 1),
        (httpx.ReadTimeout("late"), "wechat_timeout", 504, 1),
        (httpx.ReadError("lost"), "wechat_unavailable", 503, 1),
        (httpx.WriteError("lost"), "wechat_unavailable", 503, 1),
        (httpx.RemoteProtocolError("cut off"), "wechat_unavailable", 503, 1),
        (httpx.DecodingError("too large"), "wechat_bad_response", 502, 1),
        (httpx.ConnectError("refused"), "wechat_unavailable", 503, 2),
        (httpx.ConnectTimeout("late"), "wechat_unavailable", 503, 2),
    ],
)
async def test_only_a_failed_connect_is_tried_again(
    stage: Stage, failure: Any, code: str, status: int, calls: int
) -> None:
    before = len(stage.wechat.calls)
    stage.wechat.answers(*[failure] * calls)
    answer = await stage.login.ask()
    problem_of(answer, code, status)
    assert answer.headers.get("retry-after") == ("3" if status in (503, 504) else None)
    assert len(stage.wechat.calls) == before + calls
