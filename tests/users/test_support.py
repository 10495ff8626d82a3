"""The role `support` may only read, ban and sign out users, and may not change administrators or other staff."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.fakes import OTHER_APP
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Admin, Body, LogIn, Stage, bearer, set_roles, until_locked
from wxauth.console.links import NoLink, make_link

pytestmark = pytest.mark.settings(admin_page=True, access_token_ttl=86400)


@pytest.mark.oldest_postgres
async def test_support_reads_users_their_sessions_events_and_numbers(sue: Admin, login: LogIn) -> None:
    alice = await login("alice", nickname="Alice")
    assert await sue.names(q="Alice") == ["Alice"]
    assert len((await sue.read(f"/users/{alice['user']['id']}"))["sessions"]) == 1
    assert len((await sue.read("/events", user_id=alice["user"]["id"]))["items"]) == 1
    assert (await sue.read("/numbers", days=1))["days"][0]["new_users"] == 2


@pytest.mark.requirement("asvs-7.4.5")
async def test_support_bans_unbans_and_signs_out_and_the_trail_names_the_actor(sue: Admin, login: LogIn) -> None:
    user_id = (await login("alice"))["user"]["id"]
    await sue.change(user_id, status="disabled", reason="spam", roles=None)
    await sue.change(user_id, status="active")
    first, _ = await login("alice"), await login("alice")
    session_id = (await sue.read(f"/users/{user_id}"))["sessions"][-1]["id"]
    assert (await sue.ask("DELETE", f"/users/{user_id}/sessions/{session_id}")).status_code == 204
    assert (await sue.ask("DELETE", f"/users/{user_id}/sessions")).status_code == 204
    problem_of(await login.client.get("/v1/me", headers=bearer(first)), "invalid_token", 401)
    events = await sue.events(user_id=user_id)
    assert {(event["type"], event["actor"]) for event in events} == {
        (kind, sue.id) for kind in ("user.banned", "user.unbanned", "session.ended")
    }


@pytest.mark.slow
@pytest.mark.parametrize("roles", [["admin"], ["support"], ["editor", "admin"], ["support", "editor"]])
@pytest.mark.parametrize("is_banned", [False, True])
async def test_support_cannot_touch_administrators_and_other_staff_banned_or_not(
    stage: Stage, root: Admin, sue: Admin, roles: list[str], is_banned: bool
) -> None:
    user_id = (await stage.login("other"))["user"]["id"]
    session_id = (await root.read(f"/users/{user_id}"))["sessions"][0]["id"]
    await set_roles(stage.rows, *roles, user_id=user_id)
    if is_banned:
        await root.change(user_id, status="disabled", reason="lost phone")
    before, events = await root.read(f"/users/{user_id}"), len(await root.events())
    for change in (
        {"status": "disabled"},
        {"status": "active"},
        {"status": "disabled", "until": "2099-01-01T00:00:00Z"},
        {"reason": "not so"},
        {"nickname": None},
        {"avatar_url": None},
    ):
        problem_of(await sue.ask("PATCH", f"/users/{user_id}", json=change), "insufficient_role", 403)
    of_user = f"/users/{user_id}"
    for path in (f"{of_user}/sessions", f"{of_user}/sessions/{session_id}", f"{of_user}/phone"):
        problem_of(await sue.ask("DELETE", path), "insufficient_role", 403)
    assert await root.read(f"/users/{user_id}") == before
    assert len(await root.events()) == events


@swept("change", [*({"roles": [role]} for role in ("editor", "support", "admin")), {"roles": []}, {"erase_at": None}])
async def test_support_gives_no_roles_and_keeps_nobody(root: Admin, sue: Admin, login: LogIn, change: Body) -> None:
    alice = (await login("alice"))["user"]["id"]
    for user_id in (alice, sue.id, root.id):
        for whole in (change, {"status": "disabled", **change}):
            problem_of(await sue.ask("PATCH", f"/users/{user_id}", json=whole), "insufficient_role", 403)
    assert (await root.read(f"/users/{alice}"))["status"] == "active"
    assert await root.events() == []


async def test_a_user_who_is_just_being_made_staff_is_spared(stage: Stage, root: Admin, sue: Admin) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    async with stage.rows.transaction():
        await set_roles(stage.rows, "admin", user_id=user_id)
        asked = [
            asyncio.create_task(sue.ask("PATCH", f"/users/{user_id}", json={"status": "disabled"})),
            asyncio.create_task(sue.ask("DELETE", f"/users/{user_id}/sessions")),
        ]
        await until_locked(stage.rows, 2)
    for answer in await asyncio.gather(*asked):
        problem_of(answer, "insufficient_role", 403)
    assert len((await root.read(f"/users/{user_id}"))["sessions"]) == 1


async def test_a_user_who_has_lost_the_role_is_refused_at_once(root: Admin, sue: Admin) -> None:
    await root.change(sue.id, roles=["editor"])
    problem_of(await sue.ask("GET", "/users"), "insufficient_role", 403)
    await root.change(sue.id, roles=["support"], status="disabled")
    problem_of(await sue.ask("GET", "/users"), "invalid_token", 401)


# How users get and lose the role.


async def test_a_merge_by_unionid_leaves_a_banned_user_without_the_role(root: Admin, sue: Admin, login: LogIn) -> None:
    await root.change(sue.id, status="disabled")
    await login("known", unionid="union-sue")
    problem_of(await login.ask("sue", unionid="union-of-sue"), "account_disabled", 403)
    other = (await login("else", app=OTHER_APP, unionid="union-else"))["user"]["id"]
    problem_of(await login.ask("sue", unionid="union-else"), "account_disabled", 403)
    user = await root.read(f"/users/{other}")
    assert (user["status"], user["roles"]) == ("disabled", [])


# The console.


async def opened(stage: Stage, user_id: str) -> Body:
    link = await make_link(stage.services.database, UUID(user_id), now=stage.clock())
    secret, headers = {"secret": link.secret}, {"X-Wxauth-Console": "1"}
    return (await stage.client.post("/admin/session", json=secret, headers=headers)).json()


@pytest.mark.oldest_postgres
async def test_a_link_opens_the_console_for_support(stage: Stage, root: Admin, sue: Admin) -> None:
    as_root = await opened(stage, root.id)
    as_sue = await opened(stage, sue.id)
    assert (as_root["role"], as_sue["role"]) == ("admin", "support")
    assert (await root.client.get("/v1/admin/users", headers=bearer(as_sue))).status_code == 200
    problem_of(await root.client.get("/v1/admin/check", headers=bearer(as_sue)), "insufficient_role", 403)
    made = await make_link(stage.services.database, None, now=stage.clock())
    assert str(made.user_id) == root.id


async def test_the_console_closes_with_each_loss_of_a_role(stage: Stage, root: Admin) -> None:
    other: Any = (await stage.login("other"))["user"]["id"]
    await set_roles(stage.rows, "admin", "support", user_id=other)
    for roles in (["support"], ["editor"]):
        session = await opened(stage, other)
        await root.change(other, roles=roles)
        problem_of(await stage.client.get("/v1/admin/users", headers=bearer(session)), "invalid_token", 401)
        problem_of(await stage.client.put("/admin/session", headers={"X-Wxauth-Console": "1"}), "session_revoked", 400)
    with pytest.raises(NoLink, match="neither the admin nor the support role"):
        await make_link(stage.services.database, UUID(other), now=stage.clock())
