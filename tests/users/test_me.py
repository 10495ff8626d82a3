"""`/v1/me` and its sessions work as the guides describe them."""

import json
from time import process_time
from uuid import uuid4

import asyncpg
import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import BESIDE_LOGINS, Body, Stage, bearer, behind, body_of, leave, recorded
from wxauth.sessions.devices import describe_device
from wxauth.users.schemas import MAX_NICKNAME

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.44(0x18002c2d) NetType/WIFI Language/zh_CN"
)
ANDROID = (
    "Mozilla/5.0 (Linux; Android 12; M2102K1AC Build/SKQ1; wv) AppleWebKit/537.36 Chrome/107 Mobile Safari/537.36 "
    "MicroMessenger/8.0.38.2400(0x28002637) WeChat/arm64 Weixin NetType/WIFI MiniProgramEnv/android"
)


GREY = "thirdwx.qlogo.cn/mmopen/vi_32/POgEwh4mIHO4nibH0KlMECNjjGxQUq24ZEaGT4poC6icRiccVGKSyXwibcPq4BWmiaIGuG1icwx"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PATCH", "POST"])
@pytest.mark.parametrize(
    ("change", "nickname", "avatar_url"),
    [
        ({"unknown": 1}, "Alice", "https://a.example/1.png"),
        ({"nickName": "微信用户", "avatarUrl": f"http://{GREY}/132"}, "Alice", "https://a.example/1.png"),
        ({"nickName": "\u3164"}, None, "https://a.example/1.png"),
        ({"nickname": "Alicia"}, "Alicia", "https://a.example/1.png"),
        ({"nickName": " 小明 "}, "小明", "https://a.example/1.png"),
        ({"userName": None}, None, "https://a.example/1.png"),
        ({"nickname": ""}, None, "https://a.example/1.png"),
        ({"nickname": "  "}, None, "https://a.example/1.png"),
        ({"avatarUrl": "https://a.example/2.png"}, "Alice", "https://a.example/2.png"),
        ({"avatar_url": None, "nickname": None, "roles": ["admin"]}, None, None),
    ],
)
async def test_a_change_sets_what_it_names_and_clears_what_is_empty(
    stage: Stage, method: str, change: Body, nickname: str | None, avatar_url: str | None
) -> None:
    answer = await stage.login(nickname="Alice", avatar_url="https://a.example/1.png")
    changed = body_of(await stage.client.request(method, "/v1/me", json=change, headers=bearer(answer)))
    assert changed == {**answer["user"], "nickname": nickname, "avatar_url": avatar_url}
    assert (await stage.me(answer)).json() == changed


@swept(
    ("change", "field", "title"),
    [
        ({}, "body", "请求无效。"),
        ({"nickName": "x" * (MAX_NICKNAME + 1)}, "nickName", "此昵称不可用，请换一个。"),
        ({"nickname": ["x"], "avatar_url": "x"}, "nickname", "此昵称不可用，请换一个。"),
        ({"avatarUrl": "http://wx.qlogo.cn/a/0"}, "avatarUrl", "请求无效。"),
        ({"avatar_url": "https://a.example/\ud83d"}, "avatar_url", "请求无效。"),
        ({"phone": "13800138000"}, "phone", "请求无效。"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "POST"])
async def test_a_wrong_change_names_the_field_and_what_the_person_can_change(
    stage: Stage, method: str, change: Body, field: str, title: str
) -> None:
    headers = {**bearer(await stage.login()), "Accept-Language": "zh-CN"}
    answer = await stage.client.request(method, "/v1/me", content=json.dumps(change), headers=headers)
    problem = problem_of(answer, "invalid_request", 422)
    assert (problem["errors"][0]["field"], problem["title"]) == (field, title)
    assert ("POST /v1/me/phone with the code of the button" in problem["detail"]) == (field == "phone")
    assert (f"at most {MAX_NICKNAME} characters" in problem["detail"]) == (field == "nickName")


async def test_refresh_and_logout_take_the_tutorials_name_of_the_token(stage: Stage) -> None:
    login = await stage.login()
    refreshed = await stage.client.post("/v1/refresh", json={"refreshToken": login["refresh_token"]})
    token = body_of(refreshed)["refresh_token"]
    assert (await stage.client.post("/v1/logout", json={"refreshToken": token})).status_code == 204
    problem_of(await stage.refresh(token), "session_revoked", 400)


async def test_an_erased_person_is_gone_everywhere(stage: Stage) -> None:
    answer, other = await stage.login("alice"), await stage.login("bob")
    await stage.refresh(answer)
    stage.clock.advance(minutes=2)
    await stage.refresh(answer)  # records an event with an IP address
    stolen, answer = answer["session_id"], await stage.login("alice")
    user_id = answer["user"]["id"]
    assert (await leave(stage.client, answer)).status_code == 204
    problem_of(await stage.me(answer), "invalid_token", 401)
    problem_of(await stage.refresh(answer), "invalid_refresh_token", 400)
    for table in ("users", "identities", "sessions"):
        assert await stage.number(table) == 1
    assert await recorded(stage.rows, "type, actor, user_id, ip, data", BESIDE_LOGINS) == [
        ("session.ended", "system", user_id, None, {"reason": "reused", "session_ids": [stolen]}),
        ("session.ended", user_id, user_id, None, {"reason": "erased", "session_ids": [answer["session_id"]]}),
        ("user.erased", user_id, user_id, None, {"former_ids": []}),
    ]
    again = await stage.login("alice")
    assert again["is_new_user"] is True
    assert again["user"]["id"] != user_id
    assert (await stage.me(other)).status_code == 200


@pytest.mark.requirement("asvs-16.4.2")
async def test_the_audit_trail_cannot_be_changed(stage: Stage) -> None:
    await leave(stage.client, await stage.login())
    for statement in ("DELETE FROM events", "UPDATE events SET actor = 'nobody'", "UPDATE events SET type = 'other'"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await stage.rows.execute(statement)


async def test_sessions_show_where_i_am_logged_in(stage: Stage) -> None:
    answers = []
    for app, user_agent in ((APP, IPHONE), (OTHER_APP, ANDROID)):
        answers.append(await stage.login(app=app, unionid="union-alice", headers={"User-Agent": user_agent}))
        stage.clock.advance(minutes=5)
    listed = (await stage.client.get("/v1/me/sessions", headers=bearer(answers[1]))).json()
    assert listed["next_cursor"] is None
    assert [(item["id"], item["app_id"], item["device"], item["ip"], item["current"]) for item in listed["items"]] == [
        (answers[1]["session_id"], OTHER_APP["app_id"], "Android 12, WeChat 8.0.38", "127.0.0.1", True),
        (answers[0]["session_id"], "wxtest0000000000a1", "iOS 17.1, WeChat 8.0.44", "127.0.0.1", False),
    ]
    assert listed["items"][1]["created_at"] == "2026-11-20T08:00:00Z"
    assert listed["items"][1]["expires_at"] == "2026-12-20T08:00:00Z"
    stage.clock.advance(days=30)
    ended, current = await stage.login(), await stage.login()
    await stage.client.post("/v1/logout", json={"refresh_token": ended["refresh_token"]})
    listed = (await stage.client.get("/v1/me/sessions", headers=bearer(current))).json()
    assert [item["id"] for item in listed["items"]] == [current["session_id"]], "neither ended nor expired"


@pytest.mark.requirement("asvs-7.4.3")
async def test_logging_out_everywhere_else_keeps_this_session(stage: Stage) -> None:
    mine, others, bob = await stage.login(), [await stage.login(), await stage.login()], await stage.login("bob")
    for _ in range(2):
        assert (await stage.client.delete("/v1/me/sessions", headers=bearer(mine))).status_code == 204
    for other in others:
        problem_of(await stage.me(other), "invalid_token", 401)
    for kept in (mine, bob):
        assert (await stage.me(kept)).status_code == 200
    ended = {"reason": "signed_out_elsewhere", "session_ids": [other["session_id"] for other in others]}
    told = [("session.ended", mine["user"]["id"], ended)]
    assert await recorded(stage.rows, "type, user_id, data", BESIDE_LOGINS) == told


@pytest.mark.parametrize("which", ["other", "own"])
@pytest.mark.requirement("asvs-7.5.2")
async def test_logging_out_on_one_device_ends_that_session(stage: Stage, which: str) -> None:
    sessions = {"own": await stage.login(), "other": await stage.login()}
    path = f"/v1/me/sessions/{sessions[which]['session_id']}"
    assert (await stage.client.delete(path, headers=bearer(sessions["own"]))).status_code == 204
    problem_of(await stage.me(sessions[which]), "invalid_token", 401)
    if which == "other":
        assert (await stage.client.delete(path, headers=bearer(sessions["own"]))).status_code == 204


@pytest.mark.requirement("asvs-8.2.2")
async def test_the_sessions_of_others_are_not_mine_to_end(stage: Stage) -> None:
    mine, bob = await stage.login(), await stage.login("bob")
    for session_id in (bob["session_id"], uuid4()):
        problem_of(await stage.client.delete(f"/v1/me/sessions/{session_id}", headers=bearer(mine)), "not_found", 404)
    assert (await stage.me(bob)).status_code == 200


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (None, None),
        ("", None),
        ("curl/8.5", None),
        (IPHONE, "iOS 17.1, WeChat 8.0.44"),
        (ANDROID, "Android 12, WeChat 8.0.38"),
        (IPHONE.replace("iPhone; CPU iPhone OS", "iPad; CPU OS"), "iPadOS 17.1, WeChat 8.0.44"),
        ("Mozilla/5.0 (Phone; OpenHarmony 5.0) MicroMessenger/1.0.6.3", "HarmonyOS 5.0, WeChat 1.0.6"),
        ("Mozilla/5.0 (Windows NT 10.0; WOW64) MicroMessenger/7.0.20.1781 WindowsWechat", "Windows, WeChat"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) MicroMessenger/6.8.0 MacWechat", "macOS, WeChat"),
        (
            "Mozilla/5.0 (X11; Linux x86_64) MicroMessenger/7.0.20.1781(0x6700143B) MiniProgramEnv/Windows "
            "WindowsWechat/WMPF WindowsWechat(0x63090a13) UnifiedPCLinuxWechat(0xf2741107)",
            "Linux, WeChat",
        ),
        (IPHONE + " wechatdevtools/1.06.2401020", "WeChat DevTools, WeChat 8.0.44"),
    ],
)
def test_a_device_is_described_from_its_user_agent(user_agent: str | None, device: str | None) -> None:
    assert describe_device(user_agent) == device


@pytest.mark.parametrize("user_agent", ["iPad" * 2048, "iPad" * 1024 + " OS " * 1024, "Version/" + "1" * 8192])
def test_no_user_agent_takes_quadratic_time_to_be_described(user_agent: str) -> None:
    started = process_time()
    for _ in range(10):  # a quadratic one takes at least 0.05 s, and a list has 200 sessions
        describe_device(user_agent)
    assert process_time() - started < 0.2


async def test_a_change_that_comes_after_an_erasure_is_refused(stage: Stage) -> None:
    changing = stage.change(await stage.login(), method="POST", nickname="Alice")
    problem_of(await behind(stage.rows, changing, "DELETE FROM users"), "invalid_token", 401)


@pytest.mark.oldest_postgres
async def test_my_identities_are_listed_with_the_kind_of_their_app(stage: Stage) -> None:
    bodies = []
    for app in (APP, OTHER_APP):
        bodies.append(await stage.login(app=app, unionid="union-alice"))
        stage.clock.advance(minutes=1)
    await stage.login("bob")
    await stage.rows.execute(
        "INSERT INTO identities (app_id, openid, user_id, created_at)"
        " SELECT 'wx-of-long-ago', 'openid-of-long-ago', id, '2020-01-01Z' FROM users WHERE unionid IS NOT NULL"
    )
    items = (await stage.client.get("/v1/me/identities", headers=bearer(bodies[-1]))).json()["items"]
    assert [(item["app_id"], item["kind"], item["openid"]) for item in items] == [
        ("wx-of-long-ago", None, "openid-of-long-ago"),
        (APP["app_id"], "mini_program", bodies[0]["user"]["openid"]),
        (OTHER_APP["app_id"], "mini_program", bodies[1]["user"]["openid"]),
    ]
    assert [item["created_at"] for item in items][:2] == ["2020-01-01T00:00:00Z", bodies[0]["user"]["created_at"]]
    assert all(item.keys() == {"app_id", "kind", "openid", "created_at"} for item in items)
