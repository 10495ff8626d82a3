"""The import reads JSON of other programs, which can have other names, nesting, wrappers, or only one document."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.fakes import APP, OTHER_APP
from tests.import_export.mover import Mover
from tests.programs import needs, output_of
from tests.sweeps import swept
from tests.world import Body, Stage
from wxauth.i18n import lazy_gettext as _
from wxauth.import_export import files
from wxauth.import_export.files import MOST_NAMES, CsvLines, FileFormat, JsonLines
from wxauth.import_export.lines import Line
from wxauth.import_export.other_files import WrongFile
from wxauth_desk.wechat.people import unionid_of

APP_ID = APP["app_id"]
UNION = unionid_of("alice")
OPENID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
LINE: Body = {"app_id": APP_ID, "openid": OPENID}

pytestmark = pytest.mark.settings(apps=[APP, OTHER_APP])


@pytest.fixture
def mover(stage: Stage) -> Mover:
    return Mover(stage)


def jsonl(*lines: object) -> bytes:
    return "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines).encode()


def lines_of(file_format: FileFormat, *lines: object) -> JsonLines:
    return JsonLines(io.BytesIO(jsonl(*lines)), file_format)


def read(lines: JsonLines | CsvLines) -> Iterator[Body]:
    return (json.loads(line.text) for line in lines if isinstance(line.text, bytes))


# Names of fields.

NAMES: dict[str, tuple[FileFormat, list[object], list[str]]] = {
    "in some line": (
        FileFormat(),
        [LINE, {**LINE, "unionId": UNION, "externalId": "7"}, {**LINE, "nickName": None}],
        ["unionId", "externalId", "nickName"],
    ),
    "of the field that another name is mapped onto": (
        FileFormat(fields={"wx": "openid"}),
        [{**LINE, "wx": OPENID}],
        ["openid"],
    ),
    "beside a nested field": (
        FileFormat(fields={"a.b": "openid"}),
        [{"app_id": APP_ID, "a": {"b": OPENID}, "c": 1}],
        ["c"],
    ),
    "with an app for all": (FileFormat(app_id=APP_ID), [{"openid": OPENID, "Unionid": UNION}], ["Unionid"]),
    "of attributes in JSON": (FileFormat(), [{**LINE, "attributes.tier": "gold"}], ["attributes.tier"]),
    "none": (FileFormat(), [LINE, "\n", "no JSON\n", "[1]\n"], []),
    "many": (
        FileFormat(),
        [{**LINE, **{f"name{n}": n for n in range(2 * MOST_NAMES)}}],
        [f"name{n}" for n in range(MOST_NAMES)],
    ),
}


@swept(("file_format", "lines", "names"), NAMES.values(), ids=NAMES)
def test_names_that_are_ignored_are_named(file_format: FileFormat, lines: list[object], names: list[str]) -> None:
    read_twice = lines_of(file_format, *lines)
    for _again in range(2):
        list(read_twice)
        assert read_twice.ignored_names == names


MISSING: list[tuple[FileFormat, list[object], str]] = [
    (FileFormat(fields={"objectid": "external_id"}), [{**LINE, "objectId": "7"}], "objectid"),
    (FileFormat(fields={"a.c": "external_id"}), [{**LINE, "a": {"b": "7"}}, {**LINE, "a": "c"}], "a.c"),
    (FileFormat(fields={"a.b.c": "external_id"}), [{**LINE, "a": {"b": None}}, {**LINE, "a": [{"b": 1}]}], "a.b.c"),
    (FileFormat(values={"status": {"1": "disabled"}}), [{**LINE, "state": 1}], "status"),
    (FileFormat(fields={"x": "phone", "y": "nickname"}), [LINE], "x, y"),
    (FileFormat(fields={"x": "app_id"}), [LINE], "x"),
    (FileFormat(fields={"a.b": "app_id"}, app_id=APP_ID), [{"openid": OPENID}], "a.b"),
    (FileFormat(values={"app_id": {"1": APP_ID}}, app_id=APP_ID), [{"openid": OPENID}], "app_id"),
]


@pytest.mark.parametrize(("file_format", "lines", "names"), MISSING)
async def test_a_map_of_a_name_that_no_line_has_refuses_the_file(
    mover: Mover, file_format: FileFormat, lines: list[object], names: str
) -> None:
    for dry_run in (True, False):
        with pytest.raises(WrongFile, match=f"no line contains {names}$"):
            await mover.import_numbered(lines_of(file_format, *lines), dry_run=dry_run)
    assert await mover.users() == []


TAKEN: list[tuple[FileFormat, list[object]]] = [
    (FileFormat(fields={"x": "nickname"}), [LINE, {**LINE, "x": None}]),
    (FileFormat(fields={"a.b": "nickname"}), [LINE, {**LINE, "a": {"b": "N"}}]),
    (FileFormat(fields={"a.b": "nickname"}), [{**LINE, "a.b": "N"}]),
    (FileFormat(fields={"s": "status"}, values={"status": {"1": "disabled"}}), [{**LINE, "s": 1}]),
    (FileFormat(fields={"x": "app_id"}, values={"app_id": {"1": APP_ID}}), [{"openid": OPENID, "x": 1}]),
    (FileFormat(fields={"x": "nickname"}), []),
    (FileFormat(fields={"x": "nickname"}), ["\n", "no JSON\n"]),
]


@swept(("file_format", "lines"), TAKEN)
def test_a_name_in_one_line_is_enough_and_a_file_without_lines_lacks_none(
    file_format: FileFormat, lines: list[object]
) -> None:
    assert len(list(lines_of(file_format, *lines))) == len(lines)


WITHOUT: list[Body] = [{}, {"a": None}, {"a": []}, {"a": {"b": "c"}}, {"a": {"b.c": "no"}}, {"a": {"b": {}}}]
NESTED: list[tuple[Body, object]] = [
    ({"a": {"b": {"c": "deep"}}}, "deep"),
    ({"a.b.c": "flat", "a": {"b": {"c": "deep"}}}, "flat"),
    ({"a.b.c": None, "a": {"b": {"c": "deep"}}}, None),
    ({"a": {"b": {"c": {"$oid": "5f1e0b"}}}}, {"$oid": "5f1e0b"}),
    *((line, "absent") for line in WITHOUT),
]


@swept(("line", "found"), NESTED)
def test_a_map_follows_nested_fields_unless_the_line_has_a_field_of_that_name(line: Body, found: object) -> None:
    lines = lines_of(
        FileFormat(fields={"a.b.c": "external_id"}), {**line, "external_id": "own"}, {"a": {"b": {"c": "7"}}}
    )
    [first, second] = read(lines)
    assert (first.get("external_id", "absent"), second["external_id"]) == (found, "7")


# Values of fields.

AT_NOON = datetime(2024, 5, 1, 4, tzinfo=UTC)
TIMES: list[Any] = [
    {"$date": "2024-05-01T04:00:00Z"},
    {"$date": "2024-05-01T12:00:00.000+0800"},
    {"$date": 1714536000000},
    {"$date": 1714536000000.0},
    {"$date": {"$numberLong": "1714536000000"}},
    {"$numberLong": "1714536000000"},
    {"__type": "Date", "iso": "2024-05-01T04:00:00.000Z"},
]


async def test_ids_and_times_are_read_as_databases_export_them(mover: Mover) -> None:
    lines = [{**LINE, "openid": f"person-{n}", "created_at": time} for n, time in enumerate(TIMES)]
    assert await mover.import_lines(*lines) == (len(TIMES), 0, 0, 0), mover.messages
    assert {user["created_at"] for user in await mover.users()} == {AT_NOON}
    await mover.begin_anew()
    early: Any = [
        ({"$date": {"$numberLong": "-86400000"}}, 1969),
        ({"$date": 946684800000}, 2000),
        ({"$date": 5}, 1970),
    ]
    lines = [{**LINE, "openid": f"person-{n}", "created_at": time} for n, (time, _) in enumerate(early)]
    ids: Any = [{"$oid": "5f1e0b"}, {"$numberLong": "12345678901234567890"}, {"$numberInt": "7"}]
    lines = [{**line, "external_id": own} for line, own in zip(lines, ids, strict=True)]
    assert (await mover.import_lines(*lines))[0] == 3, mover.messages
    assert sorted(user["created_at"].year for user in await mover.users()) == [1969, 1970, 2000]
    assert {user["external_id"] for user in await mover.users()} == {"5f1e0b", "12345678901234567890", "7"}


NO_IDS: list[Any] = [{"$oid": 7}, {"$oid": "a", "b": 1}, {"$ref": "x"}, {"$numberLong": "NULL"}, {}, {"$oid": {}}]
NO_TIMES: list[Any] = [{"$date": "soon"}, {"$date": 1e300}, {"$date": True}, {"__type": "Date"}, {"$date": {}}]
WRONG_VALUES: list[Any] = [{"external_id": each} for each in NO_IDS] + [{"created_at": each} for each in NO_TIMES]


async def test_what_only_looks_like_such_a_value_is_refused(mover: Mover) -> None:
    lines = [{**LINE, "openid": f"person-{n}", **wrong} for n, wrong in enumerate(WRONG_VALUES)]
    assert await mover.import_lines(*lines) == (0, 0, 0, len(lines))
    assert mover.refusals == [(n, *wrong) for n, wrong in enumerate(WRONG_VALUES, 1)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", pytest.param("9" * 400, id="huge")])
async def test_what_is_no_usable_number_is_refused_where_values_are_mapped_too(mover: Mover, number: str) -> None:
    for name, value in (("created_at", f'{{"$date": {number}}}'), ("external_id", number)):
        text = f'{{"app_id": "{APP_ID}", "openid": "{OPENID}", "{name}": {value}}}\n'.encode()
        for file_format in (FileFormat(), FileFormat(values={name: {"1": "2"}})):
            assert ((await mover.import_as(file_format, text)).refused, mover.refusals) == (1, [(1, name)])


async def test_a_value_is_mapped_as_it_is_read(mover: Mover) -> None:
    file_format = FileFormat(fields={"s": "status", "_id": "external_id"}, values={"status": {"1": "disabled"}})
    counts = await mover.import_numbered(
        lines_of(file_format, {**LINE, "s": {"$numberInt": "1"}, "_id": {"$oid": "5f1e0b"}})
    )
    user = await mover.user()
    assert (counts.created, user["status"], user["external_id"]) == (1, "disabled", "5f1e0b")


# Files that are one JSON document.

ROWS: list[Body] = [{**LINE, "openid": f"person-{n}", "nickname": "小明"} for n in range(3)]
PHPMYADMIN: list[Body] = [
    {"type": "header", "version": "5.2.1", "comment": "Export to JSON plugin for phpMyAdmin"},
    {"type": "database", "name": "shop"},
    {"type": "table", "name": "users", "database": "shop", "data": ROWS},
]
DOCUMENTS: dict[str, object] = {
    "array": ROWS,
    "Navicat's": {"RECORDS": ROWS},
    "phpMyAdmin's": PHPMYADMIN,
    "Parse's": {"results": ROWS},
    "an answer's": {"code": 0, "errors": [], "data": {"total": 3, "list": ROWS}},
    "an odd name's": {"my users": ROWS},
    "an odd name's in an object": {"data": {"my users": ROWS}},
    "odd names'": {"the data": {"my users": {"list": ROWS}}},
    "one row's": {"RECORDS": ROWS[:1]},
}
WRITTEN = {
    "in a line": lambda document: json.dumps(document),
    "indented": lambda document: json.dumps(document, indent=2, ensure_ascii=False),
    "a row a line": lambda document: json.dumps(document).replace("[{", "[\r\n{").replace("}, {", "},\n{"),
    "with a mark": lambda document: "\ufeff" + json.dumps(document),
    "long": lambda document: json.dumps(document).replace(", ", "," + " " * 9000),
}


@pytest.mark.process
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_document_is_refused_with_the_jq_that_makes_lines_of_it(
    mover: Mover, name: str, written: str, tmp_path: Path
) -> None:
    text = WRITTEN[written](DOCUMENTS[name]).encode()
    with pytest.raises(WrongFile) as refusal:
        JsonLines(io.BytesIO(text))
    assert refusal.value.fault.rule.translated("zh-CN") != str(refusal.value)
    command = "jq -c" + str(refusal.value).partition("jq -c")[2]
    needs("jq")
    file = tmp_path / "users.json"
    file.write_bytes(text)
    made = output_of("sh", "-c", f"{command} {file}").encode()
    assert (await mover.import_text(made)).created == len(made.splitlines()) > 0


ARE_LINES: list[object] = [
    {**LINE, "orders": [{"id": 1}]},
    {**LINE, "consents": [{"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00Z"}]},
    {"unionid": UNION, "orders": [{"id": 1}]},
]


@swept("line", ARE_LINES)
def test_a_file_of_one_line_is_no_document(line: object) -> None:
    assert list(read(JsonLines(io.BytesIO(jsonl(line))))) == [line]
    mapped = JsonLines(
        io.BytesIO(jsonl({"wx": {"id": OPENID}, "orders": [{}]})), FileFormat(fields={"wx.id": "openid"})
    )
    assert [line["openid"] for line in read(mapped)] == [OPENID]


def test_lines_with_lists_of_objects_are_no_document() -> None:
    rows = [{"_id": 1, "orders": [{}]}] * 2
    assert len(list(JsonLines(io.BytesIO(jsonl(*rows))))) == 2
    with pytest.raises(WrongFile, match=r"spans several lines\. Convert the file with jq -c \.$"):
        JsonLines(io.BytesIO("\n".join(json.dumps(row, indent=2) for row in rows).encode()))


# CSV with fields that are not text.


async def test_csv_has_the_fields_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(Line):
        birth_year: Annotated[int | None, _("must be a year")] = None
        is_member: Annotated[bool, _("must be true or false")] = False
        tags: Annotated[list[str] | None, _("must be texts")] = None
        scores: Annotated[list[int] | None, _("must be numbers")] = None
        note: Annotated[str | int | None, _("must be short")] = None

    monkeypatch.setattr(files, "Line", Wider)
    monkeypatch.setattr(files, "_cell_kinds", files._cell_kinds.__wrapped__)
    text = (
        "app_id,openid,birth_year,is_member,tags,scores,note,nickname\n"
        + f'{APP_ID},{OPENID},1990,true,a|b,"[1,2]",7,1990\n'
    )
    [line] = read(CsvLines(io.BytesIO(text.encode())))
    assert line == {
        **LINE,
        "birth_year": 1990,
        "is_member": True,
        "tags": ["a", "b"],
        "scores": [1, 2],
        "note": "7",
        "nickname": "1990",
    }
    [line] = read(CsvLines(io.BytesIO(text.replace("1990,true", "soon,").encode())))
    assert line["birth_year"] == "soon", "refused by its own check"
