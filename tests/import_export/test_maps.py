"""`--map` reads values in arrays and behind any name, leaves fields out, and no user is lost without a word."""

import io
import json
import os
import re
import shlex
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.docs import block
from tests.fakes import APP, OTHER_APP, service_env
from tests.import_export.mover import Mover
from tests.processes import Command, make_command, run
from tests.programs import needs, output_of
from tests.sweeps import swept
from tests.world import Body, Rows, Stage
from wxauth.import_export.files import CsvLines, FileFormat, JsonLines
from wxauth.import_export.lines import Fault
from wxauth.import_export.other_files import WrongFile

APP_ID = APP["app_id"]
OPENID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
LINE: Body = {"app_id": APP_ID, "openid": OPENID}

pytestmark = pytest.mark.settings(apps=[APP, OTHER_APP])


@pytest.fixture
def mover(stage: Stage) -> Mover:
    return Mover(stage)


@pytest.fixture
def users(database_url: str, tmp_path: Path) -> Command:
    return make_command(
        "users", cwd=tmp_path, env=service_env(database_url, apps=[APP, OTHER_APP]) | {"LC_ALL": "C.UTF-8"}
    )


def ids_in(path: str, *lines: object) -> list[object]:
    """Return what the path finds in each line: a value, "absent", or the rule that the line breaks."""
    text = "\n".join(json.dumps(line) for line in (*lines, {path: "7"})).encode()
    found: list[object] = []
    for line in JsonLines(io.BytesIO(text), FileFormat(fields={path: "external_id"})):
        assert isinstance(line.text, bytes)
        value = json.loads(line.text).get("external_id", "absent")
        found.append(str(line.faults[0].rule) if line.faults else value)
    assert found.pop() == "7"
    return found


KEYCLOAKS = [{"idp": "github", "id": "1"}, {"idp": "weixin", "id": "2"}, {"id": "3"}, "text", None]
PATHS: list[tuple[str, Body, object]] = [
    ("a.0.id", {"a": KEYCLOAKS}, "1"),
    ("a.2.id", {"a": KEYCLOAKS}, "3"),
    ("a.0.1", {"a": [["x", "y"]]}, "y"),
    ("a.0", {"a": {"0": "name"}}, "name"),
    ("a.9.id", {"a": KEYCLOAKS}, "absent"),
    ("a.4.id", {"a": KEYCLOAKS}, "absent"),
    (f"a.{'9' * 8}", {"a": [1]}, "absent"),
    ("a[idp=weixin].id", {"a": KEYCLOAKS}, "2"),
    ("a[idp=weixin]", {"a": KEYCLOAKS}, {"idp": "weixin", "id": "2"}),
    ("a[idp=qq].id", {"a": KEYCLOAKS}, "absent"),
    ("a[idp=weixin].name", {"a": KEYCLOAKS}, "absent"),
    ("a[idp=weixin].id", {"a": []}, "absent"),
    ("a[idp=weixin].id", {"a": None}, "absent"),
    ("a[idp=weixin].id", {}, "absent"),
    ("a[type=34].id", {"a": [{"type": 35}, {"type": 34, "id": "x"}]}, "x"),
    ("a[type=34].id", {"a": [{"type": {"$numberInt": "34"}, "id": "x"}]}, "x"),
    ("a[main=true].id", {"a": [{"main": False}, {"main": True, "id": "x"}]}, "x"),
    ("a[n=].id", {"a": [{"n": "", "id": "x"}]}, "x"),
    ("a[n=x=y.z[].id", {"a": [{"n": "x=y.z[", "id": "x"}]}, "x"),
    (r"a[n=x\]y].id", {"a": [{"n": "x]y", "id": "x"}]}, "x"),
    (r"a[n\.m=x\\].id", {"a": [{"n.m": "x\\", "id": "x"}]}, "x"),
    ("a.0[n=1].b[m=2].id", {"a": [[{"n": 1, "b": [{"m": 2, "id": "x"}]}]]}, "x"),
    ("a[n=1][m=2].id", {"a": [{"n": 1}, {"m": 2}, {"n": 1, "m": 2, "id": "x"}]}, "x"),
    ("a[n=1][m=2].id", {"a": [{"n": 1, "m": 2, "id": n} for n in "12"]}, "several elements"),
    ("a[n=1][0].id", {"a": [{"n": 1, "[0]": {"id": "x"}}]}, "x"),
    ("[n=1].id", {"a": 1}, "absent"),
    (r"a\.b.c", {"a.b": {"c": "x"}, "a": {"b": {"c": "y"}}}, "x"),
    (r"a\\.b", {"a\\": {"b": "x"}}, "x"),
    (r"a\b", {"a\\b": "x"}, "x"),
    (r"a\b.c", {"a\\b": {"c": "x"}}, "x"),
    (r"a\].b", {"a]": {"b": "x"}}, "x"),
    ("a[0].b", {"a[0]": {"b": "x"}, "a": [{"b": "y"}]}, "x"),
    ("a[n=1].b", {"a[n=1].b": "whole", "a": [{"n": 1, "b": "x"}]}, "whole"),
    ("a[.b", {"a[": {"b": "x"}}, "x"),
    ("a..b", {"a": {"": {"b": "x"}}}, "x"),
    ("用户[类型=微信].标识", {"用户": [{"类型": "微信", "标识": "x"}]}, "x"),
    ("caf\u00e9.a", {"cafe\u0301": {"a": "x"}}, "absent"),
    # What a path cannot enter, or what it finds twice, is told.
    ("a.id", {"a": '{"id": "x"}'}, "at a.id, but a is text in this line"),
    ("a.b.id", {"a": {"b": "x"}}, "at a.b.id, but a.b is text"),
    ("a.id", {"a": [{"id": "x"}]}, "at a.id, but a is an array"),
    ("a.id", {"a": 7}, "at a.id, but a is a number or true"),
    ("a.id", {"a": True}, "at a.id, but a is a number or true"),
    ("a[idp=weixin].id", {"a": {"idp": "weixin", "id": "2"}}, "but a is an object"),
    ("a[idp=weixin].id", {"a": "weixin"}, "but a is text"),
    ("a[idp=weixin].id", {"a": [{"idp": "weixin", "id": n} for n in "12"]}, "several elements"),
]


@swept(("path", "line", "found"), PATHS)
def test_a_path_leads_to_one_value_or_says_why_not(path: str, line: Body, found: object) -> None:
    [value] = ids_in(path, line)
    assert value == found or (isinstance(found, str) and len(found) > 10 and found in str(value)), value


@swept("path", ["a.b", "a[n=1].b", "a.0.b"])
def test_an_object_on_the_way_that_repeats_a_name_is_told(path: str) -> None:
    for line in ('{"a": {"b": "x", "b": "y"}}', '{"a": [{"n": 1, "b": "x", "n": 1}]}'):
        lines = JsonLines(io.BytesIO(f'{line}\n{{"{path}": "7"}}'.encode()), FileFormat(fields={path: "external_id"}))
        [first, _second] = lines
        assert [(fault.field, "twice" in fault.rule or "array" in fault.rule) for fault in first.faults] in (
            [("external_id", True)],
            [("external_id", False)],  # an object, in which a condition or a number finds nothing
        )
        assert first.faults


async def test_a_field_that_a_path_does_not_reach_is_refused_by_line_or_skipped(mover: Mover) -> None:
    people: list[Body] = [
        {"openid": "person-1", "wx": {"unionid": "u" * 28, "name": "One"}},
        {"openid": "person-2", "wx": '{"unionid": "x", "name": "Two"}'},
        {"openid": "person-3", "wx": None},
    ]
    text = "\n".join(map(json.dumps, people)).encode()
    whole = FileFormat(app_id=APP_ID, fields={"wx.unionid": "unionid", "wx.name": "nickname"})
    assert (await mover.import_as(whole, text, dry_run=True)).refused == 1
    assert mover.refusals == [(2, "unionid"), (2, "nickname")]
    assert "wx.unionid, but wx is text" in mover.messages[0]
    assert mover.messages[0].translated("zh-CN") != mover.messages[0]
    assert (await mover.import_as(whole, text, dry_run=True, skips_bad_fields=True)).refused == 1, (
        "a unionid is no name"
    )
    names = FileFormat(app_id=APP_ID, fields={"wx.name": "nickname"})
    counts = await mover.import_as(names, text, skips_bad_fields=True)
    assert (counts.created, counts.incomplete, mover.refusals) == (3, 1, [(2, "nickname")])
    assert sorted(user["nickname"] or "" for user in await mover.users()) == ["", "", "One"]
    ids = FileFormat(app_id=APP_ID, fields={"wx.id": "openid", "openid": "external_id"})
    text = b'{"wx": {"id": "person-4"}}\n{"wx": "x", "openid": "5"}\n'
    assert (await mover.import_as(ids, text, dry_run=True)).refused == 1
    assert mover.refusals == [(2, "openid")], "told once"


# Fields that are left out.

LEFT_OUT: dict[str, tuple[str, bool]] = {
    "lines": ("{}\n{}", False),
    "a document": ('{{"RECORDS": [{}, {}]}}', False),
    "one object": ('{{\n"tags": [{{"a": 1}}], {}', False),
    "CSV": ("app_id,openid,roles,attributes,attributes.tier,consents\n", True),
}


@pytest.mark.parametrize("form", LEFT_OUT)
async def test_a_field_that_is_left_out_is_as_if_the_file_lacked_it(mover: Mover, form: str) -> None:
    names = {"roles": "subscriber of the shop", "attributes": "a:1:{}", "consents": "yes", "unionid": "-"}
    person = {**LINE, **names}
    left_out = frozenset(names)
    if form == "CSV":
        text = ",".join(person) + "\n" + ",".join(person.values())
    elif form == "lines":
        text = json.dumps(person) + "\n" + json.dumps({**person, "openid": "another-person"})
    elif form == "a document":
        text = json.dumps({"RECORDS": [person]})
    else:
        text = json.dumps({**person, "orders": [{"id": 1}]}, indent=2)
    refused = await mover.import_text(text.encode(), is_csv=form == "CSV", dry_run=True)
    assert refused.refused == refused.lines > 0
    counts = await mover.import_as(FileFormat(left_out=left_out), text.encode(), is_csv=form == "CSV")
    assert (counts.created, counts.refused) == (counts.lines, 0), mover.messages
    user = (await mover.users())[0]
    assert (user["roles"], user["attributes"], user["unionid"]) == ([], None, None)


async def test_an_app_that_is_left_out_is_the_commands(mover: Mover) -> None:
    left_out = FileFormat(app_id=OTHER_APP["app_id"], left_out=frozenset({"app_id"}))
    for text, is_csv in ((json.dumps(LINE), False), (f"app_id,openid\n{APP_ID},{OPENID}", True)):
        await mover.import_as(left_out, text.encode(), is_csv=is_csv)
    assert await mover.stage.rows.fetch("SELECT app_id FROM identities") == [(OTHER_APP["app_id"],)]


def test_a_column_of_csv_that_must_be_there_cannot_be_left_out() -> None:
    with pytest.raises(WrongFile, match="openid"):
        CsvLines(io.BytesIO(b"app_id,openid\n"), FileFormat(left_out=frozenset({"openid"})))


# Names in any writing.

LETTERS = [
    "a",
    "ä",
    "a\u0308",
    "微",
    "信",
    "\u00c3\u00a4",
    "é",
    "e\u0301",
    "ﬁ",
    "İ",
    "ß",
    "😀",
    " ",
    "\u200b",
    "\u00a0",
    "Å",
]


def written(random: Random, value: object) -> str:
    return json.dumps(value, ensure_ascii=random.random() < 0.3, indent=random.choice([None, None, 1]))


@pytest.mark.parametrize("seed", range(3))
def test_names_are_compared_code_point_by_code_point_in_every_form_of_file(seed: int) -> None:
    random = Random(seed)
    forms = ["one line", "lines", "array", "around an array", "several lines"]
    for _case in range(80):
        names = ["".join(random.choices(LETTERS, k=random.randint(1, 3))).strip() or "x" for _ in range(3)]
        lists: list[Any] = [[], [{}], [{"openid": "x"}], [1], None]
        rows: list[Body] = []
        for _row in range(random.randint(1, 3)):
            row = {name: random.choice(["7", None, *lists]) for name in random.sample(names, k=len(names))}
            rows.append(row | {"mark": random.choice(lists)})
        wanted = random.choice(names)
        form = random.choice(forms)
        rows = rows[:1] if form == "one line" else rows
        if not any(wanted in row for row in rows):
            continue
        if form in ("one line", "lines"):
            text = "\n".join(json.dumps(row, ensure_ascii=random.random() < 0.3) for row in rows)
        elif form == "several lines":
            text = "\n".join(json.dumps(row, indent=1, ensure_ascii=random.random() < 0.3) for row in rows)
        else:
            text = written(random, rows if form == "array" else {"data": {"数据": rows}})
        lines = JsonLines(io.BytesIO(text.encode()), FileFormat(fields={wanted: "external_id"}))
        found = [json.loads(line.text)["external_id"] for line in lines if isinstance(line.text, bytes)]
        assert found == [row[wanted] for row in rows], (form, text, wanted)


@swept("name", ["\u00a0微信", "e\u0301", "é", "微信\u3000", "\ufeffx", "a.b", "a[n=1]"])
def test_a_column_of_csv_is_compared_code_point_by_code_point(name: str) -> None:
    text = f"app_id,openid,é,{name}\n{APP_ID},{OPENID},other,7\n" if name != "é" else f"app_id,openid,é\n{APP_ID},x,7\n"
    [line] = CsvLines(io.BytesIO(text.encode()), FileFormat(fields={name: "external_id"}))
    assert not isinstance(line.text, Fault)
    assert json.loads(line.text or b"")["external_id"] == "7"


@swept("end", ["", "\n", " \n\n"])
def test_a_file_of_one_object_is_a_row_if_the_map_names_something_in_it(end: str) -> None:
    for line in ({"微信": OPENID, "tags": []}, {"微信": OPENID, "consents": [{"document": "a"}]}):
        for text in (json.dumps(line), json.dumps(line, ensure_ascii=False), json.dumps(line, indent=1)):
            lines = JsonLines(io.BytesIO((text + end).encode()), FileFormat(fields={"微信": "openid"}))
            [first] = [row for row in lines if row.text is not None]
            assert not isinstance(first.text, Fault)
            assert json.loads(first.text or b"")["openid"] == OPENID


async def test_an_object_with_an_openid_under_an_unknown_name_is_no_empty_document(mover: Mover) -> None:
    for file_format in (FileFormat(app_id=APP_ID), FileFormat(app_id=APP_ID, fields={"a.b": "nickname"})):
        with_tags = json.dumps({"wx_openid": OPENID, "a": {"b": "x"}, "tags": []}).encode()
        assert (await mover.import_as(file_format, with_tags)).refused == 1


# Files without rows.

WITHOUT_ROWS = [
    *(
        ("users.jsonl", text)
        for text in ("", "\n \t\r\n", f"\n{' ' * 200_000}\n", "\ufeff", "[]", " [\n]\n", '{"RECORDS": []}')
    ),
    *(("users.csv", text) for text in ("", "\n \n", "\ufeff", "app_id,openid\n", "app_id,openid\r\n\r\n")),
    ("users.tsv", "app_id\topenid"),
]
OTHERS = [
    ("users.jsonl", "null", "must be a JSON object"),
    ("users.jsonl", "[null]", "contains no such array"),
    ("users.jsonl", "[[]]", "contains no such array"),
    ("users.jsonl", '{"errors": [], "users": []}', "contains 2 arrays without objects"),
    ("users.jsonl", "{}", "openid"),
    ("users.jsonl", '{"total": 0}', "openid"),
    ("users.jsonl", '{"RECORDS": null}', "openid"),
    ("users.jsonl", "#filetype:JSON-STREAMING", "LeanCloud"),
    ("users.jsonl", "app_id,openid\n", "is CSV"),
    ("users.csv", "[]", "is JSON"),
    ("users.csv", "id,name\n", "must be a header"),
    ("users.csv", "app_id;openid\n", "semicolons"),
]


@pytest.mark.process
def test_standard_input_can_be_without_rows_too(database_url: str, tmp_path: Path) -> None:
    env = service_env(database_url, apps=[APP, OTHER_APP])
    for text, status in ((b"", 0), (b" \n", 0), (b"[]", 0), (b'{"errors": [], "users": []}', 1), (b"null", 1)):
        for options in ([], ["--csv"]) if text.isspace() or not text else ([],):
            reader, writer = os.pipe()
            os.write(writer, text)
            os.close(writer)
            done = run("users", "import", "-", *options, "--dry-run", cwd=tmp_path, env=env, stdin=reader)
            os.close(reader)
            assert done.returncode == status, (text, done.stdout, done.stderr)


@pytest.mark.process
@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--app-id", APP_ID, "--map", "nickname="]], ids=" ".join)
async def test_a_file_without_rows_is_taken_and_any_other_of_which_no_row_was_read_is_an_error(
    users: Command, tmp_path: Path, arguments: list[str]
) -> None:
    for name, text in WITHOUT_ROWS:
        (tmp_path / name).write_bytes(text.encode())
        done = await users("import", name, *arguments, "--json")
        assert (done.returncode, json.loads(done.stdout)["lines"]) == (0, 0), (name, text, done.stderr)
    for name, text, it in OTHERS:
        (tmp_path / name).write_bytes(text.encode())
        done = await users("import", name, *arguments)
        assert done.returncode == 1, (name, text, done.stdout)
        assert it in done.stderr, (name, text, done.stderr)


# Exports of products.

UNIONID = "oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E"
PRODUCTS: dict[str, tuple[str, object, list[tuple[object, ...]], int]] = {
    "Keycloak": (
        "shop-users-0.json",
        {
            "realm": "shop",
            "users": [
                {
                    "id": "6f1c7a52-9d0e-4c39-8a44-1f9f3a3b7c10",
                    "username": "xiaoming",
                    "firstName": "小明",
                    "emailVerified": False,
                    "attributes": {"phoneNumber": ["+8613800138000"], "WeChat city": ["深圳"]},
                    "createdTimestamp": 1714536000123,
                    "enabled": enabled,
                    "totp": False,
                    "credentials": [],
                    "disableableCredentialTypes": [],
                    "requiredActions": [],
                    "federatedIdentities": federated,
                    "realmRoles": ["default-roles-shop"],
                    "clientRoles": {"account": ["manage-account"]},
                    "notBefore": 0,
                    "groups": [],
                }
                for enabled, federated in (
                    (
                        False,
                        [
                            {"identityProvider": "github", "userId": "583231", "userName": "octocat"},
                            {"identityProvider": "weixin", "userId": UNIONID, "userName": "小明"},
                        ],
                    ),
                    (True, [{"identityProvider": "github", "userId": "9", "userName": "x"}]),
                    (True, []),
                )
            ],
        },
        [(None, UNIONID, "6f1c7a52-9d0e-4c39-8a44-1f9f3a3b7c10", "小明", "disabled", "+8613800138000")],
        2,
    ),
    "Authing": (
        "authing.json",
        {
            "statusCode": 200,
            "message": "操作成功",
            "apiCode": 20001,
            "data": {
                "totalCount": 2,
                "list": [
                    {
                        "userId": "6229ffa5b8d1c0a9cade3e3d",
                        "createdAt": "2024-05-01T04:00:00.000Z",
                        "status": "Activated",
                        "externalId": "10010",
                        "phone": "13800138000",
                        "phoneCountryCode": "+86",
                        "nickname": "小明",
                        "photo": "https://files.authing.co/1.png",
                        "departmentIds": [],
                        "identities": [
                            {
                                "identityId": f"62299d8b866d2dab79a89dc{n}",
                                "extIdpId": "6076bac5c5f8d80d993b5000",
                                "provider": provider,
                                "type": kind,
                                "userIdInIdp": own,
                                "userInfoInIdp": {},
                                "originConnIds": ["6076bac5c5f8d80d993b5001"],
                            }
                            for n, (provider, kind, own) in enumerate(
                                [
                                    ("qq", "openid", "A1B2C3D4E5F60718293A4B5C6D7E8F90"),
                                    ("wechat", "openid", OPENID),
                                    ("wechat", "unionid", UNIONID),
                                ]
                            )
                        ],
                        "customData": {"school": "x"},
                    },
                    {
                        "userId": "6229ffa5b8d1c0a9cade3e3e",
                        "createdAt": "2024-05-01T04:00:00.000Z",
                        "status": "Suspended",
                        "phone": None,
                        "nickname": None,
                        "photo": "",
                        "identities": [],
                        "customData": {},
                    },
                ],
            },
        },
        [(OPENID, UNIONID, "6229ffa5b8d1c0a9cade3e3d", "小明", "active", "+8613800138000")],
        1,
    ),
    "WordPress": (
        "wordpress.json",
        [
            {
                "ID": 12,
                "display_name": "小明",
                "user_registered": "2024-05-01 04:00:00",
                "roles": "subscriber,customer",
                "wx_openid": OPENID,
            },
            {
                "ID": 13,
                "display_name": "y",
                "user_registered": "2024-05-01 04:00:00",
                "roles": "",
                "wx_openid": "",
            },
        ],
        [(OPENID, None, "12", "小明", "active", None)],
        1,
    ),
    "allauth": (
        "allauth.jsonl",
        [
            {
                "model": "socialaccount.socialaccount",
                "pk": n,
                "fields": {
                    "user": 40 + n,
                    "provider": provider,
                    "uid": own,
                    "last_login": "2024-05-02T04:00:00.123Z",
                    "date_joined": "2024-05-01T04:00:00Z",
                    "extra_data": extra,
                },
            }
            for n, (provider, own, extra) in enumerate(
                [
                    ("google", "108431234567890123456", {"name": "x"}),
                    ("weixin", OPENID, {"openid": OPENID, "unionid": UNIONID, "nickname": "小明", "headimgurl": ""}),
                    ("weixin", f"{OPENID[:-1]}2", json.dumps({"unionid": UNIONID, "nickname": "小红"})),
                ]
            )
        ],
        [(OPENID, UNIONID, "41", "小明", "active", None)],
        1,
    ),
}


@pytest.mark.process
@pytest.mark.parametrize("product", PRODUCTS)
async def test_an_export_of_a_product_goes_in_by_the_guide(
    database_url: str, tmp_path: Path, rows: Rows, product: str
) -> None:
    apps = [{**APP, "app_id": app_id} for app_id in ("wx1a2b3c4d5e6f7a8b", "wx5d6e7f8a9b0c1d2e")]
    users = make_command("users", cwd=tmp_path, env=service_env(database_url, apps=apps))
    commands = block("docs/start/moving-from.md", "kc.sh").replace("\\\n", "")
    name, document, people, refused = PRODUCTS[product]
    (tmp_path / name).write_text(json.dumps(document))
    if product == "allauth":
        needs("jq")
        [selection] = re.findall(r"\| (jq -c .*) > allauth.jsonl", commands)
        (tmp_path / name).write_text(output_of("sh", "-c", f"{selection} < {name}", cwd=tmp_path))
    [command] = re.findall(rf"wxauth users (import {name} .*)", commands)
    done = await users(*shlex.split(command), "--json")
    assert done.stdout, done.stderr
    counts = json.loads(done.stdout)
    assert (counts["created"], counts["refused"]) == (len(people), refused), done.stderr
    if product == "allauth":
        assert "fields.extra_data is text" in done.stderr
    stored = """SELECT openid, users.unionid, external_id, nickname, status, phone
                  FROM users LEFT JOIN identities ON user_id = users.id"""
    assert [tuple(row) for row in await rows.fetch(stored)] == people
    assert await rows.fetchval("SELECT date_trunc('minute', created_at) = '2024-05-01 04:00Z' FROM users")


@pytest.mark.process
async def test_the_paths_of_the_guide_lead_into_arrays(users: Command, tmp_path: Path, rows: Rows) -> None:
    line = {
        "phones": ["+8613800138000"],
        "identities": [{"type": "unionid", "id": "x"}, {"type": "openid", "id": OPENID}],
    }
    (tmp_path / "users.jsonl").write_text(json.dumps(line))
    options = shlex.split(block("docs/start/import-file.md", "phones.0"))
    done = await users("import", "users.jsonl", "--app-id", APP_ID, *options)
    assert done.returncode == 0, done.stderr
    assert await rows.fetchval("SELECT openid || phone FROM users JOIN identities ON user_id = users.id") == (
        f"{OPENID}+8613800138000"
    )
