"""`wxauth users ...` can be called by an operator and by a program."""

import json
import os
import pty
from asyncio import to_thread
from pathlib import Path
from uuid import UUID

import pytest

from tests.problems import problem_of
from tests.processes import Command, run
from tests.world import BESIDE_LOGINS, LogIn, Stage, bearer, recorded, set_roles
from wxauth.core.users import PROFILE_FIELDS

pytestmark = pytest.mark.process

NOBODY = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
ACTIONS = [("show",), ("ban",), ("unban",), ("erase", "--yes"), ("grant", "editor"), ("revoke", "editor")]


def on(user_id: str, action: tuple[str, ...]) -> list[str]:
    return [action[0], user_id, *action[1:]]


@pytest.mark.requirement("asvs-6.3.2")
async def test_the_first_administrator_comes_from_a_command(stage: Stage, users: Command) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    problem_of(await stage.client.get("/v1/admin/users", headers=bearer(alice)), "insufficient_role", 403)
    granted = await users("grant", user_id, "admin")
    assert (granted.returncode, granted.stdout, granted.stderr) == (0, f"{user_id} is active, roles: admin\n", "")
    events = (await stage.client.get("/v1/admin/events", headers=bearer(alice))).json()["items"]
    assert [(event["type"], event["actor"], event["user_id"], event["ip"], event["data"]) for event in events] == [
        ("user.roles_changed", "operator", user_id, None, {"before": [], "after": ["admin"]}),
        ("user.created", user_id, user_id, "127.0.0.1", {}),
    ]


async def test_roles_are_granted_and_revoked_one_by_one(stage: Stage, users: Command) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    for command, role, roles in (
        ("grant", "support", "support"),
        ("grant", "editor", "support,editor"),
        ("grant", "support", "support,editor"),
        ("revoke", "support", "editor"),
        ("revoke", "support", "editor"),
        ("revoke", "editor", "-"),
    ):
        done = await users(command, user_id, role)
        assert (done.returncode, done.stdout) == (0, f"{user_id} is active, roles: {roles}\n")
    assert await stage.number(f"events WHERE {BESIDE_LOGINS}") == 4
    await set_roles(stage.rows, *(f"r{number}" for number in range(1, 33)))
    failed = await users("grant", user_id, "r33")
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    assert "at most 32 roles" in failed.stderr
    assert (await users("grant", user_id, "r32")).returncode == 0


@pytest.mark.requirement("asvs-7.4.2")
async def test_a_ban_ends_every_session_and_is_lifted_again(stage: Stage, users: Command) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    banned = await users("ban", user_id)
    assert (banned.returncode, banned.stdout) == (0, f"{user_id} is disabled, roles: -\n")
    problem_of(await stage.me(alice), "invalid_token", 401)
    problem_of(await stage.login.ask("alice"), "account_disabled", 403)
    await stage.rows.execute("UPDATE users SET erase_at = '2026-11-30T08:00Z'")
    at = "2026-11-30T08:00+00:00"
    assert (await users("ban", user_id)).stdout == f"{user_id} is disabled, roles: -, erase_at: {at}\n"
    assert ["erase_at", at] in [line.split() for line in (await users("show", user_id)).stdout.splitlines()]
    await stage.rows.execute("UPDATE users SET erase_at = NULL")
    assert (await users("unban", user_id)).stdout == f"{user_id} is active, roles: -\n"
    problem_of(await stage.me(alice), "invalid_token", 401)
    assert (await stage.login("alice"))["user"]["id"] == user_id


async def test_an_erased_person_is_gone(stage: Stage, users: Command) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    without_a_terminal = await users("erase", user_id)
    assert (without_a_terminal.returncode, without_a_terminal.stdout) == (2, "")
    assert "--yes" in without_a_terminal.stderr
    assert await stage.number("users") == 1
    erased = await users("erase", user_id, "--yes")
    assert (erased.returncode, erased.stdout, erased.stderr) == (0, f"erased {user_id}\n", "")
    assert await stage.number("users") == 0
    assert await recorded(stage.rows, "actor, data", "type = 'user.erased'") == [("operator", {"former_ids": []})]


@pytest.mark.parametrize(("reply", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1)])
async def test_on_a_terminal_the_operator_is_asked_about_the_person_by_name(
    stage: Stage, database_url: str, tmp_path: Path, reply: str, status: int, left: int
) -> None:
    user_id = (await stage.login("alice", nickname="小明"))["user"]["id"]
    terminal, stdin = pty.openpty()
    os.write(terminal, reply.encode())
    try:
        env = {"WXAUTH_DATABASE_URL": database_url}
        done = await to_thread(run, "users", "erase", user_id, cwd=tmp_path, env=env, stdin=stdin)
    finally:
        os.close(stdin)
        os.close(terminal)
    assert done.returncode == status
    assert f"{user_id} (小明)" in done.stderr
    assert await stage.number("users") == left


@pytest.mark.parametrize("action", [("ban",), ("revoke", "admin"), ("erase", "--yes")])
async def test_no_command_removes_the_last_administrator(stage: Stage, users: Command, action: tuple[str, ...]) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    await set_roles(stage.rows, "admin")
    failed = await users(*on(user_id, action), LC_ALL="zh_CN.UTF-8")
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "该用户是唯一的管理员，请先指定另一位管理员\n")
    assert tuple(await stage.rows.fetchrow("SELECT roles, status FROM users")) == (["admin"], "active")


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action[0])
async def test_an_unknown_user_is_a_failure_a_wrong_id_a_usage_error(users: Command, action: tuple[str, ...]) -> None:
    failed = await users(*on(NOBODY, action))
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    assert f"user {NOBODY} does not exist" in failed.stderr
    wrong = await users(*on("alice", action))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "USER_ID" in wrong.stderr


async def test_the_list_is_a_table_for_people_and_an_answer_for_programs(stage: Stage, users: Command) -> None:
    alice, bob = await stage.login("alice", nickname="小明👨‍👩‍👧"), await stage.login("bob")
    await set_roles(stage.rows, "admin", "editor", user_id=alice["user"]["id"])
    listed = await users("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    called = f"…{bob['user']['id'][-8:]}"
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["ID", "STATUS", "ROLES", "LAST_SEEN_AT", "NICKNAME"],
        [bob["user"]["id"], "active", "-", "2026-11-20T08:00+00:00", "WeChat", "user", called],
        [alice["user"]["id"], "active", "admin,editor", "2026-11-20T08:00+00:00", "小明👨‍👩‍👧"],
    ]
    assert f"微信用户 {called}" in (await users("list", LC_ALL="zh_CN.UTF-8")).stdout
    listed = await users("list", "--json")
    assert json.loads(listed.stdout) == (await stage.client.get("/v1/admin/users", headers=bearer(alice))).json()


async def test_a_user_is_a_table_for_people_and_the_services_answer_for_programs(stage: Stage, users: Command) -> None:
    site = await stage.login("alice", nickname="小明")
    alice = await stage.login("alice")
    user = alice["user"]
    await set_roles(stage.rows, "admin")
    await stage.rows.execute("UPDATE sessions SET client_id = 'shop' WHERE id = $1", UUID(site["session_id"]))
    # The command uses the real time. Without this change, a session made at the test's time might have expired.
    await stage.rows.execute("UPDATE sessions SET expires_at = '2999-01-01Z'")
    shown = await users("show", user["id"])
    assert (shown.returncode, shown.stderr) == (0, "")
    used = "used 2026-11-20T08:00+00:00  127.0.0.1  -  opened 2026-11-20T08:00+00:00 from 127.0.0.1"
    assert [line.split(maxsplit=1) for line in shown.stdout.splitlines()] == [
        ["id", user["id"]],
        ["status", "active"],
        ["roles", "admin"],
        ["nickname", "小明"],
        *([name, "-"] for name in PROFILE_FIELDS if name != "nickname"),
        ["phone", "-"],
        ["unionid", "-"],
        ["external_id", "-"],
        ["created_at", "2026-11-20T08:00+00:00"],
        ["last_login_at", "2026-11-20T08:00+00:00"],
        ["last_seen_at", "2026-11-20T08:00+00:00"],
        ["identity", f"{user['app_id']}  {user['openid']}"],
        ["session", f"{alice['session_id']}  {user['app_id']}  {used}"],
        ["session", f"{site['session_id']}  shop  {used}"],
    ]
    shown = await users("show", user["id"], "--json")
    answer = await stage.client.get(f"/v1/admin/users/{user['id']}", headers=bearer(alice))
    assert json.loads(shown.stdout) == answer.json()


@pytest.mark.requirement("asvs-16.4.1")
@pytest.mark.parametrize("option", ["--json", "--export"])
async def test_json_does_not_steer_the_terminal(stage: Stage, users: Command, option: str) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    nickname = "小明\x7f\x9b31m\u202e\U000e0041"
    await stage.rows.execute("UPDATE users SET nickname = $1", nickname)
    shown = (await users("show", user_id, option)).stdout.removesuffix("\n")
    assert shown.isprintable()
    assert "小明" in shown
    user = json.loads(shown)
    assert user.get("user", user)["nickname"] == nickname


async def test_a_sign_out_ends_all_sessions_and_the_user_can_log_in_again(stage: Stage, users: Command) -> None:
    alice, elsewhere, bob = await stage.login("alice"), await stage.login("alice"), await stage.login("bob")
    user_id = alice["user"]["id"]
    for _ in range(2):
        done = await users("sign-out", user_id)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"signed out {user_id} on all devices\n", "")
    for each in (alice, elsewhere):
        problem_of(await stage.me(each), "invalid_token", 401)
        problem_of(await stage.refresh(each), "session_revoked", 400)
    assert (await stage.me(bob)).status_code == 200
    [ended] = await stage.rows.fetch("SELECT actor, data ->> 'reason' FROM events WHERE type = 'session.ended'")
    assert tuple(ended) == ("operator", "administrator")
    assert "ended by staff or a service" in (await users("show", user_id)).stdout
    assert (await stage.login("alice"))["is_new_user"] is False
    unknown = await users("sign-out", NOBODY)
    assert (unknown.returncode, unknown.stdout) == (1, "")


async def test_the_next_page_is_named(users: Command, login: LogIn) -> None:
    ids = [(await login(person))["user"]["id"] for person in ("alice", "bob", "carol")]
    first = await users("list", "--limit", "2")
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["ID", ids[2], ids[1]]
    cursor = first.stderr.split("--cursor ")[1].split()[0]
    second = await users("list", "--limit", "2", "--cursor", cursor)
    assert [line.split()[0] for line in second.stdout.splitlines()] == ["ID", ids[0]]
    assert second.stderr == ""


@pytest.mark.no_database
async def test_an_invalid_argument_is_a_usage_error(users: Command) -> None:
    options = [("--limit", "0"), ("--limit", "201"), ("--status", "banned"), ("--cursor", "x"), ("--q", "\udce9")]
    roles = [("grant", NOBODY, "Admin"), ("revoke", NOBODY, "a,b"), ("list", "--role", "9")]
    for arguments in (*(("list", *each) for each in options), *roles):
        failed = await users(*arguments)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert (arguments[1] if arguments[1].startswith("--") else "role") in failed.stderr.lower()
    for command, option in (("ban", "--reason"), ("split", "--identity")):
        assert "must be UTF-8" in (await users(command, NOBODY, option, "\udce9:x")).stderr


async def test_a_database_away_or_not_migrated_is_said_in_one_line(users: Command, empty_database_url: str) -> None:
    for url in ("postgresql:///x?host=/nowhere", empty_database_url):
        for arguments in (("list",), ("ban", NOBODY)):
            failed = await users(*arguments, WXAUTH_DATABASE_URL=url)
            assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
            assert failed.stderr.startswith("WXAUTH_DATABASE_URL: ")
