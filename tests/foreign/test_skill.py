"""`clients/SKILL.md`: with this page alone, a mini-program logs in, and services in Python and Node are guarded.

So with the few lines of the READMEs.
"""

import re
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT, block, code_blocks
from tests.foreign.conftest import Issuer
from tests.processes import WXAUTH, Running, free_port, until
from tests.programs import EXPRESS, needs_node
from tests.world import bearer

pytestmark = [pytest.mark.process, pytest.mark.node]

SKILL = ROOT / "clients/SKILL.md"
PHONE = """
const fetched = async ({ url, method, data, header, success }) => {
  const headers = { 'content-type': 'application/json', ...header }
  const answer = await fetch(url, { method, headers, body: data && JSON.stringify(data) })
  success({ statusCode: answer.status, data: await answer.json(), header: {} })
}
globalThis.wx = {
  login: ({ success }) => success({ code: 'alice' }),
  request: (options) => void fetched(options),
  getStorageSync: () => '',
  setStorageSync() {},
  removeStorageSync() {},
}
%s
console.log({ statusCode, openid: data.openid })
"""


def block_of(language: str, word: str, issuer: Issuer) -> str:
    """The code of this language with the word, beside this service."""
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


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 404
    except httpx.TransportError:
        return False


OF_A_MODULE = """\
const { auth } = await import('./auth.js')
const { statusCode, data } = await auth.request({ url: '/v1/me' })
"""


@pytest.mark.parametrize("page", ["clients/SKILL.md", "README.md", "clients/miniprogram/README.md"])
def test_a_mini_program_logs_in(issuer: Issuer, tmp_path: Path, page: str) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "wxauth.js").write_text((ROOT / "clients/miniprogram/wxauth.js").read_text())
    own = {"https://auth.example.com": issuer.url, ", appId: 'wx…'": "", "https://api.example.com/orders": "/v1/me"}
    own["import { createAuth } from './wxauth.js'"] = "const { createAuth } = await import('./wxauth.js')"
    if page == "clients/SKILL.md":
        (tmp_path / "auth.js").write_text(block_of("js", "createAuth", issuer))
        run = OF_A_MODULE
    else:  # imports of a module would come before the phone is there
        run = "".join(each for each in code_blocks(ROOT / page, "js") if "createAuth" in each or "auth.login()" in each)
    for theirs, ours in own.items():
        run = run.replace(theirs, ours)
    (tmp_path / "run.js").write_text(PHONE % run)
    with Running(needs_node(EXPRESS), "run.js", cwd=tmp_path) as phone:
        phone.wait_for("{ statusCode: 200, openid: 'o")


def test_the_page_is_one_page_and_names_files_that_are_there() -> None:
    text = SKILL.read_text()
    assert len(text.splitlines()) < 100
    named = re.findall(r"`((?:docs|clients)/[\w./-]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert "../clients/SKILL.md" in (ROOT / "docs/llms.txt").read_text()
