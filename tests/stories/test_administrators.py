"""Administrators manage keys, sessions, checks and events.

The tests also show which of these actions require a fresh login.
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes import OTHER_APP, Secrets
from tests.problems import problem_of
from tests.processes import serving
from tests.world import Admin, Stage, bearer, later, make_admin
from wxauth_desk.wechat import APPS, LATER_APP, Simulator, create_simulator

LATER = LATER_APP["app_id"]
Act = tuple[str, str, dict[str, Any]]
"""The method, path and body of a request."""


# Tests of a fresh login.


async def ids_of(stage: Stage, *names: str) -> list[str]:
    return [(await stage.login(name))["user"]["id"] for name in names]


async def refused_as_too_old(stale: Admin, acts: list[Act]) -> None:
    for method, path, body in acts:
        problem_of(await stale.ask(method, path, json=body), "login_too_old", 403)


async def test_an_old_login_gives_nobody_a_role_and_takes_nobodys_account(stage: Stage, root: Admin) -> None:
    alice, bob, banned, thief, victim = await ids_of(stage, "alice", "bob", "banned", "thief", "victim")
    await root.change(banned, roles=["admin"], status="disabled")
    stale = await later(root, stage.clock)
    acts: list[Act] = [
        ("PATCH", f"/users/{alice}", {"roles": ["admin"]}),
        ("PATCH", f"/users/{banned}", {"status": "active"}),
        ("PATCH", f"/users/{alice}", {"roles": ["admin", "editor"]}),
        ("POST", f"/users/{bob}/merge", {"into": root.id}),
        ("POST", f"/users/{victim}/merge", {"into": thief}),
    ]
    await refused_as_too_old(stale, [*acts, ("PATCH", f"/users/{bob}", {"roles": ["editor"]})])
    assert await stale.names(role="admin", status="active") == ["Root"]
    again = Admin(root.client, await stage.login("root"))
    for method, path, body in acts:
        assert (await again.ask(method, path, json=body)).status_code == 200


async def test_an_old_login_gives_or_keeps_the_role_of_nobody_who_is_banned(stage: Stage, root: Admin) -> None:
    """Otherwise, an old login could give a role to a banned user before the ban is lifted."""
    alice, banned, other = await ids_of(stage, "alice", "banned", "other")
    await root.change(banned, roles=["admin"], status="disabled")
    await root.change(other, status="disabled")
    stale = await later(root, stage.clock)
    before = await stale.read("/users")
    acts: list[Act] = [
        ("PATCH", f"/users/{alice}", {"roles": ["admin"], "status": "disabled"}),
        ("PATCH", f"/users/{other}", {"roles": ["admin"]}),
        ("PATCH", f"/users/{banned}", {"roles": ["admin", "editor"]}),
        ("POST", f"/users/{alice}/merge", {"into": banned}),
        ("POST", f"/users/{banned}/merge", {"into": alice}),
        ("POST", f"/users/{banned}/merge", {"into": root.id}),
        ("POST", f"/users/{root.id}/merge", {"into": banned}),
    ]
    await refused_as_too_old(stale, acts)
    assert await stale.read("/users") == before
    again = Admin(root.client, await stage.login("root"))
    for method, path, body in acts[:4]:
        assert (await again.ask(method, path, json=body)).status_code == 200


async def test_an_old_login_bans_unbans_signs_out_and_removes_roles(stage: Stage, root: Admin) -> None:
    alice, banned = await ids_of(stage, "alice", "banned")
    await root.change(alice, roles=["editor", "writer"])
    await root.change(banned, roles=["admin"], status="disabled")
    stale = await later(root, stage.clock)
    for status in ("disabled", "active"):
        changed = await stale.change(alice, roles=["editor"], status=status)
        assert (changed["roles"], changed["status"]) == (["editor"], status)
    assert (await stale.ask("DELETE", f"/users/{alice}/sessions")).status_code == 204
    for user_id in (alice, banned):
        await stale.change(user_id, roles=[])
    await stale.change(banned, status="active")


async def test_without_a_limit_any_login_will_do(stage: Stage, root: Admin) -> None:
    stage.clock.advance(days=1)
    old, client = await stage.refresh(root.answer), await stage.make(admin_fresh_login=0)
    assert (await Admin(client, old.json()).ask("POST", "/keys/rotate")).status_code == 200


# Tests of a single session.


async def test_a_person_is_signed_out_on_one_device_as_the_user_of_that_session(stage: Stage, root: Admin) -> None:
    one, other, bob = await stage.login("alice"), await stage.login("alice"), await stage.login("bob")
    user_id, path = one["user"]["id"], "/users/{}/sessions/{}"
    for wrong in ((bob["user"]["id"], one["session_id"]), (user_id, uuid4()), (uuid4(), one["session_id"])):
        problem_of(await root.ask("DELETE", path.format(*wrong)), "not_found", 404)
    problem_of(await root.ask("DELETE", path.format(user_id, "none")), "invalid_request", 422)
    assert (await stage.me(one)).status_code == 200
    for _ in range(2):
        assert (await root.ask("DELETE", path.format(user_id, one["session_id"]))).status_code == 204
    problem_of(await stage.me(one), "invalid_token", 401)
    assert (await stage.me(other)).status_code == 200
    [ended] = [event for event in await root.events(user_id=user_id) if "session" in event["type"]]
    assert ended["actor"] == root.id


# Tests of the checks.


@pytest.fixture
async def checked(stage: Stage, simulated: Simulator) -> AsyncIterator[Admin]:
    """An administrator of a service whose WeChat runs on a server of its own."""
    with serving(create_simulator(Simulator())) as url:
        stage = await stage.replica(wechat_base_url=url)
        yield await make_admin(stage.client, stage.rows, await stage.login("root"))


async def test_the_checks_are_there_over_http_and_can_be_limited_to_one_app(checked: Admin, secrets: Secrets) -> None:
    wrong, first = secrets.add("a-secret-that-is-wrong"), APPS[0]["app_id"]
    await checked.ask("POST", "/apps", json={"app_id": LATER, "app_secret": wrong, "check": False})
    page = await checked.read("/check")
    results = {it["name"]: it["ok"] for it in page["items"]}
    assert page["next_cursor"] is None
    assert all(it.keys() == {"name", "ok", "level", "message"} for it in page["items"])
    assert {"database", "schema", "signing_keys", "sealed_data", "issuer"} <= results.keys()
    assert (results[f"wechat {first} access_token"], results[f"wechat {LATER}"]) == (True, False)
    bad = (await checked.ask("POST", f"/apps/{LATER}/check")).json()["items"]
    names = [f"wechat {LATER}", f"wechat {LATER} access_token"]
    assert [(it["name"], it["ok"]) for it in bad][:2] == [(name, False) for name in names]
    assert "40125" in bad[0]["message"]
    of_first = (await checked.ask("POST", f"/apps/{first}/check")).json()["items"]
    assert all(it["name"].startswith(f"wechat {first}") for it in of_first)
    problem_of(await checked.ask("POST", f"/apps/{OTHER_APP['app_id']}/check"), "not_found", 404)


# Tests of a person's data.


@pytest.mark.oldest_postgres
async def test_a_persons_data_is_exported_and_the_trail_names_the_actor(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice", nickname="Alice")
    path = f"/users/{alice['user']['id']}/export"
    handed = await root.ask("GET", path)
    assert handed.headers["content-disposition"].startswith("attachment")
    assert handed.headers["cache-control"] == "no-store"
    own = (await stage.client.get("/v1/me/export", headers=bearer(alice))).json()
    assert handed.json()["user"] == own["user"]
    [event] = [it for it in await root.events(type="user.exported") if it["actor"] == root.id]
    assert event["user_id"] == alice["user"]["id"]
