"""The README and the settings guide agree with the code and with their translations."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import click
import pytest
from dotenv import dotenv_values
from fastapi import Depends, FastAPI
from jose.jwt import get_unverified_claims

from scripts.write_docs import INDEX, WHOLE, index, whole
from scripts.write_lists import copies, guides
from scripts.write_settings import EXAMPLE, GUIDES, differences, example
from tests.cli.tree import every_command
from tests.dev.banner import printed_by_dev
from tests.docs import ROOT, both_languages, code_blocks, guide, openapi, pages, table
from tests.fakes import SECRET_KEY
from tests.world import LogIn
from wxauth.errors import WeChatBadResponse, WeChatRateLimited
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import PREFIX, Settings
from wxauth.wechat.errcodes import KNOWN_ERRCODES, Api, errcode_of
from wxauth_guard import BearerGuard, Principal

FOLDERS = (".", "docs/**", "examples/*", "clients/*", "deploy", "deploy/*", "benchmarks")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}/*.md"))


LISTENS = re.compile(
    r"""(?:--port[ "',]+|-S 127\.0\.0\.1:|\.listen\(|PORT["')}]*(?:, | = | \?\? |:-|:=|:)["']?)(\d{4})"""
)
"""The ways in which an example or a page can set the port of a service."""


def example_settings() -> dict[str, tuple[bool, str]]:
    """Return each name in `.env.example` without its prefix, with its value and whether it's commented out."""
    lines = re.findall(rf"^(# )?{PREFIX}(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    return {name: (bool(comment), value) for comment, name, value in lines}


@pytest.mark.parametrize("language", GUIDES)
def test_settings_are_documented_as_they_are_declared(language: str) -> None:
    if wrong := [*differences(language)]:
        pytest.fail("\n".join(wrong), pytrace=False)
    assert EXAMPLE.read_text() == example(), "run scripts/settings, which writes .env.example"


def test_a_setting_without_a_row_in_the_guides_is_told_where_to_add_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for language, page in GUIDES.items():
        (tmp_path / language).mkdir()
        (tmp_path / language / page.name).write_text(re.sub(r"(?m)^\| `PORT` .*\n", "", page.read_text()))
        monkeypatch.setitem(GUIDES, language, tmp_path / language / page.name)
    monkeypatch.setattr("scripts.write_settings.ROOT", tmp_path)
    with pytest.raises(SystemExit) as told:
        example()
    row = "below the row of HOST, add | `PORT` | `8000` | what it does, in whole sentences |"
    assert {f"en/settings.md: {row}", f"zh/settings.md: {row}"} <= {*str(told.value).splitlines()}


def test_guides_and_examples_have_what_is_elsewhere() -> None:
    behind = [page for page, text in guides() if page.read_text() != text]
    behind += [copy for copy, original in copies() if copy.read_bytes() != original.read_bytes()]
    assert not behind, f"run scripts/docs, which writes {', '.join(str(it.relative_to(ROOT)) for it in behind)}"


@pytest.mark.parametrize("shown", ["docs/reference/http.md", "README.md"])
@pytest.mark.parametrize("member", ["nickname", "roles", "last_login_at", "openid"])
def test_a_new_member_is_written_where_a_real_answer_has_it(
    member: str, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path, text in guides():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    page = tmp_path / shown
    [block, *_others] = code_blocks(page, "json")
    without = re.sub(rf',\s*"{member}": ?(?:"[^"]*"|[^,\s]*)', "", block, count=1)
    assert f'"{member}"' not in without
    page.write_text(page.read_text().replace(block, without))
    monkeypatch.setattr("scripts.write_lists.ROOT", tmp_path)
    written = dict(guides())[page]
    page.write_text(written)
    assert list(json.loads(code_blocks(page, "json")[0])["user"]) == list(json.loads(block)["user"])


def test_what_a_reader_has_built_of_an_example_is_no_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = ("src/wxauth.js", "dist/build/mp-weixin/wxauth.js")
    source, built = (tmp_path / "examples/uni-app" / path for path in paths)
    for file in (source, built):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.setattr("scripts.write_lists.ROOT", tmp_path)
    found = [copy for copy, _ in copies()]
    assert (source in found, built in found) == (True, False)


def test_the_list_for_assistants_names_the_guides_of_today() -> None:
    assert INDEX.read_text() == index(), "run scripts/docs"


@pytest.mark.parametrize("listing", WHOLE.values(), ids=["English", "Chinese"])
def test_the_guides_as_one_text_have_every_page_once(listing: Path) -> None:
    there = {f"{page.relative_to(ROOT)}" for page in pages(listing.parent.name.replace("docs", ""))}
    named = re.findall(r"^<!-- (docs/.*) -->$", whole(listing), re.MULTILINE)
    assert len(named) == len(set(named))
    assert {page for page in there if not page.endswith("/home.md") and "/decisions/" not in page} <= set(named)


def test_the_example_shows_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    required = {"DATABASE_URL": "postgresql://", "APP_ID": "wx1", "APP_SECRET": "secret", "SECRET_KEY": SECRET_KEY}
    shown = {name: value for name, (_, value) in example_settings().items()}
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{PREFIX}{name}={value}\n" for name, value in {**shown, **required}.items()))
    asked_for = {name.lower(): value for name, value in required.items()}
    assert (
        settings_from(Settings, _env_file=env_file).model_dump()
        == settings_from(Settings, _env_file=None, log_format="json", **asked_for).model_dump()
    )


def test_docker_reads_the_example_as_we_do(tmp_path: Path) -> None:
    filled_in = re.sub(rf"^# ({PREFIX})", r"\1", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(filled_in)
    # Docker reads each line that isn't a comment, and takes everything after the first "=" as the value.
    lines = [line for line in filled_in.splitlines() if line.strip() and not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == dotenv_values(tmp_path / ".env")


def test_the_example_holds_no_secret() -> None:
    given = {name: value for name, (commented, value) in example_settings().items() if not commented}
    assert given == {
        "DATABASE_URL": "postgresql://wxauth@localhost:5432/wxauth",
        "APP_ID": "",
        "APP_SECRET": "",
        "SECRET_KEY": "",
    }


@both_languages
def test_the_table_of_errcodes_says_what_each_becomes(language: str) -> None:
    page = guide("wechat", language)
    *rows, any_other = table(page, "errcode")
    unknown = {int(errcode) for row in rows for errcode in re.findall(r"-?\b\d+\b", row[0])} - KNOWN_ERRCODES
    assert not unknown, f"add {unknown} to src/wxauth/wechat/errcodes.csv, or remove them from {page.relative_to(ROOT)}"
    for api in (Api.CODE2SESSION, Api.PHONE_NUMBER, Api.CHECK_SESSION_KEY, Api.MINI_PROGRAM_CODE):
        for errcode in KNOWN_ERRCODES:
            failure = errcode_of(errcode, api=api).failure()
            code, wait = failure.code, failure.retry_after
            reported = [row for row in rows if re.search(rf"(?<!\d){errcode}(?!\d)", row[0])] or [any_other]
            assert code == WeChatBadResponse.code or any(code in row[1] for row in reported), (
                f"{page.relative_to(ROOT)}: say in the table of errcodes that {errcode} becomes {code}"
            )
            if code == WeChatRateLimited.code:
                assert any(str(wait) in row[1] for row in reported), (
                    f"{page.relative_to(ROOT)}: say in the table of errcodes that the wait after {errcode} is {wait}"
                )


@pytest.mark.slow
@both_languages
def test_the_table_of_routes_has_every_route(language: str) -> None:
    text = (guide("http", language)).read_text()
    cells = re.findall(r"^\| (`[A-Z]+ .*?`) \|", text, re.MULTILINE)
    routes = [route.split() for cell in cells for route in re.findall("`(.*?)`", cell)]
    shown = {f"{method} {path}" for *methods, path in routes for method in methods}
    paths = openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    wrong = shown ^ served ^ {"GET /docs", "GET /openapi.json"}
    assert not wrong, f"the tables of http.md must have a row for each operation (scripts/docs adds it): {wrong}"


@both_languages
def test_the_table_of_commands_has_every_command(language: str) -> None:
    shown = Counter(
        name for row in table(guide("commands", language), "command|命令") for name in re.findall("`(.*?)`", row[0])
    )
    wrong = {*(shown - Counter(commands())), *(Counter(commands()) - shown)}
    assert not wrong, f"the table of commands.md must have each command once (scripts/docs adds it): {wrong}"


@both_languages
def test_the_guides_describe_each_option_of_a_client_and_an_app(language: str) -> None:
    guides = "".join(page.read_text() for page in pages(language))
    obvious = {"--disabled", "--help"}
    lacking = [
        f"{option.opts[0]} of `wxauth {' '.join(names)}`"
        for names, it in every_command()
        if names in (("clients", "add"), ("apps", "add"))
        for option in it.params
        if option.opts[0].startswith("--") and option.opts[0] not in obvious
        if not any(re.search(rf"{each}(?![\w-])", guides) for each in (*option.opts, *option.secondary_opts))
    ]
    assert not lacking, f"describe {', '.join(lacking)} in the tables of manage/clients.md or manage/doors.md"


def commands() -> list[str]:
    return [" ".join(["wxauth", *names]) for names, it in every_command() if not isinstance(it, click.Group)]


def test_the_commands_that_pages_name_exist() -> None:
    known = set(commands())
    for page in PAGES:
        code = "\n".join(re.findall(r"^```sh\n.*?^```$|`[^`\n]+`", page.read_text(), re.MULTILINE | re.DOTALL))
        for words in re.findall(r"(?<!\.\./)(?<!exec )(?<!tag )\bwxauth [a-z]+(?: [a-z-]+)?", code):
            assert words in known or words.rpartition(" ")[0] in known, f"{page.name}: no command '{words}'"


@both_languages
def test_a_readme_has_two_commands(language: str) -> None:
    readme = (ROOT / f"README{language}.md").read_text()
    # .ci/bare runs them
    assert re.findall(r"(?m)^    (scripts/.*)$", readme) == ["scripts/dev", "scripts/test --quick"]


def told_sizes(language: str) -> list[int]:
    """Return the lines of the service, the number of its tests, and their lines."""
    said = re.findall(r"\b\d{1,3},\d{3}\b", (ROOT / f"README{language}.md").read_text())
    return [int(number.replace(",", "")) for number in said]


@both_languages
def test_a_readme_says_how_large_the_project_is(language: str) -> None:
    def lines(folder: str) -> int:
        return sum(len(file.read_bytes().splitlines()) for file in (ROOT / folder).rglob("*.py"))

    service, _, tests = told_sizes(language)
    assert [service, tests] == pytest.approx([lines("src/wxauth"), lines("tests")], rel=0.1)


@pytest.mark.foreign
def test_a_readme_counts_the_tests_as_pytest_does() -> None:
    listing = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q"], cwd=ROOT, capture_output=True)
    [found] = map(int, re.findall(rb"(?m)^(\d+) tests collected", listing.stdout))
    assert [told_sizes(language)[1] for language in ("", ".zh-CN")] == pytest.approx([found, found], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README", "http"])
@both_languages
async def test_the_answer_shown_has_the_members_of_a_real_answer(page: str, language: str, login: LogIn) -> None:
    shown = json.loads(
        code_blocks(ROOT / f"README{language}.md" if page == "README" else guide(page, language), "json")[0]
    )
    shown["user"].pop("consents_due", None)  # appears only if CONSENTS is set, as in scripts/dev
    assert json.dumps(members(shown)) == json.dumps(members(await login("alice")))  # the order must be the same, too


async def test_the_token_shown_has_the_claims_of_a_real_one(login: LogIn) -> None:
    shown = json.loads(code_blocks(guide("concepts"), "json")[0])
    claims = get_unverified_claims((await login("alice"))["access_token"])
    assert members(shown) == members(claims)
    assert shown["exp"] - shown["iat"] == claims["exp"] - claims["iat"]


def members(value: Any) -> Any:
    return {name: members(inner) for name, inner in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize(
    ("environment", "is_shown"),
    [
        ({}, False),
        ({"http_proxy": "http://127.0.0.1:7890"}, True),
        ({"ALL_PROXY": "socks5://127.0.0.1:7890"}, True),
        ({"http_proxy": "http://127.0.0.1:7890", "no_proxy": "localhost,127.0.0.1"}, False),
    ],
)
def test_dev_says_how_curl_reaches_this_machine_beside_a_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_shown: bool
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("export no_proxy=127.0.0.1,localhost" in printed_by_dev("en")) is is_shown


@both_languages
def test_the_readme_shows_what_dev_prints(language: str) -> None:
    readme = ROOT / f"README{language}.md"
    reported = printed_by_dev("zh" if "zh" in language else "en")
    printed = re.sub(r"(?m)^  ", "", reported)
    assert code_blocks(readme, "sh")[0] in printed
    assert code_blocks(guide("http", language), "sh")[0] in printed
    [phone] = re.findall(r"<(http://127\.0\.0\.1:8001/.*?)>", readme.read_text())
    assert phone in printed.split()
    shown = re.search(r"(?ms)^```\n(wxauth .*?)^```$", readme.read_text())
    assert shown
    assert set(shown[1].splitlines()) <= {*reported.splitlines()}


@pytest.mark.parametrize("simulated_url", ["http://127.0.0.1:8001", None])
def test_the_texts_beside_addresses_are_in_one_column_at_any_port(simulated_url: str | None) -> None:
    reported = printed_by_dev("en", simulated_url=simulated_url, site_url="http://127.0.0.1:54321")
    beside = re.findall(r"(?m)^  (?:Phone|Websites|Console|WeChat) +http\S+ +(?=\S)", reported)
    assert len(beside) > 1
    assert len({len(each) for each in beside}) == 1, reported


def test_by_a_tunnel_the_mini_program_gets_the_tunnels_address() -> None:
    reported = printed_by_dev("en", simulated_url=None, issuer="https://tunnel.example.com")
    assert "createAuth({ baseURL: 'https://tunnel.example.com' })" in reported


def test_what_dev_prints_names_its_own_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    printed = printed_by_dev("en")
    monkeypatch.setattr(sys, "argv", ["examples/mcp/server.py"])  # runpy does this in another thread
    assert printed_by_dev("en") == printed


def test_the_guarded_service_shown_can_be_run() -> None:
    app = FastAPI()
    around = {
        "app": app,
        "Annotated": Annotated,
        "BearerGuard": BearerGuard,
        "Depends": Depends,
        "Principal": Principal,
    }
    exec(code_blocks(ROOT / "README.md", "python")[0], around)
    assert list(app.openapi()["paths"]) == ["/orders"]


def test_the_examples_listen_on_the_ports_that_their_table_names() -> None:
    page = ROOT / "examples/README.md"
    shown = [(port, link) for port, what, _ in table(page, "port") for link in re.findall(r"\]\((.+?)\)", what)]
    named = {(port, os.path.normpath(page.parent / link)) for port, link in shown}
    files = [file for folder in ("examples", "clients/node", "desk", "docs") for file in (ROOT / folder).rglob("*")]
    read = [file for file in files if file.is_file() and not {"node_modules", "target"} & {*file.parts}]
    found = {(port, str(file)) for file in read for port in LISTENS.findall(file.read_text(errors="ignore"))}
    assert {port for port, _ in found} == {port for port, _ in named}
    for port, link in named:
        assert any(at == port and file.startswith(link) for at, file in found), f"{link} does not listen on {port}"
