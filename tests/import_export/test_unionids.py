"""Files can contain unionids instead of openids, which are refused or corrected, and unionids without openids."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jose.jwt import get_unverified_claims

from tests.fakes import APP, OTHER_APP, service_env
from tests.import_export.mover import Mover
from tests.problems import problem_of
from tests.processes import run
from tests.world import Admin, Body, LogIn, Stage, add_client, body_of, recorded
from wxauth.clients.models import Scope
from wxauth.import_export.rules import GIVEN_BEFORE, UNIONID_AS_OPENID
from wxauth_desk.wechat.people import unionid_of

APP_ID, OTHER_APP_ID = APP["app_id"], OTHER_APP["app_id"]
UNION, OTHER_UNION, THIRD_UNION = map(unionid_of, ("alice", "bob", "carol"))
USER_ID = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
WRONG: Body = {"app_id": APP_ID, "openid": UNION}
ALONE: Body = {"unionid": UNION, "external_id": "7", "nickname": "Alice"}

pytestmark = pytest.mark.settings(apps=[APP, OTHER_APP])


@pytest.fixture
def mover(stage: Stage) -> Mover:
    return Mover(stage)


async def identities(stage: Stage) -> list[tuple[Any, ...]]:
    rows = await stage.rows.fetch("SELECT app_id, openid, unionid, awaits_login FROM identities ORDER BY 1, 2")
    return [tuple(row) for row in rows]


# A unionid instead of an openid in a file.

RIGHT: Body = {"app_id": APP_ID, "openid": "openid-right", "unionid": UNION}
THERE: Body = {"app_id": OTHER_APP_ID, "openid": "openid-there", "unionid": UNION}
REFUSED: dict[str, tuple[list[Body], list[int], list[tuple[int, ...]]]] = {
    "its own": ([{**WRONG, "unionid": UNION}], [1], [()]),
    "of an earlier line": ([RIGHT, WRONG], [2], [(1,)]),
    "of a later line": ([WRONG, RIGHT], [1], [(2,)]),
    "of a line of another app": ([WRONG, THERE], [1], [(2,)]),
    "of a line without an openid": ([WRONG, ALONE], [1], [(2,)]),
    "of a line of an export": ([WRONG, {**RIGHT, "user_id": USER_ID}], [1], [(2,)]),
    "of a line that is refused": ([WRONG, {**RIGHT, "status": "?"}], [1, 2], [(2,), ()]),
    "of lines far apart": (
        [WRONG, *({"app_id": APP_ID, "openid": f"person-{n}"} for n in range(9)), THERE],
        [1],
        [(11,)],
    ),
    "swapped columns": ([{**WRONG, "unionid": OTHER_UNION}, {**WRONG, "openid": OTHER_UNION}], [2], [(1,)]),
}


@pytest.mark.parametrize("batch", [500, 1])
@pytest.mark.parametrize("is_csv", [False, True])
@pytest.mark.parametrize(("lines", "refused", "others"), REFUSED.values(), ids=REFUSED)
async def test_an_openid_that_is_a_unionid_of_the_file_is_refused(
    mover: Mover,
    lines: list[Body],
    refused: list[int],
    others: list[tuple[int, ...]],
    is_csv: bool,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", batch)
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if is_csv:  # the first line is a header
        names = ["app_id", "openid", "unionid", "external_id", "nickname", "status", "user_id"]
        rows = [",".join(str(line.get(name, "")) for name in names) for line in lines]
        text = "\n".join([",".join(names), *rows]).encode()
    for dry_run in (True, False):
        counts = await mover.import_text(text, is_csv=is_csv, dry_run=dry_run)
        numbers = [number - is_csv for number, _ in mover.refusals]
        assert (numbers, counts.created + counts.updated) == (refused, len(lines) - len(refused))
        assert [tuple(number - is_csv for number in each) for each in mover.others] == others
        assert mover.messages[0] == UNIONID_AS_OPENID.text


async def test_a_unionid_that_is_wrapped_as_databases_export_it_is_one_too(mover: Mover) -> None:
    assert await mover.import_lines(WRONG, {**RIGHT, "unionid": {"$oid": UNION}}) == (1, 0, 0, 1)
    assert mover.refusals == [(1, "openid")]


async def test_lines_with_a_user_id_are_taken_as_an_export_has_them(mover: Mover) -> None:
    lines = [{**WRONG, "unionid": UNION, "user_id": USER_ID}, {**RIGHT, "app_id": OTHER_APP_ID, "user_id": USER_ID}]
    assert await mover.import_lines(*lines) == (1, 1, 0, 0)


@pytest.mark.process
async def test_an_openid_that_is_a_later_lines_unionid_is_refused_from_standard_input_too(
    database_url: str, tmp_path: Path, stage: Stage
) -> None:
    text = json.dumps({**WRONG, "external_id": "9"}) + "\n" + "{}\n" * 3000 + json.dumps(ALONE) + "\n"
    env = {**service_env(database_url, apps=[APP, OTHER_APP]), "LC_ALL": "C.UTF-8"}
    reading, writing = os.pipe()
    command = ("users", "import", "-", "--json")
    with os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "w") as pipe:
        running = asyncio.create_task(asyncio.to_thread(run, *command, cwd=tmp_path, env=env, stdin=stdin.fileno()))
        await asyncio.to_thread(pipe.write, text)
        await asyncio.to_thread(pipe.close)
        done = await running
    assert done.stdout, done.stderr
    assert (done.returncode, json.loads(done.stdout)["created"]) == (1, 1)
    assert f"line 1: openid: {UNIONID_AS_OPENID.text} (line 3002)" in done.stderr
    assert await stage.rows.fetchval("SELECT external_id FROM users") == "7"


# A unionid instead of an openid in an earlier import.


@pytest.mark.usefixtures("bystander")
async def test_a_login_corrects_an_imported_unionid_that_stands_for_the_openid(mover: Mover, login: LogIn) -> None:
    line = {**WRONG, "external_id": "7", "created_at": "2023-01-01T00:00:00Z"}
    assert await mover.import_lines(line) == (1, 0, 0, 0)
    before = str((await mover.user())["id"])
    for times in (1, 1):
        answer = await login("alice", unionid=UNION)
        assert (answer["is_new_user"], answer["user"]["id"], answer["user"]["unionid"]) == (False, before, UNION)
        assert await identities(mover.stage) == [(APP_ID, answer["user"]["openid"], UNION, False)]
        [line] = mover.stage.logged("imported_unionid_as_openid")
        assert (line["app_id"], line["user_id"], times) == (APP_ID, before, 1)
    assert (await mover.user())["external_id"] == "7"
    await mover.stage.rows.execute("UPDATE users SET identity_lost_at = now() - interval '61 minutes'")
    await login("alice", unionid=UNION)
    assert (await mover.user())["identity_lost_at"] is None, "else each login would lock the user for ever"
    assert {kind for kind, _ in await mover.events()} == {"user.created"}


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("known", ["openid", "openid and unionid", "unionid", "each of another"])
async def test_whom_a_login_finds_by_the_right_ids_is_merged_with_the_imported_one(
    mover: Mover, login: LogIn, known: str
) -> None:
    there = []
    if known != "unionid":
        there.append((await login("alice", unionid=UNION if "and" in known else None))["user"]["id"])
    if known in ("unionid", "each of another"):
        there.append((await login("alice", unionid=UNION, app=OTHER_APP))["user"]["id"])
    assert (await mover.import_lines({**WRONG, "external_id": "7"}))[0] == 1
    rows = mover.stage.rows
    imported = str(await rows.fetchval("SELECT id FROM users WHERE external_id = '7'"))
    answers = await asyncio.gather(*(login("alice", unionid=UNION) for _ in range(8)))
    remaining = imported if known == "openid" else there[-1]
    assert {(each["user"]["id"], each["is_new_user"]) for each in answers} == {(remaining, False)}
    user = await mover.user()
    assert (str(user["id"]), user["external_id"], user["unionid"]) == (remaining, "7", UNION)
    former = {str(row["id"]) for row in await rows.fetch("SELECT id FROM former_users")}
    assert former == {imported, *there} - {remaining}
    mine = [each for each in await identities(mover.stage) if each[0] == APP_ID]
    assert mine == [(APP_ID, answers[0]["user"]["openid"], UNION, False)]


@pytest.mark.usefixtures("bystander")
async def test_an_imported_unionid_that_an_operator_has_split_off_is_left_alone(
    mover: Mover, login: LogIn, root: Admin
) -> None:
    alice = (await login("alice", unionid=UNION, app=OTHER_APP))["user"]
    await mover.import_lines({**WRONG, "external_id": "7"})
    imported = str(await mover.stage.rows.fetchval("SELECT id FROM users WHERE external_id = '7'"))
    assert (await root.merge(imported, into=alice["id"])).status_code == 200
    split = body_of(await root.ask("POST", f"/users/{alice['id']}/split", json=WRONG))
    for _ in range(2):
        assert (await login("alice", unionid=UNION))["user"]["id"] == alice["id"]
    assert [each["openid"] for each in (await root.read(f"/users/{split['new_user']['id']}"))["identities"]] == [UNION]
    assert len((await root.read(f"/users/{alice['id']}"))["identities"]) == 2


@pytest.mark.usefixtures("bystander")
async def test_an_imported_ban_holds_though_the_openid_was_a_unionid(mover: Mover, login: LogIn) -> None:
    await mover.import_lines({**WRONG, "external_id": "7", "status": "disabled"})
    for _ in range(2):
        problem_of(await login.ask("alice", unionid=UNION), "account_disabled", 403)
    assert await mover.stage.number("users") == 1


@pytest.mark.usefixtures("bystander")
@pytest.mark.settings(sign_up="closed")
async def test_an_openid_that_is_a_unionid_invites_its_owner_in_the_same_app(mover: Mover, login: LogIn) -> None:
    await mover.import_lines({**WRONG, "external_id": "7"})
    problem_of(await login.ask("alice", unionid=UNION, app=OTHER_APP), "sign_up_closed", 403)
    problem_of(await login.ask("alice"), "sign_up_closed", 403)
    assert (await login("alice", unionid=UNION))["is_new_user"] is False


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("is_imported", [True, False])
async def test_an_openid_with_which_somebody_has_logged_in_is_nobody_elses_unionid(
    mover: Mover, login: LogIn, is_imported: bool
) -> None:
    openid = "openid-a1-somebody-else-here"
    if is_imported:
        await mover.import_lines({"app_id": APP_ID, "openid": openid})
    owner = await login("somebody-else-here")
    other = await login("alice", unionid=openid)
    assert (owner["user"]["openid"], owner["is_new_user"]) == (openid, not is_imported)
    assert (other["is_new_user"], other["user"]["id"] != owner["user"]["id"]) == (True, True)
    assert (await login("somebody-else-here"))["user"]["id"] == owner["user"]["id"]


# Lines with a unionid and no openid.


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("also", [None, {"max_sessions": 1}])
async def test_a_unionid_alone_is_a_user_whom_the_first_login_in_any_app_claims(
    mover: Mover, also: Body | None
) -> None:
    stage = await mover.stage.replica(apps=[APP, {**OTHER_APP, **(also or {})}])
    assert await mover.import_lines(ALONE, {"unionid": OTHER_UNION, "openid": "", "app_id": None}) == (2, 0, 0, 0)
    assert await identities(stage) == []
    assert await recorded(stage.rows, "type, app_id, data") == [("user.created", None, {})] * 2
    user_id = str(await stage.rows.fetchval("SELECT id FROM users WHERE external_id = '7'"))
    answers = await asyncio.gather(
        *(stage.login("alice", unionid=UNION, app=app) for app in (APP, OTHER_APP) for _ in range(8))
    )
    for answer in answers:
        assert (answer["user"]["id"], answer["is_new_user"], answer["user"]["nickname"]) == (user_id, False, "Alice")
    assert [each[0] for each in await identities(stage)] == [APP_ID, OTHER_APP_ID]
    added = await recorded(stage.rows, "app_id", "type = 'identity.added' ORDER BY app_id --")
    assert sorted(added) == [(APP_ID,), (OTHER_APP_ID,)]
    assert get_unverified_claims(answers[0]["access_token"])["external_id"] == "7"


async def test_a_user_known_by_a_unionid_alone_is_found_before_the_first_login(mover: Mover, root: Admin) -> None:
    stage = mover.stage
    assert await mover.import_lines(ALONE) == (1, 0, 0, 0)
    assert await mover.import_lines({"unionid": OTHER_UNION, "external_id": "7"}, joins=True) == (0, 1, 0, 0)
    user_id = str(await stage.rows.fetchval("SELECT id FROM users WHERE external_id = '7'"))
    ledger = await add_client(
        stage.services.database, "ledger", scopes=[Scope.USERS, Scope.UNIONIDS], now=stage.clock()
    )
    auth = (ledger.client_id, ledger.client_secret)
    for asked in ({"ids": [user_id]}, {"external_ids": ["7"]}, {"unionids": [UNION]}, {"unionids": [OTHER_UNION]}):
        [found] = body_of(await stage.client.post("/v1/users/lookup", json=asked, auth=auth))["items"]
        assert (found["id"], found["identities"], found["unionids"]) == (user_id, [], sorted([UNION, OTHER_UNION]))
    assert body_of(await stage.client.get(f"/v1/users/{user_id}", auth=auth))["external_id"] == "7"
    for q in (UNION, OTHER_UNION, "7", user_id, "Alice"):
        [listed] = (await root.read("/users", q=q))["items"]
        assert (listed["id"], listed["identities"]) == (user_id, [])
    assert user_id in [each["id"] for each in (await root.read("/users"))["items"]]
    assert (await root.read("/users", q=UNION, app_id=APP_ID))["items"] == []
    assert (await root.read(f"/users/{user_id}"))["sessions"] == []


@pytest.mark.usefixtures("bystander")
async def test_a_user_known_by_a_unionid_alone_is_banned_erased_and_merged_as_any_other(
    mover: Mover, login: LogIn, root: Admin
) -> None:
    rows = mover.stage.rows

    async def alone() -> str:
        assert (await mover.import_lines(ALONE))[0] == 1
        return str(await rows.fetchval("SELECT id FROM users WHERE external_id = '7'"))

    user_id = await alone()
    await root.change(user_id, status="disabled")
    for app in (APP, OTHER_APP):
        problem_of(await login.ask("alice", unionid=UNION, app=app), "account_disabled", 403)
    assert (await root.change(user_id, status="active", roles=["editor"]))["roles"] == ["editor"]
    assert (await root.ask("DELETE", f"/users/{user_id}")).status_code == 204
    assert (await login("alice", unionid=UNION))["is_new_user"] is True

    for into in (True, False):
        await rows.execute("DELETE FROM users WHERE unionid = $1", UNION)
        user_id, other = await alone(), (await login("bob", app=OTHER_APP))["user"]["id"]
        former, remaining = (user_id, other) if into else (other, user_id)
        assert (await root.merge(former, into=remaining)).status_code == 200
        assert (await login("alice", unionid=UNION))["user"]["id"] == remaining
        assert (await login("bob", app=OTHER_APP))["user"]["id"] == remaining
        await rows.execute("DELETE FROM users WHERE id = $1", UUID(remaining))


@pytest.mark.settings(sign_up="closed")
async def test_a_unionid_alone_is_an_invitation(mover: Mover, login: LogIn) -> None:
    await mover.import_lines({**ALONE, "erase_at": None})
    problem_of(await login.ask("alice"), "sign_up_closed", 403)
    assert (await login("alice", unionid=UNION))["is_new_user"] is False


OWN: Body = {"app_id": APP_ID, "openid": "openid-a1-alice", "unionid": UNION, "user_id": USER_ID}
SPARE: Body = {"unionid": OTHER_UNION, "user_id": USER_ID}
NEIGHBOURS: dict[str, tuple[list[Body], tuple[int, ...], list[tuple[int, str]]]] = {
    "neither id": (
        [{"external_id": "7"}, {"app_id": APP_ID}],
        (0, 0, 0, 2),
        [(1, "app_id"), (1, "openid"), (2, "openid")],
    ),
    "no app": ([{"openid": "openid-a1-alice", "unionid": UNION}], (0, 0, 0, 1), [(1, "app_id")]),
    "another app": ([{**ALONE, "app_id": "wxunknown000000000"}], (0, 0, 0, 1), [(1, "app_id")]),
    "an app that is not needed": ([{**ALONE, "app_id": APP_ID}, ALONE], (1, 0, 1, 0), []),
    "a bad one": ([{"unionid": "null"}, {"unionid": "short"}], (0, 0, 0, 2), [(1, "unionid"), (2, "unionid")]),
    "twice": ([ALONE, ALONE, {"unionid": UNION}], (1, 0, 2, 0), []),
    "twice, another name": ([ALONE, {**ALONE, "nickname": "B"}], (1, 0, 0, 1), [(2, "nickname")]),
    "twice, another id": ([ALONE, {**ALONE, "external_id": "8"}], (1, 0, 0, 1), [(2, "external_id")]),
    "two of one id": ([ALONE, {"unionid": OTHER_UNION, "external_id": "7"}], (1, 0, 0, 1), [(2, "unionid")]),
    "before its identity": ([ALONE, {**RIGHT, "external_id": "7"}], (1, 1, 0, 0), []),
    "after its identity": ([RIGHT, ALONE, THERE], (1, 2, 0, 0), []),
    "of an identity with another id": ([{**RIGHT, "external_id": "8"}, ALONE], (1, 0, 0, 1), [(2, "external_id")]),
    "an export's spare one": ([OWN, SPARE, SPARE], (1, 1, 1, 0), []),
}


@pytest.mark.parametrize(("lines", "counts", "refused"), NEIGHBOURS.values(), ids=NEIGHBOURS)
@pytest.mark.parametrize("batch", [500, 1])
async def test_a_unionid_alone_stands_beside_other_lines(
    mover: Mover,
    lines: list[Body],
    counts: tuple[int, ...],
    refused: list[tuple[int, str]],
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", batch)
    for dry_run in (True, False):
        done = await mover.import_lines(*lines, dry_run=dry_run)
        assert (done[0], done[3], mover.refusals) == (counts[0], counts[3], refused), mover.messages
        assert dry_run or done == counts
    once = await mover.users(), await identities(mover.stage), await mover.events()
    await mover.import_lines(*lines)
    assert (await mover.users(), await identities(mover.stage), await mover.events()) == once
    if "another name" in str(lines) or refused == [(2, "nickname")]:
        assert GIVEN_BEFORE in mover.messages


async def test_a_later_file_and_its_options_change_a_user_known_by_a_unionid_alone(mover: Mover) -> None:
    await mover.import_lines(ALONE)
    newer = {**ALONE, "nickname": "B", "phone": "+8613800138000", "roles": ["editor"], "status": "disabled"}
    assert await mover.import_lines(newer) == (0, 1, 0, 0)
    user = await mover.user()
    assert (user["nickname"], user["phone"], user["roles"]) == ("Alice", "+8613800138000", [])
    await mover.import_lines(newer, overwrites=True, takes_roles=True, takes_status=True)
    user = await mover.user()
    assert (user["nickname"], user["roles"], user["status"]) == ("B", ["editor"], "disabled")


@pytest.mark.parametrize(
    "header", ["unionid,external_id", "app_id,openid,unionid,external_id", "openid,unionid,external_id"]
)
async def test_csv_has_unionids_alone_too(mover: Mover, header: str) -> None:
    cells = "," * header.partition("unionid")[0].count(",")
    text = f"{header}\n{cells}{UNION},7\n{cells}{OTHER_UNION},8\n"
    assert (await mover.import_text(text.encode(), is_csv=True)).created == 2
    assert sorted((user["external_id"], user["unionid"]) for user in await mover.users()) == [
        ("7", UNION),
        ("8", OTHER_UNION),
    ]


async def test_an_openid_without_an_app_costs_its_own_line_of_csv_and_of_json_alike(mover: Mover) -> None:
    people = [
        {"openid": "", "unionid": UNION},
        {"openid": "o" * 27 + "1", "unionid": OTHER_UNION},
        {"openid": "o" * 28},
    ]
    text = "openid,unionid\n" + "".join(f"{each['openid']},{each.get('unionid', '')}\n" for each in people)
    assert await mover.import_lines(*people) == (1, 0, 0, 2)
    assert mover.refusals == [(2, "app_id"), (3, "app_id")]
    await mover.begin_anew()
    counts = await mover.import_text(text.encode(), is_csv=True)
    assert (counts.created, mover.refusals) == (1, [(3, "app_id"), (4, "app_id")])


async def test_every_unionid_that_no_identity_has_goes_out_and_comes_in(mover: Mover, login: LogIn) -> None:
    own = {**OWN, "external_id": "7", "created_at": "2023-01-01T00:00:00Z"}
    await mover.import_lines(own, SPARE, {"unionid": THIRD_UNION})
    await login("bob", unionid=THIRD_UNION)
    await mover.import_lines({"app_id": APP_ID, "openid": "openid-a1-carol", "external_id": "9"})
    await mover.import_lines({"unionid": unionid_of("dave"), "external_id": "9"})
    exported = await mover.export()
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [(line["app_id"], line["openid"]) for line in lines[-2:]] == [(None, None)] * 2
    alone = {line["unionid"]: line["external_id"] for line in lines if line["openid"] is None}
    assert alone == {OTHER_UNION: "7", unionid_of("dave"): "9"}
    await mover.move_out_and_in()
    assert (await mover.import_text(exported)).unchanged == len(lines)
    assert (await login("carol", unionid=unionid_of("dave"), app=OTHER_APP))["is_new_user"] is False
