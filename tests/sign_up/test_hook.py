"""wxauth asks the operator's hook about each new user, however they log in, and never about a known user."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.docs import block
from tests.fakes import APP, OTHER_APP
from tests.loops import let_pass
from tests.problems import problem_of
from tests.processes import WXAUTH, Running, free_port
from tests.programs import needs
from tests.receiver import Receiver, receiving
from tests.sign_up.hooks import SECRET, saying, text
from tests.world import Body, Stage, recorded, until
from wxauth.checks.result import CheckResult
from wxauth.checks.runner import check_with
from wxauth.login.refusals import Refusals

pytestmark = pytest.mark.usefixtures("bystander")
ALICE = "openid-a1-alice"
EXAMPLES = Path(__file__).parents[2] / "examples/sign-up-hook"


@dataclass(frozen=True, slots=True)
class Door:
    """A replica that new users sign up to, and the hook that it asks about them."""

    stage: Stage
    hook: Receiver

    async def asking(self, **settings: Any) -> Self:
        """Return a door with a replica that asks the hook. Settings can be added."""
        hook = {"sign_up_hook_url": self.hook.url, "sign_up_hook_secret": SECRET}
        return replace(self, stage=await self.stage.replica(**{**hook, **settings}))


@pytest.fixture
async def door(stage: Stage) -> AsyncIterator[Door]:
    async with receiving() as receiver:
        receiver.usual = saying(allow=True)
        yield Door(stage, hook=receiver)


async def test_it_is_asked_once_about_a_newcomer_by_a_signed_request_and_never_about_somebody_known(door: Door) -> None:
    door.stage.clock.now = datetime.now(UTC).replace(microsecond=0)  # the library compares this time
    door = await door.asking()
    answer = await door.stage.login("alice", unionid="union-alice")
    await door.stage.login("alice", unionid="union-alice")
    await door.stage.login("alice", app=OTHER_APP, unionid="union-alice")
    [(headers, body)] = door.hook.got
    Webhook(SECRET).verify(body, headers)
    shown = json.loads(block("docs/manage/sign-up-hook.md", '"sign_up"'))
    assert (shown.keys(), shown["data"].keys()) == (json.loads(body).keys(), json.loads(body)["data"].keys())
    assert json.loads(body) == {
        "type": "sign_up",
        "id": headers["webhook-id"],
        "at": door.stage.clock().isoformat().replace("+00:00", "Z"),
        "data": {
            "app_id": APP["app_id"],
            "kind": "mini_program",
            "openid": answer["user"]["openid"],
            "unionid": "union-alice",
            "network": "127.0.0.0/24",
            "client_ip": "127.0.0.1",
        },
    }


async def test_what_it_says_counts_from_the_first_token(door: Door) -> None:
    door = await door.asking(sign_up_roles=["member"], claims={"tier": "$attributes.tier"})
    door.hook.usual = saying(
        allow=True,
        external_id="10023",
        roles=["editor", "admin"],
        attributes={"tier": "gold", "no": None, "has": {"no": None}},
        nickname="小\u2060明\x00",
    )
    user = (await door.stage.login("alice"))["user"]
    told = {name: user[name] for name in ("external_id", "roles", "nickname")}
    assert told == {"external_id": "10023", "roles": ["member", "editor"], "nickname": "小明"}
    attributes = await door.stage.rows.fetchval("SELECT attributes::text FROM users")
    assert json.loads(attributes) == {"tier": "gold", "has": {}}
    created = await recorded(door.stage.rows, "data", "type = 'user.created'")
    assert created == [({"roles": ["member", "editor"]},)]
    assert (await door.stage.login("bob", nickname="Bob"))["user"]["nickname"] == "Bob"
    door.hook.usual = saying(allow=False)
    await door.stage.login.ask("carol")
    metrics = (await door.stage.login.client.get("/metrics")).text
    for outcome in ('"allowed"} 2.0', '"refused"} 1.0'):
        assert f"wxauth_sign_up_hook_seconds_count{{outcome={outcome}" in metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("external_id", ""),
        ("external_id", 70077),
        ("external_id", "x" * 129),
        ("external_id", "unknown"),
        ("roles", "editor"),
        ("roles", ["Editor"]),
        ("roles", [f"role-{n}" for n in range(33)]),
        ("attributes", {"Tier": 1}),
        ("attributes", [1]),
        ("nickname", "x" * 65),
        ("nickname", {"a": 1}),
    ],
)
async def test_a_misspelt_member_is_left_out_and_logged(door: Door, member: str, value: object) -> None:
    door = await door.asking()
    answer: Body = {"allow": True, "nickname": "good", member: value}
    door.hook.usual = saying(**answer)
    user = (await door.stage.login("alice"))["user"]
    assert (user["external_id"], user["roles"]) == (None, [])
    assert user["nickname"] == (None if member == "nickname" else "good")
    if value != "":
        [line] = door.stage.logged("sign_up_hook_member_left_out")
        assert (line["member"], str(value) in str(line)) == (member, False)


async def test_newcomers_who_get_one_external_id_at_once_do_not_share_it(door: Door) -> None:
    door = await door.asking()
    door.hook.usual = saying(allow=True, external_id="10023")
    people = await asyncio.gather(*(door.stage.login(f"person-{n}") for n in range(8)))
    assert sorted(str(person["user"]["external_id"]) for person in people) == ["10023"] + ["None"] * 7
    assert await door.stage.number("users") == 8
    assert (await door.stage.login("late"))["user"]["external_id"] is None
    assert door.stage.logged("sign_up_hook_member_left_out")[-1]["member"] == "external_id"


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("请先到门店办卡", "请先到门店办卡"),
        (None, "你的注册未获通过。"),
        ("x\n", "你的注册未获通过。"),
        ("x" * 65, "你的注册未获通过。"),
        (7, "你的注册未获通过。"),
    ],
)
async def test_who_is_refused_is_not_stored_but_for_support(door: Door, title: object, shown: str) -> None:
    door = await door.asking()
    door.hook.usual = saying(allow=False, title=title)
    answer = await door.stage.login.ask("alice", nickname="Alice", headers={"accept-language": "zh"})
    assert problem_of(answer, "sign_up_refused", 403)["title"] == shown
    for table in ("users", "identities", "unionids", "sessions", "events"):
        assert await door.stage.number(table) == 0, table
    await door.stage.services[Refusals].store()
    assert await door.stage.rows.fetchval("SELECT code FROM refusals") == "sign_up_refused"


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        500,
        204,
        saying(302, allow=True),
        saying(201, allow=True),
        saying(allow="true"),
        saying(allow=1),
        text(b"[]"),
        text(b"true"),
        text(b""),
        text(b"{"),
        text(b"[" * 16_000),
        text(b'{"allow": true, "x": "' + b"x" * 17_000 + b'"}'),
        "hang",
    ],
    ids=lambda answer: getattr(answer, "__qualname__", str(answer))[:20],
)
async def test_an_answer_that_is_none_refuses_or_allows_as_the_settings_say(door: Door, answer: Any) -> None:
    door.hook.usual = answer
    door = await door.asking(sign_up_hook_timeout=0.3)
    refused = await door.stage.login.ask("alice")
    assert "sign_up_hook_failed" in problem_of(refused, "sign_up_unavailable", 503)["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert (await door.stage.number("users"), len(door.hook.got)) == (0, 1)
    door = await door.asking(sign_up_hook_timeout=0.3, sign_up_hook_failure="allow")
    assert (await door.stage.login("alice"))["is_new_user"] is True
    created = await door.stage.rows.fetchval("SELECT data FROM events WHERE type = 'user.created'")
    assert created == '{"hook": "not_asked"}'
    door.hook.released.set()


async def test_after_five_failures_in_a_row_it_is_not_asked_for_ten_seconds(door: Door) -> None:
    door = await door.asking()
    door.hook.usual = 500
    for n in range(7):
        problem_of(await door.stage.login.ask(f"person-{n}"), "sign_up_unavailable", 503)
    assert len(door.hook.got) == 5
    door.stage.clock.advance(seconds=11)
    door.hook.usual = saying(allow=True)
    await door.stage.login("alice")
    door.hook.usual = 500
    for n in range(4):
        problem_of(await door.stage.login.ask(f"person-{n}"), "sign_up_unavailable", 503)
    assert len(door.hook.got) == 10


async def test_where_a_failure_lets_people_in_only_timeouts_stop_the_asking(door: Door) -> None:
    door = await door.asking(sign_up_hook_timeout=0.3, sign_up_hook_failure="allow")
    door.hook.usual = 429
    for n in range(6):
        await door.stage.login(f"person-{n}")
    door.hook.usual = saying(allow=False)
    problem_of(await door.stage.login.ask("mallory"), "sign_up_refused", 403)
    door.hook.usual = "hang"
    for n in range(5):
        await door.stage.login(f"late-{n}")
    door.hook.released.set()
    door.hook.usual = saying(allow=False)
    await door.stage.login("mallory")
    assert len(door.hook.got) == 6 + 1 + 5
    created = await door.stage.rows.fetch("SELECT data FROM events WHERE type = 'user.created'")
    assert created == 12 * [('{"hook": "not_asked"}',)]


async def test_nobody_comes_in_because_wxauth_is_too_busy_to_hear_the_hook(door: Door) -> None:
    door = await door.asking(sign_up_hook_failure="allow")

    async def late(_: web.Request) -> web.StreamResponse:
        let_pass(3)
        await door.hook.released.wait()
        return web.json_response({"allow": False})

    door.hook.usual = late
    for n in range(6):  # one more than the failures after which it would not be asked
        problem_of(await door.stage.login.ask(f"person-{n}"), "sign_up_unavailable", 503)
    assert (await door.stage.number("users"), len(door.hook.got)) == (0, 6)
    failures = [line for line in door.stage.log_lines() if line["event"] == "sign_up_hook_failed"]
    assert [line["consequence"] for line in failures] == ["refuse"] * 6
    door.hook.usual = saying(allow=False)
    problem_of(await door.stage.login.ask("mallory"), "sign_up_refused", 403)
    door.hook.released.set()


async def test_known_people_are_not_kept_waiting_and_no_connection_is_held(door: Door) -> None:
    door = await door.asking(sign_up_hook_timeout=10)
    await door.stage.login("alice")
    door.hook.usual = "hang"
    waiting = [asyncio.create_task(door.stage.login.ask(f"person-{n}")) for n in range(30)]
    await until(lambda: door.hook.under_way == 30)
    await door.stage.login("alice")
    active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%transaction%'"
    assert await door.stage.rows.fetchval(active) == 0
    door.hook.released.set()
    await asyncio.gather(*waiting)


async def test_a_person_who_comes_ten_times_at_once_becomes_one_user(door: Door) -> None:
    door = await door.asking()
    door.hook.answers = [saying(allow=True, nickname=f"name {n}", external_id=str(n + 10)) for n in range(10)]
    people = await asyncio.gather(*(door.stage.login("alice", unionid="union-alice") for _ in range(10)))
    assert len({person["user"]["id"] for person in people}) == 1
    [user] = await door.stage.rows.fetch("SELECT nickname, external_id FROM users")
    assert user["nickname"] == f"name {int(user['external_id']) - 10}"
    assert sum(person["is_new_user"] for person in people) == 1


async def test_it_is_not_asked_about_somebody_who_is_refused_anyway(door: Door) -> None:
    door = await door.asking(sign_up="closed")
    problem_of(await door.stage.login.ask("alice"), "sign_up_closed", 403)
    door = await door.asking(apps=[{**APP, "unionid": "required"}])
    problem_of(await door.stage.login.ask("alice"), "wechat_misconfigured", 502)
    assert door.hook.got == []


async def test_check_sends_a_test_about_nobody(door: Door) -> None:
    door = await door.asking()

    async def result() -> CheckResult:
        [found] = [each for each in await check_with(door.stage.services.settings) if each.name == "sign_up_hook"]
        return found

    assert (await result()).is_ok
    [(_, body)] = door.hook.got
    message = json.loads(body)
    assert (message["type"], "data" in message) == ("test", False)

    async def stuck(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        await door.hook.released.wait()
        return response

    page = text(b"x" * 2**15, status=500)
    for door.hook.usual in (500, page, stuck):  # first a framework's error page, then a body that never ends
        failed = await result()
        assert (failed.is_ok, "its status was 500" in failed.text) == (False, True), failed.text


@pytest.mark.node
@pytest.mark.process
@pytest.mark.parametrize("language", ["python", "node"])
async def test_the_examples_let_their_members_in_and_nobody_else(door: Door, language: str, tmp_path: Path) -> None:
    door.stage.clock.now = datetime.now(UTC)
    port = free_port()
    name = {"python": "app.py", "node": "app.mjs"}[language]
    (tmp_path / name).write_text((EXAMPLES / name).read_text().replace("openid-of-alice", ALICE))
    uvicorn = (str(Path(WXAUTH).with_name("uvicorn")), "app:app", "--port", str(port))
    command, sign = (uvicorn, "Uvicorn running") if language == "python" else ((needs("node"), "app.mjs"), "Listening")
    env = {"SIGN_UP_HOOK_SECRET": SECRET, "PORT": str(port)}
    with Running(*command, cwd=tmp_path, env=env) as running:
        await asyncio.to_thread(running.wait_for, sign)
        door = await door.asking(sign_up_hook_url=f"http://127.0.0.1:{port}/sign-up")
        alice = (await door.stage.login("alice"))["user"]
        assert (alice["openid"], alice["external_id"], alice["roles"]) == (ALICE, "10023", ["member"])
        assert problem_of(await door.stage.login.ask("bob"), "sign_up_refused", 403)["title"] == "请先到门店办理会员卡"
        async with httpx.AsyncClient() as stranger:
            assert (await stranger.post(f"http://127.0.0.1:{port}/sign-up", json={"type": "test"})).status_code == 401
