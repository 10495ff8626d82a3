"""Session keys, checked and reset with WeChat: by administrators, and by `wxauth users show --check`."""

import json
from asyncio import to_thread
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from tests.fakes import WeChatBySimulator, service_env
from tests.problems import problem_of
from tests.processes import Command, run, serving
from tests.world import Admin, Body, Stage, bearer, leave, make_admin
from wxauth.server.core.sealing import Sealer, session_key_context
from wxauth.server.dev.wechat import APPS, SealRequest, Simulator, create_simulator
from wxauth.server.session_keys.session_keys import SessionKeyState
from wxauth.server.web.bodies import Items

pytestmark = pytest.mark.usefixtures("simulated")

APP_ID, OTHER_APP_ID = (app["app_id"] for app in APPS)


def log_in_elsewhere(simulator: Simulator) -> None:
    """Alice logs in at WeChat without our knowing."""
    query = {"appid": APP_ID, "secret": APPS[0]["app_secret"], "js_code": "alice"}
    call, _ = simulator.call("code2session", {**query, "grant_type": "authorization_code"}, b"")
    answer = simulator.answer(call)
    assert isinstance(answer, dict)
    assert "session_key" in answer


@dataclass(frozen=True, slots=True)
class KeyKeeper:
    """An administrator who checks and resets session keys, and the people and the WeChat that they are of."""

    stage: Stage
    root: Admin

    async def ask(self, user_id: str, action: str, **options: Any) -> httpx.Response:
        return await self.root.ask("POST", f"/users/{user_id}/session-keys/{action}", **options)

    async def states(self, user_id: str, action: str, **options: Any) -> list[tuple[str, bool | None, str | None]]:
        answer = await self.ask(user_id, action, **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["next_cursor"] is None
        TypeAdapter(Items[SessionKeyState]).validate_python(answer.json())
        return [(item["app_id"], item["valid"], item["error"]) for item in answer.json()["items"]]

    async def events(self) -> list[Body]:
        return await self.root.events(type="session_key.reset")

    async def can_open(self, login: Body, tapped: dict[str, str]) -> bool:
        answer = await self.stage.client.post("/v1/me/decrypt", json=tapped, headers=bearer(login))
        assert answer.status_code in (200, 409), answer.text
        return answer.status_code == 200

    def tap(self, person: str = "alice", *, app_id: str = APP_ID) -> dict[str, str]:
        return self.stage.simulator.seal(SealRequest(person=person, app_id=app_id, data={}))

    async def stored(self, login: Body) -> bytes | None:
        """The sealed key of a session."""
        return await self.stage.rows.fetchval("SELECT session_key FROM sessions WHERE id = $1", login["session_id"])


@pytest.fixture
async def keys(stage: Stage) -> KeyKeeper:
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    return KeyKeeper(stage, root=root)


# Check.


async def test_a_session_key_is_valid_until_wechat_issues_a_new_key(keys: KeyKeeper) -> None:
    alice = await keys.stage.login()
    answer = await keys.ask(alice["user"]["id"], "check")
    assert answer.json()["items"] == [
        {"app_id": APP_ID, "openid": alice["user"]["openid"], "valid": True, "error": None}
    ]
    log_in_elsewhere(keys.stage.simulator)
    assert await keys.states(alice["user"]["id"], "check") == [(APP_ID, False, None)]


async def test_each_identity_has_its_own_session_key_oldest_first(keys: KeyKeeper) -> None:
    user_id = (await keys.stage.login(app_id=OTHER_APP_ID))["user"]["id"]
    keys.stage.clock.advance(minutes=1)
    assert (await keys.stage.login())["user"]["id"] == user_id
    log_in_elsewhere(keys.stage.simulator)
    assert await keys.states(user_id, "check") == [(OTHER_APP_ID, True, None), (APP_ID, False, None)]


async def test_the_keys_of_a_merged_user_are_found_by_the_former_id(keys: KeyKeeper) -> None:
    former = (await keys.stage.login("bob"))["user"]["id"]
    keys.stage.clock.advance(minutes=1)
    into = (await keys.stage.login())["user"]["id"]
    assert (await keys.root.merge(former, into=into)).status_code == 200
    assert await keys.states(former, "check") == [(APP_ID, True, None)] * 2


async def test_without_a_stored_key_wechat_is_not_asked(keys: KeyKeeper) -> None:
    alice = await keys.stage.login()
    assert (await keys.stage.client.post("/v1/logout", headers=bearer(alice))).status_code == 204
    for action in ("check", "reset"):
        assert await keys.states(alice["user"]["id"], action) == [(APP_ID, None, "session_key_expired")]
    assert not keys.stage.simulator.calls_of("checksession")
    assert not keys.stage.simulator.calls_of("resetusersessionkey")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("api", "fault", "code"),
    [
        ("{call}", {"errcode": 48001}, "wechat_misconfigured"),
        ("{call}", {"errcode": 45011}, "wechat_rate_limited"),
        ("{call}", {"status": 502}, "wechat_unavailable"),
        ("stable_token", {"errcode": 40164}, "wechat_misconfigured"),
    ],
)
@pytest.mark.parametrize(("action", "call"), [("check", "checksession"), ("reset", "resetusersessionkey")])
async def test_a_failure_of_one_app_is_reported_and_the_other_one_is_asked(
    keys: KeyKeeper, action: str, call: str, api: str, fault: Body, code: str
) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    await keys.stage.login(app_id=OTHER_APP_ID)
    fault = {"api": api.format(call=call), "app_id": APP_ID, "times": None, **fault}
    keys.stage.simulator.fail(**fault)
    assert await keys.states(user_id, action) == [(APP_ID, None, code), (OTHER_APP_ID, True, None)]


async def test_an_app_that_is_no_longer_configured_is_reported(keys: KeyKeeper) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    await keys.stage.login(app_id=OTHER_APP_ID)
    assert await keys.states(user_id, "check") == [(APP_ID, True, None), (OTHER_APP_ID, True, None)]
    keys.root.client = (await keys.stage.replica(apps=APPS[:1])).client
    for action in ("check", "reset"):
        assert await keys.states(user_id, action) == [(APP_ID, True, None), (OTHER_APP_ID, None, "unknown_app")]


# Reset.


@pytest.mark.oldest_postgres
async def test_a_reset_replaces_the_stored_key_and_is_recorded(keys: KeyKeeper) -> None:
    alice = await keys.stage.login()
    before = keys.tap()
    keys.stage.clock.advance(minutes=1)
    assert await keys.states(alice["user"]["id"], "reset") == [(APP_ID, True, None)]
    assert await keys.can_open(alice, keys.tap())
    assert not await keys.can_open(alice, before)
    assert await keys.states(alice["user"]["id"], "check") == [(APP_ID, True, None)]
    (event,) = await keys.events()
    del event["id"]
    assert event == {
        "type": "session_key.reset",
        "at": "2026-11-20T08:01:00Z",
        "actor": keys.root.id,
        "user_id": alice["user"]["id"],
        "app_id": APP_ID,
        "ip": "127.0.0.1",
        "data": {"session_id": alice["session_id"]},
    }


async def test_after_a_reset_every_session_uses_the_new_key(keys: KeyKeeper) -> None:
    logins = [await keys.stage.login(), await keys.stage.login()]
    assert await keys.states(logins[0]["user"]["id"], "reset") == [(APP_ID, True, None)]
    tapped = keys.tap()
    assert [await keys.can_open(login, tapped) for login in logins] == [True, True]


@pytest.mark.parametrize("name", ["app_id", "appId", "appid"])
async def test_the_check_can_be_limited_to_one_app(keys: KeyKeeper, name: str) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    other = await keys.stage.login(app_id=OTHER_APP_ID)
    before = keys.tap(app_id=OTHER_APP_ID)
    assert await keys.states(user_id, "reset", json={name: APP_ID}) == [(APP_ID, True, None)]
    assert await keys.can_open(other, before)
    assert [event["app_id"] for event in await keys.events()] == [APP_ID]


@pytest.mark.parametrize("body", [{"content": b""}, {"json": {}}, {"json": {"app_id": None}}])
async def test_without_an_app_the_keys_of_all_apps_are_reset(keys: KeyKeeper, body: Body) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    await keys.stage.login(app_id=OTHER_APP_ID)
    assert await keys.states(user_id, "reset", **body) == [(APP_ID, True, None), (OTHER_APP_ID, True, None)]
    assert len(await keys.events()) == 2


async def test_an_app_in_which_the_user_is_not_has_no_key_to_reset(keys: KeyKeeper) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    assert await keys.states(user_id, "reset", json={"app_id": OTHER_APP_ID}) == []
    problem_of(await keys.ask(user_id, "reset", json={"app_id": "wxnobody"}), "unknown_app", 400)


async def test_a_key_that_wechat_no_longer_knows_cannot_be_reset(keys: KeyKeeper) -> None:
    alice = await keys.stage.login()
    log_in_elsewhere(keys.stage.simulator)
    stored = await keys.stored(alice)
    assert await keys.states(alice["user"]["id"], "reset") == [(APP_ID, False, None)]
    assert await keys.stored(alice) == stored is not None
    assert await keys.events() == []


class Meanwhile:
    """What happens between a reset at WeChat and its answer here."""

    happens: Callable[[], Awaitable[object]] | None = None


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    made, ask = Meanwhile(), WeChatBySimulator.handle_async_request

    async def ask_and_wait(wechat: WeChatBySimulator, request: httpx.Request) -> httpx.Response:
        response = await ask(wechat, request)
        if made.happens is not None and b"/wxa/resetusersessionkey" in request.extensions["target"]:
            await made.happens()
        return response

    monkeypatch.setattr(WeChatBySimulator, "handle_async_request", ask_and_wait)
    return made


async def test_a_login_during_a_reset_keeps_the_key_that_it_brought(keys: KeyKeeper, meanwhile: Meanwhile) -> None:
    alice = await keys.stage.login()
    meanwhile.happens = keys.stage.login
    await keys.states(alice["user"]["id"], "reset")
    tapped = keys.tap()
    assert await keys.can_open(alice, tapped)
    assert await keys.states(alice["user"]["id"], "check") == [(APP_ID, True, None)]


async def test_a_key_resealed_during_a_reset_is_replaced_all_the_same(keys: KeyKeeper, meanwhile: Meanwhile) -> None:
    alice = await keys.stage.login()

    async def reseal() -> None:
        context, sealer = session_key_context(APP_ID, alice["user"]["openid"]), keys.stage.services[Sealer]
        anew = sealer.seal(sealer.open(await keys.stored(alice) or b"", context=context), context=context)
        await keys.stage.rows.execute("UPDATE sessions SET session_key = $1 WHERE id = $2", anew, alice["session_id"])

    meanwhile.happens = reseal
    assert await keys.states(alice["user"]["id"], "reset") == [(APP_ID, True, None)]
    assert await keys.can_open(alice, keys.tap())


@pytest.mark.parametrize("end", ["log out", "erase"])
async def test_a_session_that_ends_during_a_reset_gets_no_key(keys: KeyKeeper, meanwhile: Meanwhile, end: str) -> None:
    alice = await keys.stage.login()
    acts = {
        "log out": lambda: keys.stage.client.post("/v1/logout", headers=bearer(alice)),
        "erase": lambda: leave(keys.stage.client, alice),
    }
    meanwhile.happens = acts[end]
    assert await keys.states(alice["user"]["id"], "reset") == [(APP_ID, False, None)]
    assert not await keys.stored(alice)
    assert await keys.events() == []


# By command.


@pytest.fixture
def show(simulator: Simulator, database_url: str, tmp_path: Path) -> Command:
    """Run `wxauth users show ...` with all settings, as an operator has them; any of them by name."""

    async def command(*arguments: str, **variables: str) -> CompletedProcess[str]:
        with serving(create_simulator(simulator)) as wechat_url:
            environment = service_env(database_url, wechat_base_url=wechat_url) | variables
            done = await to_thread(run, "users", "show", *arguments, cwd=tmp_path, env=environment)
        assert "Traceback" not in done.stderr
        return done

    return command


@pytest.mark.process
async def test_users_show_reports_for_each_key_whether_wechat_accepts_it(keys: KeyKeeper, show: Command) -> None:
    alice = await keys.stage.login()
    user_id, openid = alice["user"]["id"], alice["user"]["openid"]
    shown = await show(user_id)
    assert "session_key" not in shown.stdout
    for state in ("valid", "expired", "not stored"):
        checked = await show(user_id, "--check")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert f"session_key    {APP_ID}  {openid}  {state}\n" in checked.stdout
        if state == "valid":
            log_in_elsewhere(keys.stage.simulator)
        else:
            await keys.stage.client.post("/v1/logout", headers=bearer(alice))


@pytest.mark.process
async def test_for_programs_show_answers_as_the_routes_do(keys: KeyKeeper, show: Command) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    items = (await keys.ask(user_id, "check")).json()["items"]
    plain, checked = await show(user_id, "--json"), await show(user_id, "--check", "--json")
    assert json.loads(checked.stdout) == {**json.loads(plain.stdout), "session_keys": items}


@pytest.mark.process
async def test_show_fails_where_wechat_does_not_say_and_shows_the_user(keys: KeyKeeper, show: Command) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    keys.stage.simulator.fail("stable_token", errcode=40164)
    failed = await show(user_id, "--check")
    assert failed.returncode == 1
    assert "unknown: wechat_misconfigured\n" in failed.stdout
    assert "whitelist" in failed.stderr
    assert "1 session keys could not be checked" in failed.stderr


@pytest.mark.process
async def test_only_the_check_requires_all_settings(keys: KeyKeeper, show: Command) -> None:
    user_id = (await keys.stage.login())["user"]["id"]
    assert (await show(user_id, WXAUTH_SECRET_KEY="")).returncode == 0
    failed = await show(user_id, "--check", WXAUTH_SECRET_KEY="")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "WXAUTH_SECRET_KEY" in failed.stderr
