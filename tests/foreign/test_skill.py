"""With only `skills/wxauth/SKILL.md`, a mini-program logs in, and services in Python and Node are guarded.

The few lines in the READMEs work, too.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT, block, code_blocks
from tests.foreign.conftest import Issuer
from tests.processes import WXAUTH, Running, environment, free_port, until
from tests.programs import EXPRESS, NODE_PATIENCE, lacks, needs_node, output_of
from tests.world import bearer

pytestmark = [pytest.mark.process, pytest.mark.node]

SKILL = ROOT / "skills/wxauth/SKILL.md"
PHONE = f"""
import {{ Phone }} from '{ROOT}/examples/phone/phone.mjs'
globalThis.wx = {{ ...new Phone({{}}).wx, login: ({{ success }}) => success({{ code: 'alice' }}) }}
%s
console.log({{ statusCode, openid: data.openid }})
"""


def block_of(language: str, word: str, issuer: Issuer) -> str:
    """Return the page's code in this language that contains the word, with the URL of this service."""
    [block] = [block for block in code_blocks(SKILL, language) if word in block]
    return block.replace("http://127.0.0.1:8000", issuer.url)


@pytest.mark.parametrize("language", ["Python", "Node", "README"])
def test_a_back_end_is_guarded(issuer: Issuer, tmp_path: Path, language: str) -> None:
    node, port = needs_node(EXPRESS), free_port()
    if language == "Python":
        (tmp_path / "main.py").write_text(block_of("python", "FastAPI", issuer))
        command: tuple[str, ...] = (str(Path(WXAUTH).with_name("uvicorn")), "main:app", "--port", str(port))
    else:
        (tmp_path / "package.json").write_text('{"type": "module"}')
        (tmp_path / "node_modules").symlink_to(EXPRESS / "node_modules")
        server = block_of("js", "express()", issuer)
        if language == "README":
            shown = block("README.md", "const guard").replace("http://127.0.0.1:8000", issuer.url)
            server = re.sub(r"(?s)const guard = .*(?=app.listen)", f"const app = express()\n{shown}", server)
        (tmp_path / "server.js").write_text(server)
        command = (node, "server.js")
    with (
        Running(*command, cwd=tmp_path, env={"PORT": str(port)}),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client,
    ):
        until(lambda: is_up(client))
        assert client.get("/orders", headers=bearer(issuer.token)).json()["openid"].startswith("o")
        assert client.get("/orders").status_code == 401


def test_a_refusal_without_a_framework_has_what_the_page_names(issuer: Issuer) -> None:
    found = re.search(r"`AuthError` with `(\w+)` \(401, 503\), `([\w.]+)` and `([\w.]+)`", SKILL.read_text())
    assert found
    shown = ", ".join(f"typeof error.{name}" for name in found.groups())
    program = f"""
const {{ BearerGuard }} = await import('wxauth-guard')
const guard = new BearerGuard({{ issuer: '{issuer.url}', audience: 'wxauth' }})
await guard.user(new Request('http://127.0.0.1/')).catch((error) => console.log({shown}))
"""
    assert output_of(needs_node(EXPRESS), "--input-type=module", "-e", program, cwd=EXPRESS) == "number string string\n"


def is_up(client: httpx.Client, status: int = 404) -> bool:
    try:
        return client.get("/").status_code == status
    except httpx.TransportError:
        return False


OF_A_MODULE = """\
const { auth } = await import('./auth.js')
const { statusCode, data } = await auth.request({ url: '/v1/me' })
"""


@pytest.mark.parametrize("page", ["skills/wxauth/SKILL.md", "README.md", "clients/miniprogram/README.md"])
def test_a_mini_program_logs_in(issuer: Issuer, tmp_path: Path, page: str) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "wxauth.js").write_text((ROOT / "clients/miniprogram/wxauth.js").read_text())
    own = {"https://auth.example.com": issuer.url, ", appId: 'wx…'": "", "https://api.example.com/orders": "/v1/me"}
    own["import { createAuth } from './wxauth.js'"] = "const { createAuth } = await import('./wxauth.js')"
    if page == "skills/wxauth/SKILL.md":
        (tmp_path / "auth.js").write_text(block_of("js", "createAuth", issuer))
        run = OF_A_MODULE
    else:  # imports in a module would run before the phone exists
        run = "".join(each for each in code_blocks(ROOT / page, "js") if "createAuth" in each or "auth.login()" in each)
    for theirs, ours in own.items():
        run = run.replace(theirs, ours)
    (tmp_path / "run.js").write_text(PHONE % run)
    with Running(needs_node(EXPRESS), "run.js", cwd=tmp_path) as phone:
        phone.wait_for("{ statusCode: 200, openid: 'o")


def shell(line: str, folder: Path) -> None:
    """Run a line of a page in this folder. The path of the checkout in the line is replaced with this checkout."""
    line = re.sub(r"(?:\.\./)+wxauth|/path/to/wxauth", str(ROOT), line)
    path = f"{folder}/.venv/bin:{os.environ['PATH']}"
    env = environment(PATH=path, npm_config_cache=str(folder.parent / "npm"), npm_config_fund="false")
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=NODE_PATIENCE
    )
    if done.returncode and re.search(
        r"EAI_AGAIN|ENOTFOUND|ECONN|Name or service|No matching distribution", done.stderr
    ):
        lacks(f"needs a registry: {done.stderr[-300:]} 未能下载依赖包")
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def lines_of(page: str, starts: str) -> list[str]:
    """Return the page's lines, and commands within lines, that start with these words."""
    text = (ROOT / page).read_text()
    found = re.findall(rf"`({starts}[^`]*)`", text) + re.findall(rf"(?m)^({starts}.*)$", text)
    return [line for line in found if "/wxauth" in line or "wxauth-guard-" in line]


@pytest.mark.parametrize("page", ["skills/wxauth/SKILL.md", "clients/node/README.md", "clients/node/README.zh-CN.md"])
def test_the_lines_that_install_the_guard_of_node_work_in_an_empty_folder(tmp_path: Path, page: str) -> None:
    node, folder = needs_node(EXPRESS), tmp_path / "project"
    folder.mkdir()
    lines = [line for starts in ("npm pack", "npm install") for line in lines_of(page, starts)]
    assert any("npm install ./wxauth-guard-" in line for line in lines)
    for line in lines:
        shell(line, folder)
    used = "import('wxauth-guard/express').then(({ bearer }) => console.log(typeof bearer))"
    assert output_of(node, "-e", used, cwd=folder) == "function\n"
    shell("rm -r node_modules && npm ci", folder)
    assert output_of(node, "-e", used, cwd=folder) == "function\n"


PIP = re.compile(r"(?:`|^|# )((?:\.venv/bin/)?pip install (?!--no-cache|\./)[^`\n]+)", re.MULTILINE)
PAGES = [ROOT / "README.md", SKILL, *(ROOT / "docs").glob("*/*.md"), *ROOT.glob("examples/*/README.md")]
WITH_PIP = sorted(
    str(page.relative_to(ROOT)) for page in PAGES if ".zh-CN" not in page.name and PIP.search(page.read_text())
)


@pytest.mark.parametrize("page", WITH_PIP)
def test_the_lines_of_pip_work_in_an_empty_folder(tmp_path: Path, page: str) -> None:
    """Lines that only work after publication are left out."""
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=tmp_path, check=True)
    lines = [line for line in PIP.findall((ROOT / page).read_text()) if "'wxauth[" not in line]
    for line in lines:
        shell(line, tmp_path)
    if any("uvicorn" in line and "wxauth[" in line for line in lines):
        used = "import fastapi, uvicorn; from wxauth_guard import BearerGuard"
        assert output_of(tmp_path / ".venv/bin/python", "-c", used) == ""


def test_a_back_end_without_a_framework_knows_its_caller(issuer: Issuer, tmp_path: Path) -> None:
    node, port = needs_node(EXPRESS), free_port()
    (tmp_path / "node_modules").symlink_to(EXPRESS / "node_modules")
    [call] = re.findall(r"`(await guard\.user\(request\))`", SKILL.read_text())
    (tmp_path / "server.mjs").write_text(BARE % (call, port))
    env = {"ISSUER": issuer.url}
    with (
        Running(node, "server.mjs", cwd=tmp_path, env=env),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client,
    ):
        until(lambda: is_up(client, 401))
        assert client.get("/", headers=bearer(issuer.token)).text.startswith("o")
        assert client.get("/").text == "Please log in."


BARE = """
import { createServer } from 'node:http'
import { AuthError, BearerGuard } from 'wxauth-guard'
const guard = new BearerGuard({ issuer: process.env.ISSUER, audience: 'wxauth' })
createServer(async (request, response) => {
  try {
    const user = %s
    response.end(user.openid)
  } catch (error) {
    if (!(error instanceof AuthError)) throw error
    response.writeHead(error.status).end(String(error.title.en))
  }
}).listen(%d, '127.0.0.1')
"""


def test_the_page_is_one_page_and_names_files_that_are_there() -> None:
    text = SKILL.read_text()
    assert len(text.splitlines()) <= 150
    named = re.findall(r"`((?:docs|clients|examples)/[\w./-]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    front = re.match(r"---\nname: wxauth\ndescription: (.{1,1024})\n---\n", text)
    assert front, "as `skills add` reads it"
    assert (ROOT / "clients/SKILL.md").resolve() == SKILL.resolve()
    assert "../skills/wxauth/SKILL.md" in (ROOT / "docs/llms.txt").read_text()
