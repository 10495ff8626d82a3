"""The guide to the simulated WeChat and desk/README.md work for a reader without the service and the guard."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.dev.running import fenced, form, installed_by
from tests.docs import ROOT, both_languages, guide
from tests.processes import Running, free_port, serving
from tests.programs import needs, output_of
from wxauth_desk.cli import main
from wxauth_desk.wechat import APPS, OTHER_APPS
from wxauth_desk.wechat.controls import ENDPOINTS

README = ROOT / "desk/README.md"
SIMULATED = guide("simulated-wechat")
PUSH_URL = "http://127.0.0.1:3000/wechat/push"
pytestmark = pytest.mark.no_database


async def take_push(request: Request) -> PlainTextResponse:
    assert b"user_authorization_revoke" in await request.body()
    return PlainTextResponse("success")


@pytest.mark.wheel
@pytest.mark.process
def test_its_commands_can_be_typed_where_neither_service_nor_guard_is(tmp_path: Path) -> None:
    needs("curl")
    for name in ("LICENSE", "README.md", "alembic", "clients", "desk", "examples", "pyproject.toml", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (_, install), (_, begin), (_, printed), *others, (_, install_all) = fenced(SIMULATED)
    env = installed_by(install, tmp_path)
    listing = "from importlib.metadata import distributions as d; print(*(one.name for one in d()))"
    installed = output_of(tmp_path / ".venv/bin/python", "-c", listing, cwd=tmp_path).split()
    assert {name for name in installed if name.startswith("wxauth")} == {"wxauth-desk"}

    port = str(free_port())
    program, *options = begin.split()
    answers = []
    with (
        Running(str(tmp_path / program), *options[:-1], port, cwd=tmp_path, is_installed=True) as running,
        serving(Starlette(routes=[Route("/wechat/push", take_push, methods=["POST"])])) as back_end,
    ):
        assert running.wait_for("Ctrl-C") == printed.replace(":8001", f":{port}")
        for number, (language, text) in enumerate(others):
            if language == "sh" and text.endswith(" pytest\n"):
                in_ci = text.replace("8001", str(free_port())).replace("pytest", "env")
                assert "WECHAT_BASE_URL=http" in output_of("sh", "-euc", in_ci, cwd=tmp_path, env=env)
            elif language == "sh" and "curl" in text:
                command = text.replace(":8001", f":{port}").replace(PUSH_URL, f"{back_end}/wechat/push")
                answer = output_of("sh", "-euc", command, cwd=tmp_path, env=env)
                if others[number + 1][0] == "json":
                    answers.append((json.loads(answer), json.loads(others[number + 1][1])))
        assert running.end(2) == 0
    assert len(answers) == sum(language == "json" for language, _ in others) == 6
    for answer, shown in answers:
        assert form(answer) == form(shown)
    (session, shown), (refused, shown_refusal), *_, (pushed, shown_push) = answers
    assert (session["openid"], session["unionid"]) == (shown["openid"], shown["unionid"])
    assert (refused["errcode"], refused["errmsg"][:20]) == (shown_refusal["errcode"], shown_refusal["errmsg"][:20])
    assert pushed == shown_push

    output_of("sh", "-ec", install_all, cwd=tmp_path, env=env)
    output_of(tmp_path / ".venv/bin/python", "-c", "import wxauth_desk.run", cwd=tmp_path / "clients")


@pytest.mark.wheel
@pytest.mark.process
@pytest.mark.parametrize("beside", [[], ["wxauth"], ["wxauth_guard"], ["wxauth", "wxauth_guard"]], ids=str)
@pytest.mark.parametrize(
    ("language", "words"), [("en_US", "requires the service and the guard"), ("zh_CN", "需要服务与 guard")]
)
def test_without_service_or_guard_dev_says_what_to_install(
    tmp_path: Path, beside: list[str], language: str, words: str
) -> None:
    for name in beside:  # as with a clone or an unrelated package
        (tmp_path / name).mkdir()
        (tmp_path / name / "other.py").touch()
    paths = [path for path in sys.path if "site-packages" in path]
    running = f"import sys; sys.path += {paths}; from wxauth_desk.__main__ import main; main()"
    env = {"PYTHONPATH": f"{ROOT}/desk/src:{tmp_path}", "LANG": f"{language}.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", running, "dev"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert words in done.stderr
    assert "pip install ./clients/python . ./desk" in done.stderr


@both_languages
def test_its_readme_shows_what_the_guide_shows(language: str) -> None:
    shown = fenced(README.with_suffix(f"{language}.md"))
    assert shown
    assert {*shown} <= {*fenced(guide("simulated-wechat", language))}


@both_languages
def test_it_names_every_api_that_is_simulated_and_every_app(language: str) -> None:
    page = guide("simulated-wechat", language).read_text()
    names = {name for name in re.findall(r"`(/[\w/-]+)`", page) if not name.startswith("/connect/")}
    assert names == {endpoint.path for endpoint in ENDPOINTS.values()}
    for app in (*APPS, *OTHER_APPS):
        assert f"`{app['app_id']}` | `{app['app_secret']}`" in page
    for app in APPS:
        assert all(f"`{app[name]}`" in page for name in ("push_token", "push_aes_key") if name in app)


@both_languages
def test_the_table_of_commands_has_every_command_with_its_options(language: str) -> None:
    rows = re.findall(r"(?m)^\| `wxauth-desk (\w+)` \| (.*) \|$", guide("commands", language).read_text())
    options = {name: {each.opts[-1] for each in command.params} for name, command in main.commands.items()}
    assert {name: {*re.findall(r"`(--[\w-]+)", text)} for name, text in rows} == options
