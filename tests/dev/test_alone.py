"""`wxauth-desk wechat` starts only the simulated WeChat."""

import ast
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT, block
from tests.processes import WXAUTH_DESK, Running, free_port
from wxauth_desk.wechat import APPS

pytestmark = [pytest.mark.process, pytest.mark.no_database]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Running, str]]:
    """Run the command of desk/README.md with another port."""
    program, *options = block("desk/README.md", "wxauth-desk wechat").split()
    assert program.endswith("bin/wxauth-desk")
    port = str(free_port())
    with Running(WXAUTH_DESK, *options[:-1], port, cwd=tmp_path) as running:
        running.wait_for("/about")
        yield running, f"http://127.0.0.1:{port}"


def test_it_needs_no_database_and_ends_by_ctrl_c(alone: tuple[Running, str]) -> None:
    running, url = alone
    query = {"appid": APPS[0]["app_id"], "secret": APPS[0]["app_secret"], "grant_type": "client_credential"}
    assert httpx.get(f"{url}/cgi-bin/token", params=query).json()["expires_in"] == 7200
    assert "wxauth-desk wechat" in httpx.get(f"{url}/about").text
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0


def test_it_answers_to_names_of_this_machine_and_of_wechat_alone(alone: tuple[Running, str]) -> None:
    port = alone[1].rpartition(":")[2]
    for name in ("localhost", "api.weixin.qq.com", f"api.weixin.qq.com:{port}", "api2.weixin.qq.com", "[::1]"):
        assert httpx.get(f"{alone[1]}/about", headers={"Host": name}).status_code == 200
    for name in ("weixin.qq.com", "api.weixin.qq.com.example.com", "xapi.weixin.qq.com", "192.168.0.7", "a b"):
        refused = httpx.get(f"{alone[1]}/about", headers={"Host": name})
        assert refused.status_code == 403
        assert refused.text.startswith("wxauth-desk wechat does not answer")
        assert "--allow-host" not in refused.text
    page = {"Host": "api.weixin.qq.com", "Origin": "https://example.com"}
    assert httpx.post(f"{alone[1]}/codes", headers=page, json={"person": "alice"}).status_code == 403


def test_a_client_that_asks_for_http_2_keeps_its_body(alone: tuple[Running, str]) -> None:
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    answer = httpx.post(f"{alone[1]}/codes", json={"person": "alice"}, headers=upgrade)
    assert (answer.status_code, [*answer.json()]) == (200, ["code"])


def test_it_shares_no_module_with_the_service_or_the_guard() -> None:
    folder = ROOT / "desk/src"
    read, unread = set(), {folder / "wxauth_desk/alone.py", *folder.glob("wxauth_desk/wechat/**/*.py")}
    while unread:
        read.add(path := unread.pop())
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.ImportFrom) or not node.level
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in filter(None, names):
                assert name.partition(".")[0] not in ("wxauth", "wxauth_guard"), path
                if name.startswith("wxauth_desk"):
                    module = folder / name.replace(".", "/")
                    unread |= {module / "__init__.py" if module.is_dir() else module.with_suffix(".py")} - read
    assert folder / "wxauth_desk/wechat/push.py" in read
