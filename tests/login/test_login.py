"""`POST /v1/login` works as the guides describe it."""

import json
from datetime import timedelta
from hashlib import sha256
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from tests.database_proxy import Proxy
from tests.fakes import APP, OTHER_APP, WeChatByRespx
from tests.headers import bearer
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Body, Client, LogIn, LogLines, Stage, body_of
from wxauth.core.sealing import CannotOpen, Sealer, session_key_context
from wxauth.login.schemas import TokenAnswer
from wxauth.users.schemas import MAX_NICKNAME, UserAnswer


@pytest.mark.requirement("asvs-14.2.2")
async def test_the_answer_matches_the_documentation(client: Client, wechat: WeChatByRespx) -> None:
    answer = await client.post("/v1/login", json={"code": wechat.code_for("alice")})
    TypeAdapter(TokenAnswer).validate_json(answer.content, strict=True)
    assert answer.json().keys() == TokenAnswer.__required_keys__
    assert answer.json()["user"].keys() == UserAnswer.__required_keys__
    lives = [answer.json()[name] for name in ("token_type", "expires_in", "refresh_expires_in", "is_new_user")]
    assert lives == ["Bearer", 900, 2592000, True]
    assert UUID(answer.json()["user"]["id"]).version == 7
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("wxauth-login")
@pytest.mark.parametrize("profile", [{}, {"nickname": "Alice", "avatar_url": "https://a.example/1.png"}])
async def test_a_returning_user_costs_one_call_of_wechat_and_one_round_trip(
    stage: Stage, proxy: Proxy, profile: dict[str, str]
) -> None:
    client = await stage.make(database_url=proxy.url)
    await stage.login(at=client, **profile)  # this connects, and prepares the statements
    calls, round_trips = len(stage.wechat.calls), proxy.round_trips
    assert (await stage.login(at=client, **profile))["is_new_user"] is False
    assert (len(stage.wechat.calls) - calls, proxy.round_trips - round_trips) == (1, 1)


async def test_a_refresh_and_each_use_of_a_token_cost_one_round_trip(stage: Stage, proxy: Proxy) -> None:
    client = await stage.make(database_url=proxy.url)
    tokens = await stage.login(at=client)
    for _ in ("prepares each statement", "counts"):
        begun, round_trips = proxy.round_trips, []
        refreshed = await client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        round_trips.append(proxy.round_trips)
        tokens = refreshed.json()
        for path in ("/v1/me", "/v1/verify"):
            assert (await client.get(path, headers=bearer(tokens))).status_code == 200
            round_trips.append(proxy.round_trips)
    assert [number - begun for number in round_trips] == [1, 2, 3]


# The request.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, None) for name in ("code", "jsCode", "js_code")),
        *((name, OTHER_APP["app_id"]) for name in ("app_id", "appId", "appid")),
        *((name, "Alice") for name in ("nickname", "nickName", "userName")),
        *((name, "https://example.com/a.png") for name in ("avatar_url", "avatarUrl")),
    ],
)
async def test_each_name_of_a_field_is_accepted(stage: Stage, field: str, value: str | None) -> None:
    code = stage.wechat.code_for("alice", app_id=value if value == OTHER_APP["app_id"] else APP["app_id"])
    body = {field: code} if value is None else {"code": code, field: value}
    answer = body_of(await stage.client.post("/v1/login", json=body))
    if value is not None:
        assert value in answer["user"].values()


async def test_the_first_configured_app_is_the_default(login: LogIn, wechat: WeChatByRespx) -> None:
    for named in ({}, {"app_id": None}, {"app_id": ""}):
        assert (await login("alice", **named))["user"]["app_id"] == APP["app_id"]
    assert [(call["appid"], call["secret"]) for call in wechat.calls] == [(APP["app_id"], APP["app_secret"])] * 3


async def test_an_unknown_app_is_refused_before_a_code_is_spent(offline_client: Client, wechat: WeChatByRespx) -> None:
    body = {"code": wechat.code_for("alice"), "app_id": "wxunknown"}
    problem_of(await offline_client.post("/v1/login", json=body), "unknown_app", 400)
    assert wechat.calls == []


@pytest.mark.parametrize("length", [1, 256])
async def test_a_code_has_1_to_256_characters(client: Client, wechat: WeChatByRespx, length: int) -> None:
    code = "&#%+/=? é码"[:length].ljust(length, "x")
    wechat.sessions[code] = wechat.sessions.pop(wechat.code_for("alice"))
    answer = await client.post("/v1/login", json={"code": code})
    assert answer.status_code == 200, answer.text
    assert wechat.calls[0]["js_code"] == code


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense", None]
)
async def test_any_content_type_will_do(client: Client, wechat: WeChatByRespx, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps({"code": wechat.code_for("alice")})
    assert (await client.post("/v1/login", content=body, headers=headers)).status_code == 200


@swept("path", ["/v1/login", "/v1/refresh", "/v1/logout"])
@swept("form", [{"data": {"code": "alice"}}, {"files": {"code": (None, "alice")}}], ids=["urlencoded", "multipart"])
async def test_a_form_is_refused_with_the_hint_to_send_json(client: Client, form: dict[str, Any], path: str) -> None:
    problem = problem_of(await client.post(path, **form), "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == ["body"]
    assert "with Content-Type: application/json" in problem["detail"]
    assert "alice" not in problem["detail"]


@swept(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b'{"code": "\xff"}', "body"),
        ('{"code": "abc"}'.encode("utf-16"), "body"),
        *((b'{"code": "abc", "nickname": "%s"}' % name.encode("gbk"), "body") for name in ("你", "你好", "小明", "马")),
        (b'{"code": "abc", "nickname": "%s"}' % (b"\xc3" * 9), "body"),
        ('{"code": "abc", "nickname": "小%s"}'.encode() % (b"\xc3" * 101), "body"),
        (b'{"code": ' + b"9" * 60_000 + b"}", "code"),
        (b'{"code": "abc", "x": ' + b"[" * 30_000 + b"}", "body"),
        (b'{"code": "abc", "x": ' + b"[" * 30_000 + b"]" * 30_001 + b"}", "body"),
        (b'{"code": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", "code"),
        (b"{}", "code"),
        # `tests/web/test_every_operation.py` derives wrong values of every field from the documentation.
        # These values are wrong too, but do not follow from the documentation.
        *((json.dumps({"code": value}).encode(), "code") for value in (None, 1e308, "a\ud83d")),
        (b'{"code": "abc", "appid": "a\\ud83d"}', "appid"),
        *((b'{"code": "abc", "stay": %b}' % value, "stay") for value in (b'"yes"', b"null")),
    ],
)
async def test_a_wrong_body_is_refused_without_asking_anyone(
    offline_client: Client, wechat: WeChatByRespx, body: bytes, field: str
) -> None:
    answer = await offline_client.post("/v1/login", content=body)
    assert [error["field"] for error in problem_of(answer, "invalid_request", 422)["errors"]] == [field]
    assert wechat.calls == []


OPTIONAL: list[tuple[Any, str | None]] = [
    ({"nickName": "\U0001f600" * (MAX_NICKNAME + 1)}, "nickname"),
    ({"userName": ["a"]}, "nickname"),
    ({"nickname": 7, "nickName": "x"}, "nickname"),
    ({"avatarUrl": "http://wx.qlogo.cn/a/0"}, "avatar_url"),
    ({"avatarUrl": "wxfile://tmp_1.jpg"}, "avatar_url"),
    ({"avatar_url": "data:image/png;base64," + "A" * 60_000}, "avatar_url"),
    ({"avatar_url": "https://example.com/\ud83d"}, "avatar_url"),
    ({"avatar_url": {}}, "avatar_url"),
    ({"phoneCode": "x" * 257}, "phone_code"),
    ({"phone_code": {"code": "x"}}, "phone_code"),
    ({"phone_code": "a\udc00"}, "phone_code"),
    ({"nickname": float("nan")}, "nickname"),
    ({"consents": ["privacy"]}, "consents"),
    ({"consents": {"privacy": 202605}}, "consents"),
    ({"consents": {"privacy": "1\ud83d"}}, "consents"),
    ({"consents": {"privacy": "of last year"}}, None),
    ({"consents": None, "nickname": None, "avatarUrl": "", "phoneCode": ""}, None),
    ({"nickname": "\u3164", "userInfo": {"nickName": "\ud83d"}}, None),
    ({"nickName": "微信用户"}, None),
    ({"unknown": [[[{}]]], "big": 10**300, "roles": ["admin"]}, None),
    *(
        ({"avatarUrl": f"{scheme}://{picture}"}, None)
        for scheme in ("http", "https")
        for picture in (
            "thirdwx.qlogo.cn/mmopen/vi_32/POgEwh4mIHO4nibH0KlMECNjjGxQUq24ZEaGT4poC6icRiccVGKSyXwibcPq4BWmiaIGuG1icwxaQX6grC9VemZoJ8rg/132",
            "thirdwx.qlogo.cn/mmopen/vi_32/POgEwh4mIHO4nibH0KlMECNjjGxQUq24ZEaGT4poC6icRiccVGKSyXwibcPq4BWmiaIGuG1icwxaQX6grC9VemZoJ8rg/0",
            "mmbiz.qpic.cn/mmbiz/icTdbqWNOwNRna42FI242Lcia07jQodd2FJGIYQfG0LAJGFxM4FbnQP6yfMxBgJ0F3YRqJCJ1aPAK2dQagdusBZg/0",
            "mmbiz.qpic.cn/mmbiz/icTdbqWNOwNRna42FI242Lcia07jQodd2FJGIYQfG0LAJGFxM4FbnQP6yfMxBgJ0F3YRqJCJ1aPAK2dQagdusBZg/640",
        )
    ),
]


@swept(("optional", "left_out"), OPTIONAL, ids=lambda each: ascii(each)[:60])
async def test_a_login_is_refused_for_nothing_optional(stage: Stage, optional: Body, left_out: str | None) -> None:
    given = {"nickname": "小明", "avatar_url": "https://example.com/a.png"}
    await stage.login("alice", **given)
    body = json.dumps({"code": stage.wechat.code_for("alice"), **optional})
    answer = body_of(await stage.client.post("/v1/login", content=body))
    assert answer.get("ignored") == (left_out and {left_out: "invalid_request"})
    assert given.items() <= answer["user"].items()
    assert ("phone_error" in answer, answer["user"]["roles"]) == (False, [])


@swept("field", ["nickname", "consents", "anything"])
@swept(
    "large",
    [
        b"9" * 5000,
        b"-1" + b"0" * 60_000,
        b"[" * 30_000 + b"]" * 30_000,
        b'{"]\\"a": [' * 1500 + b"]}" * 1500,
        b'[[{"a": [[' * 1500 + b"]]}]]" * 1500,
        b"[%s]" % b",".join([b"{}"] * 2000),
        b'["\xe5\xbe", %s]' % b",".join([b"{}"] * 2000),
    ],
    ids="0123456",
)
async def test_a_login_is_refused_for_nothing_large(stage: Stage, field: str, large: bytes) -> None:
    await stage.login("alice", nickname="小明")
    code = stage.wechat.code_for("alice").encode()
    answer = body_of(
        await stage.client.post("/v1/login", content=b'{"%s": %s, "code": "%s"}' % (field.encode(), large, code))
    )
    assert answer.get("ignored") == (None if field == "anything" else {field: "invalid_request"})
    assert answer["user"]["nickname"] == "小明"


async def test_a_byte_order_mark_before_a_body_is_skipped(stage: Stage) -> None:
    body = json.dumps({"code": stage.wechat.code_for("alice"), "nickname": "小明"}).encode("utf-8-sig")
    login = body_of(await stage.client.post("/v1/login", content=body))
    assert login["user"]["nickname"] == "小明"
    body = json.dumps({"refresh_token": login["refresh_token"]}).encode("utf-8-sig")
    assert "access_token" in body_of(await stage.client.post("/v1/refresh", content=body))


HALVES = [rb"\ud83d", rb"\ude00", rb"\ude00\ud83d", b"\xed\xa0\xbd"]
CUT = [whole.encode()[:end] for whole in ("é", "微", "😀") for end in range(1, len(whole.encode()))]


SEVERAL = [b"".join(each) for each in product([rb"\ude00", *CUT], repeat=2)]
MANY = [b"\xc3" * 90, b"\xf0\x9f\x98" * 90, b"\xe5\xbe\xf0\xe5\xc3", rb"\ud83d\ud83d" * 9, b"\xed\xa0\xbd" * 9]


@swept("after", ["", "…", "a"])
@swept("half", [*HALVES, *CUT, *SEVERAL, *MANY])
async def test_a_name_with_half_a_character_is_kept_without_it(stage: Stage, half: bytes, after: str) -> None:
    name = "小明😀".encode() + half + after.encode()
    code = stage.wechat.code_for(f"person-{sha256(name).hexdigest()[:8]}")  # a user can't change the name so often
    body = b'{"code": "%s", "nickName": "%s"}' % (code.encode(), name)
    answer = await stage.client.post("/v1/login", content=body)
    assert (answer.status_code, answer.json()["user"]["nickname"]) == (200, f"小明😀{after}"), answer.text
    assert "ignored" not in answer.json()


# The profile.


AVATARS = (
    "https://example.com",
    "HTTPS://Example.com:8443/a%20b.png?x=1&y=@z#f",
    "https://[2001:db8::1]/头像.png",
    "https://example.com/" + "a" * 2028,
)


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        *(
            ("nickname", name, name)
            for name in ("小明", "😀" * MAX_NICKNAME, "👨‍👩‍👧 Ö", "O'Brien; DROP TABLE users --", "a" * MAX_NICKNAME)
        ),
        ("nickname", " \u3000Alice \n", "Alice"),
        ("nickname", " \t ", None),
        *(("avatar_url", url, url) for url in AVATARS),
    ],
)
async def test_a_profile_field_is_kept_as_it_was_written_without_white_space_around_it(
    login: LogIn, field: str, given: str, kept: str | None
) -> None:
    for fields in ({field: given}, {}):
        assert (await login("alice", **fields))["user"][field] == kept


@pytest.mark.parametrize(
    "change", [{}, {"nickname": None, "avatar_url": None}, {"nickname": "", "avatar_url": "  "}, {"nickname": "Alicia"}]
)
async def test_a_profile_field_changes_where_it_has_a_value(login: LogIn, change: dict[str, Any]) -> None:
    given = {"nickname": "Alice", "avatar_url": "https://example.com/a.png"}
    await login("alice", **given)
    kept = {**given, **({"nickname": "Alicia"} if change.get("nickname") else {})}
    assert kept.items() <= (await login("alice", **change))["user"].items()


# The session.


async def test_a_session_notes_where_it_comes_from_and_how_long_it_lives(stage: Stage) -> None:
    answer = await stage.client.post(
        "/v1/login",
        json={"code": stage.wechat.code_for("alice")},
        headers={"User-Agent": "MicroMessenger/8.0 " + "x" * 600},
    )
    row = await stage.rows.fetchrow("SELECT * FROM sessions WHERE id = $1", UUID(answer.json()["session_id"]))
    assert row is not None
    assert str(row["user_id"]) == answer.json()["user"]["id"]
    assert str(row["ip"]) == "127.0.0.1"
    assert row["user_agent"] == ("MicroMessenger/8.0 " + "x" * 600)[:512]
    assert row["created_at"] == row["last_used_at"] == stage.clock.now
    assert row["expires_at"] == stage.clock.now + timedelta(seconds=2592000)
    assert row["revoked_at"] is None


async def test_the_session_key_is_stored_sealed(stage: Stage) -> None:
    code = stage.wechat.code_for("alice")
    expected = stage.wechat.sessions[code]["session_key"].encode()
    user = (await stage.client.post("/v1/login", json={"code": code})).json()["user"]
    sealed = await stage.rows.fetchval("SELECT session_key FROM sessions")
    assert expected not in sealed
    assert stage.services[Sealer].open(sealed, context=session_key_context(user["app_id"], user["openid"])) == expected
    with pytest.raises(CannotOpen):
        stage.services[Sealer].open(sealed, context=session_key_context(OTHER_APP["app_id"], user["openid"]))


@pytest.mark.parametrize(("refresh_token_ttl", "session_max_age"), [(60, 3600), (3600, 60)])
async def test_a_session_has_a_greatest_age(stage: Stage, refresh_token_ttl: int, session_max_age: int) -> None:
    services = await stage.make_services(refresh_token_ttl=refresh_token_ttl, session_max_age=session_max_age)
    answer = await stage.make_client(services).post("/v1/login", json={"code": stage.wechat.code_for("alice")})
    assert answer.json()["refresh_expires_in"] == 60
    assert await stage.rows.fetchval("SELECT expires_at - created_at FROM sessions") == timedelta(seconds=60)


async def test_a_login_leaves_one_line_of_ids_and_timings(login: LogIn, log_lines: LogLines) -> None:
    answer = await login("alice", nickname="Alice")
    (line,) = (line for line in log_lines() if line["event"] == "logged_in")
    assert line.pop("timestamp").endswith("+00:00")
    assert line.pop("wechat_ms") >= 0
    assert line.pop("database_ms") >= 0
    assert len(line.pop("request_id")) == 32
    assert line == {
        "event": "logged_in",
        "level": "info",
        "user_id": answer["user"]["id"],
        "app_id": APP["app_id"],
        "session_id": answer["session_id"],
        "is_new": True,
    }
