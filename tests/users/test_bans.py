"""Bans with a reason, and with an end after which the user may log in again."""

import asyncio
import json
from asyncio import to_thread
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.clock import Clock
from tests.fakes import WeChatByRespx
from tests.moving.mover import Mover
from tests.problems import problem_of
from tests.processes import run
from tests.sweeps import swept
from tests.world import Admin, Client, LogIn, MakeServices, Rows, bearer, until_locked
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import BANS_CHECK_PAUSE_SECONDS, Pace, lift_ended_bans

SHORT = timedelta(minutes=5)
A_SECOND = timedelta(seconds=1)
REASON = "sold accounts to Bob, see ticket 4711"


@pytest.fixture
async def alice(root: Admin, login: LogIn) -> dict[str, Any]:
    return await login("alice")


async def refused_login(client: Client, wechat: WeChatByRespx) -> dict[str, Any]:
    answer = await client.post("/v1/login", json={"code": wechat.code_for("alice")})
    return problem_of(answer, "account_disabled", 403)


async def lift(services: Services, *, page_size: int = 100) -> None:
    await lift_ended_bans(services, Pace(page_size, 0))


def in_utc(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


async def bans_in(root: Admin, user_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    items = (await root.read("/events", user_id=user_id, type=["user.banned", "user.unbanned"]))["items"]
    return [(event["type"], event["actor"], event["data"]) for event in items]


async def test_a_ban_says_to_staff_why_and_to_the_phone_until_when(
    client: Client, root: Admin, alice: dict[str, Any], wechat: WeChatByRespx, clock: Clock
) -> None:
    user_id, until = alice["user"]["id"], clock() + SHORT
    ban = {"status": "disabled", "reason": f"  {REASON} ", "until": in_utc(until)}
    banned = await root.change(user_id, **ban)
    assert (banned["status"], banned["reason"], banned["until"]) == ("disabled", REASON, in_utc(until))
    listed = (await root.read("/users", status="disabled"))["items"]
    assert [(user["reason"], user["until"]) for user in listed] == [(REASON, in_utc(until))]
    assert await bans_in(root, user_id) == [("user.banned", root.id, {"reason": REASON, "until": in_utc(until)})]

    at_login = await refused_login(client, wechat)
    at_refresh = await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})
    for refused in (at_login, problem_of(at_refresh, "account_disabled", 403)):
        assert refused["until"] == in_utc(until)
        assert REASON not in json.dumps(refused)


async def test_a_ban_without_an_end_names_none(
    client: Client, root: Admin, alice: dict[str, Any], wechat: WeChatByRespx, services: Services, clock: Clock
) -> None:
    assert "until" not in await root.change(alice["user"]["id"], status="disabled")
    assert await bans_in(root, alice["user"]["id"]) == [("user.banned", root.id, {})]
    clock.advance(days=3650)
    await lift(services)
    assert "until" not in await refused_login(client, wechat)


async def test_a_ban_is_lifted_by_itself_within_a_minute_and_not_before(
    root: Admin, alice: dict[str, Any], login: LogIn, wechat: WeChatByRespx, services: Services, clock: Clock
) -> None:
    user_id = alice["user"]["id"]
    await root.change(user_id, status="disabled", reason=REASON, until=in_utc(clock() + SHORT))
    clock.now += SHORT - A_SECOND
    await lift(services)
    await refused_login(root.client, wechat)
    clock.now += A_SECOND
    await lift(services)
    assert BANS_CHECK_PAUSE_SECONDS < 60
    assert (await login("alice"))["user"]["id"] == user_id
    user = await root.read(f"/users/{user_id}")
    assert user["status"] == "active"
    assert not user.keys() & {"reason", "until"}
    assert (await bans_in(root, user_id))[0] == ("user.unbanned", "system", {})


@pytest.mark.oldest_postgres
async def test_a_later_ban_replaces_reason_and_end(
    root: Admin, alice: dict[str, Any], services: Services, clock: Clock
) -> None:
    user_id = alice["user"]["id"]
    first, second = in_utc(clock() + SHORT), in_utc(clock() + 2 * SHORT)
    await root.change(user_id, status="disabled", reason="spam", until=first)
    longer = await root.change(user_id, status="disabled", until=second)
    assert (longer.get("reason"), longer["until"]) == (None, second)
    clock.now += SHORT
    await lift(services)
    assert (await root.read(f"/users/{user_id}"))["status"] == "disabled"
    for_good = await root.change(user_id, status="disabled", reason="again")
    assert (for_good["reason"], for_good.get("until")) == ("again", None)
    assert [data for _, _, data in await bans_in(root, user_id)] == [
        {"reason": "again"},
        {"until": second},
        {"reason": "spam", "until": first},
    ]


async def test_without_a_status_one_of_both_may_be_changed_and_the_other_stays(
    root: Admin, alice: dict[str, Any], clock: Clock
) -> None:
    user_id, until = alice["user"]["id"], in_utc(clock() + SHORT)
    await root.change(user_id, status="disabled", reason="spam")
    assert (await root.change(user_id, until=until))["reason"] == "spam"
    assert (await root.change(user_id, reason="more spam"))["until"] == until
    assert len(await bans_in(root, user_id)) == 3
    await root.change(user_id, reason="more spam")
    assert len(await bans_in(root, user_id)) == 3
    again = await root.change(user_id, status="active")
    assert not again.keys() & {"reason", "until"}


@swept(
    ("change", "field"),
    [
        ({"reason": "spam"}, "reason"),
        ({"until": "2099-01-01T00:00:00Z"}, "until"),
        ({"status": "active", "reason": "spam"}, "reason"),
        ({"status": "disabled", "until": "2001-01-01T00:00:00Z"}, "until"),
        ({"status": "disabled", "until": "2026-11-20T08:00:00Z"}, "until"),  # which is now
        ({"status": "disabled", "until": "2099-01-01T00:00:00"}, "until"),
        ({"status": "disabled", "until": "2099-01-01"}, "until"),
        ({"status": "disabled", "until": 4070908800}, "until"),
        ({"status": "disabled", "until": "4070908800"}, "until"),
        ({"status": "disabled", "until": "9999-12-31T23:59:59-23:59"}, "until"),
        ({"status": "disabled", "reason": "x" * 501}, "reason"),
        ({"status": "disabled", "reason": "\u0000"}, "reason"),
        ({"status": "disabled", "reason": 1}, "reason"),
    ],
)
async def test_an_invalid_ban_or_one_that_ends_in_the_past_is_refused(
    root: Admin, alice: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    refused = await root.ask("PATCH", f"/users/{alice['user']['id']}", json=change)
    assert [error["field"] for error in problem_of(refused, "invalid_request", 422)["errors"]] == [field]
    assert (await root.read(f"/users/{alice['user']['id']}"))["status"] == "active"


async def test_the_longest_reason_is_kept_whole(root: Admin, alice: dict[str, Any]) -> None:
    reason = "封" * 500
    assert (await root.change(alice["user"]["id"], status="disabled", reason=reason))["reason"] == reason
    assert (await root.change(alice["user"]["id"], status="disabled", reason=" ")).get("reason") is None


async def test_two_replicas_lift_a_ban_once(
    root: Admin, login: LogIn, services: Services, make_services: MakeServices, clock: Clock
) -> None:
    until, ids = in_utc(clock() + SHORT), [(await login(name))["user"]["id"] for name in ("alice", "bob", "carol")]
    for user_id in ids:
        await root.change(user_id, status="disabled", until=until)
    clock.now += SHORT
    other = await make_services()
    await asyncio.gather(*(lift(each, page_size=1) for each in (services, other, services, other)))
    for user_id in ids:
        assert [kind for kind, _, _ in await bans_in(root, user_id)] == ["user.unbanned", "user.banned"]


async def test_a_ban_that_is_renewed_while_it_is_lifted_stays(
    root: Admin, alice: dict[str, Any], services: Services, rows: Rows, clock: Clock
) -> None:
    user_id = alice["user"]["id"]
    await root.change(user_id, status="disabled", until=in_utc(clock() + SHORT))
    clock.now += SHORT
    later = in_utc(clock() + SHORT)
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user_id)
        changing = asyncio.create_task(root.change(user_id, status="disabled", until=later))
        await until_locked(rows)
        await lift(services)  # skips the locked row, and the administrator's word is next
    assert (await changing)["until"] == later
    await lift(services)
    assert (await root.read(f"/users/{user_id}"))["status"] == "disabled"
    assert (await bans_in(root, user_id))[0][2] == {"until": later}


async def test_the_person_never_learns_the_reason(root: Admin, alice: dict[str, Any], login: LogIn) -> None:
    user_id = alice["user"]["id"]
    await root.change(user_id, status="disabled", reason=REASON)
    await root.change(user_id, status="active")
    again = await login("alice")
    for path in ("/v1/me", "/v1/me/export"):
        answer = await root.client.get(path, headers=bearer(again))
        assert answer.status_code == 200
        assert REASON not in answer.text
    exported = await root.read(f"/users/{user_id}/export")
    assert [event["data"] for event in exported["events"] if event["type"] == "user.banned"] == [{}]


async def test_a_merge_keeps_the_ban_that_lasts_longer(client: Client, root: Admin, login: LogIn, clock: Clock) -> None:
    ids = {name: (await login(name))["user"]["id"] for name in ("alice", "bob", "carol", "dora")}
    sooner, later = in_utc(clock() + SHORT), in_utc(clock() + 2 * SHORT)
    await root.change(ids["alice"], status="disabled", reason="sooner", until=sooner)
    await root.change(ids["bob"], status="disabled", reason="later", until=later)
    await root.change(ids["carol"], status="disabled", reason="for good")
    for former, into, kept in (
        ("bob", "alice", ("later", later)),
        ("alice", "dora", ("later", later)),
        ("dora", "carol", ("for good", None)),
    ):
        answer = await root.ask("POST", f"/users/{ids[former]}/merge", json={"into": ids[into]})
        user = answer.json()
        assert (user["status"], user["reason"], user.get("until")) == ("disabled", *kept)


async def test_an_export_takes_a_ban_along_and_an_import_brings_it_back(
    root: Admin, alice: dict[str, Any], services: Services, rows: Rows, clock: Clock
) -> None:
    user_id, until, mover = alice["user"]["id"], in_utc(clock() + SHORT), Mover(services, rows)
    await root.change(user_id, status="disabled", reason=REASON, until=until)
    line = next(line for line in map(json.loads, (await mover.export()).splitlines()) if line["user_id"] == user_id)
    assert (line["ban_reason"], line["banned_until"]) == (REASON, until)
    await root.ask("DELETE", f"/users/{user_id}")
    assert await mover.import_lines(line, restore=True) == (1, 0, 0, 0)
    user = await root.read(f"/users/{user_id}")
    assert (user["status"], user["reason"], user["until"]) == ("disabled", REASON, until)
    # Other words of the file, such as roles, leave the ban as it is.
    assert await mover.import_lines({**line, "roles": ["editor"]}, takes_roles=True) == (0, 1, 0, 0)
    assert (await root.read(f"/users/{user_id}"))["reason"] == REASON
    assert await mover.import_lines({**line, "status": "active"}, takes_status=True) == (0, 1, 0, 0)
    user = await root.read(f"/users/{user_id}")
    assert user["status"] == "active"
    assert not user.keys() & {"reason", "until"}


@pytest.mark.process
async def test_a_command_bans_with_reason_and_end(
    root: Admin, alice: dict[str, Any], database_url: str, tmp_path: Path
) -> None:
    user_id = alice["user"]["id"]

    async def users(*arguments: str) -> Any:
        return await to_thread(run, "users", *arguments, cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})

    done = await users("ban", user_id, "--reason", REASON, "--until", "2099-01-02T08:00:00+08:00")
    assert done.stdout == f"{user_id} is disabled until 2099-01-02T00:00+00:00, roles: -\n"
    shown = (await users("show", user_id)).stdout
    assert REASON in shown
    assert "2099-01-02T00:00+00:00" in shown
    past = await users("ban", user_id, "--until", "2001-01-01T00:00:00Z")
    assert (past.returncode, past.stdout) == (1, "")
    assert "until" in past.stderr
    for wrong in (("--until", "friday"), ("--until", "2099-01-01"), ("--reason", "x" * 501)):
        assert (await users("ban", user_id, *wrong)).returncode == 2
    assert (await root.read(f"/users/{user_id}"))["reason"] == REASON
