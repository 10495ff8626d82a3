"""The import reads JSON of other programs, which can have other names, nesting, wrappers, or only one document."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import pytest

from tests.fakes import APP, OTHER_APP
from tests.import_export.mover import Mover
from tests.sweeps import swept
from tests.world import Body, Stage
from wxauth.i18n import lazy_gettext as _
from wxauth.import_export import files
from wxauth.import_export.documents import MAX_ELEMENT
from wxauth.import_export.files import MAX_IGNORED_NAMES, CsvLines, FileFormat, JsonLines
from wxauth.import_export.lines import Fault, Line
from wxauth.import_export.numbered_lines import MAX_LINE
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
        [{**LINE, **{f"name{n}": n for n in range(2 * MAX_IGNORED_NAMES)}}],
        [f"name{n}" for n in range(MAX_IGNORED_NAMES)],
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


WITHOUT: list[Body] = [{}, {"a": None}, {"a": []}, {"a": ""}, {"a": {"b": False}}, {"a": {"b.c": 1}}, {"a": {"b": {}}}]
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


@swept(("name", "written"), [(name, written) for name in DOCUMENTS for written in WRITTEN])
async def test_the_rows_of_a_document_are_imported_as_lines_are(mover: Mover, name: str, written: str) -> None:
    text = WRITTEN[written](DOCUMENTS[name]).encode()
    lines = JsonLines(io.BytesIO(text))
    rows = ROWS[:1] if name.startswith("one") else ROWS
    for _again in range(2):
        assert [(line.number, json.loads(line.text or b"")) for line in lines if not isinstance(line.text, Fault)] == [
            *enumerate(rows, 1)
        ]
    assert lines.has_elements


async def test_a_document_is_imported(mover: Mover) -> None:
    text = WRITTEN["indented"]({"status": "ok", "data": {"list": [*ROWS, {"openid": "x"}]}}).encode()
    counts = await mover.import_text(text)
    assert (counts.lines, counts.created, counts.refused) == (4, 3, 1)
    assert mover.refusals == [(4, "app_id"), (4, "openid")]
    assert {user["nickname"] for user in await mover.users()} == {"小明"}


@swept("written", ["indented", "a row a line"])
def test_objects_of_several_lines_are_read(written: str) -> None:
    text = "\n".join(json.dumps({**row, "orders": [{}]}, indent=2) for row in ROWS)
    text = {"indented": text, "a row a line": text.replace("{\n", "{", 1).replace("\n", "\r\n")}[written]
    assert [line["openid"] for line in read(JsonLines(io.BytesIO(text.encode())))] == [row["openid"] for row in ROWS]


ROW = json.dumps(ROWS[0])
EMPTY = [
    "[]",
    " [ ]\n",
    '{"RECORDS": []}',
    '{"code": 0, "data": {"list": [], "total": 0}}',
    "",
    " \r\n\n\t",
    "\ufeff",
    "\ufeff[]",
]
EMPTY += [json.dumps([*PHPMYADMIN[:2], {**PHPMYADMIN[2], "data": []}])]
LARGE = "x" * 3 * MAX_ELEMENT
NO_DOCUMENTS: dict[str, list[str | bytes]] = {
    "must be complete": [
        *(f"[{ROW}", f"[{ROW},", f"[{ROW}, {ROW[:20]}", "[", '[{"a', f"[{ROW}, [", f'[{ROW}, "a\\'),
        *(f'{{"a": [{ROW}]{end}' for end in ("", ", ", ', "b', ', "b"', ', "b":', ', "b": tr')),
        *(f'{{\n"a": [{ROW}, ', f"{{\n{ROW[1:40]}"),
    ],
    "is invalid": [
        f"[{ROW},]",
        f"[{ROW} {ROW}]",
        f"[{ROW};{ROW}]",
        f"[{ROW}}}",
        f'{{"a": [{", ".join([ROW] * 100)}], b: 1}}',
        "[{a: 1}]",
        *(f"[{ROW}, 007]", f"[{ROW}, +1]", "[" * 100_000, f"[{'[' * 100_000}{']' * 100_000}]", "[tru]"),
        *(f"[{ROW}, 'x']", f"[{ROW}, \u00a0{ROW}]", f"[{ROW} 7", f"[{ROW},, {ROW}]", f"[,{ROW}]"),
    ],
    "continues after": [f"[{ROW}] x", f"[{ROW}]\n[{ROW}]", f"[{ROW}],", f"[{ROW}]]", f"[{ROW}]\n{ROW}", "[]\n[]"],
    "contains several": [
        f'{{"a": [{ROW}], "b": [{ROW}]}}',
        f'{{"a": {{"b": [{ROW}]}}, "c": {{"d": {{"e": [1, {{}}]}}}}}}',
    ],
    "iconv": [f'[{ROW}, {{"nickname": "'.encode() + "誠".encode("gb18030") + b'"}]'],
    "no such array": ["[1]", '["a", null]', f"[[{ROW}]]", "[[]]", "[1, [{}]]"],
    "2 arrays": ['{"errors": [], "data": {"list": []}}', '{"codes": [1], "list": []}'],
    "is larger": [
        f'[{ROW}, {{"note": "{LARGE}"}}, {ROW}]',
        f'[{{"a": [{LARGE!r}]}}]'.replace("'", '"') + " " * MAX_ELEMENT,
    ],
}


@swept("text", EMPTY)
def test_an_empty_array_is_a_file_without_rows(text: str) -> None:
    for file_format in (FileFormat(), FileFormat(fields={"wx": "openid"})):
        assert not list(read(JsonLines(io.BytesIO(text.encode()), file_format)))


@swept(("fault", "text"), [(fault, text) for fault, texts in NO_DOCUMENTS.items() for text in texts])
def test_a_document_that_cannot_be_read_is_refused_with_what_it_is(fault: str, text: str | bytes) -> None:
    with pytest.raises(WrongFile, match=fault) as refusal:
        list(JsonLines(io.BytesIO(text if isinstance(text, bytes) else text.encode())))
    assert refusal.value.fault.field == "file", text[:100]
    assert refusal.value.fault.rule.translated("zh-CN") != str(refusal.value)


async def test_nothing_is_stored_of_a_document_that_turns_out_to_be_broken(mover: Mover) -> None:
    text = json.dumps(ROWS).encode()
    for dry_run in (True, False):
        for broken in (text[:-1], text + b",", text[:-1] + b", {]", b'{"a": %b, "b": %b}' % (text, text)):
            with pytest.raises(WrongFile):
                await mover.import_text(broken, dry_run=dry_run)
    assert await mover.users() == []


ODD_ELEMENTS: list[tuple[str, bytes]] = [
    ("line", b"1"),
    ("line", b"null"),
    ("line", b'"text"'),
    ("line", b"[{}]"),
    ("line", b'{"nickname": "\xb0\xa1"}'),
    ("line", b'{"nickname": "a\nb"}'),
    ("line", b'{"nickname": "%b"}' % (b"x" * MAX_LINE)),
    ("line", b'{"nickname": %b}' % (b"9" * 5000)),
    ("line", b'{"a": %b}' % (b"[" * 500 + b"]" * 500)),
]


async def test_an_element_that_is_no_line_costs_no_other_element(mover: Mover) -> None:
    good = [json.dumps(row).encode() for row in ROWS]
    text = b"[" + b", ".join([*(element for _, element in ODD_ELEMENTS), *good]) + b"]"
    assert (await mover.import_text(text)).created == len(ROWS)
    assert mover.refusals[: len(ODD_ELEMENTS)] == [(n, field) for n, (field, _) in enumerate(ODD_ELEMENTS, 1)]


async def test_an_element_is_read_as_a_line_is_read(mover: Mover) -> None:
    odd = [
        rb'{"nickname": "a\ud83d"}',
        b'{"nickname": "b\xed\xa0\xbd"}',
        rb'{"nickname": "\ud83d\ude00"}',
        b'{"nickname": "x", "nickname": "y"}',
        b'{"phone": "a\0"}',
        b'{"external_id": -0}',
        b'{"external_id": 1.10}',
        b'{"nickname": "z"' + b"\n " * MAX_LINE + b"}",
    ]
    made = []
    for n, each in enumerate(odd):
        made.append(b'{"app_id": "%b", "openid": "person-%d", ' % (APP_ID.encode(), n) + each[1:])
    await mover.import_text(b"[" + b",".join(made) + b"]")
    of_elements = mover.refusals, [user["nickname"] for user in await mover.users()]
    await mover.begin_anew()
    await mover.import_text(b"\n".join(line.replace(b"\n ", b"") for line in made))
    assert (mover.refusals, [user["nickname"] for user in await mover.users()]) == of_elements
    assert sorted(of_elements[1]) == ["a", "b", "y", "z", "😀"]


@pytest.mark.slow
def test_a_document_of_any_size_is_never_in_memory_as_a_whole() -> None:
    class Endless(io.RawIOBase):
        """An array that never ends."""

        position = 0
        row = ROW.encode() + b"," + b" " * (8000 - len(ROW) - 1)

        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def seek(self, position: int, whence: int = 0) -> int:
            self.position = position
            return position

        def tell(self) -> int:
            return self.position

        def readinto(self, buffer: Any) -> int:
            assert self.position < 64 * MAX_ELEMENT, "reads on by itself"
            piece = b"[" if not self.position else self.row * (len(buffer) // len(self.row) or 1)
            piece = piece[: len(buffer)]
            buffer[: len(piece)] = piece
            self.position += len(piece)
            return len(piece)

    lines = iter(JsonLines(cast("Any", Endless())))
    tracemalloc.start()
    for _n in range(2_500):
        next(lines)
    assert tracemalloc.get_traced_memory()[1] < 10 * MAX_ELEMENT
    tracemalloc.stop()


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
    lines = JsonLines(io.BytesIO(jsonl(*rows)))
    assert (len(list(lines)), lines.has_elements) == (2, False)


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
