"""Attributes and claims are I-JSON: every program reads the value that somebody has given, or the value is refused."""

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import APP
from tests.import_export.mover import Mover
from tests.problems import problem_of
from tests.processes import Command, make_command
from tests.programs import needs_node, output_of
from tests.receiver import receiving
from tests.sign_up.hooks import SECRET, text
from tests.sweeps import Sweep
from tests.world import AddSibling, Admin, LogIn, Stage
from wxauth.clients.models import Scope
from wxauth.import_export.files import FileFormat
from wxauth.keys.keyring import KeyRing
from wxauth_guard import BearerGuard

EXACT = (
    *("0", "-0", "7", "-7", "9007199254740991", "-9007199254740991", "9007199254740992", "9007199254740994"),
    *("1716543210987654400", "100000000000000000000", "1000000000000000000000", "1" + "0" * 300),
    *("0.1", "0.10", "1.10", "1.0", "-0.0", "0.0", "99.95", "1e3", "1E3", "1e-7", "1E+2", "1e21", "1e23", "0e999999"),
    *("5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "123456789.12345678", "0.30000000000000004"),
)
"""JSON numbers that a double holds digit by digit, apart from zeros and the position of the point."""
INEXACT = (
    *("9007199254740993", "-9007199254740993", "1716543210987654321", "123456789012345678901234567890", "1" * 400),
    *(
        "0.1000000000000000055",
        "0.30000000000000001",
        "123456789.123456789",
        "1716543210987654321e1",
        "9007199254740993.0",
    ),
    *("1e309", "1E400", "-1e400", "4.94e-324", "1e-400", "2.4703282292062328e-324", "1e99999999999999999999"),
    *("1e-99999999999999999999", "NaN", "Infinity", "-Infinity"),
)
REPEATED = ('{"a": 1, "a": 2}', '[{"b": {"a": 1, "\\u0061": 1}}]')
CHARACTERS = ('"\\ud83d"', '"\\uffff"', '{"\\ufdd0": 1}', '"\\ud83f\\udffe"', '"\\u0000"')
SHAPES = ("%s", "[%s]", '{"a": [1, {"b": %s}]}')
TEXT_OF_INEXACT = "1716543210987654321"
ROUNDED = "must not contain a number that some programs would round"
TWICE = "must not contain a name twice in the same object"


def generated(seed: int) -> Iterator[str]:
    """Yield numbers around the limits of a double, in the forms that JSON allows."""
    drawn = random.Random(seed)
    for _ in range(400):
        digits = str(drawn.randrange(1, 10 ** drawn.choice((1, 5, 15, 16, 17, 19, 22))))
        near = str(2 ** drawn.choice((52, 53, 54, 63, 64)) + drawn.randrange(-3, 4))
        number = drawn.choice((digits, near))
        if drawn.random() < 0.5:
            point = drawn.randrange(len(number))
            number = f"{number[:point] or 0}.{number[point:]}"
            number = str(int(number.partition(".")[0])) + "." + number.partition(".")[2]
        exponent = drawn.choice(("", "", "", f"e{drawn.randrange(-330, 310)}", f"E+{drawn.randrange(5)}"))
        yield drawn.choice(("", "-")) + number + exponent


def is_exact(literal: str) -> bool:
    """Return whether the shortest text of the number's double has the number's decimal value."""
    try:
        number, given = float(literal), Decimal(literal)
    except ArithmeticError:
        return literal.startswith("0e")
    return isfinite(number) and Decimal(repr(number)) == given


def test_the_two_lists_say_what_the_rule_says() -> None:
    assert [each for each in EXACT if not is_exact(each)] == [each for each in INEXACT if is_exact(each)] == []


# The ways out.


@pytest.fixture
def node() -> str:
    return needs_node(Path(__file__).parents[2] / "clients/node")


def decimals(value: Any) -> Any:
    """Return a value with each number as a Decimal, so that numbers of different types can be compared."""
    return json.loads(json.dumps(value), parse_float=Decimal, parse_int=Decimal)


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_both_guards_read_the_number_that_was_given_or_it_is_refused(
    stage: Stage, add_sibling: AddSibling, node: str, seed: int
) -> None:
    crm = await add_sibling("crm", Scope.ATTRIBUTES, Scope.USERS)
    stage = await stage.replica(claims={"a": "$attributes.a", "list": ["$attributes.a"]})
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    path = f"/v1/users/{user_id}"
    literals = [*EXACT, *generated(seed)]
    given, tokens = [], []
    with Sweep() as sweep:
        for start in range(0, len(literals), 4):
            exact = [each for each in literals[start : start + 4] if is_exact(each)]
            for literal in {*literals[start : start + 4]} - {*exact}:
                with sweep.case(literal):
                    refused = await stage.client.patch(f"{path}/attributes", content=f'{{"a": [{literal}]}}', auth=crm)
                    assert refused.status_code == 422
            parts = ", ".join([*exact, f'{{"deep": [{", ".join(exact)}]}}'])
            body = f'{{"a": [{parts}]}}'
            stored = await stage.client.patch(f"{path}/attributes", content=body, auth=crm)
            assert stored.status_code == 204, (body, stored.text)
            given.append(json.loads(body, parse_float=Decimal, parse_int=Decimal)["a"])
            tokens.append((await stage.login("alice"))["access_token"])
            shown = (await stage.client.get(path, auth=crm)).text
            assert json.loads(shown, parse_float=Decimal, parse_int=Decimal)["attributes"]["a"] == given[-1]
    keyring, issuer = stage.services[KeyRing], stage.services.settings.issuer
    guard = BearerGuard(issuer, keys=keyring, clock=lambda: stage.clock().timestamp())
    assert [decimals((await guard.verify(token)).claims["a"]) for token in tokens] == given
    jwks = (await stage.client.get("/.well-known/jwks.json")).json()
    asked = {"jwks": jwks, "issuer": issuer, "now": stage.clock().timestamp(), "tokens": tokens}
    decided = output_of(node, Path(__file__).parents[2] / "clients/node/test/decide.js", input=json.dumps(asked))
    outcomes = json.loads(decided, parse_float=Decimal, parse_int=Decimal)
    assert [(outcome["claims"]["a"], outcome["claims"]["list"]) for outcome in outcomes] == [
        (each, [each]) for each in given
    ]


async def test_our_own_export_is_imported_again(stage: Stage) -> None:
    mover = Mover(stage)
    values = ", ".join(literal for literal in EXACT if len(literal) < 30)
    attributes = f'{{"a": [{values}], "text": "{TEXT_OF_INEXACT}", "é": 1}}'.replace('"é"', '"e"')
    line = f'{{"app_id": "{APP["app_id"]}", "openid": "openid-a1-alice", "attributes": {attributes}}}'
    assert (await mover.import_text(line.encode())).created == 1
    await mover.move_out_and_in()


# The ways in.


def refused_values() -> Iterator[str]:
    for literal in INEXACT:
        yield from (shape % literal for shape in SHAPES)
    yield from REPEATED
    yield from CHARACTERS


def rule_of(value: str) -> str:
    return TWICE if value in REPEATED else ROUNDED


@pytest.mark.slow
async def test_requests_for_attributes_refuse_a_value_that_programs_read_differently(
    root: Admin, login: LogIn, add_sibling: AddSibling
) -> None:
    crm, alice = await add_sibling("crm", Scope.ATTRIBUTES), await login("alice")
    user_id = alice["user"]["id"]
    with Sweep() as sweep:
        for value in refused_values():
            with sweep.case(value[:40]):
                body = f'{{"x": {value}}}'
                by_service = await login.client.patch(f"/v1/users/{user_id}/attributes", content=body, auth=crm)
                by_staff = await root.ask("PATCH", f"/users/{user_id}", content=f'{{"attributes": {body}}}')
                for answer, field in ((by_service, "body"), (by_staff, "attributes")):
                    [error] = problem_of(answer, "invalid_request", 422)["errors"]
                    # Pydantic doesn't parse lone surrogates, so another check names the attribute.
                    assert error["field"] == ("x" if field == "body" and value == CHARACTERS[0] else field)
                    assert value in CHARACTERS or error["message"].startswith(rule_of(value)), error
        for body in ('{"x": 1, "x": 2}', '{"attributes": {"x": 1}, "attributes": {"x": 1}}'):
            with sweep.case(body):
                problem_of(await root.ask("PATCH", f"/users/{user_id}", content=body), "invalid_request", 422)
    assert (await root.read(f"/users/{user_id}"))["attributes"] == {}


async def test_other_numbers_of_a_request_for_attributes_are_not_judged(root: Admin, login: LogIn) -> None:
    body = f'{{"app_id": "wx0123456789abcdef", "app_secret": "{"0" * 32}", "check": false, "unknown": 1e400}}'
    assert (await root.ask("POST", "/apps", content=body)).status_code == 200


@pytest.mark.slow
async def test_requests_for_claims_refuse_a_value_that_programs_read_differently(root: Admin) -> None:
    app = f'"app_id": "wx0123456789abcdef", "app_secret": "{"0" * 32}", "check": false'
    site = '"redirect_uris": ["https://shop.test/"]'
    requests = (
        ("POST", "/apps", app),
        ("PATCH", f"/apps/{APP['app_id']}x", '"check": false'),
        ("POST", "/clients", f'"name": "shop", {site}'),
        ("PATCH", "/clients/other", '"sso": false'),
    )
    answer = await root.ask("POST", "/clients", content=f'{{"name": "other", {site}, "claims": {{"x": 0.1}}}}')
    assert answer.json()["claims"] == {"x": 0.1}
    other_app = app.replace("wx0123456789abcdef", f"{APP['app_id']}x")
    assert (await root.ask("POST", "/apps", content=f'{{{other_app}, "claims": {{"x": 7}}}}')).status_code == 200
    with Sweep() as sweep:
        for value in refused_values():
            for method, path, others in requests:
                with sweep.case(f"{method} {path} {value[:40]}"):
                    answer = await root.ask(method, path, content=f'{{{others}, "claims": {{"x": {value}}}}}')
                    [error] = problem_of(answer, "invalid_request", 422)["errors"]
                    assert (error["field"], TEXT_OF_INEXACT in error["message"]) == ("claims", False)
                    assert value in CHARACTERS or error["message"].startswith(rule_of(value)), error


AS_TYPED = {
    **{digits: digits for digits in ("1716543210987654321", "123456789012345678901234567890", "9007199254740993")},
    **{digits: digits for digits in ("1.10", "1e3", "1.0", "-0", "-0.0", "0.10", "1E400", "1e21", "007", " 1", "NaN")},
    **{digits: digits for digits in ("0.1000000000000000055", "+1", "1" + "0" * 21, "1_000", "0x10")},
    **{str(number): number for number in (0, 7, -7, 2**53 - 1, -(2**53) + 1, 2**53, 0.1, 99.95, -0.5)},
    **{"true": True, "null ": None, '"7"': "7", "[1.10, 1e3]": [1.1, 1000.0], '{"a": 0.1}': {"a": 0.1}, "gold": "gold"},
}


@pytest.mark.process
async def test_a_command_keeps_the_digits_that_it_was_given(stage: Stage, users: Command) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    all_typed = [typed for typed in AS_TYPED if typed != "null "]
    for given in (all_typed[::2], all_typed[1::2]):
        options = [f"--attribute=a{number}={typed}" for number, typed in enumerate(given)]
        done = await users("set", user_id, *options)
        assert (done.returncode, done.stderr) == (0, "")
        stored = json.loads(await stage.rows.fetchval("SELECT attributes::text FROM users"))
        for number, typed in enumerate(given):
            assert repr(stored[f"a{number}"]) == repr(AS_TYPED[typed])
    for value in (*(f"[{literal}]" for literal in INEXACT[::5]), *REPEATED, *CHARACTERS):
        refused = await users("set", user_id, f"--attribute=x={value}")
        assert (refused.returncode, "must not contain" in refused.stderr.lower()) == (2, True), (value, refused.stderr)


@pytest.mark.process
async def test_commands_for_claims_keep_digits_or_refuse(database_url: str, stage: Stage, tmp_path: Path) -> None:
    environment = {"WXAUTH_DATABASE_URL": database_url}
    clients = make_command("clients", cwd=tmp_path, env=environment)
    site = ("--redirect-uri", "https://shop.test/")
    digits = ("--claim", f"n={TEXT_OF_INEXACT}", "--claim", "v=1.10", "--claim", "one=1")
    assert (await clients("add", "shop", *site, *digits)).returncode == 0
    assert json.loads(await stage.rows.fetchval("SELECT claims::text FROM clients")) == {
        "n": TEXT_OF_INEXACT,
        "v": "1.10",
        "one": 1,
    }
    for value in (f"[{TEXT_OF_INEXACT}]", *REPEATED, *CHARACTERS):
        refused = await clients("add", "other", *site, "--claim", f"n={value}")
        assert (refused.returncode, "must not contain" in refused.stderr.lower()) == (2, True), (value, refused.stderr)


LINE = f'{{"app_id": "{APP["app_id"]}", "openid": "openid-a1-%s", "attributes": {{"x": %s}}}}\n'


@pytest.mark.slow
async def test_an_import_of_json_keeps_a_value_or_refuses_the_line(stage: Stage) -> None:
    mover = Mover(stage)
    mapped = FileFormat(fields={"facts": "attributes"})
    with Sweep() as sweep:
        for value in refused_values():
            with sweep.case(value[:40]):
                line = LINE % ("alice", value)
                assert (await mover.import_text(line.encode())).refused == 1
                assert {field for _number, field in mover.refusals} <= {"attributes", "line"}
                if value not in CHARACTERS and "NaN" not in value and "Inf" not in value:
                    assert str(mover.messages[0]).startswith(rule_of(value))
                renamed = line.replace('"attributes"', '"facts"').encode()
                assert (await mover.import_as(mapped, renamed)).refused == 1
                with_wrong_name = line.replace('"attributes"', f'"nickname": "{"x" * 65}", "attributes"').encode()
                await mover.import_text(with_wrong_name, skips_bad_fields=True)
                assert await stage.number("users WHERE attributes IS NOT NULL") == 0
        for literal in EXACT:
            with sweep.case(literal):
                for read in (
                    mover.import_text,
                    lambda text: mover.import_as(mapped, text.replace(b"attributes", b"facts")),
                ):
                    await mover.begin_anew()
                    assert (await read((LINE % ("alice", literal)).encode())).created == 1
                    stored = await stage.rows.fetchval("SELECT attributes ->> 'x' FROM users")
                    assert Decimal(stored) == (0 if literal.startswith("0e") else Decimal(literal))


async def test_cells_keep_the_digits_that_they_contain(stage: Stage) -> None:
    mover = Mover(stage)
    for typed, value in AS_TYPED.items():
        cell = '"' + typed.replace('"', '""') + '"'
        await mover.begin_anew()
        table = f"app_id,openid,attributes.x\n{APP['app_id']},openid-a1-alice,{cell}\n"
        assert (await mover.import_text(table.encode(), is_csv=True)).refused == 0, (typed, mover.messages)
        stored = json.loads(await stage.rows.fetchval("SELECT COALESCE(attributes, '{}')::text FROM users")).get("x")
        assert repr(stored) == repr(value), typed
    for value in (f"[{TEXT_OF_INEXACT}]", '{"a": 1.00000000000000001}', *REPEATED, *CHARACTERS):
        for column, cell in (("attributes.x", value), ("attributes", f'{{"x": {value}}}')):
            quoted = '"' + cell.replace('"', '""') + '"'
            table = f"app_id,openid,{column}\n{APP['app_id']},openid-a1-lei,{quoted}\n"
            assert (await mover.import_text(table.encode(), is_csv=True)).refused == 1, (column, value)


async def test_a_sign_up_hook_cannot_set_a_value_that_programs_read_differently(stage: Stage) -> None:
    async with receiving() as receiver:
        hook = {"sign_up_hook_url": receiver.url, "sign_up_hook_secret": SECRET}
        stage = await stage.replica(**hook)
        for number, value in enumerate((*INEXACT, *REPEATED, *CHARACTERS)):
            if value in ("NaN", "Infinity", "-Infinity"):
                continue
            receiver.usual = text(f'{{"allow": true, "attributes": {{"x": {value}}}}}'.encode())
            await stage.login(f"person-{number}")
            line = stage.logged("sign_up_hook_member_left_out")[-1]
            assert (line["member"], "must not contain" in str(line["reason"])) == ("attributes", True), value
        assert await stage.number("users WHERE attributes IS NOT NULL") == 0
        receiver.usual = text(b'{"allow": true, "attributes": {"x": 0.1, "id": "1716543210987654321"}}')
        await stage.login("last")
    [(stored,)] = await stage.rows.fetch("SELECT attributes::text FROM users WHERE attributes IS NOT NULL")
    assert json.loads(stored) == {"x": 0.1, "id": TEXT_OF_INEXACT}
