"""IDs of 17 to 19 digits that another program has rounded are refused before anything is stored."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import APP, OTHER_APP, service_env
from tests.import_export.mover import Mover
from tests.processes import make_command
from tests.sweeps import swept
from tests.world import Rows, Stage
from wxauth.import_export.other_files import WrongFile
from wxauth.import_export.rounded_ids import RoundedIds, looks_rounded
from wxauth_desk.wechat.people import unionid_of

SEED = 20261129
FIRST = 1716543210123456789

pytestmark = pytest.mark.settings(apps=[APP, OTHER_APP])


@pytest.fixture
def mover(stage: Stage) -> Mover:
    return Mover(stage)


def by_javascript(number: int) -> str:
    """Return what Number prints, and JSON.stringify."""
    digits, _, exponent = f"{float(number)!r}".partition("e+")
    whole, _, fraction = digits.partition(".")
    return f"{whole}{fraction:0<{int(exponent)}}" if exponent else whole


def by_jq(number: int) -> str:
    """Return what jq 1.6 prints, which is a format of 17 significant digits."""
    return f"{float(number):.16e}".partition("e")[0].replace(".", "").ljust(len(str(number)), "0")[: len(str(number))]


def by_spreadsheet(number: int) -> str:
    return str(number)[:15].ljust(len(str(number)), "0")


def snowflakes(digits: int, count: int, *, sequence: bool) -> list[int]:
    """Return IDs as they are generated: milliseconds, 10 bits of a worker, and 12 bits of a sequence."""
    draw = random.Random(SEED)
    low, high = max(10 ** (digits - 1), 2**53 + 4096) >> 22, 10**digits >> 22
    ids = [draw.randrange(low, high) << 22 for _ in range(count)]
    return [own | 5 << 12 | draw.randrange(4096) for own in ids] if sequence else [own | 5 << 12 for own in ids]


def lines_of(ids: Iterable[object]) -> list[dict[str, Any]]:
    return [{"app_id": APP["app_id"], "openid": f"o{n:027}", "external_id": own} for n, own in enumerate(ids)]


def as_csv(ids: Iterable[object]) -> bytes:
    lines = [",".join(map(str, row.values())) for row in lines_of(ids)]
    return "\n".join(["app_id,openid,external_id", *lines]).encode()


def are_refused(ids: Iterable[object]) -> bool:
    search = RoundedIds()
    for own in ids:
        search.add(str(own))
    return search.are_found


@swept(
    ("program", "digits"),
    [(each, digits) for each in (by_javascript, by_jq, by_spreadsheet) for digits in (16, 17, 18, 19)],
)
def test_what_a_program_has_rounded_looks_rounded(program: Any, digits: int) -> None:
    exact = [number for number in snowflakes(digits, 300, sequence=True) if number > 2**53]
    rounded = [program(number) for number in exact]
    assert all(map(looks_rounded, rounded))
    assert all(looks_rounded(f"shop-{own}") for own in rounded)
    assert are_refused(rounded[:20])
    assert not are_refused(rounded[:2])
    assert are_refused(rounded[:3]) == (digits > 17)
    assert not are_refused([*rounded, exact[0] // 4 * 4 + 1]), "an exact one among them"


def test_short_ids_and_other_texts_never_look_rounded() -> None:
    for own in ("", "7", str(2**53), "9007199254740990", "1000000000000000", "0" * 30, "u1716543210123456800x"):
        assert not looks_rounded(own), own
    assert [looks_rounded(own) for own in ("1716543210123456800", "1716543210123456768", "1716543210123456789")] == [
        True,
        False,
        False,
    ]
    assert looks_rounded("9007199254740994")
    assert not looks_rounded("9" * 128)
    assert not looks_rounded("9" * 400)


@pytest.mark.slow
@swept(("digits", "sequence"), [(digits, sequence) for digits in (16, 17, 18, 19) for sequence in (True, False)])
def test_a_file_of_real_ids_is_never_refused(digits: int, sequence: bool) -> None:
    ids = snowflakes(digits, 2000, sequence=sequence)
    for size in (20, 25, 100):
        for start in range(0, len(ids), size):
            assert not are_refused(ids[start : start + size]), ids[start]
    small = snowflakes(19, 900, sequence=True)
    assert not any(are_refused(small[start : start + 3]) for start in range(0, len(small), 3))


def test_one_rounded_id_in_many_lines_is_one() -> None:
    assert not are_refused(["1716543210123456800"] * 100)
    assert not are_refused(["1716543210123456800", "1716543210123457000"] * 100)


FILES: dict[str, Any] = {
    "lines": lambda ids: "\n".join(map(json.dumps, lines_of(ids))).encode(),
    "array": lambda ids: json.dumps(lines_of(ids)).encode(),
    "numbers": lambda ids: json.dumps(lines_of(map(int, ids))).encode(),
    "longs": lambda ids: json.dumps(lines_of({"$numberLong": own} for own in ids)).encode(),
    "CSV": as_csv,
}


@pytest.mark.parametrize("form", FILES)
async def test_a_file_of_rounded_ids_is_refused_before_anything_is_stored(mover: Mover, form: str) -> None:
    text = FILES[form]([by_javascript(FIRST + 1000 * n) for n in range(40)])
    for options in ({}, {"dry_run": True}, {"joins": True}):
        with pytest.raises(WrongFile, match="these ids have been rounded, probably by a spreadsheet, jq or JavaScript"):
            await mover.import_text(text, is_csv=form == "CSV", **options)
    assert await mover.users() == []
    assert (await mover.import_text(text, is_csv=form == "CSV", ids_are_exact=True)).created == 40


@pytest.mark.parametrize("count", [1, 2, 3, 19])
async def test_few_large_ids_are_refused_if_all_look_rounded(mover: Mover, count: int) -> None:
    ids: Sequence[str] = [by_jq(FIRST + 1000 * n) for n in range(count)]
    others = [*map(str, range(10023, 10123)), "shop-7"]
    text = FILES["lines"]([*others, *ids])
    if count < 3:
        assert (await mover.import_text(text)).created == len(others) + count
    else:
        with pytest.raises(WrongFile, match="rounded"):
            await mover.import_text(text)
        assert (await mover.import_text(FILES["lines"]([*others, *ids, FIRST]))).refused == 0


@pytest.mark.process
async def test_the_command_refuses_rounded_ids(database_url: str, tmp_path: Path, rows: Rows) -> None:
    users = make_command("users", cwd=tmp_path, env=service_env(database_url, apps=[APP, OTHER_APP]))
    (tmp_path / "users.json").write_bytes(FILES["array"]([by_javascript(FIRST + 1000 * n) for n in range(20)]))
    for options in (["--dry-run"], ["--join"]):
        done = await users("import", "users.json", *options, LC_ALL="C.UTF-8")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("external_id: these ids have been rounded, probably by a spreadsheet, jq or")
    assert await rows.fetchval("SELECT count(*) FROM users") == 0
    assert (await users("import", "users.json", "--ids-are-exact")).returncode == 0
    assert await rows.fetchval("SELECT count(*) FROM users") == 20


CONTRADICTIONS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "external_id"),
    (
        {"unionid": unionid_of("hua")},
        {"unionid": unionid_of("lei"), "app_id": OTHER_APP["app_id"]},
        "unionid",
    ),
]


@pytest.mark.parametrize(("first", "second", "field"), CONTRADICTIONS)
async def test_people_are_never_joined_by_an_id_that_looks_rounded(
    mover: Mover, first: dict[str, Any], second: dict[str, Any], field: str
) -> None:
    async def import_both(own: str, **options: bool) -> tuple[int, int, int, int]:
        await mover.begin_anew()
        one, other = lines_of([own, own])
        return await mover.import_lines({**one, **first}, {**other, **second}, **options)

    assert await import_both("1716543210123456789") == (1, 0, 0, 1)
    assert (mover.refusals, "--join" in str(mover.messages)) == ([(2, field)], True)
    for joins in (False, True):
        assert await import_both("1716543210123456800", joins=joins) == (1, 0, 0, 1)
        assert (mover.refusals, "--join" in str(mover.messages)) == ([(2, "external_id")], False)
        assert "--ids-are-exact" in str(mover.messages)
        assert "--join" not in mover.messages[0].translated("zh-CN")
    assert await import_both("1716543210123456800", ids_are_exact=True) == (1, 0, 0, 1)
    assert "--join" in str(mover.messages)
    assert await import_both("1716543210123456800", ids_are_exact=True, joins=True) == (1, 1, 0, 0)
