"""A terminal in Chinese shows Chinese texts: every text of the commands, the settings and a start has a translation."""

import re
import socket
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.cli.tree import every_command
from tests.processes import run
from tests.sweeps import Sweep
from wxauth.cli import main

pytestmark = pytest.mark.no_database

CHINESE = re.compile("[一-鿿]")
PATIENCE = 2.0
"""The maximum number of seconds of CPU time. Importing the command takes most of it."""
VALUES = {
    "a name like a sentence": "a: b, c: d",
    "colons": ": " * 1500 + ".",
    "templates in one another": "x: y; " * 400 + ".",
    "words of a template": "lines: {lines}, created: " * 250 + ".",
    "a template's own words": "WeChat couldn't be reached: x " * 250 + ".",
}
"""Long texts in which a search for the matching template could take too long."""


def test_every_command_and_option_has_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    with Sweep() as sweep:
        for names, command in every_command():
            for option in [it for it in command.params if names and isinstance(it, click.Option)]:
                with sweep.case(*names, option.name):
                    assert CHINESE.search(option.help or "")
            with sweep.case(*names):
                assert not names or CHINESE.search(command.help or "")


def test_values_of_users_are_never_changed_and_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setenv("WXAUTH_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    calls = {
        "'USER_ID' 的值无效：{!r} 不是有效的 UUID。": ["users", "show"],
        "'FILE' 的值无效：{}：": ["users", "import"],
        "'--logo' 的值无效：{}：": ["apps", "add", "wx1", "--logo"],
        "'--limit' 的值无效：{!r} 不是有效的 整数。": ["users", "list", "--limit"],
    }
    with Sweep() as sweep:
        for name, value in VALUES.items():
            for shown, call in calls.items():
                with sweep.case(name, *call):
                    began = time.process_time()
                    assert shown.format(value) in CliRunner().invoke(main, [*call, value]).output
                    assert time.process_time() - began < PATIENCE


@pytest.mark.process
def test_what_a_terminal_prints_is_chinese(tmp_path: Path) -> None:
    env = {"LC_ALL": "zh_CN.UTF-8", "WXAUTH_DATABASE_URL": "postgresql://u:p@ss@127.0.0.1/db", "WXAUTH_ISSUR": "x"}
    wrong = {"WXAUTH_PHONE_POLICY": "mov", "WXAUTH_ACCESS_TOKEN_TTL": "15m", "WXAUTH_RESOURCES": "[{]"}
    refused = run("serve", cwd=tmp_path, env=env | wrong)
    assert "/database 这样的地址，用户名和密码中的 / : # ? @ [ ] 必须进行百分号编码" in refused.stderr
    assert "WXAUTH_PHONE_POLICY：必须是 'move'、'refuse'、'share' 或 'link'" in refused.stderr
    assert 'WXAUTH_RESOURCES：必须是 JSON，如 [{"resource": "https://mcp.example.com/mcp", "' in refused.stderr
    assert "WXAUTH_ACCESS_TOKEN_TTL：必须是秒数，如 900" in refused.stderr
    assert "WXAUTH_ISSUR：没有这个配置项。你是不是想写 WXAUTH_ISSUER？" in refused.stderr
    assert not re.search("[a-z]{2,} [a-z]{2,} ", refused.stderr)
    assert "  ban       封禁用户，并结束用户的所有会话。" in run("users", "--help", cwd=tmp_path, env=env).stdout
    assert "错误：'USER_ID' 的值无效：'x' 不是有效的 UUID。" in run("users", "ban", "x", cwd=tmp_path, env=env).stderr
    assert "用法： wxauth [选项] 命令 [参数]…" in run("usres", cwd=tmp_path, env=env).stderr
    help_of_list = run("users", "list", "--help", cwd=tmp_path, env=env).stdout
    assert "  --limit 整数                最多返回的条数。  [默认：50; 1<=x<=200]\n  --cursor 文本  " in help_of_list
    line = "  ENDED_SESSIONS_KEPT_DAYS 天的会话，并截短超过 ADDRESSES_KEPT_DAYS 天的 IP 地\n"
    assert line in run("sweep", "--help", cwd=tmp_path, env=env).stdout


@pytest.mark.process
def test_dev_names_all_ports_that_are_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(taken.getsockname()[1]) for taken in (one, other)]
        options = ["--port", ports[0], "--wechat-port", ports[1], "--site-port", ports[1]]
        refused = run("dev", *options, cwd=tmp_path, env={"LC_ALL": "zh_CN.UTF-8"}).stderr.splitlines()
    assert refused == [
        f"无法监听 127.0.0.1:{port}：地址已被占用（是否已有另一个 wxauth-desk dev 在运行？可用 {option} 更换端口）"
        for port, option in ((ports[1], "--wechat-port"), (ports[1], "--site-port"), (ports[0], "--port"))
    ]
