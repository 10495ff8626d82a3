"""Users can be imported with `wxauth users import`, and exported with `wxauth users export`."""

import asyncio
import csv
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import stat
import sys
import tracemalloc
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from click.testing import CliRunner
from jose.jwt import get_unverified_claims

from tests.database_proxy import Proxy
from tests.docs import ROOT, block, guide
from tests.fakes import APP, OTHER_APP, service_env
from tests.import_export.mover import Again, Mover
from tests.problems import problem_of
from tests.processes import WXAUTH, Command, Running, make_command, run
from tests.programs import needs, output_of, postgres_program
from tests.world import (
    NUMBER,
    AddSibling,
    Admin,
    Body,
    Rows,
    Stage,
    add_client,
    bearer,
    leave,
    locked,
    make_conflicts,
    recorded,
    set_roles,
    until,
)
from wxauth.cli.import_export import export_command
from wxauth.clients.models import Scope
from wxauth.core.connecting import DEADLINES
from wxauth.core.users import PROFILE_FIELDS
from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text
from wxauth.import_export.files import NO_HEADER, WRONG_ATTRIBUTE_NAME, CsvLines, FileFormat, JsonLines
from wxauth.import_export.importing import Counts
from wxauth.import_export.lines import FIELD_RULES, Line
from wxauth.import_export.numbered_lines import MAX_LINE
from wxauth.import_export.other_files import WrongFile
from wxauth.import_export.queries import all_identities
from wxauth.import_export.rules import GIVEN_BEFORE
from wxauth.service.build import Timeouts
from wxauth.users.schemas import UserAnswer
from wxauth.web.answers import example_of
from wxauth_desk.wechat import APPS
from wxauth_desk.wechat.people import openid_of, unionid_of

ALICE: Body = {"app_id": APP["app_id"], "openid": "openid-a1-alice"}
ALICE_THERE: Body = {"app_id": OTHER_APP["app_id"], "openid": "openid-b2-alice"}
THIRD_APP = {**OTHER_APP, "app_id": "wxcccccccccccccccc"}
BOB: Body = {"app_id": APP["app_id"], "openid": "openid-a1-bob"}
UNION_ALICE, UNION_BOB, UNION_CAROL, UNION_ELSEWHERE = map(unionid_of, ("alice", "bob", "carol", "elsewhere"))
USER_ID = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
OTHER_ID = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d18"
VERIFIED_AT = datetime(2026, 11, 19, tzinfo=UTC)
FULL: Body = {
    **ALICE,
    "unionid": UNION_ALICE,
    "external_id": "10023",
    "nickname": "小明",
    "avatar_url": "https://example.com/1.png",
    "phone": NUMBER,
    "roles": ["editor"],
    "status": "active",
    "created_at": "2023-01-02T03:04:05Z",
    "last_login_at": "2025-06-07T08:09:10.123456Z",
}
LACKING = {*PROFILE_FIELDS} - Line.model_fields.keys()
assert not LACKING, f"add {LACKING}, each with its rule, to Line in src/wxauth/import_export/lines.py"
FULL |= {name: example_of(UserAnswer).get(name) for name in PROFILE_FIELDS if name not in FULL}
RUN_AGAIN = (
    "correct the rejected lines, and run the command again with the complete file. "
    "Lines that have already been imported aren't affected"
)
ODD = (
    "openids that aren't 28 characters long, which is the usual length: {}. Check that you chose the right column, and "
    "that the openids are complete"
)
STORED_NOTHING = "nothing was stored. To import the file, run the command without --dry-run"
GUIDE = guide("import-file")


pytestmark = pytest.mark.settings(apps=[APP, OTHER_APP, THIRD_APP])


@pytest.fixture
def mover(stage: Stage) -> Mover:
    return Mover(stage)


# The fields of one line.


async def test_the_line_and_the_csv_that_the_guide_shows_are_taken(mover: Mover) -> None:
    mover = await mover.with_settings(apps=[{**APP, "app_id": "wx1a2b3c4d5e6f7a8b"}])
    for page in (GUIDE, guide("moving-from")):
        [line] = re.findall(r"^```json\n(.*?)\n```$", page.read_text(), re.MULTILINE)
        as_windows_begins_a_file = b"\xef\xbb\xbf" + line.encode() + b"\r\n"
        assert (await mover.import_text(as_windows_begins_a_file)).created == 1
        await mover.begin_anew()
    [text] = re.findall(r"^```csv\n(.*?)```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert f"```csv\n{text}```" in guide("import-file", "zh").read_text()
    assert (await mover.import_text(text.encode(), is_csv=True)).created == 1
    user = await mover.user()
    assert (user["nickname"], user["roles"]) == ('小明, "the first"', ["editor", "reader"])


async def test_a_line_is_a_user_who_then_logs_in(mover: Mover) -> None:
    assert await mover.import_lines(FULL) == (1, 0, 0, 0)
    user = await mover.user()
    assert user["id"].version == 7
    answer = await mover.stage.login("alice")
    assert answer["is_new_user"] is False
    assert get_unverified_claims(answer["access_token"])["external_id"] == "10023"
    since = {"id": str(user["id"]), "phone_verified": False, "last_login_at": "2026-11-20T08:00:00Z"}
    assert answer["user"] == {**FULL, **since}
    assert await mover.events() == [("user.created", "operator"), ("user.phone_bound", "operator")]


TIMES = ("created_at", "identity_created_at", "last_login_at", "last_seen_at")
ZEROS = ("0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00+08:00")
NO_VALUES: list[Body] = [{}, dict.fromkeys(Line.model_fields, ""), *(dict.fromkeys(TIMES, zeros) for zeros in ZEROS)]


@pytest.mark.parametrize("nothing", NO_VALUES, ids=["absent", "empty", *ZEROS])
async def test_a_line_needs_only_app_id_and_openid(mover: Mover, nothing: Body) -> None:
    assert await mover.import_lines({**nothing, **ALICE}) == (1, 0, 0, 0)
    user = await mover.user()
    absent = ("unionid", "external_id", "nickname", "avatar_url", "phone", "last_login_at")
    assert [user[name] for name in absent] == [None] * len(absent)
    assert (user["created_at"], user["status"], user["roles"]) == (mover.stage.clock(), "active", [])
    assert (await mover.stage.login("alice"))["is_new_user"] is False
    assert (await mover.user())["last_login_at"] == mover.stage.clock()


async def test_blanks_are_as_good_as_no_name_and_no_picture(mover: Mover) -> None:
    blank = {"nickname": " \t", "avatar_url": " "}
    assert await mover.import_lines(ALICE | blank, FULL | BOB | {"unionid": UNION_BOB}) == (2, 0, 0, 0)
    assert await mover.import_lines(BOB | blank, overwrites=True) == (0, 0, 1, 0)
    names = sorted((user["nickname"] or "", user["avatar_url"] or "") for user in await mover.users())
    assert names == [("", ""), (FULL["nickname"], FULL["avatar_url"])]


async def test_a_user_who_is_leaving_moves_as_such_and_is_left_alone(mover: Mover) -> None:
    line = {**ALICE, "nickname": "Alice", "erase_at": "2026-11-27T08:00:00Z"}
    assert await mover.import_lines(line) == (1, 0, 0, 0)
    assert ("user.leaving", "operator") in await mover.events()
    assert problem_of(await mover.stage.login.ask("alice"), "account_leaving", 403)["erase_at"] == line["erase_at"]
    exported = json.loads(await mover.export())
    assert exported["erase_at"] == line["erase_at"]
    before = await mover.users()
    for other in ({}, {"erase_at": None}, {"erase_at": "2026-11-28T08:00:00Z"}):
        changed = {**line, "nickname": "Mallory", "roles": ["editor"], **other} if other else {**ALICE, "nickname": "M"}
        assert await mover.import_lines(changed, overwrites=True, takes_roles=True) == (0, 0, 0, 1)
        assert mover.refusals == [(1, "user_id")]
    assert await mover.import_lines(exported) == (0, 0, 1, 0)
    assert await mover.users() == before
    there = {**BOB, "erase_at": None}
    await mover.import_lines(there)
    assert await mover.import_lines({**there, "erase_at": line["erase_at"]}, overwrites=True) == (0, 0, 1, 0)


NO_LINES = (b"not JSON", b'{"app_id": "wx', b"[1]", b"7", b"\xff\xfe", b'{"nickname": "x"}' + b" " * MAX_LINE)
WRONG: dict[str, list[object]] = {
    "app_id": ["wxunknown", None],
    "openid": [None, "", "with space", "o1234", "o" * 129, "oé12345", "o.12345", "小明小明小明"],
    "unionid": [7, "u" * 23, "u" * 37, "u" * 27 + ".", "u" * 27 + "é", "u" * 28 + "\n"],
    "external_id": [1.0, 1e18, True, {"$numberDouble": "7.5"}, {"$numberDecimal": "1E+18"}, "x" * 129, "a\u200bb\x07"],
    "nickname": ["x" * 65],
    "avatar_url": ["http://example.com/1.png"],
    "phone": ["138001380", 1.38e10, "13800138000 ext. 5"],
    "roles": ["editor", ["Editor"], [f"r{n}" for n in range(33)], ["admin"], ["support"]],
    "status": ["banned"],
    "created_at": ["yesterday", 170000000, "2023-01-02T03:04:05", "9999-12-31T23:59:59-01:00"],
    "user_id": ["7", str(uuid4())],
    "consents.version": [[{"document": "privacy", "given_at": "2025-01-01T00:00:00Z"}]],
    "former_ids": [["7"]],
}
"""Wrong values for each field."""


async def test_bad_lines_are_reported_by_number_and_field_and_the_others_are_imported(mover: Mover) -> None:
    bad = [("line", line) for line in NO_LINES]
    bad += [(gone, json.dumps({name: ALICE[name]}).encode()) for gone, name in pairwise(["app_id", "openid", "app_id"])]
    for field, values in WRONG.items():
        lines = [{**ALICE, field.partition(".")[0]: value} for value in values]
        bad += [(field, json.dumps(line).encode()) for line in lines]
    text = b"\n".join([json.dumps(BOB).encode(), b"", *(line for _, line in bad), json.dumps(ALICE_THERE).encode()])
    assert await mover.import_text(text) == Counts(lines=len(bad) + 2, created=2, refused=len(bad), blank=1)
    assert mover.refusals == [(number, field) for number, (field, _) in enumerate(bad, 3)]
    assert await mover.import_text(b"") == Counts(), "an empty file has no line"


@pytest.mark.parametrize("name", ["openid", "unionid", "external_id"])
async def test_placeholders_for_a_missing_id_join_no_users(mover: Mover, name: str) -> None:
    words = ["NULL", "null", "None", "undefined", "nan", "NaN", "(NULL)", "#N/A", "\\N", "-", "0", " "]
    words += ["none", "N/A", "unknown", "Unknown", "test", "ｎｕｌｌ", "无", "空", "暂无", "未知", "未绑定", "测试"]
    words += ["[object Object]", "#REF!", "-1", "-1.0", "1.38E+10", "1.38e10", "1e+21", "（空）", "1,38E+10"]
    words += ["+1.38E+10", "\u22121", "${id}", "{{ external_id }}", "external_id", "n.a.", "无数据", "inf", "TBD"]
    zeros = ["0.0", "000", "-" * 28, "0" * 28, str(UUID(int=0)), f"{{{UUID(int=0)}}}"]
    for text in [*words, *zeros]:
        lines = [{**person, name: text} for person in (ALICE, ALICE_THERE, BOB)]
        assert await mover.import_lines(*lines) == (0, 0, 0, 3)
        assert mover.refusals == [(1, name), (2, name), (3, name)], text


@pytest.mark.parametrize(
    ("name", "longest"),
    [("openid", "o" * 128), ("unionid", "u" * 36), ("external_id", "x" * 128), ("external_id", "小" * 128)],
)
async def test_an_id_of_the_greatest_length_is_imported(mover: Mover, name: str, longest: str) -> None:
    assert await mover.import_lines({**ALICE, name: longest}, {**BOB, name: longest + longest[0]}) == (1, 0, 0, 1)
    assert mover.refusals == [(2, name)]


async def test_bad_fields_can_be_skipped_unless_they_say_who_somebody_is(mover: Mover) -> None:
    bad = {"phone": "12", "nickname": "a" * 65, "avatar_url": "wxfile://x", "created_at": "yesterday"}
    lines = [{**ALICE, **bad}, {**BOB, "phone": "12", "status": "gone"}]
    assert await mover.import_lines(*lines, skips_bad_fields=True) == (1, 0, 0, 1)
    assert sorted(mover.refusals) == sorted([*((1, name) for name in bad), (2, "phone"), (2, "status")])
    user = await mover.user()
    assert (user["phone"], user["nickname"], user["avatar_url"]) == (None, None, None)
    assert await mover.import_lines(*lines) == (0, 0, 0, 2)


async def test_a_time_without_an_offset_is_of_the_files_time_zone(mover: Mover) -> None:
    consents = json.dumps([{"document": "privacy", "version": "1", "given_at": "2024-05-01T12:00"}]).replace('"', '""')
    file = (
        "app_id,openid,created_at,last_login_at,consents\n"
        f'{START}a,2024-05-01 12:00:00,2024-05-01 12:00:00.5+00:00,"{consents}"\n'
    ).encode()
    assert (await mover.import_text(file, is_csv=True)).refused == 1
    assert mover.refusals == [(2, "created_at"), (2, "consents.given_at")]
    assert {"--time-zone" in message for message in mover.messages} == {True}
    assert (await mover.import_text(file, is_csv=True, time_zone=ZoneInfo("Asia/Shanghai"))).created == 1
    user = await mover.user()
    assert user["created_at"] == datetime(2024, 5, 1, 4, tzinfo=UTC)
    assert user["last_login_at"] == datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    assert json.loads(await mover.export())["consents"][0]["given_at"] == "2024-05-01T04:00:00Z"


async def test_all_faults_of_a_line_are_reported_at_once(mover: Mover) -> None:
    wrong = {"app_id": "wx", "unionid": "NULL", "phone": "1", "consents": [{}, {}], "roles": ["A", "B"]}
    assert await mover.import_lines({**ALICE, **wrong}) == (0, 0, 0, 1)
    consent = [f"consents.{name}" for name in ("document", "version", "given_at")]
    assert mover.refusals == [(1, name) for name in ("app_id", "unionid", "phone", "roles", *consent)]
    assert all(message.startswith("must be ") for message in mover.messages)


async def test_a_fault_is_reported_without_the_value(mover: Mover) -> None:
    secret = "hunter2-of-somebody"
    wrong = {"external_id": f"{secret}\x07", "status": secret, "created_at": secret, "phone": secret, "user_id": secret}
    for name, value in wrong.items():
        await mover.import_lines({**ALICE, name: value})
        assert mover.refusals == [(1, name)]
        assert secret not in mover.messages[0]


@pytest.mark.parametrize("mark", [b"", BOM_UTF8])
async def test_a_line_of_the_greatest_length_is_imported(mover: Mover, mark: bytes) -> None:
    line = {**ALICE, "padding": ""}
    line["padding"] = "x" * (MAX_LINE - len(json.dumps(line)))
    text = json.dumps(line).encode()
    assert len(text) == MAX_LINE
    too_long = text[:-2] + b'x"}\n'
    assert (await mover.import_text(mark + text + b"\r\n" + too_long + json.dumps(BOB).encode())).created == 2
    assert mover.refusals == [(2, "line")]


async def test_a_first_line_beyond_the_greatest_length_is_refused_even_after_a_mark(mover: Mover) -> None:
    line = json.dumps(ALICE).encode()
    first = line + b" " * (MAX_LINE - 1 - len(line)) + b"not JSON\n"
    assert (await mover.import_text(BOM_UTF8 + first + json.dumps(BOB).encode())).created == 1
    assert mover.refusals == [(1, "line")]


# Several lines about one person.


async def test_lines_with_the_same_unionid_or_external_id_are_one_user(mover: Mover) -> None:
    lines = [
        {**ALICE, "unionid": UNION_ALICE, "nickname": "Alice"},
        {**ALICE_THERE, "unionid": UNION_ALICE, "external_id": "10023", "nickname": "A."},
        {"app_id": THIRD_APP["app_id"], "openid": "another", "external_id": "10023", "unionid": UNION_ELSEWHERE},
    ]
    assert await mover.import_lines(*lines, joins=True) == (1, 2, 0, 0)
    user = await mover.user()
    assert (user["unionid"], user["external_id"], user["nickname"]) == (UNION_ALICE, "10023", "Alice")
    assert await mover.stage.number("identities") == 3
    unionids = await mover.stage.rows.fetch("SELECT unionid FROM unionids ORDER BY 1")
    assert unionids == sorted([(UNION_ALICE,), (UNION_ELSEWHERE,)])
    kinds = ("user.created", "identity.added", "identity.added")
    assert await mover.events() == [(kind, "operator") for kind in kinds]
    assert await mover.import_lines(*lines) == (0, 0, 3, 0)


@pytest.mark.parametrize("is_csv", [False, True])
async def test_joins_by_an_external_id_alone_are_counted_in_a_dry_run_too(mover: Mover, is_csv: bool) -> None:
    def tables(prefix: str) -> bytes:
        names = ("app_id", "openid", "external_id")
        people = [(ALICE["app_id"], f"there-{n}", f"{n}") for n in range(1, 11)]
        people += [(ALICE_THERE["app_id"], f"here-{n}", f"{prefix}{n}") for n in range(1, 11)]
        if is_csv:
            return "\n".join(map(",".join, [names, *people])).encode()
        return "\n".join(json.dumps(dict(zip(names, person, strict=True))) for person in people).encode()

    for options in ({"dry_run": True}, {}):
        counts = await mover.import_text(tables(""), is_csv=is_csv, **options)
        assert (counts.joined, counts.created, counts.updated, counts.refused) == (10, 10, 10, 0)
    again = await mover.import_text(tables(""), is_csv=is_csv)
    assert (again.joined, again.unchanged) == (0, 20)
    await mover.begin_anew()
    counts = await mover.import_text(tables("club-"), is_csv=is_csv)
    assert (counts.joined, counts.created) == (0, 20)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param({**ALICE_THERE, "unionid": UNION_ELSEWHERE}, "unionid", id="another unionid"),
        pytest.param({**ALICE_THERE, "phone": "+8613900139000"}, "phone", id="the user has verified another number"),
        pytest.param({**ALICE_THERE, "phone": "+8613700137000"}, "phone", id="another user has verified the number"),
        pytest.param(BOB, "external_id", id="a second openid of the app"),
    ],
)
@pytest.mark.slow
async def test_a_line_that_contradicts_the_user_of_its_external_id_is_refused_unless_they_shall_be_joined(
    mover: Mover, line: dict[str, Any], field: str
) -> None:
    alice = {**ALICE, "external_id": "7", "unionid": UNION_ALICE, "phone": NUMBER}
    carol = {**ALICE, "openid": "carol-a1", "phone": "+8613700137000"}
    await mover.import_lines(alice, carol)
    await mover.stage.rows.execute("UPDATE users SET phone_verified_at = now()")
    agreeing = {**ALICE_THERE, "external_id": "7", "phone": NUMBER}
    assert await mover.import_lines(agreeing, dry_run=True) == (0, 1, 0, 0)
    line = {**line, "external_id": "7"}
    for options in ({"dry_run": True}, {}):
        assert await mover.import_lines(line, **options) == (0, 0, 0, 1)
        assert mover.refusals == [(1, field)]
    counts = await mover.import_text(json.dumps(line).encode(), joins=True)
    assert (counts.joined, counts.updated, counts.refused) == (1, 1, 0)
    assert await mover.import_lines(alice, line) == (0, 0, 2, 0)
    counts = await mover.move_out_and_in()
    assert (counts.joined, counts.created, counts.updated) == (0, 2, 1)


async def test_an_imported_person_is_joined_with_their_stored_user(mover: Mover) -> None:
    alice = (await mover.stage.login("alice", nickname="Mine"))["user"]
    assert await mover.import_lines({**FULL, "unionid": None}) == (0, 1, 0, 0)
    user = await mover.user()
    assert str(user["id"]) == alice["id"]
    assert (user["nickname"], user["phone"], user["external_id"]) == ("Mine", NUMBER, "10023")
    assert (user["roles"], user["phone_verified_at"]) == ([], None)
    assert user["created_at"].year == 2023


def a(**fields: object) -> Body:
    """Return a line about Alice."""
    return ALICE | fields


def b(**fields: object) -> Body:
    """Return a line about Bob, who uses the same app."""
    return BOB | fields


AU, BU, ONE, TWO = {"unionid": UNION_ALICE}, {"unionid": UNION_BOB}, {"external_id": "7"}, {"external_id": "8"}
ONE_WAS: Body = {"former_external_ids": ["7"]}
ALL_WRONG = a(**TWO, user_id=OTHER_ID, roles=["admin"])
# The lines, and the number and the field of each line that is refused.
CONTRADICTIONS: dict[str, tuple[list[Body], list[tuple[int, str]]]] = {
    "two users are not merged": ([a(**AU), b(**ONE), ALICE_THERE | AU | ONE], [(3, "external_id")]),
    "the identity is another unionid's": ([a(**AU), a(**BU)], [(2, "unionid")]),
    "the unionid is another user's": ([a(), b(**BU), a(**BU)], [(3, "unionid")]),
    "a second openid has the unionid": ([a(**AU), b(**AU)], [(2, "unionid")]),
    "a second openid has the external_id": ([a(**ONE), b(**ONE, **BU), b()], [(2, "external_id")]),
    "the unionid of another app is of a user with another openid": (
        [a(**ONE), ALICE_THERE | ONE | AU, b(**ONE, **AU), b(**AU)],
        [(3, "unionid"), (3, "external_id"), (4, "unionid")],
    ),
    "a second openid has a former external_id": ([a(**TWO, **ONE_WAS), b(**ONE)], [(2, "external_id")]),
    "a second openid has a refused line's unionid": ([a(**AU, status="?"), b(**AU)], [(1, "status")]),
    "all are reported": ([a(**ONE), b(**TWO), ALL_WRONG], [(3, "roles"), (3, "external_id"), (3, "user_id")]),
    "the user has another external_id": ([a(**ONE), a(**TWO)], [(2, "external_id")]),
    "another user has the external_id": ([a(**ONE), b(), b(**ONE)], [(3, "external_id")]),
    "the user has another id": ([a(user_id=USER_ID), a(user_id=OTHER_ID)], [(2, "user_id")]),
    "the user_id was merged away": ([a(former_ids=[OTHER_ID]), b(user_id=OTHER_ID)], [(2, "user_id")]),
    "the former id is a user's": ([a(user_id=USER_ID), b(former_ids=[USER_ID])], [(2, "former_ids")]),
    "the former external_id is a user's": ([a(**ONE), b(**TWO, **ONE_WAS)], [(2, "former_external_ids")]),
    "nothing took its place": ([a(**ONE_WAS)], [(1, "former_external_ids")]),
    "the external_id was merged away": ([a(**TWO, **ONE_WAS), b(), b(**ONE)], [(3, "external_id")]),
    "a refused line leaves nothing": ([a(**ONE, status="?"), b(**ONE), a(**TWO)], [(1, "status")]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "refused"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
@pytest.mark.parametrize("batch", [500, 1], ids=["in one batch", "one after the other"])
async def test_a_line_that_contradicts_stored_data_is_refused_and_never_guessed(
    mover: Mover, lines: list[Body], refused: list[tuple[int, str]], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", batch)
    for dry_run in (True, False):
        assert await mover.users() == []
        await mover.import_lines(*lines, dry_run=dry_run)
        assert mover.refusals == refused


async def test_a_line_that_contradicts_earlier_ones_names_them(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 2)
    refused = [a(**TWO), b(**ONE), b(**AU), ALICE_THERE | AU | TWO, a(roles=["admin"])]
    for dry_run in (True, False):
        assert await mover.import_lines(a(**ONE, **AU), b(**TWO), *refused, dry_run=dry_run) == (2, 0, 0, 5)
        assert mover.others == [(1, 2), (1, 2), (1, 2), (1, 2), ()]


async def test_a_dry_run_finds_an_unchanged_user_by_a_name_of_an_earlier_line(
    mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 1)
    await mover.import_lines(a(**ONE))
    for dry_run in (True, False):
        lines = a(**ONE, former_external_ids=["was"]), {**ALICE_THERE, "external_id": "was"}
        assert await mover.import_lines(*lines, dry_run=dry_run) == (0, 2, 0, 0)


ERASED: Body = a(user_id=USER_ID, former_ids=[OTHER_ID])
LINES_OF_ERASED = [ERASED, b(user_id=OTHER_ID), b(former_ids=[USER_ID]), b(former_ids=[OTHER_ID])]


@pytest.mark.parametrize("line", LINES_OF_ERASED, ids=["person", "former id", "id as former one", "former id again"])
async def test_who_was_erased_comes_back_only_if_that_is_wanted(mover: Mover, line: Body) -> None:
    await mover.import_lines(ERASED)
    await leave(mover.stage.client, await mover.stage.login("alice"))
    for dry_run in (True, False):
        assert await mover.import_lines(line, dry_run=dry_run) == (0, 0, 0, 1)
        assert mover.refusals == [(1, "user_id" if "user_id" in line else "former_ids")]
    assert await mover.import_lines(line, restores_erased=True) == (1, 0, 0, 0)
    assert json.loads(await mover.export()).items() >= line.items()
    assert await mover.import_lines(line) == (0, 0, 1, 0), "what has been restored is there again"


# Imports of the same users again, and changes of existing users.


@pytest.mark.oldest_postgres
async def test_the_same_file_again_changes_nothing(mover: Mover) -> None:
    consent = {"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00Z", "ip": "203.0.113.7"}
    lines = [{**FULL, "consents": [consent], "former_ids": [OTHER_ID]}, BOB]
    assert await mover.import_lines(*lines) == (2, 0, 0, 0)
    before = await mover.users(), await mover.stage.rows.fetch("SELECT * FROM identities"), await mover.events()
    for options in ({}, {"overwrites": True, "takes_roles": True, "takes_status": True}):
        assert await mover.import_lines(*lines, **options) == (0, 0, 2, 0)
        identities = await mover.stage.rows.fetch("SELECT * FROM identities")
        assert before == (await mover.users(), identities, await mover.events())


async def test_a_persons_own_later_changes_stay(mover: Mover) -> None:
    await mover.import_lines(FULL)
    alice = await mover.stage.login("alice")
    await mover.stage.client.patch("/v1/me", json={"nickname": "New"}, headers=bearer(alice))
    assert await mover.import_lines(FULL) == (0, 0, 1, 0)
    user = await mover.user()
    assert (user["nickname"], user["last_login_at"].year) == ("New", 2026)
    assert await mover.import_lines(FULL, overwrites=True) == (0, 1, 0, 0)
    user = await mover.user()
    assert (user["nickname"], user["last_login_at"].year) == ("小明", 2026)
    assert ("user.profile_changed", "operator") in await mover.events()
    assert await mover.import_lines({**FULL, "last_login_at": "2027-01-01T00:00:00Z"}) == (0, 1, 0, 0)
    assert (await mover.user())["last_login_at"].year == 2027


SEEN: list[tuple[Body, str | None]] = [
    ({}, None),
    ({"last_login_at": "2026-05-05T05:05:05Z"}, "2026-05-05T05:05:05Z"),
    ({"last_seen_at": "2026-05-05T05:05:05Z"}, "2026-05-05T05:05:05Z"),
    ({"last_login_at": "2026-05-05T05:05:05Z", "last_seen_at": "2026-06-06T06:06:06Z"}, "2026-06-06T06:06:06Z"),
    ({"last_login_at": "2026-05-05T05:05:05Z", "last_seen_at": "2025-01-01T00:00:00Z"}, "2026-05-05T05:05:05Z"),
    ({"last_seen_at": 1780725966}, "2026-06-06T06:06:06Z"),
]


@pytest.mark.parametrize(("given", "seen"), SEEN)
@pytest.mark.parametrize("is_csv", [False, True])
async def test_the_last_visit_moves_with_its_user(mover: Mover, given: Body, seen: str | None, is_csv: bool) -> None:
    if is_csv:
        line = {**ALICE, **given}
        text = f"{','.join(line)}\n{','.join(map(str, line.values()))}\n"
        assert (await mover.import_text(text.encode(), is_csv=True)).created == 1
    else:
        assert await mover.import_lines({**ALICE, **given}) == (1, 0, 0, 0)
    exported = json.loads(await mover.export())
    assert exported["last_seen_at"] == seen
    assert "last_refresh_at" not in exported
    assert await mover.import_lines(exported) == (0, 0, 1, 0)
    await mover.begin_anew()
    assert await mover.import_lines(exported) == (1, 0, 0, 0)
    assert json.loads(await mover.export())["last_seen_at"] == seen


async def test_of_two_visits_an_import_keeps_the_later(mover: Mover) -> None:
    for given, outcome, kept in (
        ("2026-05-05T00:00:00Z", (1, 0, 0, 0), "2026-05-05T00:00:00Z"),
        ("2026-06-06T00:00:00Z", (0, 1, 0, 0), "2026-06-06T00:00:00Z"),
        ("2026-06-05T00:00:00Z", (0, 0, 1, 0), "2026-06-06T00:00:00Z"),
    ):
        assert await mover.import_lines({**ALICE, "last_seen_at": given}) == outcome
        assert json.loads(await mover.export())["last_seen_at"] == kept
    assert await mover.import_lines({**ALICE, "last_seen_at": "yesterday"}) == (0, 0, 0, 1)
    assert mover.refusals == [(1, "last_seen_at")]


async def test_a_verified_number_is_nobody_elses_and_stays_verified_if_it_comes_again(mover: Mover) -> None:
    await mover.stage.login("bob")
    await mover.stage.rows.execute("UPDATE users SET phone = $1, phone_verified_at = now()", NUMBER)
    await mover.import_lines(FULL)
    assert {user["nickname"]: user["phone"] for user in await mover.users()} == {"小明": None, None: NUMBER}
    await mover.begin_anew()
    await mover.import_lines(FULL)
    await mover.stage.rows.execute("UPDATE users SET phone_verified_at = $1", VERIFIED_AT)
    await mover.import_lines(FULL, overwrites=True)
    assert (await mover.user())["phone_verified_at"] == VERIFIED_AT
    await mover.import_lines({**FULL, "phone": "+8613900139000"}, overwrites=True)
    assert (await mover.user())["phone_verified_at"] is None


async def test_roles_and_status_of_stored_users_change_only_with_the_option(mover: Mover) -> None:
    await mover.stage.login("alice")
    line = {**ALICE, "roles": ["editor"], "status": "disabled"}
    assert await mover.import_lines(line) == (0, 0, 1, 0)
    assert await mover.import_lines(line, takes_roles=True) == (0, 1, 0, 0)
    user = await mover.user()
    assert (user["roles"], user["status"]) == (["editor"], "active")
    assert await mover.import_lines(line, takes_status=True) == (0, 1, 0, 0)
    assert (await mover.user())["status"] == "disabled"
    assert await mover.stage.number("sessions WHERE revoked_at IS NULL") == 0
    by_operator = {kind for kind, actor in await mover.events() if actor == "operator"}
    assert len(by_operator) == len(("roles", "ban", "sessions"))


@pytest.mark.slow
async def test_a_change_of_many_stored_users_takes_no_more_round_trips_than_of_few(mover: Mover, proxy: Proxy) -> None:
    away = await mover.with_settings(apps=[APP], database_url=proxy.url)
    people = [{**ALICE, "openid": f"person-{n}"} for n in range(404)]
    await mover.import_lines(*people)
    await mover.stage.rows.execute(
        "INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at) "
        "SELECT gen_random_uuid(), user_id, app_id, openid, created_at, now(), '2100-01-01' FROM identities"
    )
    changes = {"roles": ["support"], "status": "disabled", "ban_reason": "spam"}
    trips = []
    for some in (people[:2], people[2:4], people[4:]):
        proxy.round_trips = 0
        lines = [{**line, **changes} for line in some]
        counts = await away.import_lines(*lines, takes_roles=True, takes_status=True, allows_admin=True)
        assert counts == (0, len(some), 0, 0)
        trips.append(proxy.round_trips)
    assert trips[1] == trips[2] < 30
    kinds = "user.banned", "user.roles_changed", "session.ended"
    in_order = "SELECT array_agg(type ORDER BY id) FROM events WHERE type = ANY ($1) GROUP BY user_id"
    assert [tuple(row[0]) for row in await mover.stage.rows.fetch(in_order, kinds)] == [kinds] * len(people)


async def test_a_batch_that_runs_out_of_time_is_halved(mover: Mover) -> None:
    people = [{**ALICE, "openid": f"person-{n}"} for n in range(8)]
    await mover.import_lines(*people)
    mover = await mover.with_settings(apps=[APP], timeouts=Timeouts(database=replace(DEADLINES, lock=0.1)))
    lines = [json.dumps({**line, "status": "disabled"}).encode() for line in people]
    stored: list[int] = []
    held = mover.stage.rows.transaction()
    await held.start()
    last = "SELECT FROM users WHERE id = (SELECT user_id FROM identities WHERE openid = 'person-7') FOR UPDATE"
    await mover.stage.rows.execute(last)

    async def pause(_: float) -> None:
        stored.append(await mover.stage.number("users WHERE status = 'disabled'"))
        if stored[-1] == len(people) - 1:
            await held.rollback()

    counts = await mover.import_numbered(Again(lambda: enumerate(lines, 1)), {"pause": pause}, takes_status=True)
    assert (counts.updated, stored) == (8, [0, 4, 6, 7])


async def test_administrators_are_locked_only_where_one_ends(mover: Mover, root: Admin) -> None:
    await mover.import_lines(ALICE, BOB)
    async with locked(mover.stage.rows, root.id):
        assert await mover.import_lines({**ALICE, "status": "disabled"}, takes_status=True) == (0, 1, 0, 0)
    line = {**ALICE, "openid": "openid-a1-root", "roles": []}
    assert await mover.import_lines(line, BOB, takes_roles=True) == (0, 0, 1, 1)
    assert mover.refusals == [(1, "roles")]


@pytest.mark.oldest_postgres
async def test_attributes_are_those_of_new_users_and_with_the_option_of_stored_ones(mover: Mover) -> None:
    async def stored() -> object:
        return json.loads((await mover.user())["attributes"])

    line = {**ALICE, "attributes": {"tier": "gold", "shop": {"id": 7}, "none": None}}
    assert await mover.import_lines(line) == (1, 0, 0, 0)
    assert await stored() == {"tier": "gold", "shop": {"id": 7}}
    assert await mover.import_lines(line, takes_attributes=True) == (0, 0, 1, 0)
    patch = {**ALICE, "attributes": {"tier": None, "shop": {"city": "上海"}}}
    assert await mover.import_lines(patch) == (0, 0, 1, 0)
    assert await mover.import_lines(patch, takes_attributes=True) == (0, 1, 0, 0)
    assert await stored() == {"shop": {"id": 7, "city": "上海"}}
    told = await recorded(mover.stage.rows, "data", "type = 'user.attributes_changed'")
    assert told == [({"names": ["shop", "tier"]},)] * 2
    large = [{**ALICE, "attributes": {name: "x" * 1500}} for name in ("shop", "more")]
    assert await mover.import_lines(*large, takes_attributes=True) == (0, 1, 0, 1)
    assert mover.refusals == [(2, "attributes")]
    assert await mover.import_lines({**BOB, "attributes": {"No": 1}}) == (0, 0, 0, 1)
    assert json.loads(await mover.export())["attributes"] == {"shop": "x" * 1500}


async def test_columns_of_csv_name_attributes(mover: Mover) -> None:
    header = "app_id,openid,attributes.tier,attributes.level,attributes.shop"
    table = f"{header}\n{','.join(ALICE.values())},gold,3,\n"
    assert (await mover.import_text(table.encode(), is_csv=True)).created == 1
    table = f'{header}\n{",".join(ALICE.values())},,null,"{{""id"": 7}}"\n'
    assert (await mover.import_text(table.encode(), is_csv=True, takes_attributes=True)).updated == 1
    assert json.loads((await mover.user())["attributes"]) == {"tier": "gold", "shop": {"id": 7}}


async def test_the_last_administrator_stays(mover: Mover) -> None:
    admins = [{**person, "roles": ["admin"]} for person in (ALICE, BOB)]
    assert await mover.import_lines(*admins, allows_admin=True) == (2, 0, 0, 0)
    demoted = [{**person, "roles": []} for person in (ALICE, BOB)]
    assert await mover.import_lines(*demoted, takes_roles=True) == (0, 1, 0, 1)
    assert mover.refusals == [(2, "roles")]
    assert await mover.import_lines({**BOB, "status": "disabled"}, takes_status=True) == (0, 0, 0, 1)
    assert await mover.stage.number("users WHERE roles = '{admin}'") == 1


async def test_a_dry_run_counts_administrators_of_earlier_batches(
    mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 1)
    await mover.import_lines({**ALICE, "roles": ["admin"]}, allows_admin=True)
    lines = {**BOB, "roles": ["admin"]}, {**ALICE, "roles": []}
    for dry_run in (True, False):
        assert await mover.import_lines(*lines, allows_admin=True, takes_roles=True, dry_run=dry_run) == (1, 1, 0, 0)


@pytest.mark.parametrize("batch", [1, 2])
async def test_a_stored_administrator_counts_though_no_line_names_a_stored_user(
    mover: Mover, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", batch)
    await mover.import_lines({**ALICE, "roles": ["admin"]}, allows_admin=True)
    lines = {**BOB, **ONE, **BU, "roles": ["admin"]}, {**ALICE_THERE, **ONE, **BU, "roles": []}
    for dry_run in (True, False):
        assert await mover.import_lines(*lines, allows_admin=True, takes_roles=True, dry_run=dry_run) == (1, 1, 0, 0)


async def test_a_file_makes_nobody_an_administrator_who_is_or_was_banned(mover: Mover) -> None:
    await mover.stage.login("alice")
    await mover.stage.login("bob")
    await mover.stage.rows.execute("UPDATE users SET roles = '{admin}', status = 'disabled' WHERE nickname IS NULL")
    wants: dict[str, Any] = {"takes_roles": True, "takes_status": True}
    for line, field in (
        ({**ALICE, "status": "active"}, "status"),
        ({**ALICE, "roles": ["admin"], "status": "active"}, "roles"),
        ({"app_id": APP["app_id"], "openid": "carol-a1", "roles": ["admin"], "status": "disabled"}, "roles"),
    ):
        assert await mover.import_lines(line, **wants) == (0, 0, 0, 1)
        assert mover.refusals == [(1, field)]
    assert await mover.import_lines({**ALICE, "roles": [], "status": "active"}, **wants) == (0, 1, 0, 0)
    assert await mover.import_lines({**BOB, "status": "active"}, allows_admin=True, **wants) == (0, 1, 0, 0)


async def test_events_say_all_that_a_line_adds_once_unless_they_are_left_out(mover: Mover) -> None:
    def consent(document: str, version: str, given: str, withdrawn: str | None = None) -> Body:
        return {"document": document, "version": version, "given_at": given, "withdrawn_at": withdrawn}

    async def told() -> list[tuple[str, str, Any]]:
        return await recorded(mover.stage.rows, "type, user_id, data")

    line = {
        **FULL,
        "user_id": USER_ID,
        "former_ids": [OTHER_ID],
        "status": "disabled",
        "ban_reason": "spam",
        "consents": [
            consent("privacy", "1", "2025-01-01T00:00:00Z"),
            consent("privacy", "2", "2025-02-01T00:00:00Z"),
            consent("terms", "1", "2025-01-01T00:00:00Z", "2025-03-01T00:00:00Z"),
        ],
    }
    assert await mover.import_lines(line, BOB) == (2, 0, 0, 0)
    bob = await mover.stage.rows.fetchval("SELECT id::text FROM users WHERE id::text <> $1", USER_ID)
    assert sorted(await told(), key=lambda event: event[1] == bob) == [
        ("user.created", USER_ID, {"roles": ["editor"]}),
        ("user.merged", USER_ID, {"former_id": OTHER_ID}),
        ("user.banned", USER_ID, {"reason": "spam"}),
        ("user.phone_bound", USER_ID, {}),
        ("consent.given", USER_ID, {"document": "privacy", "version": "2"}),
        ("user.created", bob, {}),
    ]
    assert await mover.import_lines(line, BOB) == (0, 0, 2, 0)
    quiet = [{**ALICE_THERE, "external_id": "10023"}, {**BOB, "openid": "openid-a1-carol"}]
    assert await mover.import_lines(*quiet, quiet_events=True) == (1, 1, 0, 0)
    assert len(await told()) == 6
    more = {**BOB, "phone": NUMBER, "consents": [consent("privacy", "1", "2025-01-01T00:00:00Z")]}
    assert await mover.import_lines(more) == (0, 1, 0, 0)
    assert (await told())[6:] == [
        ("user.phone_bound", bob, {}),
        ("consent.given", bob, {"document": "privacy", "version": "1"}),
    ]


@pytest.mark.oldest_postgres
async def test_both_external_ids_are_kept_if_wechat_merges_their_users(mover: Mover, add_sibling: AddSibling) -> None:
    lines = [{**ALICE, "external_id": "1"}, {**ALICE_THERE, "external_id": "2", "unionid": UNION_ALICE}]
    assert await mover.import_lines(*lines) == (2, 0, 0, 0)
    alice = await mover.stage.login(unionid=UNION_ALICE)
    assert alice["user"]["external_id"] == "2"

    orders, asked = await add_sibling("orders", Scope.USERS), {"external_ids": ["1", "2"]}
    [user] = (await mover.stage.client.post("/v1/users/lookup", json=asked, auth=orders)).json()["items"]
    assert (user["id"], user["external_id"], user["former_external_ids"]) == (alice["user"]["id"], "2", ["1"])
    mine = (await mover.stage.client.get("/v1/me/export", headers=bearer(alice))).json()["user"]
    assert (mine["external_id"], mine["former_external_ids"]) == ("2", ["1"])
    await set_roles(mover.stage.rows, "admin")
    found = (await mover.stage.client.get("/v1/admin/users", params={"q": "1"}, headers=bearer(alice))).json()["items"]
    assert [user["external_id"] for user in found] == ["2"]
    detail = (await mover.stage.client.get(f"/v1/admin/users/{found[0]['id']}", headers=bearer(alice))).json()
    assert (detail["external_id"], detail["former_external_ids"]) == ("2", ["1"])
    await set_roles(mover.stage.rows)

    assert await mover.import_lines(*lines) == (0, 0, 2, 0)
    there = {"app_id": THIRD_APP["app_id"], "openid": "openid-c3-alice"}
    assert await mover.import_lines({**there, "external_id": "1"}) == (0, 1, 0, 0)
    exported = await mover.export()
    assert [json.loads(line)["former_external_ids"] for line in exported.splitlines()] == [["1"]] * 3
    await mover.move_out_and_in()

    # The next merge moves these former external ids too.
    other = {"app_id": OTHER_APP["app_id"], "openid": "openid-b2-carol"}
    await mover.import_lines({**other, "external_id": "3", "unionid": UNION_CAROL})
    assert (await mover.stage.login(unionid=UNION_CAROL))["user"]["external_id"] == "3"
    [user] = (await mover.stage.client.post("/v1/users/lookup", json=asked, auth=orders)).json()["items"]
    assert (user["external_id"], user["former_external_ids"]) == ("3", ["1", "2"])


async def test_a_removed_external_id_stays_removed_in_files(mover: Mover, add_sibling: AddSibling) -> None:
    lines = [{**ALICE, "external_id": "1"}, {**ALICE_THERE, "external_id": "2", "unionid": UNION_ALICE}]
    await mover.import_lines(*lines)
    alice = (await mover.stage.login(unionid=UNION_ALICE))["user"]
    crm, path = await add_sibling("crm", Scope.ATTRIBUTES), f"/v1/users/{alice['id']}/external-id"
    await mover.stage.client.put(path, json={"external_id": None}, auth=crm)

    await mover.move_out_and_in()
    assert await mover.import_lines(lines[0]) == (0, 0, 1, 0)
    assert (await mover.user())["external_id"] is None


async def test_a_former_unionid_joins_no_second_openid_of_the_app(mover: Mover) -> None:
    await mover.import_lines({**ALICE, "unionid": UNION_ELSEWHERE})
    assert (await mover.stage.login("alice", unionid=UNION_ALICE))["is_new_user"] is False
    assert await mover.import_lines({**BOB, "unionid": UNION_ELSEWHERE}) == (0, 0, 0, 1)
    assert mover.refusals == [(1, "unionid")]
    assert await mover.import_lines({**ALICE_THERE, "unionid": UNION_ELSEWHERE}) == (0, 1, 0, 0)
    assert await mover.stage.number("users") == 1


@pytest.mark.parametrize("order", [1, -1])
async def test_a_file_with_permuted_unionids_gives_nobody_another_persons_account(mover: Mover, order: int) -> None:
    people = [("alice", UNION_BOB), ("bob", UNION_CAROL), ("carol", UNION_ELSEWHERE)]
    await mover.import_lines(
        *({**ALICE, "openid": f"openid-a1-{name}", "external_id": name, "unionid": unionid} for name, unionid in people)
    )
    for name, _ in 2 * people[::order]:
        assert (await mover.stage.login(name, unionid=unionid_of(name)))["user"]["external_id"] == name
    assert await mover.stage.number("users") == len(people)


async def test_a_second_line_of_an_openid_may_not_contradict_it(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 2)
    more = {"phone": "+8613900139000", "last_login_at": "2026-01-01T00:00:00Z"}
    lines: list[Body] = [
        {**ALICE, "nickname": "Alice", "roles": ["a", "b"]},
        {**ALICE, "nickname": "Alice", "roles": ["b", "a"], **more},
        BOB,
        {**ALICE, "nickname": "Mallory", "phone": "+8613700137000", "status": "active"},
        {**ALICE, "roles": ["editor"]},
        {**ALICE_THERE, "nickname": "Mallory"},
    ]
    for options in ({"dry_run": True}, {}, {"overwrites": True}):
        counts = await mover.import_lines(*lines, **options)
        assert counts == ((0, 0, 4, 2) if "overwrites" in options else (3, 1, 0, 2)), options
        assert mover.refusals == [(4, "nickname"), (4, "phone"), (5, "roles")]
        assert mover.others == [(1, 2), (1,)]
    assert ("Alice", more["phone"]) in {(user["nickname"], user["phone"]) for user in await mover.users()}


async def test_a_refused_line_contradicts_no_later_line(mover: Mover) -> None:
    refused = {**ALICE, "nickname": "Mallory", "roles": ["admin"]}
    assert await mover.import_lines(refused, {**ALICE, "nickname": "Alice"}) == (1, 0, 0, 1)
    assert (await mover.user())["nickname"] == "Alice"


async def test_patches_of_one_openids_attributes_follow_each_other(mover: Mover) -> None:
    lines = [{**ALICE, "attributes": {"tier": tier}} for tier in ("silver", "gold")]
    assert await mover.import_lines(*lines) == (1, 0, 0, 1)
    assert await mover.import_lines(*lines, takes_attributes=True) == (0, 1, 1, 0)
    assert json.loads((await mover.user())["attributes"]) == {"tier": "gold"}


CONSENT: Body = {
    **{"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00Z", "withdrawn_at": None},
    **{"app_id": None, "ip": "203.0.113.7"},
}
WHOLE: Body = {
    **FULL,
    **{"nickname": '小明, "the first"', "user_id": USER_ID, "roles": ["editor", "reader"], "status": "disabled"},
    **{"ban_reason": "spam", "banned_until": "2099-01-01T00:00:00Z", "erase_at": "2098-01-01T00:00:00Z"},
    **{"identity_created_at": "2024-01-02T03:04:05Z", "last_seen_at": "2025-07-08T09:10:11.123456Z"},
    **{"consents": [CONSENT], "former_external_ids": ["7", "8"]},
    **{"attributes": {"tier": "gold", "shop": {"id": 7}}, "former_ids": [OTHER_ID, OTHER_ID[:-1] + "9"]},
}
"""A line that contains every field."""


# The same lines as CSV.


async def test_every_field_of_a_line_of_json_or_csv_is_in_the_export(mover: Mover) -> None:
    assert WHOLE.keys() == Line.model_fields.keys()
    assert await mover.import_lines(WHOLE) == (1, 0, 0, 0)
    assert json.loads(await mover.export()) == WHOLE
    await mover.begin_anew()

    as_json = {name: json.dumps(WHOLE[name]) for name in ("consents", "attributes")}
    cells = {name: "|".join(value) if isinstance(value, list) else value for name, value in (WHOLE | as_json).items()}
    written = io.StringIO()
    writer = csv.DictWriter(written, cells)
    writer.writeheader()
    writer.writerow(cells)
    writer.writerow({**dict.fromkeys(cells, ""), **BOB})
    counts = await mover.import_text(b"\xef\xbb\xbf" + written.getvalue().encode(), is_csv=True)
    assert (counts.created, mover.refusals) == (2, [])
    assert json.loads((await mover.export()).splitlines()[0]) == WHOLE
    assert (await mover.import_text(written.getvalue().encode(), is_csv=True)).unchanged == 2


HEADER = "app_id,openid,nickname,note\n"
START = f"{APP['app_id']},{'person-':->27}"
"""The start of a line. One more letter makes its openid as long as WeChat's openids."""


NAMED = f'{{"app_id": "{APP["app_id"]}", "openid": "{{}}"'.encode()
LINES_OF_CSV = {
    "created": [f"{START}{{}},".encode() + cells for cells in (b"x,y", b'"a ""quoted"" one",', b'stray",', b'"",","')],
    "refused": [
        *[
            f"{START}{{}},".encode() + cells
            for cells in (b'"opens,', b'"closed" twice,', b"x", b"x,y,z", b"\xff,", b"x," * 4096)
        ],
        *[f"{APP['app_id']},NULL,,".encode(), b'says",', b'"'],
    ],
    "blank": [b"", b" \t", b",,,"],
}
LINES_OF_JSON = {
    "created": [NAMED + b"}", NAMED + b', "nickname": "\\n"}'],
    "refused": [NAMED, NAMED + b', "nickname": "', b"{}", b"[]", b'"', b"\xff", NAMED + b" " * MAX_LINE + b"}"],
    "blank": [b"", b" \t"],
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_csv", [True, False])
async def test_every_line_of_a_file_is_imported_or_refused_or_blank(mover: Mover, seed: int, is_csv: bool) -> None:
    random, kinds = Random(seed), LINES_OF_CSV if is_csv else LINES_OF_JSON
    outcomes = [*random.choices(list(kinds), k=500), "refused"]
    lines = [
        random.choice(kinds[outcome]).replace(b"{}", b"person-%d" % number) for number, outcome in enumerate(outcomes)
    ]
    header = HEADER.encode() if is_csv else b""
    text = header + b"".join(line + random.choice([b"\n", b"\r\n"]) for line in lines)
    counts = await mover.import_text(text.rstrip(b"\r\n"), is_csv=is_csv)
    assert counts == Counts(lines=len(lines) - outcomes.count("blank"), **Counter(outcomes))
    numbers = enumerate(outcomes, 2 if is_csv else 1)
    assert list(dict(mover.refusals)) == [number for number, outcome in numbers if outcome == "refused"]


@pytest.mark.parametrize("column", ["note", "attributes.note"])
async def test_two_stray_quotation_marks_cost_no_line_between_them(mover: Mover, column: str) -> None:
    people = [f"{START}{number},小明,{{}}\n" for number in range(100)]
    lines = [people[20].format('"says'), *(line.format("") for line in people[21:80]), people[80].format('hello"')]
    text = HEADER.replace("note", column) + "".join(lines)
    assert await mover.import_text(text.encode(), is_csv=True) == Counts(lines=61, created=60, refused=1)
    assert mover.refusals == [(2, "line")]


@pytest.mark.parametrize(
    "text",
    [
        "app_id,openid,openid\n",
        "app_id,openid,attributes,attributes.tier\n",
        'app_id,"openid\n',
    ],
)
def test_csv_needs_a_header(text: str) -> None:
    with pytest.raises(WrongFile):
        CsvLines(io.BytesIO(text.encode()))


def test_a_quotation_mark_that_is_never_closed_does_not_hold_the_file_in_memory() -> None:
    line = b"x,one,," + b"x" * (MAX_LINE - 100) + b"\n"
    lines = CsvLines(io.BytesIO(HEADER.encode() + b'x,"runs away\n' + line * 500))
    tracemalloc.start()
    assert sum(1 for _ in lines) == 501
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024


@pytest.mark.parametrize(
    ("text", "is_csv", "delimiter"),
    [
        (b"weixin_openid,mobile,nickname\n{openid},138 0013 8000,\xe5\xb0\x8f\n", True, ","),
        (b"weixin_openid\tmobile\tnickname\n{openid}\t0086-138-0013-8000\t\xe5\xb0\x8f\n", True, "\t"),
        (
            b'{"weixin_openid": "{openid}", "mobile": 13800138000, "nickname": "\xe5\xb0\x8f", "openid": 7}\n',
            False,
            ",",
        ),
        (b'{"weixin_openid": "{openid}", "mobile": "8613800138000", "nickname": "\xe5\xb0\x8f"}\n', False, ","),
    ],
)
async def test_a_file_may_have_names_and_numbers_of_its_own(
    mover: Mover, text: bytes, is_csv: bool, delimiter: str
) -> None:
    names = {"weixin_openid": "openid", "mobile": "phone"}
    own = FileFormat(app_id=ALICE["app_id"], fields=names, delimiter=delimiter)
    counts = await mover.import_as(own, text.replace(b"{openid}", ALICE["openid"].encode()), is_csv=is_csv)
    assert (counts.created, mover.refusals) == (1, [])
    user = await mover.user()
    assert (user["phone"], user["nickname"]) == ("+8613800138000", "小")
    assert json.loads(await mover.export())["openid"] == ALICE["openid"]


async def test_a_file_may_have_values_of_its_own(mover: Mover) -> None:
    own = FileFormat(values={"status": {"2": "disabled"}, "roles": {"vip": "gold|editor"}})
    assert (await mover.import_as(own, json.dumps({**ALICE, "status": 2, "roles": "vip"}).encode())).created == 1
    user = await mover.user()
    assert (user["status"], user["roles"]) == ("disabled", ["gold", "editor"])


async def test_numbers_are_as_they_are_dialled_in_the_region(mover: Mover) -> None:
    mover = await mover.with_settings(apps=[APP], phone_region="DE")
    assert await mover.import_lines({**ALICE, "phone": "030 901820"}, {**BOB, "phone": "13800138000"}) == (1, 0, 0, 1)
    assert (await mover.user())["phone"] == "+4930901820"


async def test_a_line_in_another_encoding_costs_no_other_line(mover: Mover) -> None:
    lines = [{**ALICE, "nickname": "小明"}, {**BOB, "nickname": "ab"}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    assert (await mover.import_text(text.encode("gbk"))).created == 1
    assert mover.refusals == [(1, "line")]


# Imports during logins, and imports that are killed or lose the database.


@pytest.mark.parametrize("is_dry", [True, False])
async def test_an_import_goes_on_when_the_database_is_back(
    mover: Mover, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, is_dry: bool
) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 1)
    mover = await mover.with_settings(apps=[APP], database_url=proxy.url)
    people = [json.dumps({**ALICE, "openid": f"person-{n}"}).encode() for n in range(4)]
    waited: list[float] = []

    def progress(counts: Counts) -> None:
        if counts.lines == 2:
            proxy.shut()

    async def pause(_: float) -> None:
        if len(waited) == 3:
            proxy.shut(again=True)

    how = {"report_progress": progress, "report_wait": lambda _, seconds: waited.append(seconds), "pause": pause}
    counts = await mover.import_numbered(Again(lambda: enumerate(people, 1)), how, dry_run=is_dry)
    assert (counts.lines, counts.created, waited) == (4, 4, [1, 2, 4])
    assert await mover.stage.number("identities") == (0 if is_dry else 4)


@pytest.mark.own_database
async def test_only_the_line_whose_user_keeps_changing_is_imported_alone(mover: Mover) -> None:
    await make_conflicts(mover.stage.rows, "INSERT ON identities", condition="NEW.openid = 'person-3'")
    waited: list[float] = []

    async def pause(_: float) -> None:
        await mover.stage.rows.execute("DROP TRIGGER clash ON identities")

    how = {"report_wait": lambda _, seconds: waited.append(seconds), "pause": pause}
    people = [json.dumps({**ALICE, "openid": f"person-{n}"}).encode() for n in range(1, 9)]
    counts = await mover.import_numbered(Again(lambda: enumerate(people, 1)), how)
    assert (counts.created, counts.unchanged, waited) == (8, 0, [1])
    parts = "SELECT array_agg(openid ORDER BY openid) FROM identities GROUP BY xmin::text ORDER BY min(openid)"
    numbers = [[int(openid[-1]) for openid in row[0]] for row in await mover.stage.rows.fetch(parts)]
    assert numbers == [[1, 2], [3], [4], [5, 6, 7, 8]], "the lines of each transaction"


async def test_an_import_gives_up_after_ten_minutes(mover: Mover, proxy: Proxy) -> None:
    mover = await mover.with_settings(apps=[APP], database_url=proxy.url)
    waited: list[float] = []

    def lines() -> Iterator[tuple[int, bytes]]:
        proxy.shut()
        yield 1, json.dumps(ALICE).encode()

    async def pause(_: float) -> None:
        pass

    how = {"report_wait": lambda _, seconds: waited.append(seconds), "pause": pause}
    with pytest.raises(StorageUnavailable):
        await mover.import_numbered(Again(lines), how)
    assert sum(waited) == 600


@pytest.mark.slow
async def test_a_dry_run_needs_no_memory_for_what_it_has_read(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 200)

    async def peak(number: int) -> float:
        lines = Again(lambda: ((n, json.dumps({**FULL, **names(n)}).encode()) for n in range(1, number + 1)))
        tracemalloc.start()
        counts = await mover.import_numbered(lines, dry_run=True)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counts.created == number
        return used

    def names(n: int) -> dict[str, str]:
        return {"openid": f"person-{n:05}", "unionid": f"oTmHYjg7xLa9Yp4Zt2Vq{n:08}", "external_id": str(n)}

    few = await peak(200)
    assert await peak(800) < few * 1.2


async def test_an_import_goes_on_without_folder(mover: Mover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    assert await mover.import_lines({**ALICE, "nickname": "A"}, {**ALICE, "nickname": "B"}) == (1, 0, 0, 1)


async def test_a_dry_run_finds_in_later_batches_what_others_made(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth.import_export.importing.LINES_PER_BATCH", 1)
    consent = {"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00Z"}
    there = {**ALICE_THERE, "unionid": UNION_ALICE}
    lines = [
        {**FULL, "consents": [consent], "former_ids": [OTHER_ID], "former_external_ids": ["9"], "user_id": USER_ID},
        {**FULL, "consents": [consent]},
        {**there, "consents": [{**consent, "version": "2"}]},
        {**there, "openid": "another"},
        {**BOB, "external_id": "9"},
        {**BOB, "user_id": OTHER_ID},
        {**BOB, "unionid": UNION_ALICE},
        {**BOB, "former_ids": [USER_ID]},
    ]
    said = await mover.import_lines(*lines, dry_run=True)
    refusals = mover.refusals, mover.others
    assert await mover.users() == []
    assert await mover.import_lines(*lines) == said
    assert (mover.refusals, mover.others) == refusals
    assert said[0] == 1


@pytest.mark.slow
async def test_logins_beside_an_import_join_nobody_who_has_another_openid(mover: Mover) -> None:
    people = [f"person-{n}" for n in range(100)]
    lines = [{**BOB, "openid": f"stranger-{n}", "unionid": unionid_of(person)} for n, person in enumerate(people)]
    await mover.import_lines(*(line | ALICE_THERE | {"openid": f"here-{n}"} for n, line in enumerate(lines)))
    importing = asyncio.create_task(mover.import_lines(*lines))
    await asyncio.gather(*(mover.stage.login(person, unionid=unionid_of(person)) for person in people))
    counts = await importing
    assert counts[0] == 0
    assert await mover.stage.number("identities GROUP BY user_id, app_id ORDER BY 1 DESC LIMIT 1") == 1
    assert (await mover.import_lines(*lines))[2:] == (counts[1], counts[3])


@pytest.mark.slow
async def test_an_import_comes_to_its_end_though_the_same_people_log_in_all_the_time(mover: Mover) -> None:
    people = range(1, 401)
    lines = [
        {**ALICE, "openid": f"openid-a1-person-{n}", "unionid": unionid_of(f"person-{n}"), "external_id": str(n)}
        for n in people
    ]
    importing = asyncio.create_task(mover.import_lines(*lines))
    for n in reversed(people):
        await mover.stage.login(f"person-{n}", unionid=unionid_of(f"person-{n}") if n % 2 else None)
    created, updated, _, refused = await importing
    assert (created + updated, refused) == (len(people), 0)
    users = await mover.stage.rows.fetchrow("SELECT count(*), count(external_id) FROM users")
    assert tuple(users) == (len(people), len(people))


async def test_two_simultaneous_imports_of_one_file_end_like_one_import(mover: Mover) -> None:
    lines = [{**ALICE, "openid": f"person-{n}", "external_id": str(n)} for n in range(1, 201)]
    counts = await asyncio.gather(mover.import_lines(*lines), mover.import_lines(*reversed(lines)))
    assert sum(count[0] for count in counts) == 200
    assert await mover.stage.number("users") == 200


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
async def test_a_file_that_was_cut_off_is_taken_up_again(mover: Mover, share: float) -> None:
    names = [{"openid": f"person-{n}", "unionid": unionid_of(f"person-{n // 2}")} for n in range(22)]
    lines = [{**FULL, **(ALICE, ALICE_THERE)[n % 2], **names[n], "external_id": str(n // 2)} for n in range(2, 22)]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    await mover.import_text(text[: int(len(text) * share)])
    assert (await mover.import_text(text)).refused == 0
    once = [(user["external_id"], user["unionid"]) for user in await mover.users()]
    assert sorted(once) == sorted((str(n), unionid_of(f"person-{n}")) for n in range(1, 11))


# Exports.


async def test_an_export_of_an_imported_export_is_the_same(mover: Mover) -> None:
    alice = await mover.stage.login("alice", nickname='小明 "\\', avatar_url="https://example.com/1.png?a=b")
    await mover.stage.login("bob")
    consent = {"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00.5Z", "ip": "203.0.113.7"}
    there = {**ALICE_THERE, "identity_created_at": "2024-01-01T00:00:00Z"}
    withdrawn = {**consent, "document": "terms", "withdrawn_at": "2025-01-02T00:00:00Z", "ip": "203.0.113.0/24"}
    await mover.import_lines(
        {**ALICE, "external_id": "10023", "former_ids": [OTHER_ID, USER_ID], "consents": [withdrawn, consent]},
        {**there, "external_id": "10023", "unionid": UNION_ALICE},
        {**BOB, "unionid": None, "phone": NUMBER},
        {**BOB, "openid": "never-came", "roles": ["editor", "admin"], "status": "disabled"},
        {**BOB, "openid": "imported", "created_at": "2020-02-29T23:59:59.999999+08:00"},
        allows_admin=True,
    )
    await mover.stage.rows.execute("UPDATE users SET unionid = 'o6_bmMerely-made-up-by-hand0' WHERE phone = $1", NUMBER)
    await mover.stage.client.post("/v1/me/sessions", headers=bearer(alice))
    first = await mover.export()
    lines = [json.loads(line) for line in first.splitlines()]
    assert len(lines) == 6
    assert [line["openid"] for line in lines].index(None) == 5, "a unionid that no identity has"
    assert [line["identity_created_at"] for line in lines[:5]] == sorted(
        line["identity_created_at"] for line in lines[:5]
    )
    alice = next(line for line in lines if line["openid"] == ALICE["openid"])
    assert list(alice) == [*FULL, "last_seen_at", "user_id", "identity_created_at", "consents", "former_ids"]
    assert alice["former_ids"] == [OTHER_ID, USER_ID]
    assert [consent["document"] for consent in alice["consents"]] == ["privacy", "terms"]
    stored = "SELECT id, unionid, nickname, status, external_id, consents FROM users ORDER BY id"
    before = await mover.stage.rows.fetch(stored)

    assert (await mover.move_out_and_in(allows_admin=True)).created == 4
    assert await mover.stage.rows.fetch(stored) == before
    assert (await mover.import_text(first, allows_admin=True)).unchanged == 6
    assert await mover.export() == first

    former = "INSERT INTO former_external_ids SELECT '7|8', id FROM users WHERE external_id = '10023'"
    await mover.stage.rows.execute(former)
    as_json = await mover.export()
    assert (await mover.move_out_and_in(allows_admin=True)).created == 4, mover.messages
    assert await mover.export() == as_json


async def test_a_user_of_several_identities_without_a_unionid_goes_out_and_comes_in(mover: Mover) -> None:
    lines = [{**ALICE, "openid": f"person-{n}", "external_id": "7", "user_id": USER_ID} for n in range(3)]
    assert await mover.import_lines(*lines, {**ALICE_THERE, "external_id": "7"}) == (1, 3, 0, 0)
    await mover.stage.rows.execute("UPDATE users SET unionid = $1", UNION_ALICE)
    exported = await mover.export()
    assert [json.loads(line)["unionid"] for line in exported.splitlines()] == [None, None, None, None, UNION_ALICE]
    await mover.move_out_and_in()


@pytest.mark.slow
async def test_an_export_is_a_consistent_snapshot(mover: Mover) -> None:
    await mover.import_lines(*({**ALICE, "openid": f"person-{n:04}"} for n in range(2500)))

    seen = []
    async for some in all_identities(mover.stage.services.database):
        seen += [row["openid"] for row in some]
        await mover.stage.rows.execute("DELETE FROM users")
    assert seen == [f"person-{n:04}" for n in range(2500)]


# Moves that follow only the guide.


class Shop:
    """A back end that was made with a tutorial. The guide's queries read its table, which is like many old tables."""

    table = "user"

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.rows = [self._row(number) for number in range(1, 201)]

    def _row(self, number: int) -> dict[str, Any]:
        person = f"person-{number}"
        pictures = (
            "https://thirdwx.qlogo.cn/a/132",
            "http://wx.qlogo.cn/a/0",
            "http://tmp/a.png",
            "wxfile://a",
            "",
            None,
        )
        phone = f"{13800000000 + number}"
        return {
            "id": number,
            "openid": openid_of(person, self.app_id) if number % 50 else ("", "NULL")[number // 50 % 2],
            "unionid": (unionid_of(person), "", None, "NULL", "0")[number % 5],
            "nick_name": ("小明", "🇨🇳" * 40, "a\nb", ' O\'Brien "x" \\ ', "", None)[number % 6],
            "avatar_url": pictures[number // 6 % 6],
            "phone": (phone, f"+86{phone}", f"86{phone}", "", "138 0013 8000", None)[number % 6],
            "create_time": ("2023-01-02 03:04:05", None, "0000-00-00 00:00:00")[number % 7 // 3],
        }

    def by_sql(self, query: str) -> list[dict[str, Any]]:
        """Run the query in SQLite, with the functions of MySQL that SQLite lacks."""
        with closing(sqlite3.connect(":memory:")) as database:
            database.create_function("IF", 3, lambda condition, one, other: one if condition else other)
            database.create_function("CONCAT", 2, lambda *texts: None if None in texts else "".join(texts))
            database.create_function("DATE_FORMAT", 2, self._date_format)
            database.create_function("REGEXP", 2, self._regexp)
            database.execute(f"CREATE TABLE {self.table} ({', '.join(self.rows[0])})")
            places = ", ".join("?" * len(self.rows[0]))
            database.executemany(
                f"INSERT INTO {self.table} VALUES ({places})", [tuple(row.values()) for row in self.rows]
            )
            return [json.loads(line) for (line,) in database.execute(query.replace("wx1a2b3c4d5e6f7a8b", self.app_id))]

    @staticmethod
    def _date_format(time: str | None, form: str) -> str | None:
        if not time or time.startswith("0000"):
            return None
        return datetime.fromisoformat(time).strftime(form.replace("%i", "%M").replace("%s", "%S"))

    @staticmethod
    def time_of(row: dict[str, Any]) -> datetime | None:
        """Return when the user has registered, or None instead of a zero date, which other databases don't allow."""
        time = row["create_time"]
        return None if not time or time.startswith("0000") else datetime.fromisoformat(time)

    @staticmethod
    def _regexp(pattern: str, text: str | None) -> bool | None:
        return None if text is None else bool(re.search(pattern.replace("[:cntrl:]", r"\x00-\x1f\x7f"), text))

    def by_mongosh(self, code: str) -> list[dict[str, Any]]:
        """Run the code for mongosh in Node, with a simulated database."""
        documents = json.dumps(
            [document for document in self._documents if self._regexp(r"^[\w-]{20,}$", document["openid"])]
        )
        around = f"const documents = {documents}, print = console.log, db = {{users: {{find: () => documents}}}}"
        times = "for (const one of documents) if (one.createdAt) one.createdAt = new Date(one.createdAt)"
        script = f"{around}; {times}; {code}".replace("wx1a2b3c4d5e6f7a8b", self.app_id)
        return [json.loads(line) for line in output_of(needs("node"), "-e", script).splitlines()]

    @property
    def _documents(self) -> list[dict[str, Any]]:
        names = {"id": "_id", "nick_name": "nickName", "avatar_url": "avatarUrl"}
        return [
            {names.get(name, name): value for name, value in row.items() if name != "create_time"}
            | {"createdAt": self._date_format(row["create_time"], "%Y-%m-%dT%H:%i:%s+08:00") or row["create_time"]}
            for row in self.rows
        ]


def query_in(name: str) -> str:
    """Return the text of this file in examples/moving-in."""
    return (ROOT / "examples/moving-in" / name).read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
async def test_the_people_of_an_old_backend_log_in_and_keep_their_id(stage: Stage) -> None:
    query = query_in("mysql.sql")
    stage = await stage.replica(apps=APPS)
    mover = Mover(stage)
    lines = Shop(APPS[0]["app_id"]).by_sql(query)
    assert len(lines) == 196
    assert await mover.import_lines(*lines) == (196, 0, 0, 0)

    for line in lines:
        number = line["external_id"]
        answer = await stage.login(f"person-{number}")
        assert (answer["user"]["external_id"], answer["is_new_user"]) == (number, False)
    sibling = await add_client(stage.services.database, "orders", scopes=[Scope.USERS], now=stage.clock())
    asked = {"external_ids": [line["external_id"] for line in lines]}
    found = (await stage.client.post("/v1/users/lookup", json=asked, auth=sibling)).json()["items"]
    assert [user["external_id"] for user in found] == asked["external_ids"]

    assert (await mover.move_out_and_in()).created == 196


@pytest.mark.node
def test_all_queries_of_the_example_return_the_same_people() -> None:
    shop = Shop("wxtest")
    people = shop.by_sql(query_in("mysql.sql"))

    def plain(line: dict[str, Any]) -> dict[str, Any]:
        time = line["created_at"]
        return {
            name: value or None for name, value in {**line, "created_at": time and datetime.fromisoformat(time)}.items()
        }

    assert [*map(plain, shop.by_mongosh(query_in("mongodb.js")))] == [*map(plain, people)]


class OpenSourceShop(Shop):
    """A back end with the same users, in the table of an open-source shop."""

    def __init__(self, app_id: str, table: str) -> None:
        super().__init__(app_id)
        self.table = table
        for row in self.rows:
            number, at = row["id"], row.pop("create_time")
            names = {"openid": "weixin_openid", "nick_name": "nickname", "avatar_url": "avatar", "phone": "mobile"}
            for ours, theirs in names.items():
                row[theirs] = row.pop(ours)
            if table == "litemall_user":
                row |= {"add_time": at, "last_login_time": at, "status": number % 4, "deleted": number % 10 == 9}
            else:
                seconds = int(datetime(2023, 1, 2, 3, 4, 5, tzinfo=CHINA).timestamp())
                row |= {"register_time": seconds if at else 0, "last_login_time": 0}


CHINA = timezone(timedelta(hours=8))


@pytest.mark.parametrize(("table", "people", "banned"), [("litemall_user", 176, 88), ("nideshop_user", 196, 0)])
async def test_the_people_of_a_published_shop_go_in_by_its_query(
    stage: Stage, rows: Rows, table: str, people: int, banned: int
) -> None:
    stage = await stage.replica(apps=APPS)
    lines = OpenSourceShop(APPS[0]["app_id"], table).by_sql(query_in(f"{table.removesuffix('_user')}.sql"))
    assert await Mover(stage).import_lines(*lines) == (people, 0, 0, 0)
    assert await rows.fetchval("SELECT count(*) FROM users WHERE status = 'disabled'") == banned
    registered = "SELECT count(*) FROM users WHERE created_at = '2023-01-02 03:04:05+08'"
    assert await rows.fetchval(registered) > people / 4
    assert {line["external_id"] for line in lines} <= {str(number) for number in range(1, 201)}


@pytest.mark.own_database
async def test_a_table_with_its_own_keys_has_one_row_for_each_user(database_url: str) -> None:
    """Run the statements of `claim.sql`, even for many requests at once."""
    once, each = statements_of_claim("the openid column is unique")
    async with asyncpg.create_pool(database_url, min_size=8, max_size=8) as pool:
        await pool.execute("CREATE TABLE customers (id serial PRIMARY KEY, openid text NOT NULL, phone text)")
        await pool.execute("INSERT INTO customers (openid) VALUES ('o-1'), ('o-2'), (''), ('o-2')")
        await pool.execute(once)

        async def at_once(*what: Any) -> set[int]:
            user = uuid4()
            return set(await asyncio.gather(*(row_of(pool, each, user, *what) for _ in range(8))))

        assert await at_once(1, None) == {1}
        assert await at_once(None, "o-2") == {2}, "the first of two"
        new = await at_once(None, None)
        assert len(new) == 1
        assert not new & {1, 2, 3, 4}, "nobody's empty openid is claimed"
        assert not await at_once(1, "o-1") & {1}, "somebody's row is not claimed again"
        assert await pool.fetchval("SELECT count(*) FROM customers") == 6


@pytest.mark.own_database
async def test_a_row_of_a_number_alone_is_claimed_once_and_only_if_the_number_is_one_persons(database_url: str) -> None:
    once, each = statements_of_claim("the openid column is unique")
    async with asyncpg.create_pool(database_url, min_size=8, max_size=8) as pool:
        await pool.execute("CREATE TABLE customers (id serial PRIMARY KEY, openid text NOT NULL, phone text)")
        values = "('', '13900000001'), ('', '13900000002'), ('', '13900000002'), ('', NULL)"
        await pool.execute(f"INSERT INTO customers (openid, phone) VALUES {values}")
        await pool.execute(once)
        first, second, third, fourth = uuid4(), uuid4(), uuid4(), uuid4()
        at_once = [row_of(pool, each, first, phone="13900000001") for _ in range(8)]
        assert set(await asyncio.gather(*at_once)) == {1}
        assert await row_of(pool, each, second, phone="13900000001") > 4, "somebody's row does not move with the number"
        assert await row_of(pool, each, third, phone="13900000002") > 4, "whose of the two would it be?"
        assert await row_of(pool, each, fourth) > 4, "no number claims nothing"
        assert await row_of(pool, each, first) == 1


@pytest.mark.own_database
async def test_who_comes_back_after_an_erasure_has_a_row_even_if_openids_are_unique(database_url: str) -> None:
    once, each = statements_of_claim()
    each = [statement.replace("COALESCE(:openid, '')", ":openid") for statement in each]
    async with asyncpg.create_pool(database_url, min_size=8, max_size=8) as pool:
        await pool.execute("CREATE TABLE customers (id serial PRIMARY KEY, openid text UNIQUE, phone text)")
        await pool.execute(once)
        erased, again = uuid4(), uuid4()
        before = await row_of(pool, each, erased, openid="o-1")
        rows = set(await asyncio.gather(*(row_of(pool, each, again, openid="o-1") for _ in range(8))))
        assert len(rows) == 1
        assert before not in rows, "what the user has erased stays with the row from before"
        assert await pool.fetchval("SELECT wxauth_id FROM customers WHERE openid = 'o-1'") == again


@pytest.mark.own_database
@pytest.mark.parametrize("stored", [None, "", "openid-of-the-official-account"])
async def test_a_login_stores_the_openid_of_a_row_that_lacks_it_or_has_another(
    database_url: str, stored: str | None
) -> None:
    once, each = statements_of_claim()
    async with asyncpg.create_pool(database_url, min_size=8, max_size=8) as pool:
        await pool.execute("CREATE TABLE customers (id serial PRIMARY KEY, openid text UNIQUE, phone text)")
        await pool.execute("INSERT INTO customers (openid) VALUES ($1), ('o-1'), ('o-3')", stored)
        await pool.execute(once)
        user = uuid4()
        assert await row_of(pool, each, user, 1, "o-1") == 1
        for _ in range(2):
            await store_openid(pool, each, user, "o-1")
        await store_openid(pool, each, user, None)
        stored_now = await pool.fetch("SELECT id, openid FROM customers ORDER BY id")
        assert [tuple(row) for row in stored_now] == [(1, "o-1"), (2, None), (3, "o-3")]
        query = block("docs/start/moving-in.md", "SELECT count(*) FROM customers")
        assert await pool.fetchval(query) == 0
        await pool.execute("UPDATE customers SET openid = NULL")
        assert await pool.fetchval(query) == 1


async def store_openid(pool: asyncpg.Pool, each: list[str], user: UUID, openid: str | None) -> None:
    for statement in each[-2:]:
        sql = statement.replace(":id", "$1::uuid").replace(":openid", "$2::text")
        await pool.execute(sql, user, openid)


@pytest.mark.own_database
async def test_openids_in_a_table_of_their_own_move_with_the_person_who_has_them(database_url: str) -> None:
    """Run `openids.sql`, in which only `INSERT IGNORE` is MySQL's."""
    async with asyncpg.create_pool(database_url, min_size=8, max_size=8) as pool:
        await pool.execute("CREATE TABLE customers (id serial PRIMARY KEY, wxauth_id uuid UNIQUE)")
        await pool.execute("INSERT INTO customers SELECT FROM generate_series(1, 3)")
        column = "user_id int NOT NULL, app_id text NOT NULL, openid text NOT NULL UNIQUE"
        await pool.execute(f"CREATE TABLE customer_openids ({column})")
        values = "(1, 'official', 'x-1'), (2, 'mini', 'o-2'), (3, 'mini', 'O-2')"
        await pool.execute(f"INSERT INTO customer_openids VALUES {values}")

        async def at_once(user: UUID, openid: str, external_id: int | None = None) -> set[int]:
            return set(await asyncio.gather(*(claim_by_openids(pool, user, openid, external_id) for _ in range(8))))

        imported, known, new, after_erasure = (uuid4() for _ in range(4))
        assert await at_once(imported, "o-1", 1) == {1}
        assert await at_once(known, "o-2") == {2}
        [row_of_new] = await at_once(new, "o-9")
        [row_after] = await at_once(after_erasure, "o-2")
        assert len({1, 2, 3, row_of_new, row_after}) == 5
        assert await at_once(known, "o-4") == {2}
        assert await at_once(known, "o-5") == {2}
        openids = await pool.fetch('SELECT user_id, openid FROM customer_openids ORDER BY openid COLLATE "C"')
        assert [tuple(row) for row in openids] == [
            (3, "O-2"), (1, "o-1"), (row_after, "o-2"), (2, "o-5"), (row_of_new, "o-9"), (1, "x-1")
        ]  # fmt: skip


async def claim_by_openids(pool: asyncpg.Pool, user: UUID, openid: str, external_id: int | None) -> int:
    values = {"id": user, "external_id": external_id, "openid": openid, "app_id": "mini"}
    found: list[asyncpg.Record] = []
    for statement in re.sub(r"--.*", "", query_in("openids.sql")).strip().rstrip(";").split(";\n"):
        names, sql = list(dict.fromkeys(re.findall(r":(\w+)", statement))), statement
        if "INSERT IGNORE" in sql:
            sql = sql.replace("INSERT IGNORE", "INSERT") + " ON CONFLICT DO NOTHING"
        for place, name in enumerate(names, 1):
            sql = sql.replace(f":{name}", f"${place}::{TYPES.get(name, 'text')}")
        found = await pool.fetch(sql, *(values[name] for name in names))
    row: int = found[0]["id"]
    return row


def statements_of_claim(without: str = "-") -> tuple[str, list[str]]:
    """Return the statement of `claim.sql` that is run once, and the statements that are run for each token.

    A statement that is run only under the condition `without` is left out.
    """
    once, *each = query_in("claim.sql").strip().rstrip(";").split(";\n")
    kept = [statement for statement in each if f"-- Run this statement only if {without}" not in statement]
    return re.sub(r"--.*", "", once), [re.sub(r"--.*", "", statement) for statement in kept]


async def row_of(
    pool: asyncpg.Pool,
    each: list[str],
    user: UUID,
    external_id: int | None = None,
    openid: str | None = None,
    phone: str | None = None,
) -> int:
    values = {"id": user, "external_id": external_id, "openid": openid, "phone": phone}
    for statement in each:
        names, sql = list(dict.fromkeys(re.findall(r":(\w+)", statement))), statement
        for place, name in enumerate(names, 1):
            sql = sql.replace(f":{name}", f"${place}::{TYPES[name]}")
        found = await pool.fetch(sql, *(values[name] for name in names))
        if found:
            row: int = found[0]["id"]
            return row
    raise AssertionError


TYPES = {"id": "uuid", "external_id": "int", "openid": "text", "phone": "text"}

# The commands `wxauth users import` and `export`.


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return {**service_env(database_url, apps=[APP, OTHER_APP]), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def users(env: dict[str, str], tmp_path: Path) -> Command:
    """Return a function that runs `wxauth users ...` in the test's folder."""
    return make_command("users", cwd=tmp_path, env=env)


@pytest.mark.process
async def test_the_commands_take_and_give_a_file(users: Command, tmp_path: Path, rows: Rows) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text(json.dumps(FULL) + "\n" + json.dumps({**BOB, "phone": "1"}) + "\n" + json.dumps(BOB))
    tried = await users("import", str(file), "--dry-run", "--json")
    assert (tried.returncode, json.loads(tried.stdout)) == (
        1,
        asdict(Counts(lines=3, created=2, refused=1, odd_openids=2)),
    )
    wanted = f"phone: {FIELD_RULES['phone']}"
    assert tried.stderr == f"line 2: {wanted}\n1 line: {wanted}\n{ODD.format(2)}\n{RUN_AGAIN}\n{STORED_NOTHING}\n"
    assert await rows.fetchval("SELECT count(*) FROM users") == 0

    done = await users("import", str(file))
    assert (done.returncode, done.stdout) == (1, "lines: 3, created: 2, updated: 0, unchanged: 0, refused: 1\n")
    out = tmp_path / "out.jsonl"
    done = await users("export", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2 identities\n")
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    assert (await users("export")).stdout == out.read_text()
    done = await users("import", str(out), "--json")
    assert (done.returncode, json.loads(done.stdout)["unchanged"]) == (0, 2)
    assert (await users("import", str(tmp_path / "none"))).returncode == 2


def test_an_export_leaves_the_content_of_another_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text("theirs")
    monkeypatch.setattr("os.geteuid", lambda: file.stat().st_uid + 1)
    refused = CliRunner().invoke(export_command, [str(file)])
    assert (refused.exit_code, "Operation not permitted" in refused.output) == (2, True)
    assert file.read_text() == "theirs"


@pytest.mark.process
async def test_the_command_reports_first_whom_an_external_id_alone_has_joined(users: Command, tmp_path: Path) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text("\n".join(json.dumps({**person, **ONE}) for person in (ALICE, ALICE_THERE, BOB)))
    tried = await users("import", str(file), "--dry-run")
    assert tried.stdout == "lines: 3, created: 1, updated: 1, unchanged: 0, refused: 1\n"
    assert tried.stderr.splitlines()[1].startswith("lines joined to an existing user only by external_id: 1. ")
    assert [line[:6] for line in tried.stderr.splitlines()] == [
        "line 3",
        "lines ",
        "1 line",
        "openid",
        "correc",
        "nothin",
    ]
    errors = (await users("import", str(file), "--dry-run", "--join", LC_ALL="zh_CN.UTF-8")).stderr.splitlines()
    assert (len(errors), errors[0].partition("。")[0]) == (3, "仅凭 external_id 归入已有用户的有 2 行")
    joined = await users("import", str(file), "--join", "--json")
    assert list(json.loads(joined.stdout).items())[:2] == [("joined", 2), ("lines", 3)]


@pytest.mark.process
async def test_the_command_reports_what_csv_has_cost(
    users: Command, env: dict[str, str], tmp_path: Path, rows: Rows
) -> None:
    file = tmp_path / "users.CSV"

    async def imported(text: str, *arguments: str, **env: str) -> tuple[int, str, list[str]]:
        file.write_text(text)
        done = await users("import", str(file), *arguments, **env)
        return done.returncode, done.stdout, done.stderr.splitlines()

    unionid, phone = (f"{name}: {FIELD_RULES[name]}" for name in ("unionid", "phone"))
    text = f"app_id,openid,unionid,phone,union_id\n{START}a,NULL,1,\n{START}b,,1,\n{START}c,,,x\n"
    counts = "lines: 3, created: {}, updated: 0, unchanged: 0, refused: {}\n".format
    sums = [f"2 lines: {phone}", f"1 line: {unionid}", "ignored columns: union_id", RUN_AGAIN, STORED_NOTHING]
    first = f"line 2: {unionid}; {phone}"
    assert await imported(text, "--dry-run") == (1, counts(1, 2), [first, f"line 3: {phone}", *sums])
    skipping = await imported(text, "--dry-run", "--skip-bad-fields")
    lines = [first, f"line 3: skipped: {phone}", f"1 line: {unionid}", f"1 line: {phone}", f"1 line: skipped: {phone}"]
    assert skipping == (1, counts(2, "1, imported without their invalid fields: 1"), [*lines, *sums[2:]])
    unionid, phone = (f"{name}：{Text(FIELD_RULES[name]).translated('zh-CN')}" for name in ("unionid", "phone"))
    with file.open("rb") as opened:
        chinese = {**env, "LC_ALL": "zh_CN.UTF-8"}
        done = run("users", "import", "-", "--csv", cwd=tmp_path, env=chinese, stdin=opened.fileno())
    assert (done.returncode, done.stdout) == (1, "总行数：3，新建：1，更新：0，未变：0，拒绝：2\n")
    assert done.stderr.splitlines() == [
        *(f"第 2 行：{unionid}；{phone}", f"第 3 行：{phone}", f"2 行：{phone}", f"1 行：{unionid}"),
        *("忽略的列：union_id", "请修正被拒绝的行，再用完整的文件重新运行命令。已导入的行不受影响"),
    ]
    assert await rows.fetchval("SELECT count(*) FROM users") == 1
    for header, wrong, seen in (
        ("app_id,weixin_openid\no", NO_HEADER, "app_id, weixin_openid"),
        ("app_id,openid,attributes.Tier", WRONG_ATTRIBUTE_NAME, "attributes.Tier"),
    ):
        assert await imported(f"{header}\n") == (1, "", [f"line 1: line: {wrong.rule}; found: {seen}"])
    status, said, errors = await imported(f"app_id,openid,nickname\n\n{START}a,a\n{START}a,b\n", "--dry-run")
    assert (status, said) == (1, counts(1, 1).replace("3", "2", 1).replace("\n", ", blank lines: 1\n"))
    assert errors[0] == f"line 4: nickname: {GIVEN_BEFORE} (line 3)"
    status, _, errors = await imported("app_id,openid\n", "--app-id", "wxunknown")
    assert (status, len(errors)) == (1, 1)
    for zone in ("Asia/Nowhere", "Asia", "../x", ""):
        status, _, errors = await imported("app_id,openid\n", "--time-zone", zone)
        assert (status, "such as Asia/Shanghai" in errors[-1]) == (2, True), zone
    text = f"app_id,openid,created_at\n{START}naive,2024-05-01 12:00:00\n"
    assert (await imported(text, "--time-zone", "Asia/Shanghai"))[0] == 0
    assert await rows.fetchval("SELECT min(created_at) FROM users") == datetime(2024, 5, 1, 4, tzinfo=UTC)


@pytest.mark.process
async def test_refused_lines_are_imported_once_mended(users: Command, tmp_path: Path, rows: Rows) -> None:
    header, good = "app_id,openid,phone,state,nickname\r\n", f"{START}a,,banned,小\r\n"
    bad = [f"{START}b,,,{'长' * MAX_LINE}\n", f"{START}c,1,banned,明\r\n", f"{START}d,,odd,"]
    file = tmp_path / "users.csv"
    file.write_bytes(text := f"{header}{bad[0]}{good}{''.join(bad[1:])}".encode())
    how = ("--map", "status=state", "--map", "status: banned=disabled")
    refused = await users("import", "users.csv", *how)
    assert (refused.returncode, refused.stdout.count("refused: 3")) == (1, 1)

    mended = text.decode().replace("长" * MAX_LINE, "长").replace(",1,", ",,").replace("odd", "active")
    file.write_bytes(mended.encode())
    assert (await users("import", "users.csv", *how)).returncode == 0
    stored = await rows.fetch('SELECT nickname, status FROM users ORDER BY nickname COLLATE "C"')
    assert stored == [("小", "disabled"), ("明", "disabled"), ("长", "active"), (None, "active")]
    for wrong in ("status", "=status", "status:=x", "status:a", "nobody=x", "nobody:x=y"):
        assert (await users("import", "users.csv", "--map", wrong)).returncode == 2, wrong
    twice = await users("import", "users.csv", "--map", "status:a=active", "--map", "status:a=disabled")
    assert "each COLUMN or VALUE only once" in twice.stderr


@pytest.mark.process
async def test_an_export_leaves_a_device_and_reports_its_error(mover: Mover, users: Command, tmp_path: Path) -> None:
    await mover.import_lines(ALICE)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    os.chmod(pipe, 0o644)
    assert (await users("export", str(pipe))).returncode == 0
    assert json.loads(os.read(reader, 65536))["openid"] == ALICE["openid"]
    os.close(reader)
    assert stat.S_IMODE(os.stat(pipe).st_mode) == 0o644
    if sys.platform == "linux":
        done = await users("export", "/dev/full")
        assert (done.returncode, done.stderr) == (1, "/dev/full: No space left on device\n")


@pytest.mark.process
async def test_an_import_that_is_killed_again_and_again_ends_where_it_would_have_ended(
    mover: Mover, users: Command, env: dict[str, str], tmp_path: Path
) -> None:
    # Some users have two identities, which are in different batches.
    people = [
        {**(ALICE if n < 3500 else ALICE_THERE), "openid": f"person-{n:04}", "external_id": f"{n % 3500 + 1}"}
        for n in range(4000)
    ]
    for line in people:
        line["created_at"] = "2023-01-02T03:04:05Z"
    text = "".join(f"{json.dumps(line)}\n" for line in people)

    async def ended() -> tuple[list[dict[str, Any]], Any]:
        lines = [json.loads(line) for line in (await mover.export()).splitlines()]
        events = await mover.stage.rows.fetch("SELECT type, count(*) FROM events GROUP BY type ORDER BY type")
        return [{name: value for name, value in line.items() if name != "user_id"} for line in lines], events

    assert (await mover.import_text(text.encode())).created == 3500
    at_once = await ended()
    await mover.begin_anew()

    file = tmp_path / "users.jsonl"
    file.write_text(text)
    for stored in (0, 1000):  # when so many are stored, the next batch has begun
        with Running(WXAUTH, "users", "import", str(file), cwd=tmp_path, env=env) as command:
            await until(partial(mover.stage.rows.fetchval, "SELECT count(*) > $1 FROM identities", stored))
            assert command.end(signal.SIGKILL) == -signal.SIGKILL
        assert 0 < await mover.stage.number("identities") < len(people)
    done = await users("import", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("lines joined to an existing user only by external_id: 500. ")
    assert await ended() == at_once


# Tables of frameworks, with the columns that the frameworks publish. They also have columns that wxauth ignores.

TABLES = {
    "crmeb": "uid,unionid,openid,routine_openid,nickname,headimgurl,phone,add_time,last_time,status\n"
    "5{n:05},,oOFFICIAL_ACCOUNT_{n:010},{openid},小明,http://x.cn/1.png,1380013{n:04},1714536000,0,1\n",
    "jeecg": "id,sys_user_id,avatar,status,del_flag,realname,third_user_uuid,third_user_id,third_type,create_time\n"
    "x{n},e9ca23d68d884d4ebb19d07{n:09},,1,0,小明,{openid},{openid},wechat_open,2024/5/1 12:00\n",
    "uni-id": "_id,wx_openid.mp,wx_unionid,nickname,avatar,mobile,register_date,status\n"
    "65f0c1d2e3f4a5b6c7{n:06},{openid},oTmHYjg7xLa9Yp4Zt2Vq8nC{n:05},小明,,1380013{n:04},1714536000000,0\n",
    "crmeb-routine": "uid,unionid,openid,user_type,nickname,headimgurl,phone,add_time,last_time,status\n"
    "7{n:05},,{openid},routine,小明,http://x.cn/1.png,1380013{n:04},1714536000,0,1\n",
    "crmeb-wechat": "uid,unionid,openid,user_type,nickname,headimgurl,phone,add_time,last_time,status\n"
    "7{n:05},,{openid},wechat,小明,http://x.cn/1.png,1380013{n:04},1714536000,0,1\n",
    "mall4j": "biz_user_id,biz_unionid,user_id,nick_name,pic,user_mobile,user_regtime,status\n"
    "{openid},oTmHYjg7xLa9Yp4Zt2Vq8nM{n:05},0aabf8ccd6d84a8ba9b9b0f{n:09},小明,,1380013{n:04},2024-05-01 12:00:00,1\n",
}


@pytest.mark.process
async def test_the_tables_of_frameworks_go_in_by_the_guide(database_url: str, tmp_path: Path, rows: Rows) -> None:
    apps = [{**APP, "app_id": app_id} for app_id in ("wx1a2b3c4d5e6f7a8b", "wx5d6e7f8a9b0c1d2e")]
    users = make_command("users", cwd=tmp_path, env=service_env(database_url, apps=apps))
    commands = block("docs/start/moving-from.md", "mall4j.csv").replace("\\\n", "")
    for name, table in TABLES.items():
        header, line = table.splitlines(keepends=True)
        people = [line.format(n=n, openid=f"{name.replace('-', '_'):o>20}{n:08}") for n in range(1, 101)]
        (tmp_path / f"{name}.csv").write_text(header + "".join(people))
        [command] = re.findall(rf"wxauth users (import {name}.csv .*)", commands)
        done = await users(*shlex.split(command), "--json")
        counts = json.loads(done.stdout)
        wanted = (0, 100) if name == "crmeb-wechat" else (100, 0)  # the same users in another app
        assert (counts["created"], counts["joined"]) == wanted, done.stderr
        assert (counts["refused"], counts["odd_openids"]) == (0, 0), done.stderr
    stored = "SELECT count(*), min(created_at), max(created_at), count(DISTINCT external_id), max(status) FROM users"
    noon = datetime(2024, 5, 1, 4, tzinfo=UTC)
    assert [*await rows.fetchrow(stored)] == [500, noon, noon, 500, "active"]


FROM_THE_CLOUD = """{"_id":"7e2f","_openid":"oFROM_THE_CLOUD_000000000001","createTime":{"$date":1714536000000}}
{"_id":{"$oid":"65f0c1d2e3f4a5b6c7d8e9f0"},"_openid":"oFROM_THE_CLOUD_000000000002","createTime":1714536000000}
{"_id":{"$numberLong":"1716543210123456789"},"_openid":"oFROM_THE_CLOUD_000000000003","avatarUrl":"https://x.cn/1.png"}
{"_id":1716543210123456801,"_openid":"oFROM_THE_CLOUD_000000000004","avatarUrl":"wxfile://x"}
{"_id":"no WeChat","nickName":"y"}
"""
IDS_OF_THE_CLOUD = ["1716543210123456789", "1716543210123456801", "65f0c1d2e3f4a5b6c7d8e9f0", "7e2f"]


@pytest.mark.process
@pytest.mark.parametrize("form", ["lines", "array"])
async def test_a_collection_of_the_cloud_goes_in_by_the_guide_digit_by_digit(
    database_url: str, tmp_path: Path, rows: Rows, form: str
) -> None:
    users = make_command(
        "users", cwd=tmp_path, env=service_env(database_url, apps=[{**APP, "app_id": "wx1a2b3c4d5e6f7a8b"}])
    )
    text = FROM_THE_CLOUD if form == "lines" else f"[{','.join(FROM_THE_CLOUD.splitlines())}]"
    (tmp_path / "users.json").write_text(text)
    command = block("docs/start/moving-from.md", "users.json --app-id").replace("\\\n", "")
    done = await users(*shlex.split(command)[2:])
    assert done.stdout.startswith("lines: 5, created: 4, updated: 0, unchanged: 0, refused: 1"), done.stderr
    assert f"{'line' if form == 'lines' else 'element'} 5: openid: must be" in done.stderr
    assert [own for (own,) in await rows.fetch("SELECT external_id FROM users ORDER BY 1")] == IDS_OF_THE_CLOUD
    assert await rows.fetchval("SELECT count(*) FROM users WHERE created_at = '2024-05-01 12:00:00+08'") == 2


FROM_LEANCLOUD = """#filetype:JSON-streaming {"type":"Class","class":"_User"}
{"objectId":"1","authData":{"lc_weapp":{"openid":"oBOTH","unionid":"uBESIDE"},"_weixin_unionid":{"uid":"uOTHER"}},"createdAt":"2024-05-01T04:00:00.000Z"}
{"objectId":"2","authData":{"lc_weapp":{"openid":"oELSEWHERE","session_key":"x"},"_weixin_unionid":{"uid":"uELSEWHERE"}},"nickName":"小明"}
{"objectId":"3","authData":{"lc_weapp":{"openid":"oEMPTY","unionid":""},"_weixin_unionid":{"uid":"uEMPTY"}},"mobilePhoneNumber":"13800138000"}
{"objectId":"4","authData":{"lc_weapp":{"openid":"oALONE"}}}
{"objectId":"5","authData":{"_weixin_unionid":{"uid":"uALONE"}}}
{"objectId":"6","authData":{"anonymous":{"id":"x"}}}
{"objectId":"7","authData":null,"username":"x","mobilePhoneNumber":"13800138001"}
{"objectId":"8","username":"y"}
{"objectId":"9","authData":{"lc_weapp":{"openid":""}}}
"""
PEOPLE_OF_LEANCLOUD = {
    "1": ("oBOTH", "uBESIDE"),
    "2": ("oELSEWHERE", "uELSEWHERE"),
    "3": ("oEMPTY", "uEMPTY"),
    "4": ("oALONE", None),
    "5": (None, "uALONE"),
}


@pytest.mark.process
async def test_the_users_of_leancloud_go_in_by_the_guide(mover: Mover, tmp_path: Path) -> None:
    needs("jq")
    mover = await mover.with_settings(apps=[{**APP, "app_id": "wx1a2b3c4d5e6f7a8b"}])
    text = re.sub(r'"([ou][A-Z]+)"', lambda found: f'"{found[1]:_<28}"', FROM_LEANCLOUD)
    for number in (0, 1):
        (tmp_path / f"_User.{number}.jsonl").write_text(text if number else text.partition("\n")[0] + "\n")
    with pytest.raises(WrongFile, match="LeanCloud"):
        JsonLines(io.BytesIO(text.encode()))
    command, _, rest = block("docs/start/moving-from.md", "_User.*.jsonl").partition("wxauth users import")
    output_of("sh", "-c", command, cwd=tmp_path)
    counts = await mover.import_text((tmp_path / "users.jsonl").read_bytes(), skips_bad_fields="--skip-bad-" in rest)
    assert (counts.created, counts.refused, counts.incomplete) == (5, 0, 0), mover.messages
    lines = [json.loads(line) for line in (await mover.export()).splitlines()]
    people = {line["external_id"]: (line["openid"], line["unionid"]) for line in lines}
    cut = {own: tuple(each and each.rstrip("_") for each in names) for own, names in people.items()}
    assert cut == PEOPLE_OF_LEANCLOUD
    assert {line["nickname"] for line in lines} == {"小明", None}
    assert {line["phone"] for line in lines} == {"+8613800138000", None}


@pytest.mark.own_database
@pytest.mark.process
async def test_people_go_in_from_postgresql_by_the_examples_of_the_guide(
    mover: Mover, database_url: str, tmp_path: Path
) -> None:
    """Run two queries with psql, which are a query in a file and the query for Logto."""
    shop, rows = Shop("wx1a2b3c4d5e6f7a8b"), mover.stage.rows
    names = ("id", "openid", "unionid", "nick_name", "avatar_url", "phone", "create_time")
    await rows.execute(
        "CREATE SCHEMA old; CREATE TABLE old.customers (id int, openid text, unionid text, nick_name text,"
        " avatar_url text, phone text, create_time timestamp);"
        "CREATE TABLE old.users (id text, identities jsonb, name text, avatar text, created_at timestamptz)"
    )
    people = [{**row, "create_time": shop.time_of(row)} for row in shop.rows]
    await rows.executemany(
        "INSERT INTO old.customers VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [[row[name] for name in names] for row in people],
    )
    env = {"PATH": f"{Path(postgres_program('psql')).parent}:{os.environ['PATH']}", "PGOPTIONS": "-c search_path=old"}

    def by_psql(command: str) -> None:
        output_of("sh", "-c", command, cwd=tmp_path, env=env)

    (tmp_path / "postgresql.sql").write_text(query_in("postgresql.sql"))
    by_psql(f"psql '{database_url}' --set ON_ERROR_STOP=1 --file postgresql.sql")
    exported = (tmp_path / "users.csv").read_bytes()
    lines = [json.loads(line.text) for line in CsvLines(io.BytesIO(exported)) if isinstance(line.text, bytes)]
    wanted = [{name: value for name, value in line.items() if value} for line in shop.by_sql(query_in("mysql.sql"))]
    assert lines == wanted
    mover = await mover.with_settings(apps=[{**APP, "app_id": shop.app_id}])
    assert (await mover.import_text(exported, is_csv=True)).created == 196

    await mover.begin_anew()
    identities = {"a": {"wechat": {"userId": UNION_ALICE}}, "b": {"github": {"userId": "1"}}, "c": {}}
    for own, each in identities.items():
        await rows.execute("INSERT INTO old.users VALUES ($1, $2, 'N', NULL, now())", own, json.dumps(each))
    command, _, _ = block("docs/start/moving-from.md", "logto.csv").partition("wxauth users import")
    by_psql(command.replace("psql logto", f"psql '{database_url}'"))
    assert (await mover.import_text((tmp_path / "logto.csv").read_bytes(), is_csv=True)).created == 1
    user = await rows.fetchrow("SELECT external_id, unionid, nickname FROM users")
    assert tuple(user) == ("a", UNION_ALICE, "N")
