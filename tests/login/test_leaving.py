"""Leaving: a person asks to be erased, and proves to be present."""

from typing import Any

import httpx
import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import Stage, leave, set_roles
from wxauth.server.dev.wechat import APPS, MOBILE_APP, CodeRequest

BOTH_WAYS = pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/erasure")])


@BOTH_WAYS
async def test_a_thief_with_a_bearer_and_the_own_code_erases_nobody(stage: Stage, method: str, path: str) -> None:
    alice = await stage.login("alice")
    key = await stage.rows.fetchval("SELECT session_key FROM sessions")
    code = stage.wechat.code_for("mallory")
    problem_of(await leave(stage.client, alice, method=method, path=path, person=code), "wrong_person", 403)
    assert (await stage.me(alice)).status_code == 200
    assert await stage.rows.fetchval("SELECT session_key FROM sessions") == key


@BOTH_WAYS
async def test_a_person_who_is_present_leaves(stage: Stage, method: str, path: str) -> None:
    alice = await stage.login("alice")
    code = stage.wechat.code_for("alice")
    assert (await leave(stage.client, alice, method=method, path=path, person=code)).status_code == 204
    assert await stage.number("users") == 0


async def test_the_code_must_be_of_the_sessions_own_app(stage: Stage) -> None:
    alice = await stage.login("alice", app=OTHER_APP, unionid="union-alice")
    code = stage.wechat.code_for("alice", app_id=APP["app_id"], unionid="union-alice")
    problem_of(await leave(stage.client, alice, person=code), "wrong_person", 403)
    assert stage.wechat.calls[-1]["appid"] == OTHER_APP["app_id"]
    code = stage.wechat.code_for("alice", app_id=OTHER_APP["app_id"], unionid="union-alice")
    assert (await leave(stage.client, alice, person=code)).status_code == 204


@pytest.mark.usefixtures("simulated")
async def test_in_a_mobile_app_the_sdks_code_proves_the_person(stage: Stage) -> None:
    stage = await stage.replica(apps=[*APPS, MOBILE_APP])
    alice = await stage.login("alice", app=MOBILE_APP)
    mallory, code = [
        stage.simulator.make_code(CodeRequest(person=person, app_id=MOBILE_APP["app_id"]))
        for person in ("mallory", "alice")
    ]
    problem_of(await leave(stage.client, alice, person=mallory), "wrong_person", 403)
    assert (await leave(stage.client, alice, person=code)).status_code == 204


async def test_the_only_administrator_is_refused_before_wechat_is_asked(stage: Stage) -> None:
    alice = await stage.login("alice")
    await set_roles(stage.rows, "admin")
    before, code = len(stage.wechat.calls), stage.wechat.code_for("alice")
    problem_of(await leave(stage.client, alice, person=code), "last_admin", 409)
    assert len(stage.wechat.calls) == before
    await set_roles(stage.rows)
    assert (await leave(stage.client, alice, person=code)).status_code == 204, "the code is not spent"


@pytest.mark.parametrize(
    ("wechats", "code", "status"),
    [
        (httpx.Response(200, json={"errcode": 40029}), "invalid_code", 400),
        (httpx.Response(200, json={"errcode": 40163}), "code_used", 400),
        (httpx.Response(500), "wechat_unavailable", 503),
        (httpx.ReadTimeout("slow"), "wechat_timeout", 504),
    ],
)
async def test_nobody_is_erased_where_wechat_does_not_say_who_it_is(
    stage: Stage, wechats: Any, code: str, status: int
) -> None:
    alice = await stage.login("alice")
    stage.wechat.answers(wechats)
    problem_of(await leave(stage.client, alice), code, status)
    assert (await stage.me(alice)).status_code == 200
