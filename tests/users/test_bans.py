"""Bans can have a reason, and an end after which the user can log in again."""

import asyncio
import json
from datetime import datetime, timedelta

import pytest

from tests.fakes import APP
from tests.import_export.mover import Mover
from tests.problems import problem_of
from tests.processes import Command
from tests.sweeps import swept
from tests.world import Admin, Body, LogIn, Stage, bearer, locked, until_locked
from wxauth.core.services import Services
from wxauth.housekeeping.housekeeping import DUE_CHECK_PAUSE_SECONDS, Pace, lift_ended_bans

SHORT = timedelta(minutes=5)
A_SECOND = timedelta(seconds=1)
REASON = "sold accounts to Bob, see ticket 4711"


@pytest.fixture
async def alice(root: Admin, login: LogIn) -> str:
    """Log in Alice and return her id."""
    return (await login("alice"))["user"]["id"]


async def refused_login(stage: Stage) -> Body:
    return problem_of(await stage.login.ask("alice"), "account_disabled", 403)


async def lift(services: Services, *, page_size: int = 100) -> None:
    await lift_ended_bans(services, Pace(page_size, 0))


def in_utc(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


async def bans_in(root: Admin, user_id: str) -> list[tuple[str, str, Body]]:
    items = (await root.read("/events", user_id=user_id, type=["user.banned", "user.unbanned"]))["items"]
    return [(event["type"], event["actor"], event["data"]) for event in items]


async def test_a_ban_says_to_staff_why_and_to_the_phone_until_when(stage: Stage, root: Admin, alice: str) -> None:
    session, until = await stage.login("alice"), in_utc(stage.clock() + SHORT)
    banned = await root.change(alice, status="disabled", reason=f"  {REASON} ", until=until)
    assert (banned["status"], banned["reason"], banned["until"]) == ("disabled", REASON, until)
    listed = (await root.read("/users", status="disabled"))["items"]
    assert [(user["reason"], user["until"]) for user in listed] == [(REASON, until)]
    assert await bans_in(root, alice) == [("user.banned", root.id, {"reason": REASON, "until": until})]

    at_refresh = problem_of(await stage.refresh(session), "account_disabled", 403)
    for refused in (await refused_login(stage), at_refresh):
        assert refused["until"] == until
        assert REASON not in json.dumps(refused)


async def test_a_ban_without_an_end_names_none(stage: Stage, root: Admin, alice: str) -> None:
    assert "until" not in await root.change(alice, status="disabled")
    assert await bans_in(root, alice) == [("user.banned", root.id, {})]
    stage.clock.advance(days=3650)
    await lift(stage.services)
    assert "until" not in await refused_login(stage)


async def test_a_ban_is_lifted_by_itself_within_a_minute_and_not_before(stage: Stage, root: Admin, alice: str) -> None:
    await root.change(alice, status="disabled", reason=REASON, until=in_utc(stage.clock() + SHORT))
    stage.clock.now += SHORT - A_SECOND
    await lift(stage.services)
    await refused_login(stage)
    stage.clock.now += A_SECOND
    await lift(stage.services)
    assert DUE_CHECK_PAUSE_SECONDS < 60
    assert (await stage.login("alice"))["user"]["id"] == alice
    user = await root.read(f"/users/{alice}")
    assert user["status"] == "active"
    assert not user.keys() & {"reason", "until"}
    assert (await bans_in(root, alice))[0] == ("user.unbanned", "system", {})


@pytest.mark.oldest_postgres
async def test_a_later_ban_replaces_reason_and_end(stage: Stage, root: Admin, alice: str) -> None:
    first, second = in_utc(stage.clock() + SHORT), in_utc(stage.clock() + 2 * SHORT)
    await root.change(alice, status="disabled", reason="spam", until=first)
    longer = await root.change(alice, status="disabled", until=second)
    assert (longer.get("reason"), longer["until"]) == (None, second)
    stage.clock.now += SHORT
    await lift(stage.services)
    assert (await root.read(f"/users/{alice}"))["status"] == "disabled"
    for_good = await root.change(alice, status="disabled", reason="again")
    assert (for_good["reason"], for_good.get("until")) == ("again", None)
    assert [data for _, _, data in await bans_in(root, alice)] == [
        {"reason": "again"},
        {"until": second},
        {"reason": "spam", "until": first},
    ]


async def test_without_a_status_one_may_be_changed_and_the_other_stays(stage: Stage, root: Admin, alice: str) -> None:
    until = in_utc(stage.clock() + SHORT)
    await root.change(alice, status="disabled", reason="spam")
    assert (await root.change(alice, until=until))["reason"] == "spam"
    assert (await root.change(alice, reason="more spam"))["until"] == until
    assert len(await bans_in(root, alice)) == 3
    await root.change(alice, reason="more spam")
    assert len(await bans_in(root, alice)) == 3
    assert not (await root.change(alice, status="active")).keys() & {"reason", "until"}
    longest = "封" * 500
    assert (await root.change(alice, status="disabled", reason=longest))["reason"] == longest
    assert (await root.change(alice, status="disabled", reason=" ")).get("reason") is None


@swept(
    ("change", "field"),
    [
        ({"reason": "spam"}, "reason"),
        ({"status": "disabled", "roles": [f"r{n}" for n in range(33)]}, "roles"),
        ({"status": "disabled", "until": "2001-01-01T00:00:00Z"}, "until"),
        ({"status": "disabled", "until": "2026-11-20T08:00:00Z"}, "until"),  # this is the present time
        ({"status": "disabled", "until": "2099-01-01T00:00:00"}, "until"),
        ({"status": "disabled", "until": "4070908800"}, "until"),
        ({"status": "disabled", "until": "9999-12-31T23:59:59-23:59"}, "until"),
    ],
)
async def test_a_ban_that_is_wrong_in_part_is_refused(root: Admin, alice: str, change: Body, field: str) -> None:
    refused = await root.ask("PATCH", f"/users/{alice}", json=change)
    assert [error["field"] for error in problem_of(refused, "invalid_request", 422)["errors"]] == [field]
    assert (await root.read(f"/users/{alice}"))["status"] == "active"
    assert await bans_in(root, alice) == []


async def test_two_replicas_lift_a_ban_once(stage: Stage, root: Admin) -> None:
    until = in_utc(stage.clock() + SHORT)
    ids = [(await stage.login(name))["user"]["id"] for name in ("alice", "bob", "carol")]
    for user_id in ids:
        await root.change(user_id, status="disabled", until=until)
    stage.clock.now += SHORT
    other = await stage.make_services()
    await asyncio.gather(*(lift(each, page_size=1) for each in (stage.services, other, stage.services, other)))
    for user_id in ids:
        assert [kind for kind, _, _ in await bans_in(root, user_id)] == ["user.unbanned", "user.banned"]


async def test_a_ban_that_is_renewed_while_it_is_lifted_stays(stage: Stage, root: Admin, alice: str) -> None:
    await root.change(alice, status="disabled", until=in_utc(stage.clock() + SHORT))
    stage.clock.now += SHORT
    later = in_utc(stage.clock() + SHORT)
    async with locked(stage.rows, alice):
        changing = asyncio.create_task(root.change(alice, status="disabled", until=later))
        await until_locked(stage.rows)
        await lift(stage.services)  # this skips the locked row, so the administrator's change comes next
    assert (await changing)["until"] == later
    await lift(stage.services)
    assert (await root.read(f"/users/{alice}"))["status"] == "disabled"
    assert (await bans_in(root, alice))[0][2] == {"until": later}


async def test_the_person_never_learns_the_reason(root: Admin, alice: str, login: LogIn) -> None:
    await root.change(alice, status="disabled", reason=REASON)
    await root.change(alice, status="active")
    again = await login("alice")
    for path in ("/v1/me", "/v1/me/export"):
        answer = await root.client.get(path, headers=bearer(again))
        assert answer.status_code == 200
        assert REASON not in answer.text
    exported = await root.read(f"/users/{alice}/export")
    assert [event["data"] for event in exported["events"] if event["type"] == "user.banned"] == [{}]


async def test_a_merge_keeps_a_ban(stage: Stage, root: Admin, alice: str) -> None:
    bob, until = (await stage.login("bob"))["user"]["id"], in_utc(stage.clock() + SHORT)
    await root.change(alice, status="disabled", reason="spam", until=until)
    user = (await root.merge(alice, into=bob)).json()
    assert (user["status"], user["reason"], user["until"]) == ("disabled", "spam", until)


async def test_an_import_of_roles_leaves_a_ban_and_one_of_the_status_lifts_it(
    stage: Stage, root: Admin, alice: str
) -> None:
    await root.change(alice, status="disabled", reason=REASON, until=in_utc(stage.clock() + SHORT))
    line = {"app_id": APP["app_id"], "openid": "openid-a1-alice", "roles": ["editor"], "status": "active"}
    assert await Mover(stage).import_lines(line, takes_roles=True) == (0, 1, 0, 0)
    assert (await root.read(f"/users/{alice}"))["reason"] == REASON
    assert await Mover(stage).import_lines(line, takes_status=True) == (0, 1, 0, 0)
    user = await root.read(f"/users/{alice}")
    assert user["status"] == "active"
    assert not user.keys() & {"reason", "until"}


@pytest.mark.process
async def test_a_command_bans_with_reason_and_end(root: Admin, alice: str, users: Command) -> None:
    done = await users("ban", alice, "--reason", REASON, "--until", "2099-01-02T08:00:00+08:00")
    assert done.stdout == f"{alice} is disabled until 2099-01-02T00:00+00:00, roles: -\n"
    shown = (await users("show", alice)).stdout
    assert REASON in shown
    assert "2099-01-02T00:00+00:00" in shown
    past = await users("ban", alice, "--until", "2001-01-01T00:00:00Z", LC_ALL="zh_CN.UTF-8")
    assert (past.returncode, past.stdout, past.stderr) == (1, "", "until：必须晚于当前时间\n")
    for wrong in (("--until", "friday"), ("--until", "2099-01-01"), ("--reason", "x" * 501)):
        assert (await users("ban", alice, *wrong)).returncode == 2
    assert (await root.read(f"/users/{alice}"))["reason"] == REASON
