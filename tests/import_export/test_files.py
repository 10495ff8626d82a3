"""The import reads the ids, names, times and kinds of files that other programs write."""

import asyncio
import bz2
import gzip
import io
import json
import lzma
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.fakes import APP, OTHER_APP, service_env
from tests.import_export.mover import Mover
from tests.processes import WXAUTH, environment
from tests.sweeps import swept
from tests.world import Body, Stage
from wxauth.import_export.files import CsvLines, FileFormat, JsonLines
from wxauth.import_export.other_files import WrongFile

OPENID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
ALICE: Body = {"app_id": APP["app_id"], "openid": OPENID}
SHANGHAI = ZoneInfo("Asia/Shanghai")


pytestmark = pytest.mark.settings(apps=[APP, OTHER_APP])


@pytest.fixture
def mover(stage: Stage) -> Mover:
    return Mover(stage)


LOOKS = [
    ("JSON", ('{"mp":"oABCDEFGH"}', f'"{OPENID}"', '{"mp":"o', '["oABCDEFGH"]', ' {"$oid": "65f0"} ')),
    ("a spreadsheet formula", (f'="{OPENID}"', "=T(A1)", "＝1")),
    ("text that a spreadsheet program", (f"'{OPENID}", "'-10023", "’10023", "`10023")),
    (
        "a number that a spreadsheet program",
        ("10023.0", "10023.", "1.38E+10", "1e+21", "10,023", "1,38E+10", "１００２３．０"),
    ),
    (
        "a value in a program's notation",
        ('ObjectId("65f0c1")', "ObjectId(65f0c1)", "NumberLong(10023)", "UUID('65')", "b'10023'"),
    ),
]
OF_OPENIDS = [
    ("a URL", ("https://example.com/oABCDEFGH", "wxfile://oABCDEFGH")),
    ("an e-mail address", ("alice@example.com", "o@b.cn")),
    ("an AppID", (APP["app_id"], "WX1a2b3c4d5e6f7a8b", "ww1a2b3c4d5e6f7a8b", "gh_1a2b3c4d5e6f")),
]


@pytest.mark.parametrize(("name", "looks"), [("openid", LOOKS + OF_OPENIDS), ("external_id", LOOKS)])
async def test_an_id_that_is_something_else_is_refused_and_named(mover: Mover, name: str, looks: list[Any]) -> None:
    wrong = [(value, it) for it, values in looks for value in values]
    assert await mover.import_lines(*({**ALICE, name: value} for value, _ in wrong)) == (0, 0, 0, len(wrong))
    for (value, it), message in zip(wrong, mover.messages, strict=True):
        assert message.startswith(f"must be only the ID, but the value looks like {it}"), value
        assert OPENID not in message
        assert "填写的内容像是" in message.translated("zh-CN"), value


async def test_other_ids_stay_as_they_are(mover: Mover) -> None:
    good = [
        "10023",
        "shop-7",
        "a@b.cn",
        "https://x.cn/7",
        "1.2.3",
        "7.15",
        "5e13",
        "[vip]7",
        "Tom(2)",
        "李雷",
        "{vip",
        "0x1f",
        *("1", "7", "11", "222", "5555555", "1" * 12, "00000000-0000-0000-0000-000000000001", "5e" + "1" * 22),
    ]
    lines = [{**ALICE, "openid": f"{OPENID[:-2]}{n:02}", "external_id": value} for n, value in enumerate(good)]
    assert await mover.import_lines(*lines) == (len(good) - 1, 0, 0, 1)
    assert mover.refusals == [(good.index("{vip") + 1, "external_id")]


DIGITS = {
    "1716543210123456789": "1716543210123456789",
    "9007199254740993": "9007199254740993",
    "18446744073709551617": "18446744073709551617",
    "7": "7",
    "12345678" * 16: "12345678" * 16,
    '"1716543210123456790"': "1716543210123456790",
    '"0001716543210123456789"': "0001716543210123456789",
    '"+7"': "+7",
    '{"$numberLong": "1716543210123456791"}': "1716543210123456791",
    '{"$numberLong": 1716543210123456792}': "1716543210123456792",
    '{"$numberInt": "9"}': "9",
    '{"$numberDecimal": "1716543210123456793"}': "1716543210123456793",
    '{"$numberDouble": "8"}': "8",
}
LOST = ["1.0", "-1.5", "1e18", "1E+18", "1716543210123456789.0", "1e400", '{"$numberDecimal": "1.5"}']
LOST += ['{"$numberDouble": "10023.0"}', '{"$numberDecimal": "1.716543210123456789E+18"}']
NO_ID = [
    "0",
    "-0",
    "-1",
    "-1716543210123456789",
    '{"$numberInt": "-7"}',
    "true",
    "false",
    "[7]",
    "9" * 129,
    '{"$numberLong": "1e3"}',
    '{"$numberDecimal": "x"}',
]


@pytest.mark.parametrize("path", ["external_id", "id", "a.b.c"])
@pytest.mark.parametrize("form", ["lines", "array", "wrapped"])
async def test_an_integer_as_an_external_id_is_kept_digit_by_digit(mover: Mover, path: str, form: str) -> None:
    file_format = FileFormat(fields={} if path == "external_id" else {path: "external_id"})

    async def import_ids(values: Iterable[str]) -> list[str]:
        lines = [
            f'{{"app_id": "{APP["app_id"]}", "openid": "{OPENID[:-3]}{n:03}", "{path}": {value}}}'
            for n, value in enumerate(values)
        ]
        if path == "a.b.c":
            lines = [line.replace('"a.b.c": ', '"a": {"b": {"c": ') + "}}" for line in lines]
        array = f"[{', '.join(lines)}]"
        text = {"lines": "\n".join(lines), "array": array, "wrapped": f'{{"data": {{"list": {array}}}}}'}[form]
        await mover.import_as(file_format, text.encode())
        return list(map(str, mover.messages))

    assert await import_ids(DIGITS) == []
    stored = await mover.stage.rows.fetch("SELECT external_id FROM users JOIN identities ON user_id = users.id")
    assert {row["external_id"] for row in stored} == set(DIGITS.values())
    await mover.begin_anew()
    messages = await import_ids(LOST)
    assert [("decimal point or an exponent" in each, "as text" in each) for each in messages] == [(True, True)] * len(
        LOST
    )
    assert mover.messages[0].translated("zh-CN") != messages[0]
    await import_ids(NO_ID)
    assert mover.refusals == [(n, "external_id") for n in range(1, len(NO_ID) + 1)]
    await import_ids(["9" * 5000])
    assert (mover.refusals, "4,300 digits" in str(mover.messages[0])) == ([(1, "line")], True)
    if form == "lines":
        await import_ids(["007", "+7"])
        assert mover.refusals == [(1, "line"), (2, "line")]
    assert await mover.users() == []


async def test_an_id_in_a_cell_of_csv_is_kept_as_it_is(mover: Mover) -> None:
    ids = ["1716543210123456789", "+7", "0001716543210123456789", "12345678" * 16]
    text = "".join(f"{APP['app_id']},{OPENID[:-3]}{n:03},{own}\n" for n, own in enumerate(ids))
    assert (await mover.import_text(f"app_id,openid,external_id\n{text}".encode(), is_csv=True)).created == len(ids)
    assert {user["external_id"] for user in await mover.users()} == set(ids)


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("[]", []),
        ("[ ]", []),
        ('"[ ""a|b"", ""c""]"', ["a|b", "c"]),
        ("[shop]-7|[]8", ["[shop]-7", "[]8"]),
        ('"[""a"', '["a'),  # which the field's own check refuses
    ],
)
def test_a_list_in_a_cell_of_csv_is_json_or_divided(cell: str, items: object) -> None:
    [line] = CsvLines(io.BytesIO(f"app_id,openid,former_external_ids\nwx,o,{cell}\n".encode()))
    assert isinstance(line.text, bytes)
    assert json.loads(line.text)["former_external_ids"] == items


async def test_no_other_id_is_a_number(mover: Mover) -> None:
    for name in ("app_id", "openid", "unionid", "user_id"):
        await mover.import_lines({**ALICE, name: 1716543210123456789012345678})
        assert mover.refusals == [(1, name)]
    await mover.import_lines({**ALICE, "external_id": "8", "former_external_ids": [1716543210123456789]})
    former = await mover.stage.rows.fetchval("SELECT external_id FROM former_external_ids")
    assert former == "1716543210123456789"


async def test_openids_of_another_length_are_counted(mover: Mover) -> None:
    lines = [{**ALICE, "openid": OPENID[:length]} for length in (28, 27, 12)] + [{**ALICE, "openid": f"{OPENID}x"}]
    counts = await mover.import_text("\n".join(map(json.dumps, lines)).encode())
    assert (counts.created, counts.odd_openids) == (4, 3)


COLUMNS = {"app_id": APP["app_id"], "openid": "oFROM_THE_OFFICIAL_ACCOUNT__", "routine_openid": OPENID, "user_id": "7"}
DELIMITERS = {"csv": ",", "tsv": "\t"}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
async def test_a_name_that_is_mapped_wins_over_a_column_of_the_fields_name(mover: Mover, kind: str) -> None:
    file_format = FileFormat(
        fields={"routine_openid": "openid", "user_id": "external_id"}, delimiter=DELIMITERS.get(kind, ",")
    )
    rows = [COLUMNS, {**COLUMNS, "routine_openid": ""}]
    if kind == "jsonl":
        lines: Any = JsonLines(io.BytesIO("\n".join(map(json.dumps, rows)).encode()), file_format)
    else:
        cells = [file_format.delimiter.join(row) for row in ([*COLUMNS], *([*row.values()] for row in rows))]
        lines = CsvLines(io.BytesIO("\n".join(cells).encode()), file_format)
    counts = await mover.import_numbered(lines)
    assert (counts.created, counts.refused, lines.ignored_names) == (1, 1, ["openid"])
    line = json.loads(await mover.export())
    assert (line["openid"], line["external_id"]) == (OPENID, "7")


AT_NOON = "2024-05-01T12:00:00+08:00"
MIDNIGHT = "2024-05-01T00:00:00+08:00"
EVERYWHERE: dict[str, list[Any]] = {
    AT_NOON: [
        *("2024-05-01T12:00:00+0800", "2024-05-01 12:00:00+08", "2024-05-01 04:00:00z", "2024-05-01 12:00 +08:00"),
        *("1714536000", "1714536000000", 1714536000, 1714536000000, "2024/5/1 12:00:00 +0800"),
    ]
}
IN_ITS_ZONE = {
    AT_NOON: [
        "2024-5-1 12:00",
        "2024/5/1 12:00:00",
        "2024年5月1日 12:00",
        "2024年5月1日12:00:00",
        "2024-05-01T12:00:00.000",
    ],
    MIDNIGHT: ["2024-5-1", "2024/5/1", "2024/05/01", "2024年5月1日", "2024年05月01日", " 2024-05-01 ", "2024/5/1 0:00"],
}
NEVER: list[Any] = [
    "2024/2/30",
    "2024-13-1",
    "5/1/2024",
    "24/5/1",
    "2024-5",
    "2024/5/1 25:00",
    "2024/5/1 12",
    "20240501",
]
NEVER += ["171453600", "17145360000", "-171453600", 1714536000.5, True, "Wed May 01 2024 12:00:00 GMT+0800", "٢٠٢٤-5-1"]


def lines_of(times: list[Any]) -> list[Body]:
    return [{**ALICE, "openid": f"{OPENID[:-2]}{n:02}", "created_at": time} for n, time in enumerate(times)]


@pytest.mark.parametrize(
    ("expected", "zone"),
    [
        *((text, zone) for text in EVERYWHERE for zone in (None, ZoneInfo("America/Lima"))),
        *((text, SHANGHAI) for text in IN_ITS_ZONE),
    ],
)
async def test_times_are_read_as_tables_write_them(mover: Mover, expected: str, zone: ZoneInfo | None) -> None:
    times = IN_ITS_ZONE[expected] if zone is SHANGHAI else EVERYWHERE[expected]
    counts = await mover.import_lines(*lines_of(times), time_zone=zone)  # type: ignore[arg-type]
    assert counts == (len(times), 0, 0, 0), mover.refusals
    assert {user["created_at"] for user in await mover.users()} == {datetime.fromisoformat(expected)}


async def test_a_time_that_could_mean_another_is_refused(mover: Mover) -> None:
    wrong = [*NEVER, *(time for times in IN_ITS_ZONE.values() for time in times)]
    assert await mover.import_lines(*lines_of(wrong)) == (0, 0, 0, len(wrong))
    assert await mover.import_lines(*lines_of(NEVER), time_zone=SHANGHAI) == (0, 0, 0, len(NEVER))  # type: ignore[arg-type]
    assert all("--time-zone" in message for message in mover.messages)
    assert await mover.import_lines(*lines_of(["0", 0, ""])) == (3, 0, 0, 0), "no date"
    assert {user["created_at"] for user in await mover.users()} == {mover.stage.clock()}
    assert datetime.fromisoformat(AT_NOON) == datetime(2024, 5, 1, 4, tzinfo=UTC)


JSONL = f"{json.dumps(ALICE)}\n{json.dumps(ALICE)}\n"
CSV = f"app_id,openid,nickname\n{APP['app_id']},{OPENID},小明\n"


def zipped(name: str, text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, text)
    return file.getvalue()


KINDS: list[tuple[str, bytes, str]] = [
    *(
        (f"UTF-16, {encoding}", CSV.encode(encoding), "UTF-16. Convert the file with iconv")
        for encoding in ("utf-16", "utf-16-be", "utf-16-le")
    ),
    (
        "UTF-16 with its mark, big end first",
        b"\xfe\xff" + CSV.encode("utf-16-be"),
        "UTF-16. Convert the file with iconv",
    ),
    ("UTF-32", CSV.encode("utf-32"), "UTF-32. Convert the file with iconv"),
    ("xlsx", zipped("[Content_Types].xml", "<Types/>"), "an Excel workbook"),
    ("zip", zipped("users.csv", CSV), "unzip"),
    ("xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
    ("gzip", gzip.compress(CSV.encode()), "gunzip"),
    ("bzip2", bz2.compress(CSV.encode()), "bunzip2"),
    ("xz", lzma.compress(CSV.encode()), "unxz"),
    ("PDF", b"%PDF-1.7\n", "another kind of file"),
    ("SQLite", b"SQLite format 3\0\x10\0", "another kind of file"),
    ("HTML", b"<html><table>", "HTML or XML"),
    ("array in UTF-16 without its mark", json.dumps([ALICE]).encode("utf-16-le"), "UTF-16. Convert the file"),
]
OF_JSON = [
    ("CR alone", JSONL.replace("\n", "\r").encode(), "only CR"),
    ("CSV", CSV.encode(), "--csv"),
    ("SQL", b"-- MySQL dump 10.13\n", "is SQL"),
]
OF_CSV = [
    ("CR alone", CSV.replace("\n", "\r").encode(), "only CR"),
    ("semicolons", CSV.replace(",", ";").encode(), "uses semicolons (;)"),
    ("semicolons and quotation marks", b'"app_id";"openid"\n', "uses semicolons (;)"),
    ("bars", CSV.replace(",", "|").encode(), "uses vertical bars (|)"),
    ("tabs", CSV.replace(",", "\t").encode(), "--tsv"),
    ("Excel's first line", f"sep=;\r\n{CSV}".encode(), "sep="),
    ("JSON Lines", JSONL.encode(), "Leave out --csv"),
    ("JSON array", b"\xef\xbb\xbf" + json.dumps([ALICE] * 200).encode(), "Leave out --csv"),
]


CASES = [(is_csv, *kind) for is_csv, of_it in ((True, OF_CSV), (False, OF_JSON)) for kind in KINDS + of_it]


@swept(
    ("is_csv", "name", "file", "remedy"), CASES, ids=[f"{'CSV' if case[0] else 'JSON'}, {case[1]}" for case in CASES]
)
def test_a_file_of_another_kind_is_named_with_its_remedy(is_csv: bool, name: str, file: bytes, remedy: str) -> None:
    with pytest.raises(WrongFile, match=re.escape(remedy)) as refusal:
        (CsvLines if is_csv else JsonLines)(io.BytesIO(file))
    assert refusal.value.fault.field == "file", name
    assert refusal.value.fault.rule.translated("zh-CN") != str(refusal.value)


@swept("text", [JSONL, CSV.replace("小明", "小明 015")])
def test_the_command_against_lines_that_end_with_cr_repairs_the_file(text: str) -> None:
    is_csv = text != JSONL
    with pytest.raises(WrongFile) as refusal:
        (CsvLines if is_csv else JsonLines)(io.BytesIO(text.replace("\n", "\r").encode()))
    for advice in (str(refusal.value), refusal.value.fault.rule.translated("zh-CN")):
        command = re.search("tr '.+' '.+'", advice)
        assert command is not None
        repaired = subprocess.run(shlex.split(command[0]), input=text.replace("\n", "\r").encode(), capture_output=True)
        assert repaired.stdout.decode() == text


@swept("name", ["a;b;c;d", "a|b|c|d", "a\tb\tc\td", "a;b|c;d,e;f"])
def test_a_quoted_name_of_a_column_may_have_any_divider(name: str) -> None:
    lines = CsvLines(io.BytesIO(f'app_id,openid,"{name}"\nwx1,oAlice,x\n'.encode()))
    assert lines.ignored_names == [name]
    assert [json.loads(line.text) for line in lines if isinstance(line.text, bytes)] == [
        {"app_id": "wx1", "openid": "oAlice"}
    ]


NAMED = '{{"app_id": "{}", "openid": "{}", "{}": {}}}'
WITH_HALF = {
    **dict.fromkeys(("openid", "unionid", "external_id", "ban_reason", "status"), '"xxxxxxxxxxxxxxxxxxxxxxxxxxxx?"'),
    **{"avatar_url": '"https://x.cn/?"', "phone": '"+8613800138000?"', "created_at": '"2024-05-01T12:00:00Z?"'},
    **{"roles": '["vip?"]', "attributes": '{"tier": "gold?"}'},
}
SKIPPED = {"avatar_url", "phone", "ban_reason", "created_at", "attributes"}


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\uDC00", b"\xed\xa0\xbd"])
async def test_half_an_emoji_is_named_with_its_field(mover: Mover, half: bytes) -> None:
    for name, value in WITH_HALF.items():
        text = NAMED.format(APP["app_id"], OPENID, name, value).encode().replace(b"?", half)
        counts = await mover.import_text(text, dry_run=True)
        assert (counts.refused, mover.refusals, "lone surrogates" in str(mover.messages)) == (1, [(1, name)], True)
        counts = await mover.import_text(text, skips_bad_fields=True, dry_run=True)
        assert counts.incomplete == (name in SKIPPED), name
    for name in ("note", "nickname"):
        text = NAMED.format(APP["app_id"], OPENID, name, '"a?"').encode().replace(b"?", half)
        assert (await mover.import_text(text)).refused == 0
    assert (await mover.user())["nickname"] == "a"
    assert ((await mover.import_text(b'{"a": "\xf0"}')).refused, "iconv" in str(mover.messages)) == (1, True)


async def test_only_nul_itself_is_named_as_nul(mover: Mover) -> None:
    for value, is_named in ((r'"\u0000"', True), (r'"\\\u0000"', True), (r'"\\u0000"', False)):
        await mover.import_text(NAMED.format(APP["app_id"], OPENID, "phone", value).encode(), dry_run=True)
        (message,) = mover.messages
        assert (r"lone surrogates such as \ud83d" in message) == is_named, value


async def test_both_halves_of_an_emoji_are_one(mover: Mover) -> None:
    whole = json.dumps({**ALICE, "nickname": r"\ud83d 😀"})
    for text in (whole, json.dumps({**ALICE, "nickname": r"\ud83d 😀"}, ensure_ascii=False)):
        assert (await mover.import_text(text.encode())).refused == 0
        assert (await mover.user())["nickname"] == r"\ud83d 😀"
    as_bytes = CSV.replace(OPENID, "o" * 28).encode().replace("小明".encode(), b"a\xed\xa0\xbd\xed\xb8\x80")
    assert (await mover.import_text(as_bytes, is_csv=True)).created == 1
    assert {user["nickname"] for user in await mover.users()} == {r"\ud83d 😀", "a😀"}


def on_a_full_disk(*command: str, folder: Path, env: dict[str, str]) -> tuple[int, bytes]:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([WXAUTH, *command], cwd=folder, env=env, stdout=full, stderr=subprocess.PIPE)
    return done.returncode, done.stderr


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
async def test_a_command_on_a_full_disk_ends_with_one_sentence(mover: Mover, database_url: str, tmp_path: Path) -> None:
    await mover.import_lines(ALICE)
    env = environment(**service_env(database_url))
    for command in (["users", "list"], ["users", "export", "-"], ["--help"]):
        ended = await asyncio.to_thread(on_a_full_disk, *command, folder=tmp_path, env=env)
        assert ended == (1, b"can't write the output: No space left on device\n"), command
