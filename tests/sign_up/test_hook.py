"""A service of the operator's is asked who may sign up, by every door, and never about somebody who is known."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.clock import Clock
from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.processes import WXAUTH, Running, free_port
from tests.programs import needs
from tests.receiver import Receiver, receiving
from tests.world import Body, LogIn, MakeServices, Rows, Stage, until
from wxauth.server.checks.doctor import examine
from wxauth.server.login.records import Refusals

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ALICE = "openid-a1-alice"
EXAMPLES = Path(__file__).parents[2] / "examples/sign-up-hook"
Ask = Callable[..., Awaitable[LogIn]]


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.usual = saying(allow=True)
        yield receiver


@pytest.fixture
def asking(stage: Stage, hook: Receiver) -> Ask:
    """A service that asks the hook; more settings may be given."""

    async def made(**settings: Any) -> LogIn:
        settings = {"sign_up_hook_url": hook.url, "sign_up_hook_secret": SECRET, **settings}
        services = await stage.make_services(**settings)
        return LogIn(stage.make_client(services), stage.login.wechat)

    return made


def saying(status: int = 200, **answer: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    return respond


def text(body: bytes, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def respond(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    return respond


async def test_it_is_asked_once_about_a_newcomer_and_never_about_somebody_known(
    stage: Stage, asking: Ask, hook: Receiver
) -> None:
    login = await asking()
    answer = await login("alice", unionid="union-alice")
    await login("alice", unionid="union-alice")
    await login("alice", app=OTHER_APP, unionid="union-alice")
    [(headers, body)] = hook.got
    assert json.loads(body) == {
        "type": "sign_up",
        "id": headers["webhook-id"],
        "at": stage.clock().isoformat().replace("+00:00", "Z"),
        "data": {
            "app_id": APP["app_id"],
            "kind": "mini_program",
            "openid": answer["user"]["openid"],
            "unionid": "union-alice",
            "network": "127.0.0.0/24",
        },
    }


async def test_its_requests_are_signed_as_webhooks_are(asking: Ask, hook: Receiver, clock: Clock) -> None:
    clock.now = datetime.now(UTC)  # which the library compares
    login = await asking()
    await login("alice")
    [(headers, body)] = hook.got
    assert Webhook(SECRET).verify(body, headers)["type"] == "sign_up"


async def test_what_it_says_counts_from_the_first_token(asking: Ask, hook: Receiver, rows: Rows) -> None:
    login = await asking(sign_up_roles=["member"], claims={"tier": "$attributes.tier"})
    hook.usual = saying(
        allow=True,
        external_id="10023",
        roles=["editor", "admin"],
        attributes={"tier": "gold", "no": None, "has": {"no": None}},
        nickname="小明",
    )
    user = (await login("alice"))["user"]
    told = {name: user[name] for name in ("external_id", "roles", "nickname")}
    assert told == {"external_id": "10023", "roles": ["member", "editor"], "nickname": "小明"}
    assert json.loads(await rows.fetchval("SELECT attributes::text FROM users")) == {"tier": "gold", "has": {}}
    created = await rows.fetchval("SELECT data FROM events WHERE type = 'user.created'")
    assert json.loads(created) == {"roles": ["member", "editor"]}
    assert (await login("bob", nickname="Bob"))["user"]["nickname"] == "Bob"
    hook.usual = saying(allow=False)
    await login.ask("carol")
    metrics = (await login.client.get("/metrics")).text
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
async def test_a_misspelt_member_is_left_out_and_logged(
    stage: Stage, asking: Ask, hook: Receiver, member: str, value: object
) -> None:
    login = await asking()
    answer: Body = {"allow": True, "nickname": "good", member: value}
    hook.usual = saying(**answer)
    user = (await login("alice"))["user"]
    assert (user["external_id"], user["roles"]) == (None, [])
    assert user["nickname"] == (None if member == "nickname" else "good")
    if value != "":
        [line] = stage.logged("sign_up_hook_member_left_out")
        assert (line["member"], str(value) in str(line)) == (member, False)


async def test_newcomers_who_get_one_external_id_at_once_do_not_share_it(
    stage: Stage, asking: Ask, hook: Receiver
) -> None:
    login = await asking()
    hook.usual = saying(allow=True, external_id="10023")
    people = await asyncio.gather(*(login(f"person-{n}") for n in range(8)))
    assert sorted(str(person["user"]["external_id"]) for person in people) == ["10023"] + ["None"] * 7
    assert await stage.number("users") == 8
    assert (await login("late"))["user"]["external_id"] is None
    left_out = [line["member"] for line in stage.log_lines() if line["event"] == "sign_up_hook_member_left_out"]
    assert left_out[-1:] == ["external_id"]


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("请先到门店办卡", "请先到门店办卡"),
        (None, "暂时无法为你注册。"),
        ("x\n", "暂时无法为你注册。"),
        ("x" * 65, "暂时无法为你注册。"),
        (7, "暂时无法为你注册。"),
    ],
)
async def test_who_is_refused_is_not_stored_but_for_support(
    stage: Stage, login: LogIn, hook: Receiver, title: object, shown: str
) -> None:
    services = await stage.make_services(sign_up_hook_url=hook.url, sign_up_hook_secret=SECRET)
    login = LogIn(stage.make_client(services), login.wechat)
    hook.usual = saying(allow=False, title=title)
    answer = await login.ask("alice", nickname="Alice", headers={"accept-language": "zh"})
    assert problem_of(answer, "sign_up_refused", 403)["title"] == shown
    for table in ("users", "identities", "unionids", "sessions", "events"):
        assert await stage.number(f"{table}") == 0, table
    await services[Refusals].store()
    assert await stage.rows.fetchval("SELECT code FROM refusals") == "sign_up_refused"


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
async def test_an_answer_that_is_none_refuses_or_allows_as_the_settings_say(
    stage: Stage, asking: Ask, hook: Receiver, answer: Any
) -> None:
    hook.usual = answer
    login = await asking(sign_up_hook_timeout=0.3)
    refused = await login.ask("alice")
    assert "sign_up_hook_failed" in problem_of(refused, "sign_up_unavailable", 503)["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert (await stage.number("users"), len(hook.got)) == (0, 1)
    login = await asking(sign_up_hook_timeout=0.3, sign_up_hook_failure="allow")
    assert (await login("alice"))["is_new_user"] is True
    assert await stage.rows.fetchval("SELECT data FROM events WHERE type = 'user.created'") == '{"hook": "not_asked"}'
    hook.released.set()


async def test_after_five_failures_in_a_row_it_is_not_asked_for_ten_seconds(
    stage: Stage, asking: Ask, hook: Receiver
) -> None:
    login = await asking()
    hook.usual = 500
    for n in range(7):
        problem_of(await login.ask(f"person-{n}"), "sign_up_unavailable", 503)
    assert len(hook.got) == 5
    stage.clock.advance(seconds=11)
    hook.usual = saying(allow=True)
    await login("alice")
    hook.usual = 500
    for n in range(4):
        problem_of(await login.ask(f"person-{n}"), "sign_up_unavailable", 503)
    assert len(hook.got) == 10


async def test_where_a_failure_lets_people_in_only_timeouts_stop_the_asking(
    stage: Stage, asking: Ask, hook: Receiver
) -> None:
    login = await asking(sign_up_hook_timeout=0.3, sign_up_hook_failure="allow")
    hook.usual = 429
    for n in range(6):
        await login(f"person-{n}")
    hook.usual = saying(allow=False)
    problem_of(await login.ask("mallory"), "sign_up_refused", 403)
    hook.usual = "hang"
    for n in range(5):
        await login(f"late-{n}")
    hook.released.set()
    hook.usual = saying(allow=False)
    await login("mallory")
    assert len(hook.got) == 6 + 1 + 5
    created = await stage.rows.fetch("SELECT data FROM events WHERE type = 'user.created'")
    assert [row["data"] for row in created] == 12 * ['{"hook": "not_asked"}']


async def test_known_people_are_not_kept_waiting_and_no_connection_is_held(
    stage: Stage, asking: Ask, hook: Receiver
) -> None:
    login = await asking(sign_up_hook_timeout=10)
    await login("alice")
    hook.usual = "hang"
    waiting = [asyncio.create_task(login.ask(f"person-{n}")) for n in range(30)]
    await until(lambda: hook.under_way == 30)
    await login("alice")
    active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%transaction%'"
    assert await stage.rows.fetchval(active) == 0
    hook.released.set()
    await asyncio.gather(*waiting)


async def test_a_person_who_comes_ten_times_at_once_becomes_one_user(asking: Ask, hook: Receiver, rows: Rows) -> None:
    login = await asking()
    answers = [saying(allow=True, nickname=f"name {n}", external_id=str(n + 10)) for n in range(10)]
    hook.answers = list(answers)
    people = await asyncio.gather(*(login("alice", unionid="union-alice") for _ in range(10)))
    assert len({person["user"]["id"] for person in people}) == 1
    [user] = await rows.fetch("SELECT nickname, external_id FROM users")
    assert user["nickname"] == f"name {int(user['external_id']) - 10}"
    assert sum(person["is_new_user"] for person in people) == 1


async def test_it_is_not_asked_about_somebody_who_is_refused_anyway(asking: Ask, hook: Receiver) -> None:
    login = await asking(sign_up="closed")
    problem_of(await login.ask("alice"), "sign_up_closed", 403)
    login = await asking(apps=[{**APP, "unionid": "required"}])
    problem_of(await login.ask("alice"), "wechat_misconfigured", 502)
    assert hook.got == []


async def test_check_sends_a_test_about_nobody(hook: Receiver, make_services: MakeServices, database_url: str) -> None:
    services = await make_services(sign_up_hook_url=hook.url, sign_up_hook_secret=SECRET)

    async def result() -> Any:
        [found] = [each for each in await examine(services.settings) if each.name == "sign_up_hook"]
        return found

    assert (await result()).ok
    [(_, body)] = hook.got
    message = json.loads(body)
    assert (message["type"], "data" in message) == ("test", False)

    async def stuck(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        await hook.released.wait()
        return response

    for hook.usual in (500, text(b"x" * 2**15, status=500), stuck):  # a page of a framework's; a body that never ends
        failed = await result()
        assert (failed.ok, "its status was 500" in failed.message) == (False, True), failed.message


@pytest.mark.node
@pytest.mark.process
@pytest.mark.parametrize("language", ["python", "node"])
async def test_the_examples_let_their_members_in_and_nobody_else(
    stage: Stage, language: str, tmp_path: Path, asking: Ask
) -> None:
    stage.clock.now = datetime.now(UTC)
    port = free_port()
    name = {"python": "app.py", "node": "app.mjs"}[language]
    (tmp_path / name).write_text((EXAMPLES / name).read_text().replace("openid-of-alice", ALICE))
    uvicorn = (str(Path(WXAUTH).with_name("uvicorn")), "app:app", "--port", str(port))
    command, sign = (uvicorn, "Uvicorn running") if language == "python" else ((needs("node"), "app.mjs"), "Listening")
    env = {"SIGN_UP_HOOK_SECRET": SECRET, "PORT": str(port)}
    with Running(*command, cwd=tmp_path, env=env) as running:
        await asyncio.to_thread(running.wait_for, sign)
        login = await asking(sign_up_hook_url=f"http://127.0.0.1:{port}/sign-up")
        alice = (await login("alice"))["user"]
        assert (alice["openid"], alice["external_id"], alice["roles"]) == (ALICE, "10023", ["member"])
        refused = await login.ask("bob")
        assert problem_of(refused, "sign_up_refused", 403)["title"] == "请先到门店办理会员卡"
        async with httpx.AsyncClient() as stranger:
            assert (await stranger.post(f"http://127.0.0.1:{port}/sign-up", json={"type": "test"})).status_code == 401
