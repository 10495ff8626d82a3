"""`examples/miniprogram` and the guides' mini-program work with `wxauth-desk dev` and the example of a sibling."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import ROOT, block, code_blocks, guide
from tests.processes import dev_with_sibling
from tests.programs import needs, output_of, run_node_tests

DEMO = ROOT / "examples/miniprogram"
PACKING = ROOT / "tests/packing"
CLIENT = ROOT / "clients/miniprogram/wxauth.js"
APP = json.loads((DEMO / "app.json").read_text())
WITHDRAWN = ("getUserProfile", "getUserInfo", "open-data", "encryptedData")
"""APIs of WeChat that are deprecated or return an anonymous nickname and picture."""

each_page = pytest.mark.parametrize("page", APP["pages"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables with which the tests in Node find the services."""
    with dev_with_sibling(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.mark.node
@pytest.mark.process
@pytest.mark.parametrize("part", ["demo", "ai"])
def test_the_demo_can_be_tapped_through_and_shares_its_session_with_wechats_ai(
    world: dict[str, str], part: str
) -> None:
    run_node_tests(f"demo/{part}.test.js", world)


@pytest.mark.node
@pytest.mark.process
@pytest.mark.parametrize("part", ["native", "engine", "unknown"])
def test_a_project_runs_in_node(world: dict[str, str], part: str) -> None:
    run_node_tests(f"demo/{part}.test.js", world)


@pytest.mark.node
@pytest.mark.process
def test_the_mini_program_of_the_guide_works(world: dict[str, str], tmp_path: Path) -> None:
    auth, app, orders, request = code_blocks(guide("mini-program"), "js")
    recipes = guide("mini-program-recipes")
    page, _, ended, steps, site, in_node, download, connect = code_blocks(recipes, "js")
    [markup], [web_view] = code_blocks(recipes, "html"), code_blocks(recipes, "xml")
    uni_app = block("docs/build/mini-program-frameworks.md", "claim(auth, scan)")
    consents = "".join(
        block("docs/manage/privacy.md", words) for words in ("consents_due.length", "requirePrivacyAuthorize({")
    )
    files = {
        "auth.js": auth,
        "app.js": app,
        "orders.js": orders,
        "ended.js": ended,
        "steps.js": steps,
        "request.js": request,
        "connect.js": connect,
        "download.js": download,
        "scan.js": uni_app.partition("<script>")[2].partition("</script>")[0].replace("'@/", "'./"),
        "guarded.js": block("docs/build/mini-program-frameworks.md", "onShow()").replace("../../", "./"),
        "login.js": block("docs/build/mini-program-frameworks.md", "navigateBack").replace("../../", "./"),
        "cloud.js": block("docs/build/mini-program-frameworks.md", "callContainer("),
        "buy.js": block("docs/build/payments.md", "requestVirtualPayment({"),
        "consents.js": f"export async function asked(auth) {{\n{consents}}}",
        "pages/profile/profile.json": "{}",
        "pages/profile/profile.js": page,
        "pages/profile/profile.wxml": markup,
        "pages/authorize/authorize.json": "{}",
        "pages/authorize/authorize.js": site,
        "pages/authorize/authorize.wxml": web_view.replace("<web-view ", '<web-view class="site" '),
    }
    for name in ("profile", "authorize"):
        (tmp_path / "pages" / name).mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for name in ("wxauth.js", "wxauth-scan.js", "wxauth-site.js"):
        shutil.copy(CLIENT.with_name(name), tmp_path)
    run_node_tests("demo/guide.test.js", {**world, "GUIDE": str(tmp_path)})
    urls = {"8000": world["SERVICE_URL"], "8001": world["WECHAT_URL"], "8002": world["ORDERS_URL"]}
    for name, text in {"auth.js": auth, "orders.js": orders, "in_node.mjs": in_node}.items():
        text = re.sub(r"http://127\.0\.0\.1:(\d+)", lambda port: urls[port[1]], text)
        (tmp_path / name).write_text(text.replace("/path/to/wxauth", str(ROOT)))
    printed = output_of(needs("node"), "in_node.mjs", cwd=tmp_path)
    assert re.search(
        r"oolong tea.*\[ 'login', 'POST /v1/login', 'GET /orders' \]\no[\w-]{27} null\nAlice\n$", printed, re.DOTALL
    )


@pytest.mark.node
@pytest.mark.process
@pytest.mark.parametrize("language", ["", "zh"])
def test_who_had_logged_in_before_the_move_is_logged_in_once_at_launch(
    world: dict[str, str], tmp_path: Path, language: str
) -> None:
    auth, *_ = code_blocks(guide("mini-program"), "js")
    _, launch, *_ = code_blocks(guide("mini-program-recipes", language), "js")
    auth = auth.replace("http://127.0.0.1:8000", world["SERVICE_URL"]).replace(
        "createAuth({", "createAuth({ silent: false,"
    )
    (tmp_path / "auth.js").write_text(auth)
    (tmp_path / "app.js").write_text(launch)
    shutil.copy(CLIENT, tmp_path)
    (tmp_path / "launch.mjs").write_text(LAUNCH.replace("ROOT", str(ROOT)).replace("WECHAT_URL", world["WECHAT_URL"]))
    launched = [output_of(needs("node"), "launch.mjs", state, cwd=tmp_path) for state in ("new", "known", "offline")]
    assert launched == ["0 false false\n", "1 true false\n", "2 false true\n"]


LAUNCH = """
import { MiniProgram } from 'ROOT/examples/phone/mini_program.mjs'
import { Phone } from 'ROOT/examples/phone/phone.mjs'
console.warn = () => {}
const phone = new Phone({ wechat: 'WECHAT_URL', person: 'dora', appId: 'wxdev00000000000a1' })
const shop = new MiniProgram('.', phone)
if (process.argv[2] !== 'new') wx.setStorageSync('token', 'of the old login')
phone.isOnline = process.argv[2] !== 'offline'
shop.require('app.js')
await shop.app.onLaunch()
console.log(phone.count('login'), Boolean(shop.require('auth.js').auth.user), phone.storage.has('token'))
"""
"""Prints the number of logins, whether a user is logged in, and whether the old token is still stored."""


@pytest.mark.node
@pytest.mark.process
@pytest.mark.foreign
def test_the_client_is_packed_for_npm_and_built_for_wechat_and_logs_in(world: dict[str, str], tmp_path: Path) -> None:
    node, npm, demo = needs("node"), needs("npm"), tmp_path / "demo"

    shutil.copytree(DEMO, demo, ignore=shutil.ignore_patterns("wxauth*.js"))
    for file in demo.rglob("*.js"):
        file.write_text(re.sub(r"'[./]+/wxauth(?:-(scan|site))?\.js'", package_for, file.read_text()))
    package = output_of(npm, "pack", "--silent", "--pack-destination", tmp_path, CLIENT.parent, cwd=demo).strip()
    (demo / "package.json").write_text('{"private": true, "type": "module"}')
    output_of(npm, "install", "--offline", "--silent", tmp_path / package, cwd=demo)
    if (PACKING / "node_modules").exists():
        pack = "packNpmManually({packageJsonPath: 'package.json', miniprogramNpmDistDir: '.'})"
        script = f"require('{PACKING}/node_modules/miniprogram-ci').{pack}.then(JSON.stringify).then(console.log)"
        assert '"miniProgramPackNum":1' in output_of(node, "--input-type=commonjs", "-e", script, cwd=demo)
    else:  # WeChat's tools copy the folder that the package names. `.ci/run` installs them only for a release.
        installed = demo / "node_modules/wxauth-miniprogram"
        dist = json.loads((installed / "package.json").read_text())["miniprogram"]
        shutil.copytree(installed / dist, demo / "miniprogram_npm/wxauth-miniprogram")
    built = {str(path.relative_to(demo / "miniprogram_npm")) for path in demo.glob("miniprogram_npm/**/*.*")}
    parts = ("index", "scan", "site")
    assert built == {f"wxauth-miniprogram/{part}.{kind}" for part in parts for kind in ("js", "d.ts")}
    run_node_tests("demo/packed.test.js", {**world, "DEMO": str(demo)})


def package_for(match: re.Match[str]) -> str:
    return f"'wxauth-miniprogram/{match[1]}'" if match[1] else "'wxauth-miniprogram'"


def test_every_page_of_the_demo_is_listed_in_app_json() -> None:
    assert sorted(APP["pages"]) == sorted(f"pages/{file.parent.name}/{file.stem}" for file in DEMO.rglob("*.wxml"))
    assert {tab["pagePath"] for tab in APP["tabBar"]["list"]} <= set(APP["pages"])


@each_page
def test_every_function_that_a_page_calls_exists(page: str) -> None:
    markup, script = ((DEMO / f"{page}.{suffix}").read_text() for suffix in ("wxml", "js"))
    handlers = set(re.findall(r'\bbind\w+="(\w+)"', markup))
    assert handlers <= set(re.findall(r"^  (?:async )?(\w+)\(.*\) {$", script, re.MULTILINE))


def test_the_configuration_is_json() -> None:
    configuration = {file.name: json.loads(file.read_text()) for file in DEMO.rglob("*.json")}
    project = configuration["project.config.json"]
    assert (project["appid"], project["compileType"]) == ("touristappid", "miniprogram")
    for language in ("", "zh"):
        shown = re.findall(r'`("\w+": \w+)`', guide("mini-program", language).read_text())
        settings = json.loads(f"{{{', '.join(shown)}}}")
        assert settings.keys() == {"es6", "enhance", "urlCheck"}
        assert settings.items() <= project["setting"].items()
    assert configuration[APP["sitemapLocation"]]["rules"]


def test_theme_and_styles_have_every_colour_that_is_used_for_dark_mode_too() -> None:
    used = set(re.findall(r'"@(\w+)"', (DEMO / "app.json").read_text()))
    theme = json.loads((DEMO / APP["themeLocation"]).read_text())
    assert APP["darkmode"]
    assert used == set(theme["light"]) == set(theme["dark"])
    light, dark = (DEMO / "app.wxss").read_text().split("@media (prefers-color-scheme: dark)")
    names = set(re.findall(r"(--\w+):", light))
    assert names == set(re.findall(r"(--\w+):", dark))
    for file in DEMO.rglob("*.wxss"):
        assert set(re.findall(r"var\((--\w+)\)", file.read_text())) <= names


def test_nothing_is_called_that_wechat_has_withdrawn() -> None:
    for file in (
        file for suffix in ("js", "wxml") for file in DEMO.rglob(f"*.{suffix}") if not file.name.startswith("wxauth")
    ):
        assert not [name for name in WITHDRAWN if name in file.read_text()], file


def test_the_ports_are_those_of_the_readme() -> None:
    config, readme = (DEMO / "config.js").read_text(), (DEMO / "README.md").read_text()
    assert re.findall(r"'http://127\.0\.0\.1:(\d+)'", config) == ["8000", "8002", "8001"]
    assert readme.count("\nscripts/dev\n") == readme.count(" --port 8002\n") == 1
