"""That a terminal speaks Chinese: no text of the commands, of the settings or of a start is without it."""

import ast
import re
import socket
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from string import Formatter

import click
import pytest

from tests.cli.test_help import every_command
from tests.processes import run
from tests.sweeps import Sweep
from wxauth import server
from wxauth.server.cli import main
from wxauth.server.core.terminal import catalogue, in_chinese, translated
from wxauth.server.moving.lines import EXPECTED

pytestmark = pytest.mark.no_database

CHINESE = re.compile("[一-鿿]")
FOLDER = Path(str(server.__file__)).parent
ROOMS = (
    "checks/*.py",
    "cli/*.py",
    "core/setting*.py",
    "core/resources.py",
    "core/claims.py",
    "core/migrations.py",
    "moving/*.py",
    "dev/run.py",
    "dev/postgres.py",
)
SPOKEN = [
    *(path for room in ROOMS for path in FOLDER.glob(room)),
    FOLDER / "service/server.py",
    FOLDER / "clients/clients.py",
]
REFUSALS = {"ValueError", "Failed", "UsageError", "BadParameter", "InvalidSettings", "DevFailed", "PostgresUnavailable"}
REFUSALS |= {"UnknownRevision", "MigrationBlocked", "WrongClient", "_form", "checked"}


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    for path in SPOKEN:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names:
                yield f"{path.name}:{node.lineno}", node


def said() -> Iterator[tuple[str, str]]:
    for place, call in calls("say", "both", "good", "note", "bad", "_Wrong", "_NotThere", "Fault"):
        match call.args:
            case [ast.Constant(value=str(text))] | [_, ast.Constant(value=str(text))]:
                yield place, text


def templates() -> Iterator[tuple[str, str]]:
    for path in (FOLDER / "checks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name("text")], value=ast.Constant(value=str(text))):
                    yield f"{path.name}:{node.lineno}", text


def holes(text: str) -> set[str]:
    return {name.split(".")[0] for _, name, *_ in Formatter().parse(text) if name is not None}


def texts(node: ast.AST) -> Iterator[str]:
    """The sentences in the arguments of a call, with `x` in each hole."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr():
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        case ast.Call() if ast.unparse(node.func) in ("say", "translated"):
            return
        case _:
            for child in ast.iter_child_nodes(node):
                yield from texts(child)


def test_every_text_that_is_said_has_chinese_with_the_same_holes() -> None:
    with Sweep() as sweep:
        for place, text in chain(said(), templates(), EXPECTED.items()):
            with sweep.case(place, text):
                assert in_chinese(text)
        for english, chinese in catalogue().items():
            with sweep.case(english):
                assert CHINESE.search(chinese) or re.search("[：、]", chinese)
                assert "{" not in english or holes(english) == holes(chinese)


def test_every_refusal_has_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    with Sweep() as sweep:
        for place, call in calls(*REFUSALS):
            for text in filter(re.compile("[a-z]{2,} [a-z]").search, chain(*map(texts, call.args))):
                with sweep.case(place, text):
                    assert CHINESE.search(translated(text))


def test_every_command_and_option_has_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = list(every_command())
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    with Sweep() as sweep:
        for names in commands:
            command: click.Command | None = main
            for name in names:
                assert isinstance(command, click.Group)
                _, command, _ = command.resolve_command(click.Context(command), [name])
            assert command
            for option in command.params if names else ():
                with sweep.case(*names, option.name):
                    assert not (text := getattr(option, "help", None)) or CHINESE.search(text)
            with sweep.case(*names):
                assert not names or CHINESE.search(command.help or "")


@pytest.mark.process
def test_what_a_terminal_prints_is_chinese(tmp_path: Path) -> None:
    env = {"LC_ALL": "zh_CN.UTF-8", "WXAUTH_DATABASE_URL": "postgresql://u:p@ss@127.0.0.1/db", "WXAUTH_ISSUR": "x"}
    wrong = {"WXAUTH_PHONE_POLICY": "mov", "WXAUTH_ACCESS_TOKEN_TTL": "15m", "WXAUTH_RESOURCES": "[{]"}
    refused = run("serve", cwd=tmp_path, env=env | wrong)
    assert "/database 这样的地址，用户名和密码中的 / : # ? @ [ ] 须作百分号编码" in refused.stderr
    assert "WXAUTH_PHONE_POLICY：必须是 'move'、'refuse'、'share' 或 'link'" in refused.stderr
    assert 'WXAUTH_RESOURCES：必须是这样的 JSON：[{"resource": "https://mcp.example.com/mcp", "' in refused.stderr
    assert "WXAUTH_ACCESS_TOKEN_TTL：单位是秒，只写数字，如 900" in refused.stderr
    assert "WXAUTH_ISSUR：没有这一项，是否想写 WXAUTH_ISSUER？" in refused.stderr
    assert not re.search("[a-z]{2,} [a-z]{2,} ", refused.stderr)
    assert "  ban     封禁用户，并结束其所有会话。" in run("users", "--help", cwd=tmp_path, env=env).stdout
    assert "错误：'USER_ID' 的值无效：'x' 不是有效的 UUID。" in run("users", "ban", "x", cwd=tmp_path, env=env).stderr
    assert "用法： wxauth [选项] 命令 [参数]…" in run("usres", cwd=tmp_path, env=env).stderr
    help_of_list = run("users", "list", "--help", cwd=tmp_path, env=env).stdout
    assert "  --limit 整数                [默认：50; 1<=x<=200]\n  --cursor 文本  " in help_of_list
    line = "  ENDED_SESSIONS_KEPT_DAYS 的会话，并截短早于 ADDRESSES_KEPT_DAYS 的地址。运行\n"
    assert line in run("sweep", "--help", cwd=tmp_path, env=env).stdout


@pytest.mark.process
def test_dev_names_all_ports_that_are_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(taken.getsockname()[1]) for taken in (one, other)]
        options = ["--port", ports[0], "--wechat-port", ports[1], "--site-port", ports[1]]
        refused = run("dev", *options, cwd=tmp_path, env={"LC_ALL": "zh_CN.UTF-8"}).stderr.splitlines()
    assert refused == [
        f"无法监听 127.0.0.1:{port}：地址已被占用（是否已有另一个 wxauth dev？可用 {option} 换一个端口）"
        for port, option in ((ports[1], "--site-port"), (ports[0], "--port"), (ports[1], "--wechat-port"))
    ]
